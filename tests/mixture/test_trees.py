"""Trees of a mixture: equal to a naive walk and to LightGBM; damaged ones are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import lightgbm
import numpy as np
import pytest
import torch
from torch import Tensor

from mocme.mixture.trees import Trees

FEATURES = 5


def fitted(trees: int = 20, seed: int = 0, leaves: int = 7) -> tuple[lightgbm.Booster, np.ndarray]:
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(600, FEATURES)).astype(np.float32)
    features[:, 4] = features[:, 4] > 0
    label = (features[:, 0] + features[:, 1] * features[:, 4] > 0.5).astype(np.int8)
    settings = {"objective": "lambdarank", "num_leaves": leaves, "verbosity": -1}
    settings |= {"num_threads": 1, "deterministic": True, "force_row_wise": True, "seed": seed}
    data = lightgbm.Dataset(features, label, group=[20] * 30)
    return lightgbm.train(settings, data, trees), features


def naive(trees: Trees, features: np.ndarray) -> np.ndarray:
    """Each row walks down each tree."""
    sums = np.zeros(len(features))
    node = leaf = 0
    for count in trees.leaves.tolist():
        for index, row in enumerate(features):
            at = 0 if count > 1 else -1
            while at >= 0:
                left = row[int(trees.feature[node + at])] <= float(trees.threshold[node + at])
                at = int((trees.left if left else trees.right)[node + at])
            sums[index] += float(trees.value[leaf - 1 - at])
        node, leaf = node + count - 1, leaf + count
    return sums


@pytest.mark.parametrize("leaves", [2, 7, 31])
def test_trees_equal_a_naive_walk_and_the_fitted_booster(leaves: int) -> None:
    booster, features = fitted(leaves=leaves)
    trees = Trees.of(booster)
    values = trees(features)
    assert np.array_equal(values, booster.predict(features, raw_score=True))
    np.testing.assert_allclose(values, naive(trees, features), atol=1e-12)
    assert len(np.unique(values)) > 3
    assert trees.least <= values.min()
    # Values on a threshold go left, in both.
    edges = np.zeros((len(trees.threshold), FEATURES), np.float32)
    edges[np.arange(len(edges)), trees.feature.numpy()] = trees.threshold.float().numpy()
    np.testing.assert_allclose(trees(edges), naive(trees, edges.astype(np.float64)), atol=1e-12)


def test_no_rows_and_no_trees() -> None:
    booster, features = fitted()
    assert Trees.of(booster)(features[:0]).shape == (0,)
    none = Trees.none(FEATURES)
    assert none.least == 0
    assert not none(features).any()


def test_a_tree_may_be_a_single_leaf() -> None:
    alone = {
        "tree_leaves": torch.tensor([1]),
        "node_feature": torch.zeros(0, dtype=torch.int64),
        "node_threshold": torch.zeros(0, dtype=torch.float64),
        "node_left": torch.zeros(0, dtype=torch.int64),
        "node_right": torch.zeros(0, dtype=torch.int64),
        "leaf_value": torch.tensor([0.25], dtype=torch.float64),
    }
    assert Trees.unpacked(alone, 2)(np.zeros((3, 2), np.float32)).tolist() == [0.25] * 3


def test_unpacked_trees_are_the_same_to_the_bit() -> None:
    booster, features = fitted()
    trees = Trees.of(booster)
    again = Trees.unpacked(trees.packed(), FEATURES)
    assert np.array_equal(again(features), trees(features))


def changed(name: str, place: int, value: float) -> Callable[[Mapping[str, Tensor]], dict]:
    def change(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tensor = tensors[name].clone()
        tensor[place] = value
        return {**tensors, name: tensor}

    return change


FORGERIES: dict[str, tuple[Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]], str]] = {
    "a cycle": (changed("node_left", 1, 0), "not below its parent"),
    "itself": (changed("node_right", 2, 2), "not below its parent"),
    "another tree": (changed("node_left", 0, 40), "missing or is there twice"),
    "a leaf twice": (changed("node_right", 5, -1), "missing or is there twice"),
    "no such leaf": (changed("node_right", 5, -100), "missing or is there twice"),
    "no such feature": (changed("node_feature", 3, FEATURES), "names feature 5 of 5"),
    "a negative feature": (changed("node_feature", 3, -1), "node_feature"),
    "NaN": (changed("node_threshold", 0, float("nan")), "NaN"),
    "infinity": (changed("leaf_value", 0, float("inf")), "infinite"),
    "a huge leaf": (changed("leaf_value", 0, 1e300), "leaf_value"),
    "a wrap of 64 bits": (changed("tree_leaves", 0, 2**62), "tree_leaves"),
    "no leaves": (changed("tree_leaves", 0, 0), "tree_leaves"),
    "another size": (changed("tree_leaves", 0, 8), "does not fit"),
    "missing": (lambda t: {k: v for k, v in t.items() if k != "node_left"}, "missing"),
    "unknown": (lambda t: {**t, "more": t["node_left"]}, "does not belong"),
    "another type": (lambda t: {**t, "leaf_value": t["leaf_value"].float()}, "leaf_value"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_damaged_trees_are_refused(name: str) -> None:
    change, message = FORGERIES[name]
    tensors = Trees.of(fitted(trees=3)[0]).packed()
    with pytest.raises(ValueError, match=message):
        Trees.unpacked(change(tensors), FEATURES)
