"""How a model learns: negatives, losses, objective, loop."""
