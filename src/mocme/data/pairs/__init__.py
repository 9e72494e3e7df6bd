"""Pairs of entities found in content: name mentions, similar texts or vectors."""
