"""How good a model is: filtered ranks, metrics, and where they come from."""
