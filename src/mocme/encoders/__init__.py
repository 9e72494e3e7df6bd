"""Encoders make modalities from raw files: texts, images, sounds, videos, numbers, tokens."""
