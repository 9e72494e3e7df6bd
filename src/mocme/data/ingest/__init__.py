"""Import of raw tables and dumps by a recipe; export to other formats."""
