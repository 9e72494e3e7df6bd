"""Experts: each reads the graph in its own way and scores candidate answers.

A module or package here that defines an `ExpertSettings` is a kind of expert of the same name.
"""
