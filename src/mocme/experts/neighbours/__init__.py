"""Neighbours: the answers of entities whose modalities are alike."""

from mocme.experts.neighbours.fit import Neighbours

__all__ = ["Neighbours"]
