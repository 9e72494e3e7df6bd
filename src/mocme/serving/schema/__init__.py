"""Bodies of HTTP requests (`requests`) and responses (`answers`)."""
