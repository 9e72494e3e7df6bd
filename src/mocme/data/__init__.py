"""Facts: what is known. Nothing here learns."""
