"""A mixture of experts: the score for ranking, serving, calibration and explanation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.registry import Configurable
from mocme.core.text_formats import parse_json
from mocme.data.graph import Graph, Queries
from mocme.experts.base import DenseExpert, Expert, Packed, Progress


class Mixture(ABC):
    """Experts and the contribution of each to the score.

    Args:
        experts: at least one, with distinct names.
        num_entities: N.

    Raises:
        ValueError: there is no expert, or two have one name.
    """

    def __init__(self, experts: Sequence[Expert], num_entities: int) -> None:
        if not experts:
            raise ValueError("a mixture needs an expert")
        names = [expert.name for expert in experts]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two experts are named {twice[0]!r}; give each its own name")
        self.experts, self.num_entities = tuple(experts), num_entities

    @property
    def device(self) -> torch.device:
        """Where queries and candidates have to be: the device of the first dense expert."""
        dense = [expert for expert in self.experts if isinstance(expert, DenseExpert)]
        return dense[0].device if dense else torch.device("cpu")

    def expert(self, name: str) -> Expert:
        """An expert by name.

        Raises:
            ValueError: there is none of this name.
        """
        for expert in self.experts:
            if expert.name == name:
                return expert
        known = ", ".join(expert.name for expert in self.experts)
        raise ValueError(f"the run has no expert {name!r}; it has {known}")

    @abstractmethod
    def score(self, queries: Queries, candidates: Tensor | None = None) -> Float[Tensor, "B C"]:
        """Scores of candidates as answers; higher is likelier.

        Given candidates get the scores that they have among all entities.

        Args:
            queries: B queries on `device`.
            candidates: none: all N entities; (C,): shared; (B, C): one set for each query.
        """

    def unseen(self, graph: Graph, split: str) -> Sequence[tuple[Mixture, Int[Tensor, "n 3"]]]:
        """The directed facts of a split, each with a mixture that was not fitted on it.

        Args:
            graph: that was trained on.
        """
        return [(self, graph.directed(split))]

    @abstractmethod
    def contribution(self, name: str, value: float) -> float:
        """What an expert adds to a score.

        Args:
            name: of the expert.
            value: its score of the answer, or its odds if it is sparse.
        """

    @abstractmethod
    def extended(self, experts: Sequence[Expert], graph: Graph) -> Mixture:
        """The mixture for a graph with added entities.

        Args:
            experts: the same experts, extended.
            graph: training entities first, added ones after them.
        """

    @abstractmethod
    def packed(self) -> Packed:
        """Tensors and metadata as a safetensors file holds them; without the experts."""


@dataclass(frozen=True, kw_only=True)
class MixtureSettings(Configurable):
    """Settings of a mixture.

    Args:
        experts: names of the experts to use; all of the experiment by default. Others are not
            fitted.
    """

    experts: Sequence[str] | None = None

    @classmethod
    def kind_name(cls) -> str:
        """The name of the class without its ending: ``Sum`` for `SumSettings`."""
        return cls.__name__.removesuffix("Settings")

    @property
    def selects(self) -> bool:
        """Whether a fit may leave experts out."""
        return False

    @property
    def refits(self) -> bool:
        """Whether every fit holds training facts out, whatever the graph."""
        return False

    def share(self, graph: Graph, refittable: bool) -> float:
        """Share of the training facts that are held out to fit the mixture.

        Above 0, the experts are fitted without these facts, then the mixture on them, then the
        experts that it chose on all training facts. At 0, the mixture is fitted with experts that
        have seen all training facts, on the valid split.

        Args:
            graph: a training view.
            refittable: whether every expert can be fitted again.
        """
        return 0.0

    def check_experts(self, sparse: Mapping[str, bool]) -> None:
        """Check that the experts that settings name are used, and are of the kind they are for.

        Args:
            sparse: whether it is a `SparseExpert`, of each expert that is used, by name.

        Raises:
            ValueError: one is not, with the path of the setting.
        """

    @abstractmethod
    def fit(
        self,
        experts: Sequence[Expert],
        graph: Graph,
        memory: float,
        progress: Progress | None = None,
        *,
        held_out: bool = False,
    ) -> tuple[Mixture, dict[str, Any]]:
        """Fit a mixture of fitted experts.

        Args:
            experts: in the order of the experiment.
            graph: a training view; its valid split chooses what the settings leave open.
            memory: GiB for the scores of a batch.
            progress: receives (steps done, steps in all).
            held_out: whether the valid split of `graph` are training facts that are held out, and
                its train split is the rest.

        Returns:
            The mixture, of all or of some of the experts, and a record of the fit for the run.

        Raises:
            ValueError: a setting names an expert that does not exist.
        """

    @abstractmethod
    def unpacked(self, packed: Packed, experts: Sequence[Expert], graph: Graph) -> Mixture:
        """The mixture that `Mixture.packed` describes.

        Args:
            experts: those that `packed_experts` names.
            graph: that they were fitted on.

        Raises:
            ValueError: the tensors do not fit the experts.
        """


def packed_experts(packed: Packed) -> list[str]:
    """The names of the experts of a packed mixture, in their order.

    Raises:
        ValueError: there are none.
    """
    names = parse_json(packed[1].get("experts", "null"))
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError(f"names no experts: {names!r}")
    return names
