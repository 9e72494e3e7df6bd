"""A graph with the decisions of reviewers applied to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from mocme.data.graph import Graph, UnknownName, distinct
from mocme.data.reviews import Reviews


def apply_reviews(graph: Graph, path: str | Path) -> Graph:
    """Apply the decisions in a file (`Reviews.verdicts`) to a graph.

    Accepted facts join the train split, except facts of valid or test, which stay there; a note
    counts those. Rejected facts become hard negatives of a training, and are not suggested again.

    Raises:
        ValueError: the file does not exist, a decision has a name that the graph does not have,
            a fact of the graph is rejected, or reviewers disagree.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file of decisions; mocme serve creates one")
    accepted, rejected = _decided(graph, path)
    split_of = {tuple(f): name for name, facts in graph.splits.items() for f in facts.tolist()}
    for fact in rejected.tolist():
        if split := split_of.get(tuple(fact)):
            head, relation, tail = fact
            raise ValueError(
                f"{path}: ({graph.entities[head]}, {graph.relations[relation]}, "
                f"{graph.entities[tail]}) is rejected, but is a fact of the {split} split; remove "
                f"it there, or undo the decision"
            )
    new = [fact for fact in accepted.tolist() if tuple(fact) not in split_of]
    train = torch.cat([graph.facts("train"), _fact_tensor(new)])
    notes = [f"{path}: {len(new):,} accepted facts join train, {len(rejected):,} are rejected"]
    if others := sum(split_of.get(tuple(f), "train") != "train" for f in accepted.tolist()):
        notes.append(f"{path}: {others:,} accepted facts are in another split, and stay there")
    return replace(
        graph,
        splits={**graph.splits, "train": distinct(train)},
        rejected=rejected,
        notes=[*graph.notes, *notes],
    )


def _decided(graph: Graph, path: str | Path) -> tuple[Int[Tensor, "a 3"], Int[Tensor, "r 3"]]:
    """Return the distinct accepted and rejected facts as ids of the graph."""
    facts: dict[str, list[tuple[int, int, int]]] = {"accept": [], "reject": []}
    for (head, relation, tail), decision in Reviews(path).verdicts().items():
        try:
            ids = (graph.entities.id(head), graph.relations.id(relation), graph.entities.id(tail))
        except UnknownName as error:
            raise ValueError(
                f"{path}: a decision on ({head}, {relation}, {tail}): {error}; the decisions "
                f"belong to another graph, the name was changed, or it was added to a run and is "
                f"not in the data: add it to the data, or undo the decision (mocme serve RUN "
                f"--reviews {path}, view Decisions, Undo)"
            ) from error
        facts[decision].append(ids)
    return distinct(_fact_tensor(facts["accept"])), distinct(_fact_tensor(facts["reject"]))


def _fact_tensor(facts: Sequence[Sequence[int]]) -> Int[Tensor, "n 3"]:
    return torch.tensor(facts, dtype=torch.int64).reshape(-1, 3)
