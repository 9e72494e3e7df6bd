"""A small training whose mixture is learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from mocme.mixture import learned_fit
from mocme.mixture.selection import Chosen, CrossFit, Selection
from small_experts import EMBEDDING

TRAINING = {"epochs": 2, "batch_size": 20, "precision": "float32"}
TABLE: dict[str, Any] = {
    "experts": [
        {"name": "one", **EMBEDDING, "training": TRAINING},
        {"name": "two", **EMBEDDING, "seed": 5, "training": TRAINING},
        {"kind": "rules", "support": 1},
        {"kind": "prior"},
    ],
    "mixture": {
        "kind": "Ranker",
        "fitted_on": "train",
        "held_out": 0.3,
        "pool": 3,
        "trees": 5,
        "trials": 5,
        "leaves": 4,
        "least": 2,
        "parts": 2,
    },
}


@contextmanager
def trees_taken() -> Iterator[None]:
    """Trees are fitted on small graphs too, and taken whatever their MRR."""
    choose = Selection.choose

    def chosen(self: Selection, alone: Mapping[str, float], cross_fit: CrossFit) -> Chosen:
        return replace(choose(self, alone, cross_fit), learned=1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned_fit, "FEW_FACTS", 5)
        patch.setattr(learned_fit, "FEWEST_FACTS", 5)
        patch.setattr(Selection, "choose", chosen)
        yield
