"""The mixture of experts: how much each expert counts in the one score."""
