"""What is wrong with the rows of a graph as released, and its repair."""
