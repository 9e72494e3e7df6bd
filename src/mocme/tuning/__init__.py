"""Search of settings on validation: which of many trainings to believe, and how it was chosen.

`plan` reads the file of a search, `trials` keeps its folder, `study` proposes settings (the only
module that knows Optuna), `search` trains them. The test split is taken from the graph before any
of them sees it, and there is no way to ask for it.
"""
