"""Reading of folders and files, import of tables and dumps by a recipe, export to other formats."""
