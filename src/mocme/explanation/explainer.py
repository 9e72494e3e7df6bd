"""Explain a fact: gather what a model, its graph and its run say of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.data.graph import Graph, Queries
from mocme.data.pairs.similarity import nearest_to
from mocme.data.paths import FactNetwork
from mocme.experts.embedding.model import Model
from mocme.experts.rules.adjacency import Adjacency
from mocme.experts.rules.rule_model import RuleShare
from mocme.explanation.faithfulness import Faithfulness, measure
from mocme.explanation.schema import (
    Explanation,
    ExplanationContext,
    ModalityShare,
    Neighbour,
    Neighbours,
    RuleExplanation,
    Side,
    Step,
    Support,
    Weights,
)

SIDES: tuple[Side, Side] = ("head", "tail")
NEAREST, MOST_PATHS, MOST_SUPPORTS = 5, 10, 5


@dataclass(frozen=True, eq=False)
class FactQuery:
    """A fact, and what `Completer` knows of it.

    Attributes:
        scores: of (head, relation, ?) and (tail, inverse relation, ?), (2, N).
        new: which of these answers are not known.
    """

    head: int
    relation: int
    tail: int
    scores: Float[Tensor, "2 N"]
    new: Tensor
    probability: float | None
    known: bool

    @property
    def entities(self) -> tuple[int, int]:
        return self.head, self.tail


class Explainer:
    """Explains the facts of one model and graph.

    Args:
        grounds: of the run; without them no fact is named as support.
    """

    def __init__(self, model: Model, graph: Graph, grounds: ExplanationContext | None) -> None:
        self.model, self.graph, self.grounds = model, graph, grounds
        self._network: FactNetwork | None = None
        self._faithfulness: Faithfulness | None = None

    def explain(self, asked: FactQuery) -> Explanation:
        """All that can be shown for a fact."""
        names, relations = self.graph.entities, self.graph.relations
        notes: list[str] = []
        own = [float(asked.scores[0, asked.tail]), float(asked.scores[1, asked.head])]
        if asked.head == asked.tail:
            notes.append("head and tail are one entity: what is said of one holds for the other")
        return Explanation(
            names[asked.head],
            relations[asked.relation],
            names[asked.tail],
            sum(own) / 2,
            asked.probability,
            asked.known,
            _rank(asked, 0, asked.tail),
            _rank(asked, 1, asked.head),
            tuple(self._modalities(asked, notes)),
            self._weights(),
            tuple(self._patterns(asked, notes)),
            tuple(self._supports(asked, notes)),
            tuple(self._paths(asked, notes)),
            tuple(self._neighbours(asked, notes)),
            tuple(notes),
        )

    # -- modalities ------------------------------------------------------------------------------

    def _modalities(self, asked: FactQuery, notes: list[str]) -> Iterator[ModalityShare]:
        model = self.model
        whole = model.frozen()
        falls = self._falls(asked, notes)
        for side, entity in zip(SIDES, asked.entities, strict=True):
            for place, name in enumerate(model.modalities):
                present = bool(model.present[entity, place])
                yield ModalityShare(
                    name,
                    side,
                    present,
                    float(whole.weights[entity, place]),
                    self._experts(name, entity),
                    falls.get((side, name)),
                )

    def _experts(self, name: str, entity: int) -> tuple[float, ...]:
        views = self.model.frozen().views
        if name not in views:
            return ()
        row = (self.model.get_buffer(f"rows_{name}") == entity).nonzero().flatten()
        return tuple(views[name][row[0]].tolist()) if len(row) else ()

    def _falls(self, asked: FactQuery, notes: list[str]) -> dict[tuple[Side, str], float]:
        """Fall of the score when a modality is withheld from one of the two entities alone."""
        model = self.model
        held: list[tuple[Side, str]] = []
        hides: list[dict[str, Tensor]] = []
        for side, entity in zip(SIDES, asked.entities, strict=True):
            having = [
                n for n, has in zip(model.modalities, model.present[entity], strict=True) if has
            ]
            if not having:
                notes.append(
                    f"nothing is known of {self.graph.entities[entity]}: its vector is the mean of "
                    f"all, and no modality can be withheld from it"
                )
            if len(having) == 1:
                notes.append(
                    f"{having[0]} is all that is known of {self.graph.entities[entity]}: without "
                    f"it the vector is the mean of all entities, and the change tells how much "
                    f"better than an average entity it does"
                )
            mask = torch.zeros(model.num_entities, dtype=torch.bool)
            mask[entity] = True
            held += [(side, name) for name in having]
            hides += [{name: mask} for name in having]
        queries, answers = self._both(asked)
        # Evidence of patterns does not read vectors, so that it cancels in the difference.
        with torch.no_grad():
            before = model.embedding_score(queries, answers).mean()
            tables = model.tables(hides)
            after = [model.embedding_score(queries, answers, table).mean() for table in tables]
        return {key: float(before - own) for key, own in zip(held, after, strict=True)}

    def _both(self, asked: FactQuery) -> tuple[Queries, Tensor]:
        device = self.model.device
        relation = torch.tensor([asked.relation, asked.relation + self.graph.num_relations])
        queries = Queries(torch.tensor(asked.entities), relation)
        return queries.to(device), torch.tensor([[asked.tail], [asked.head]], device=device)

    def _weights(self) -> Weights:
        if self._faithfulness is None:
            self._faithfulness = (
                measure(self.model, self.graph)
                if self.grounds is None
                else self.grounds.faithfulness()
            )
        found = self._faithfulness
        return Weights(found.together.correlation, found.together.facts, found.reasons, found.text)

    # -- facts -----------------------------------------------------------------------------------

    def _patterns(self, asked: FactQuery, notes: list[str]) -> list[RuleExplanation]:
        """Patterns of both directions; one that is found in both counts once, by larger share.

        Patterns that say the same are one: a symmetric relation and its inverse lead to the same
        places. Their shares add up; their paths are the same ones, and are not counted twice.
        """
        evidence = self.model.evidence
        if evidence is None:
            notes.append("the model has no patterns")
            return []
        relations, number = evidence.relations, self.graph.num_relations
        there = evidence.reasons(asked.head, asked.relation, asked.tail)
        back = evidence.reasons(asked.tail, asked.relation + number, asked.head)
        # The same walks, told from head to tail.
        turned = [tuple(relations.inverse[list(one.body[::-1])].tolist()) for one in back]
        best: dict[tuple[int, ...], tuple[int, float]] = {}
        for bodies, reasons in (([reason.body for reason in there], there), (turned, back)):
            for body, (paths, share) in _folded(relations, bodies, reasons).items():
                if body not in best or share > best[body][1]:
                    best[body] = paths, share
        if not best:
            notes.append("no pattern leads from head to tail")
        found = []
        for body, (paths, share) in best.items():
            names = tuple(relations.names[step] for step in body)
            found.append(RuleExplanation(", then ".join(names), names, paths, share))
        return sorted(found, key=lambda pattern: (-pattern.share, pattern.name))

    def _supports(self, asked: FactQuery, notes: list[str]) -> list[Support]:
        if self.grounds is None:
            notes.append("no supporting facts: the model was opened without its run")
            return []
        found, said = self.grounds.supports(asked.head, asked.relation, asked.tail, MOST_SUPPORTS)
        notes += said
        return found

    def _paths(self, asked: FactQuery, notes: list[str]) -> list[tuple[Step, ...]]:
        if self._network is None:
            self._network = FactNetwork(self.graph, "train")
        without = (asked.head, asked.relation, asked.tail)
        found = self._network.paths(asked.head, asked.tail, without, MOST_PATHS)
        if found.left_out:
            notes.append(
                f"paths of three facts were not followed over {found.left_out:,} neighbours with "
                f"the most facts"
            )
        if not found.paths:
            notes.append("no path of up to three training facts links head and tail")
        names, relations = self.graph.entities, self.graph.relations
        return [
            tuple(Step(names[h], relations[r], names[t]) for h, r, t in path)
            for path in found.paths
        ]

    # -- neighbours ------------------------------------------------------------------------------

    def _neighbours(self, asked: FactQuery, notes: list[str]) -> Iterator[Neighbours]:
        model, names = self.model, self.graph.entities
        known = model.known().nonzero().flatten()
        spaces = [("vector", known, model.frozen().vectors[known])]
        for name in model.modalities[1:]:
            rows, values = model.get_buffer(f"rows_{name}"), model.get_buffer(f"values_{name}")
            spaces.append((name, rows, values))
        for side, entity in zip(SIDES, asked.entities, strict=True):
            for by, rows, values in spaces:
                place = (rows == entity).nonzero().flatten()
                if not len(place):
                    continue
                found, cosines = nearest_to(values, int(place[0]), NEAREST)
                near = [
                    Neighbour(names[int(rows[n])], cosine)
                    for n, cosine in zip(found, cosines, strict=True)
                ]
                yield Neighbours(side, by, tuple(near))


def _folded(
    relations: Adjacency, bodies: Sequence[tuple[int, ...]], reasons: Sequence[RuleShare]
) -> dict[tuple[int, ...], tuple[int, float]]:
    """Paths and share of patterns of one direction, by what they are told as."""
    found: dict[tuple[int, ...], tuple[int, float]] = {}
    for body, reason in zip(bodies, reasons, strict=True):
        told = tuple(relations.told[list(body)].tolist())
        paths, share = found.get(told, (0, 0.0))
        found[told] = max(paths, reason.count), share + reason.share
    return found


def _rank(asked: FactQuery, direction: int, answer: int) -> int:
    """Rank of an answer among those that are not known and itself."""
    own = asked.scores[direction, answer]
    others = asked.scores[direction][asked.new[direction]]
    above = int((others > own).sum())
    ties = int((others == own).sum()) - int(asked.new[direction, answer])
    return 1 + above + ties // 2
