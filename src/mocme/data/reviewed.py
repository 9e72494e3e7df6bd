"""A graph with the decisions of reviewers: accepted facts to train on, rejected ones to avoid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from mocme.data.graph import Graph, UnknownName, distinct
from mocme.data.reviews import Reviews


def reviewed(graph: Graph, path: str | Path) -> Graph:
    """The graph with what stands in a file of decisions (`mocme.data.reviews.Reviews.standing`).

    Accepted facts join the train split. One that valid or test holds stays there alone, which a
    note says. Rejected facts are hard negatives of a training, and are suggested no more.

    Raises:
        ValueError: there is no such file, a decision names what the graph has not, rejects one of
            its facts, or reviewers disagree.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file of decisions; mocme serve makes one")
    chosen: dict[str, list[tuple[int, int, int]]] = {"accept": [], "reject": []}
    for (head, relation, tail), decision in Reviews(path).standing().items():
        try:
            ids = (
                graph.entities.id(head),
                graph.relations.id(relation),
                graph.entities.id(tail),
            )
        except UnknownName as error:
            raise ValueError(
                f"{path}: a decision on ({head}, {relation}, {tail}): {error}; the decisions are "
                f"of another graph, the name was changed, or it was added to a run and is not in "
                f"the data: put it into the data, or take the decision back (mocme serve RUN "
                f"--reviews {path}, view Decisions, Undo)"
            ) from error
        chosen[decision].append(ids)
    accepted, rejected = (
        distinct(torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)) for rows in chosen.values()
    )
    held = {tuple(fact): name for name, facts in graph.splits.items() for fact in facts.tolist()}
    for fact in rejected.tolist():
        if split := held.get(tuple(fact)):
            head, relation, tail = fact
            raise ValueError(
                f"{path}: ({graph.entities[head]}, {graph.relations[relation]}, "
                f"{graph.entities[tail]}) is rejected, and a fact of the {split} split; remove it "
                f"there, or take the decision back"
            )
    new = [fact for fact in accepted.tolist() if tuple(fact) not in held]
    train = torch.cat([graph.facts("train"), torch.tensor(new, dtype=torch.int64).reshape(-1, 3)])
    notes = [f"{path}: {len(new):,} accepted facts join train, {len(rejected):,} are rejected"]
    if others := sum(held.get(tuple(fact), "train") != "train" for fact in accepted.tolist()):
        notes.append(f"{path}: {others:,} accepted facts are in another split, and stay there")
    return replace(
        graph,
        splits={**graph.splits, "train": distinct(train)},
        rejected=rejected,
        notes=[*graph.notes, *notes],
    )
