"""From raw files to modalities: text, pictures, sound, video, numbers, tokens."""
