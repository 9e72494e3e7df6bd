"""The mixture of experts: one score from all of them.

A module here that defines a `MixtureSettings` is a kind of mixture.
"""
