"""Change of the rules' evidence for an answer when a training fact is removed.

Removing a fact removes the paths that use it. The weights of the rules stay as they are fitted, so
the change is exact for the fitted model, not for a model that is fitted without the fact.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int

from mocme.core.deadline import Check, unlimited
from mocme.experts.rules.rule_model import MAX_LOGIT, MAX_P, RuleModel
from mocme.experts.rules.rule_regression import path_features

# (head, relation, tail): a fact in its own direction, an edge in either.
Fact = tuple[int, int, int]
Edge = tuple[int, int, int]


@final
@dataclass(frozen=True)
class PathCounts:
    """The paths that lead to an answer.

    Attributes:
        paths: number of paths by rule.
        through: by training fact, the number of paths that use it by rule.
    """

    paths: Mapping[int, int]
    through: Mapping[Fact, Mapping[int, int]]


def count_paths(
    evidence: RuleModel, head: int, relation: int, answer: int, check: Check = unlimited
) -> PathCounts:
    """Count the paths from `head` to `answer` over the rule bodies of a directed relation.

    The cost grows with the neighbours of the two entities over the relations of the bodies, not
    with the graph.
    """
    paths: Counter[int] = Counter()
    through: defaultdict[Fact, Counter[int]] = defaultdict(Counter)
    if head == answer:
        return PathCounts(paths, through)
    for rule, edges in _paths(evidence, head, relation, answer):
        check()
        paths[rule] += 1
        # Both edges of a path are different facts: head and answer differ, and there are no loops.
        for edge in edges:
            fact = _fact_of_edge(evidence, *edge)
            if fact is not None:
                through[fact][rule] += 1
    return PathCounts(paths, through)


def score_changes(
    evidence: RuleModel,
    head: int,
    relation: int,
    answer: int,
    contribution: Callable[[float], float],
    check: Check = unlimited,
) -> dict[Fact, float]:
    """Change of an answer's score without each fact that is on a path.

    Facts (head, relation, tail) have their own direction; `relation` may be an inverse.

    Args:
        contribution: maps odds to what the mixture adds to the score.
        check: called for each path and each fact; what it raises ends the work.
    """
    counts = count_paths(evidence, head, relation, answer, check)
    full = contribution(odds_of_paths(evidence, relation, counts.paths))
    changes = {}
    for fact, used in counts.through.items():
        check()
        left = odds_of_paths(evidence, relation, Counter(counts.paths) - Counter(used))
        changes[fact] = contribution(left) - full
    return changes


def odds_of_paths(evidence: RuleModel, relation: int, paths: Mapping[int, int]) -> float:
    """Odds P / (1 - P) of an answer with these numbers of paths by rule; 0 without a path."""
    rules = [rule for rule, count in paths.items() if count > 0]
    # Without any path nothing is added, not even the bias.
    if not rules:
        return 0.0
    counts = np.array([paths[rule] for rule in rules])
    logit = float(evidence.weight[rules] @ path_features(counts)) + float(evidence.bias[relation])
    chance = 1 / (1 + float(np.exp(-np.clip(logit, -MAX_LOGIT, MAX_LOGIT))))
    chance = min(MAX_P, chance)
    return chance / (1 - chance)


def _paths(
    evidence: RuleModel, head: int, relation: int, answer: int
) -> Iterator[tuple[int, Iterable[Edge]]]:
    """Each path from head to answer: its rule, and its edges."""
    bodies, inverse = evidence.bodies, evidence.relations.inverse
    start, stop = np.searchsorted(bodies.relation, [relation, relation + 1])
    for rule in range(int(start), int(stop)):
        first, second = int(bodies.first[rule]), int(bodies.second[rule])
        forward = _tails(evidence, first, head)
        if second < 0:
            if answer in forward:
                yield rule, [(head, first, answer)]
            continue
        # The middle entities are those that both ends reach, the answer over the inverse relation.
        backward = _tails(evidence, int(inverse[second]), answer)
        for middle in np.intersect1d(forward, backward, assume_unique=True).tolist():
            yield rule, [(head, first, middle), (middle, second, answer)]


def _tails(evidence: RuleModel, relation: int, head: int) -> Int[np.ndarray, " n"]:
    relations = evidence.relations
    row = int(relations.find_rows(np.array([relation]), np.array([head]))[0])
    if row < 0:
        return np.empty(0, np.int64)
    indptr = relations.edges.indptr
    tails: np.ndarray = relations.edges.indices[indptr[row] : indptr[row + 1]].astype(np.int64)
    return tails


def _fact_of_edge(evidence: RuleModel, head: int, relation: int, tail: int) -> Fact | None:
    """The training fact of an edge; None where it is a pair of entities."""
    links = evidence.relations.num_links
    if relation >= 2 * links:
        return None
    return (head, relation, tail) if relation < links else (tail, relation - links, head)
