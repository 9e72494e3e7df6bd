"""Trials of what docs/security.md promises; run_gauntlet.py runs them."""
