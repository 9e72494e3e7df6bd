"""Queries of a trained run, and completion of its graph."""
