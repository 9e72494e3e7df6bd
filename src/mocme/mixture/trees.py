"""Boosted regression trees as tensors: checked when they are read, evaluated by LightGBM.

LightGBM's parser reads only a text that is written here from checked numbers, never one from a
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.mixture.learned import PoolModel
from mocme.storage.tensor_schema import Field, check_tensors

if TYPE_CHECKING:
    import lightgbm

MOST_LEAVES = 2**20
# Of a leaf: sums of larger values would tie in float32.
LARGEST = 1e3
_FIELDS = {
    "tree_leaves": Field(torch.int64, ("trees",), low=1, high=MOST_LEAVES),
    "node_feature": Field(torch.int64, ("nodes",), low=0),
    "node_threshold": Field(torch.float64, ("nodes",)),
    "node_left": Field(torch.int64, ("nodes",)),
    "node_right": Field(torch.int64, ("nodes",)),
    "leaf_value": Field(torch.float64, ("leaves",), low=-LARGEST, high=LARGEST),
}


@final
@dataclass(frozen=True, eq=False)
class Trees(PoolModel):
    """A sum of regression trees.

    A tree of n leaves has n - 1 nodes, the root first; the nodes and leaves of all trees follow
    each other. A value at most the threshold goes left. A child is a node of the same tree, by its
    number there, or the leaf c as -1 - c.

    Attributes:
        leaves: number of leaves of each tree.
        feature, threshold, left, right: of each node.
        value: of each leaf.
        num_features: F.
    """

    leaves: Int[Tensor, " trees"]
    feature: Int[Tensor, " nodes"]
    threshold: Float[Tensor, " nodes"]
    left: Int[Tensor, " nodes"]
    right: Int[Tensor, " nodes"]
    value: Float[Tensor, " leaves"]
    num_features: int

    @staticmethod
    def of(booster: lightgbm.Booster) -> Trees:
        """The trees of a trained booster."""
        dump = booster.dump_model()
        parts = [_flattened(tree["tree_structure"]) for tree in dump["tree_info"]]
        joined: dict[str, list[Any]] = {name: [] for name in _FIELDS}
        for part in parts:
            for name, values in part.items():
                joined[name] += values
        tensors = {
            name: torch.tensor(values, dtype=field.dtype)  # type: ignore[arg-type]
            for (name, field), values in zip(_FIELDS.items(), joined.values(), strict=True)
        }
        return Trees.unpacked(tensors, len(dump["feature_names"]))

    @staticmethod
    def none(num_features: int) -> Trees:
        """No trees: the sum is 0."""
        empty = {name: torch.zeros(0, dtype=field.dtype) for name, field in _FIELDS.items()}  # type: ignore[arg-type]
        return Trees.unpacked(empty, num_features)

    def packed(self) -> dict[str, Tensor]:
        """Tensors for a file."""
        values = self.leaves, self.feature, self.threshold, self.left, self.right, self.value
        return dict(zip(_FIELDS, values, strict=True))

    @staticmethod
    def unpacked(tensors: Mapping[str, Tensor], num_features: int) -> Trees:
        """The trees that `packed` describes.

        Raises:
            ValueError: they are not trees over this number of features.
        """
        sizes = check_tensors(tensors, _FIELDS)
        leaves, feature, threshold, left, right, value = (tensors[name] for name in _FIELDS)
        if int(leaves.sum()) != sizes["leaves"] or int((leaves - 1).sum()) != sizes["nodes"]:
            raise ValueError("the tensor 'tree_leaves' does not fit the nodes and leaves")
        if len(feature) and int(feature.max()) >= num_features:
            raise ValueError(
                f"the tensor 'node_feature' names feature {int(feature.max())} of {num_features}"
            )
        _check_children(leaves, left, right)
        return Trees(leaves, feature, threshold, left, right, value, num_features)

    def scaled(self, factor: float) -> Trees:
        """The trees with the value of every leaf multiplied by a factor above 0."""
        return replace(self, value=self.value * factor)

    @property
    def least(self) -> float:
        """A lower bound of the sum: the least leaf of every tree."""
        return float(sum(part.min() for part in self.value.split(self.leaves.tolist())))

    def __call__(
        self, features: Float[np.ndarray, "n F"], relation: Int[np.ndarray, " n"] | None = None
    ) -> Float[np.ndarray, " n"]:
        """The sum of the trees' values, in float64."""
        if not len(self.leaves) or not len(features):
            return np.zeros(len(features))
        return np.asarray(self._booster.predict(features), np.float64)

    @cached_property
    def _booster(self) -> lightgbm.Booster:
        import lightgbm

        return lightgbm.Booster(model_str=self._text())

    def _text(self) -> str:
        """The trees in the text format of LightGBM."""
        names = " ".join(f"f{number}" for number in range(self.num_features))
        lines = ["tree", "version=v4", "num_class=1", "num_tree_per_iteration=1", "label_index=0"]
        lines += [f"max_feature_idx={self.num_features - 1}", "objective=regression"]
        lines += [f"feature_names={names}", f"feature_infos={'none ' * self.num_features}", ""]
        node = leaf = 0
        for number, leaves in enumerate(self.leaves.tolist()):
            nodes, ends = slice(node, node + leaves - 1), slice(leaf, leaf + leaves)
            node, leaf = nodes.stop, ends.stop
            lines += [f"Tree={number}", f"num_leaves={leaves}", "num_cat=0"]
            if leaves > 1:
                lines += [
                    f"split_feature={_written(self.feature[nodes])}",
                    f"threshold={_written(self.threshold[nodes])}",
                    # Values are compared as they are; none is missing.
                    f"decision_type={'2 ' * (leaves - 1)}",
                    f"left_child={_written(self.left[nodes])}",
                    f"right_child={_written(self.right[nodes])}",
                ]
            lines += [f"leaf_value={_written(self.value[ends])}", "is_linear=0", "shrinkage=1", ""]
        return "\n".join([*lines, "end of trees", ""])


def _written(values: Tensor) -> str:
    return " ".join(map(repr, values.tolist()))


def _flattened(root: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A tree of LightGBM's dump as the rows of `_FIELDS`; nodes are numbered parents first."""
    nodes: list[Mapping[str, Any]] = []
    values: list[float] = []
    left: list[int] = []
    right: list[int] = []

    def add(part: Mapping[str, Any]) -> int:
        if "leaf_value" in part:
            values.append(float(part["leaf_value"]))
            return -len(values)
        if part["decision_type"] != "<=" or part["missing_type"] != "None":
            raise ValueError(f"a split is {part['decision_type']} with {part['missing_type']}")
        number = len(nodes)
        nodes.append(part)
        left.append(0)
        right.append(0)
        left[number] = add(part["left_child"])
        right[number] = add(part["right_child"])
        return number

    add(root)
    return {
        "tree_leaves": [len(values)],
        "node_feature": [int(node["split_feature"]) for node in nodes],
        "node_threshold": [float(node["threshold"]) for node in nodes],
        "node_left": left,
        "node_right": right,
        "leaf_value": values,
    }


def _check_children(
    leaves: Int[Tensor, " trees"], left: Int[Tensor, " nodes"], right: Int[Tensor, " nodes"]
) -> None:
    """Check that each tree's children are its nodes but the root and its leaves, each once.

    A child that is a node has a higher number than its parent, so there is no cycle.

    Raises:
        ValueError: they are not.
    """
    first = 0
    for tree, count in enumerate(leaves.tolist()):
        part = slice(first, first + count - 1)
        first = part.stop
        if count == 1:
            continue
        own = torch.arange(count - 1)
        for children in (left[part], right[part]):
            if bool(((children >= 0) & (children <= own)).any()):
                raise ValueError(f"tree {tree} has a node that is not below its parent")
        together = torch.cat([left[part], right[part]]).sort().values
        expected = torch.cat([torch.arange(-count, 0), torch.arange(1, count - 1)])
        if not torch.equal(together, expected):
            raise ValueError(f"tree {tree} has a child that is missing or is there twice")
