"""Modalities and their sources: how a table of settings becomes features of entities."""
