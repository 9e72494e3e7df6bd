"""Evaluation: filtered ranks, metrics, breakdowns, and baselines that need no learning."""
