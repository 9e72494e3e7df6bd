"""Graphs, their modalities and their files; nothing here is trained."""
