"""The kinds of sources, one module per kind."""
