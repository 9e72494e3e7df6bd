"""Quality of a data set: defects of its splits, their repair, coverage, and its shape."""
