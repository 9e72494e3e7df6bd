"""Parts of the model: views, fusion, scorers, and the one score."""
