"""Experts: independent readers of the graph that score candidate answers."""
