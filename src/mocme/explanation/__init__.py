"""Explain predictions by rules, modalities, training facts, paths and similar entities."""
