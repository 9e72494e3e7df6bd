"""The audit of a graph before it is used: counts, defects, baselines; in a terminal and a page."""
