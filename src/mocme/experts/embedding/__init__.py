"""An embedding of entities and relations: views, fusion, scorers, losses, negatives, training."""

from mocme.experts.embedding.fit import Embedding

__all__ = ["Embedding"]
