"""Pairs of entities found in their content: mentions of names, similar texts or vectors."""
