"""Patterns: short paths over links and content that foretell a fact."""
