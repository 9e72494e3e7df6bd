"""Entities that a run has not seen: given content and facts, kept in the run, nothing retrained."""
