"""Small settings of every kind of expert, and a small graph to fit them on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import mocme
from mocme.core.registry import build
from mocme.data.features.sources import read_features
from mocme.data.graph import Graph, Queries
from mocme.data.modality import Features, Pairs
from mocme.experts.base import (
    DenseExpert,
    Expert,
    ExpertSettings,
    Extension,
    FitTask,
    SparseExpert,
)
from mocme.experts.scores import write_scores
from mocme.inductive.extended_run import extended_features, extended_graph
from mocme.inductive.store import Addition, Additions

CPU = torch.device("cpu")
ENTITIES, DIM = 12, 4
SCORES_FILE = "scores.safetensors"
EMBEDDING: dict[str, Any] = {
    "kind": "embedding",
    "embedding_dim": DIM,
    "init_std": 0.5,
    "views": {"count": 2},
    "training": {"epochs": 1, "batch_size": 20, "precision": "float32"},
}


@dataclass(frozen=True)
class Case:
    """An expert to test.

    Attributes:
        name: of the case.
        table: settings, with the kind.
        modalities: whether the graph has modalities.
        evidence: what an entity needs so that a sparse expert has evidence for answers of it:
            ``path``, ``content`` (a modality) or ``nothing``.
    """

    name: str
    table: Mapping[str, Any]
    modalities: bool = True
    evidence: Literal["path", "content", "nothing"] = "path"

    @property
    def settings(self) -> ExpertSettings:
        """The settings as an object."""
        return build(ExpertSettings, self.table, f"experts.{self.name}", trust_code=True)

    def experiment(self, **settings: Any) -> dict[str, Any]:
        """The table of an experiment with this expert alone."""
        data = {} if self.modalities else {"data": {"only": []}}
        return {**data, "experts": [{"name": self.name, **self.table, **settings}]}


# A new kind of expert needs an entry here, and nothing else, to be tested by all contracts.
CASES = (
    Case("embedding", EMBEDDING),
    Case("structure", EMBEDDING, modalities=False),
    Case("by-relation", {**EMBEDDING, "by_relation": True}),
    Case("embedding-of-links", {**EMBEDDING, "modalities": []}),
    Case("embedding-of-words", {**EMBEDDING, "forms": ["tokens"]}),
    Case("rules", {"kind": "rules", "support": 1}),
    Case("rules-over-links", {"kind": "rules", "support": 1, "modalities": []}),
    Case("prior", {"kind": "prior"}, evidence="nothing"),
    Case("neighbours", {"kind": "neighbours"}, evidence="content"),
    Case(
        "near-neighbours",
        {"kind": "neighbours", "k": 2, "sharpness": 5.0, "modalities": ["shape", "word"]},
        evidence="content",
    ),
    Case("scores-of-a-file", {"kind": "scores", "path": SCORES_FILE}),
    Case("scores-of-a-function", {"kind": "scores", "function": f"{__name__}:sine_scores"}),
)


def sine_scores(heads: Tensor, relations: Tensor) -> Tensor:
    """Scores of all entities by a formula."""
    return torch.sin(5.0 * heads[:, None] + 3.0 * relations[:, None] + torch.arange(ENTITIES))


@dataclass(frozen=True)
class World:
    """A small graph in a folder, with modalities of every sort and a file of scores."""

    graph: Graph
    features: Features

    @staticmethod
    def of(folder: Path) -> World:
        """The graph of a folder; adds pairs of entities, and writes a file of scores."""
        graph = mocme.load(folder)
        assert graph.num_entities == ENTITIES
        read = read_features(graph, graph.modalities)
        head = torch.arange(ENTITIES - 1)
        near = Pairs(("next",), torch.zeros_like(head), head, head + 1, ENTITIES)
        features = Features(read.dense, read.tokens, {"near": near})
        queries = all_queries(graph)
        scores = sine_scores(queries.relation, queries.head)
        write_scores(folder / SCORES_FILE, graph, queries, scores)
        return World(graph, features)

    def task(self, case: Case, **changes: Any) -> FitTask:
        """What the expert of a case is fitted on."""
        features = self.features if case.modalities else Features()
        features = case.settings.features_of(features, case.name)
        arguments = {
            "name": case.name,
            "graph": self.graph.training_view(),
            "features": features,
            "seed": 0,
            "device": CPU,
            "memory": 0.5,
            "trust_code": True,
        }
        return FitTask(**{**arguments, **changes})

    def fit(self, case: Case, **changes: Any) -> Expert:
        """The fitted expert of a case."""
        return case.settings.fit(self.task(case, **changes))[0]


def all_queries(graph: Graph) -> Queries:
    """Every query of a graph, in both directions."""
    pairs = torch.cartesian_prod(
        torch.arange(graph.num_entities), torch.arange(2 * graph.num_relations)
    )
    return Queries(pairs[:, 0].contiguous(), pairs[:, 1].contiguous())


def signal(expert: Expert, queries: Queries) -> Tensor:
    """What an expert says of all entities: scores, or log(1 + odds) with 0 where it is silent."""
    if isinstance(expert, DenseExpert):
        with torch.no_grad():
            return expert.score(queries)
    assert isinstance(expert, SparseExpert)
    return odds_matrix(expert, queries).log1p()


def odds_matrix(expert: SparseExpert, queries: Queries, num_entities: int = ENTITIES) -> Tensor:
    """(B, N) odds, 0 where the expert is silent."""
    row, column, odds = expert.odds(queries)
    matrix = torch.zeros(len(queries), num_entities)
    matrix[row, column] = odds
    return matrix


@dataclass(frozen=True)
class Added:
    """Entities added to a world: linked ones, one with modalities alone, one with nothing.

    Attributes:
        facts: of the linked entity ``new``, as names.
    """

    facts: tuple[tuple[str, str, str], ...] = (("new", "r0", "e1"),)
    count: int = field(default=3, init=False)

    def extension(self, world: World, expert: Expert) -> Extension:
        """What an expert gets of the extension, with a fitted row for the linked entity."""
        generator = torch.Generator().manual_seed(0)
        vectors = {
            name: torch.randn(modality.width, generator=generator)
            for name, modality in world.features.dense.items()
        }
        additions = Additions(
            [
                Addition("new", self.facts, vectors=vectors),
                Addition("seen", vectors=vectors),
                Addition("nothing"),
            ]
        )
        row = torch.randn(DIM, generator=generator)
        extension = Extension(
            extended_graph(world.graph.training_view(), additions),
            extended_features(world.features, additions, ENTITIES),
            [item.vectors for item in additions],
            {expert.name: [row, None, None]},
        )
        return extension.read_by(expert)
