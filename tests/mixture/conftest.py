"""A learned mixture over given experts."""

from __future__ import annotations

from collections.abc import Callable

import lightgbm
import numpy as np
import pytest

from mocme.mixture.fact_index import FactIndex
from mocme.mixture.learned import Learned
from mocme.mixture.pool import make_pool
from mocme.mixture.trees import Trees
from mocme.mixture.weight_search import Weight
from small_experts import all_queries

WEIGHTS = {"first": Weight(1.0), "rules": Weight(2.0, 3.0), "second": Weight(0.5)}


@pytest.fixture
def ranker_of() -> Callable[..., Learned]:
    """Makes a mixture whose trees were fitted to random answers in the pools of all queries."""

    def ranker(graph: object, experts: list, size: int) -> Learned:
        facts = FactIndex.of(graph)  # type: ignore[arg-type]
        pool = make_pool(experts, WEIGHTS, facts, all_queries(graph), size)  # type: ignore[arg-type]
        label = np.random.default_rng(0).random(len(pool.row)) < 0.3
        settings = {"objective": "regression", "num_leaves": 7, "min_data_in_leaf": 5}
        settings |= {"num_threads": 1, "deterministic": True, "verbosity": -1}
        data = lightgbm.Dataset(pool.features, label.astype(np.float64))
        return Learned(
            "Ranker", experts, facts, WEIGHTS, Trees.of(lightgbm.train(settings, data, 8)), size
        )

    return ranker
