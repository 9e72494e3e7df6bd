"""Runs served over HTTP, and the page for curators."""
