"""The mixture of experts: how much each expert counts in the one score.

A module here that defines a `MixtureSettings` is a kind of mixture.
"""
