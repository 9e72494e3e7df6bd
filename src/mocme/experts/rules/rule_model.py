"""The fitted rules of a graph: how likely a candidate is an answer, by the paths that lead to it.

log(P / (1 - P)) = bias_r + sum over rules b of r: weight_b log2(1 + number of paths over b)

P is the output of the regression and enters a score as evidence. It is not the probability of a
prediction, which is calibrated on validation (`mocme.calibration`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mocme.data.graph import Queries
from mocme.experts.rules.adjacency import Adjacency, Walks, concatenate_ranges, csr
from mocme.experts.rules.rule_mining import RuleBodies, mine
from mocme.experts.rules.rule_regression import (
    CELLS_PER_BLOCK,
    build_design,
    path_features,
    regress,
)
from mocme.experts.rules.settings import RuleSettings
from mocme.storage.tensor_schema import Field, check_tensors

FORMAT = "mocme rules 1"
# Upper bound of P in a score (odds of 99), so that no path counts as certain.
MAX_P = 0.99
# Log odds are clipped to this before the exponential, which would overflow with a warning.
MAX_LOGIT = 80


@final
@dataclass(frozen=True)
class RuleShare:
    """A rule whose body leads to an answer, and its share in the log odds.

    Attributes:
        body: ids of its relations; `name` has their names.
        count: number of paths.
        weight: of the rule, for a single path.
        share: its term of the log odds, weight * log2(1 + count).
    """

    body: tuple[int, ...]
    name: str
    count: int
    weight: float
    share: float


@final
@dataclass(frozen=True, eq=False)
class RuleModel:
    """Fitted rules of 2R directed links.

    Attributes:
        weight: of each rule.
        bias: of each directed link; the log odds are this plus the terms of the rules.
    """

    relations: Adjacency
    bodies: RuleBodies
    weight: Float[np.ndarray, " n"]
    bias: Float[np.ndarray, " R2"]

    @staticmethod
    def fit(
        relations: Adjacency,
        settings: RuleSettings,
        progress: Callable[[int, int], None] | None = None,
    ) -> RuleModel:
        """Mine rules and fit their weights.

        Equal input gives equal weights, to the bit, on one machine.

        Args:
            progress: called with (steps done, steps in all).
        """
        links = 2 * relations.num_links
        # Mining counts as one half of the steps, the regressions as the other.
        total = max(1, 2 * links)
        report = progress or (lambda done, total: None)
        bodies = mine(
            relations,
            support=settings.support,
            confidence=settings.confidence,
            most=settings.most,
            degree=settings.degree,
            paths=settings.paths,
            seed=settings.seed,
            progress=lambda share: report(int(links * share), total),
        )
        start = np.searchsorted(bodies.relation, np.arange(links + 1))
        weight, bias = np.zeros(len(bodies)), np.zeros(links)
        for link in range(links):
            rules = slice(int(start[link]), int(start[link + 1]))
            if rules.start < rules.stop:
                design = build_design(relations, link, bodies[rules], settings.seed)
                weight[rules], bias[link] = regress(design, settings.ridge)
            report(links + link + 1, total)
        return RuleModel(relations, bodies, weight, bias)

    def chances(self, queries: Queries) -> Any:
        """P of every candidate, as a (B, N) CSR matrix (float32, sorted indices).

        Cells that no path leads to are absent. An entity is never its own answer. Training facts
        are not left out, but no path uses the fact that is asked for.
        """
        size = self.relations.num_entities
        keys = queries.relation.cpu().numpy() * size + queries.head.cpu().numpy()
        # Each distinct question is evaluated once: batches repeat those of hubs, which have the
        # most paths.
        distinct, position = np.unique(keys, return_inverse=True)
        head, link = distinct % size, distinct // size
        block_size = max(1, CELLS_PER_BLOCK // max(1, size))
        parts = [(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))]
        for start in range(0, len(head), block_size):
            block = slice(start, start + block_size)
            parts.append(self._block_chances(head[block], link[block]))
        # The leading zero of `counts` makes their running sum a row pointer.
        counts, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
        result = csr((values, columns, counts.cumsum()), (len(head), size))
        result.has_sorted_indices = True
        return result[position]

    def _walks(
        self, head: Int[np.ndarray, " B"], link: Int[np.ndarray, " B"]
    ) -> tuple[Walks, Int[np.ndarray, " w"], Int[np.ndarray, " w"]]:
        """Walks of some questions over all their rule bodies; question and rule of each walk."""
        # Rules are sorted by head relation, so those of a link are a range.
        start = np.searchsorted(self.bodies.relation, link)
        count = np.searchsorted(self.bodies.relation, link, "right") - start
        rule = concatenate_ranges(start, count)
        question = np.repeat(np.arange(len(head)), count)
        first, second = self.bodies.first[rule], self.bodies.second[rule]
        return Walks.of(self.relations, head[question], first, second), question, rule

    def _block_chances(
        self, head: Int[np.ndarray, " B"], link: Int[np.ndarray, " B"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Number of candidates of each question, (B,); then all candidates and their P, (n,)."""
        size = self.relations.num_entities
        walks, question, rule = self._walks(head, link)
        # Dense buffers of B * N cells, because the walks of different rules share ends.
        logits: Float[np.ndarray, " BN"] = np.zeros(len(head) * size)
        reached: Bool[np.ndarray, " BN"] = np.zeros(len(head) * size, bool)
        for walk, end, paths in walks.endpoints():
            cell = question[walk] * size + end
            np.add.at(logits, cell, self.weight[rule[walk]] * path_features(paths))
            reached[cell] = True
        # Not `logits != 0`: the terms of several rules may cancel.
        cells = np.flatnonzero(reached)
        row = cells // size
        logit = logits[cells] + self.bias[link[row]]
        value = _sigmoid(logit)
        counts = np.bincount(row, minlength=len(head))
        return counts, (cells % size).astype(np.int32), value.astype(np.float32)

    def reasons(self, head: int, relation: int, answer: int) -> list[RuleShare]:
        """The rules whose bodies lead from `head` to `answer`, by falling share.

        Their shares and the bias of the relation sum to the log odds of P.
        """
        walks, _, rule = self._walks(np.array([head]), np.array([relation]))
        shares = []
        for walk, end, paths in walks.endpoints():
            # At most one position for each walk, and so for each rule.
            for position in np.flatnonzero(end == answer):
                shares.append(self._share(int(rule[walk[position]]), int(paths[position])))
        return sorted(shares, key=lambda share: (-share.share, share.body))

    def _share(self, rule: int, count: int) -> RuleShare:
        body = (int(self.bodies.first[rule]), int(self.bodies.second[rule]))
        ids = tuple(relation for relation in body if relation >= 0)
        name = ", then ".join(self.relations.names[relation] for relation in ids)
        weight = float(self.weight[rule])
        share = weight * float(path_features(np.array([count]))[0])
        return RuleShare(ids, name, count, weight, share)

    def odds(self, queries: Queries) -> tuple[Tensor, Tensor, Float[Tensor, " n"]]:
        """P / (1 - P) of the candidates that a path leads to, with P at most 0.99.

        Returns:
            row (n,), which question; column (n,), which candidate; odds (n,) in float32.
        """
        chances = self.chances(queries).tocoo()
        chance = np.minimum(chances.data.astype(np.float64), MAX_P)
        row, column = (torch.from_numpy(ids.astype(np.int64)) for ids in (chances.row, chances.col))
        return row, column, torch.from_numpy((chance / (1 - chance)).astype(np.float32))

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata for a safetensors file, without `relations`."""
        tensors = {name: torch.from_numpy(ids.copy()) for name, ids in vars(self.bodies).items()}
        tensors["weight"] = torch.from_numpy(self.weight.copy())
        tensors["bias"] = torch.from_numpy(self.bias.copy())
        metadata = {
            "format": FORMAT,
            "relations": self.relations.digest(),
        }
        return tensors, metadata

    @staticmethod
    def unpacked(
        tensors: dict[str, Tensor], metadata: dict[str, str], relations: Adjacency
    ) -> RuleModel:
        """Restore what `packed` returned, for the relations that it was fitted on.

        Raises:
            ValueError: the format is another one, the rules were fitted on other relations, or a
                tensor is not what `packed` returns.
        """
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"rules have format {metadata.get('format')!r}; the supported format is {FORMAT!r}"
            )
        if metadata.get("relations") != relations.digest():
            raise ValueError(
                "the rules were fitted on other facts or pairs; fit them again on these"
            )
        check_tensors(tensors, _fields(relations))
        columns = {name: tensor.numpy() for name, tensor in tensors.items()}
        weight, bias = columns.pop("weight"), columns.pop("bias")
        return RuleModel(relations, RuleBodies(**columns), weight, bias)


def _fields(relations: Adjacency) -> dict[str, Field]:
    """What the tensors of rules over these relations have to be."""
    links, last = 2 * relations.num_links, len(relations) - 1
    return {
        "relation": Field(torch.int64, ("rules",), low=0, high=links - 1, order="ascending"),
        "first": Field(torch.int64, ("rules",), low=0, high=last),
        "second": Field(torch.int64, ("rules",), low=-1, high=last),
        "support": Field(torch.int64, ("rules",), low=0),
        "confidence": Field(torch.float64, ("rules",), low=0.0, high=1.0),
        "weight": Field(torch.float64, ("rules",)),
        "bias": Field(torch.float64, (links,)),
    }


def _sigmoid(logit: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """1 / (1 + e^-x)."""
    value: np.ndarray = 1 / (1 + np.exp(-np.clip(logit, -MAX_LOGIT, MAX_LOGIT)))
    return value
