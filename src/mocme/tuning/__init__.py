"""Hyperparameter search on the valid split.

`plan` reads the file of a search, `trials` stores its folder, `study` proposes settings (the only
module that imports Optuna), `search` trains them. The test split is removed from the graph before
the search starts, and no option brings it back.
"""
