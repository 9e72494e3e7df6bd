"""What is wrong with a graph, before anyone trusts a number: counts, defects, floors; a page."""
