"""What evidence for an answer loses when a fact is taken away, the weights of patterns kept."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from mocme.experts.rules.rule_model import SUREST, RuleModel
from mocme.experts.rules.rule_regression import strengths

Fact = tuple[int, int, int]


@dataclass(frozen=True)
class PathCounts:
    """The paths that lead to an answer.

    Attributes:
        paths: by body, how many.
        through: by training fact, how many paths of each body use it.
    """

    paths: Mapping[int, int]
    through: Mapping[Fact, Mapping[int, int]]


def counted(evidence: RuleModel, head: int, relation: int, answer: int) -> PathCounts:
    """Paths from `head` to `answer` over the bodies of a directed relation.

    The work grows with the neighbours of the two over the relations of bodies, not with the graph.
    """
    paths: Counter[int] = Counter()
    through: defaultdict[Fact, Counter[int]] = defaultdict(Counter)
    if head == answer:
        return PathCounts(paths, through)
    for body, edges in _paths(evidence, head, relation, answer):
        paths[body] += 1
        for fact in {_fact(evidence, *edge) for edge in edges}:
            if fact is not None:
                through[fact][body] += 1
    return PathCounts(paths, through)


def losses(
    evidence: RuleModel,
    head: int,
    relation: int,
    answer: int,
    contribution: Callable[[float], float],
) -> dict[Fact, float]:
    """Change of the evidence added to an answer's score without each fact that is on a path.

    A fact (head, relation, tail) is in its own direction, `relation` may be an inverse one.

    Args:
        contribution: maps odds to what the mixture adds to the score.
    """
    whole = counted(evidence, head, relation, answer)
    full = contribution(odds_of(evidence, relation, whole.paths))
    return {
        fact: contribution(odds_of(evidence, relation, Counter(whole.paths) - Counter(used))) - full
        for fact, used in whole.through.items()
    }


def odds_of(evidence: RuleModel, relation: int, paths: Mapping[int, int]) -> float:
    """Odds of an answer with so many paths by body; 0 without a path."""
    bodies = [body for body, count in paths.items() if count > 0]
    if not bodies:
        return 0.0
    counts = np.array([paths[body] for body in bodies])
    logit = float(evidence.weight[bodies] @ strengths(counts)) + float(evidence.bias[relation])
    chance = min(SUREST, 1 / (1 + float(np.exp(-np.clip(logit, -80, 80)))))
    return chance / (1 - chance)


Edge = tuple[int, int, int]


def _paths(
    evidence: RuleModel, head: int, relation: int, answer: int
) -> Iterator[tuple[int, Iterable[Edge]]]:
    bodies, inverse = evidence.bodies, evidence.relations.inverse
    first, stop = np.searchsorted(bodies.relation, [relation, relation + 1])
    for body in range(int(first), int(stop)):
        start, then = int(bodies.first[body]), int(bodies.second[body])
        reached = _tails(evidence, start, head)
        if then < 0:
            if answer in reached:
                yield body, [(head, start, answer)]
            continue
        back = _tails(evidence, int(inverse[then]), answer)
        for middle in np.intersect1d(reached, back, assume_unique=True).tolist():
            yield body, [(head, start, middle), (middle, then, answer)]


def _tails(evidence: RuleModel, relation: int, head: int) -> Int[np.ndarray, " n"]:
    relations = evidence.relations
    row = int(relations.rows(np.array([relation]), np.array([head]))[0])
    if row < 0:
        return np.empty(0, np.int64)
    start = relations.edges.indptr
    tails: np.ndarray = relations.edges.indices[start[row] : start[row + 1]].astype(np.int64)
    return tails


def _fact(evidence: RuleModel, head: int, relation: int, tail: int) -> Fact | None:
    """The training fact of an edge; None where it is a pair of entities."""
    links = evidence.relations.num_links
    if relation >= 2 * links:
        return None
    return (head, relation, tail) if relation < links else (tail, relation - links, head)
