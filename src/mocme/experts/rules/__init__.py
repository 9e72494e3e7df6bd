"""Rules: short paths over links and content that foretell a fact."""

from mocme.experts.rules.fit import Rules

__all__ = ["Rules"]
