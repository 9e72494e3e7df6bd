"""Patterns, fitted: how likely a candidate is an answer, by the paths that lead to it.

log(P / (1 - P)) = bias_r + sum over bodies b of r: weight_b log2(1 + number of paths over b)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.graph import Queries
from mocme.experts.rules.adjacency import Adjacency, Walks, csr, expand
from mocme.experts.rules.rule_mining import RuleBodies, mine
from mocme.experts.rules.rule_regression import CELLS, design, regress, strengths
from mocme.experts.rules.settings import RuleSettings

FORMAT = "mocme rules 1"
# No path is taken to make a candidate more certain than this.
SUREST = 0.99


@dataclass(frozen=True)
class RuleShare:
    """A pattern that leads to an answer.

    Attributes:
        body: ids of its relations; `name` has their names.
        count: how many paths.
        weight: of the pattern, for a single path.
        share: its part of the log odds, weight * log2(1 + count).
    """

    body: tuple[int, ...]
    name: str
    count: int
    weight: float
    share: float


@final
@dataclass(frozen=True, eq=False)
class RuleModel:
    """Fitted patterns of 2R directed links.

    Attributes:
        weight: of each body.
        bias: of each directed link; the log odds are this plus what bodies add.
    """

    relations: Adjacency
    bodies: RuleBodies
    weight: Float[np.ndarray, " n"]
    bias: Float[np.ndarray, " R2"]

    @staticmethod
    def fit(
        relations: Adjacency,
        settings: RuleSettings,
        advance: Callable[[int, int], None] | None = None,
    ) -> RuleModel:
        """Find patterns and weigh them.

        Equal input gives equal weights, to the bit, on one machine.

        Args:
            advance: is told (done, total) as the work goes on.
        """
        links = 2 * relations.num_links
        total = max(1, 2 * links)
        tell = advance or (lambda done, total: None)
        names = ("support", "confidence", "most", "degree", "paths", "seed")
        chosen: dict[str, Any] = {name: getattr(settings, name) for name in names}
        bodies = mine(relations, **chosen, step=lambda share: tell(int(links * share), total))
        start = np.searchsorted(bodies.relation, np.arange(links + 1))
        weight, bias = np.zeros(len(bodies)), np.zeros(links)
        for link in range(links):
            own = slice(int(start[link]), int(start[link + 1]))
            if own.start < own.stop:
                seen = design(relations, link, bodies[own], settings.seed)
                weight[own], bias[link] = regress(seen, settings.ridge)
            tell(links + link + 1, total)
        found = RuleModel(relations, bodies, weight, bias)
        return found

    def chances(self, queries: Queries) -> Any:
        """P that a candidate is an answer, as a (B, N) CSR matrix (float32, sorted indices).

        Absent where no pattern leads. An entity is never its own answer; training facts are not
        left out, but no path uses the link that is asked for.
        """
        size = self.relations.num_entities
        asked = queries.relation.cpu().numpy() * size + queries.head.cpu().numpy()
        # A question that is asked twice is walked once: those of hubs are long, and asked often.
        distinct, again = np.unique(asked, return_inverse=True)
        head, link = distinct % size, distinct // size
        width = max(1, CELLS // max(1, size))
        parts = [(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))]
        for start in range(0, len(head), width):
            block = slice(start, start + width)
            parts.append(self._block(head[block], link[block]))
        counts, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
        found = csr((values, columns, counts.cumsum()), (len(head), size))
        found.has_sorted_indices = True
        return found[again]

    def _walks(self, head: np.ndarray, link: np.ndarray) -> tuple[Walks, np.ndarray, np.ndarray]:
        """Walks of some questions over their bodies; question and body of each walk."""
        start = np.searchsorted(self.bodies.relation, link)
        count = np.searchsorted(self.bodies.relation, link, "right") - start
        body = expand(start, count)
        own = np.repeat(np.arange(len(head)), count)
        first, second = self.bodies.first[body], self.bodies.second[body]
        return Walks.of(self.relations, head[own], first, second), own, body

    def _block(
        self, head: Int[np.ndarray, " B"], link: Int[np.ndarray, " B"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How many chances each question has; their candidates and values."""
        size = self.relations.num_entities
        walks, own, body = self._walks(head, link)
        odds, reached = np.zeros(len(head) * size), np.zeros(len(head) * size, bool)
        for walk, end, paths in walks.made():
            cell = own[walk] * size + end
            np.add.at(odds, cell, self.weight[body[walk]] * strengths(paths))
            reached[cell] = True
        cells = np.flatnonzero(reached)
        row = cells // size
        logit = odds[cells] + self.bias[link[row]]
        value = 1 / (1 + np.exp(-np.clip(logit, -80, 80)))
        counts = np.bincount(row, minlength=len(head))
        return counts, (cells % size).astype(np.int32), value.astype(np.float32)

    def reasons(self, head: int, relation: int, answer: int) -> list[RuleShare]:
        """The patterns that lead from `head` to `answer`, strongest first.

        Their shares and the bias of the relation sum to the log odds of the chance.
        """
        walks, _, body = self._walks(np.array([head]), np.array([relation]))
        found = []
        for walk, end, paths in walks.made():
            for place in np.flatnonzero(end == answer):
                found.append(self._reason(int(body[walk[place]]), int(paths[place])))
        return sorted(found, key=lambda reason: (-reason.share, reason.body))

    def _reason(self, body: int, count: int) -> RuleShare:
        both = (int(self.bodies.first[body]), int(self.bodies.second[body]))
        ids = tuple(relation for relation in both if relation >= 0)
        name = ", then ".join(self.relations.names[relation] for relation in ids)
        weight = float(self.weight[body])
        share = weight * float(strengths(np.array([count]))[0])
        return RuleShare(ids, name, count, weight, share)

    def odds(self, queries: Queries) -> tuple[Tensor, Tensor, Float[Tensor, " n"]]:
        """P / (1 - P) where patterns lead, with P at most 0.99.

        Returns:
            row (n,), which question; column (n,), which candidate; odds (n,) in float32.
        """
        found = self.chances(queries).tocoo()
        chance = np.minimum(found.data.astype(np.float64), SUREST)
        row, column = (torch.from_numpy(ids.astype(np.int64)) for ids in (found.row, found.col))
        return row, column, torch.from_numpy((chance / (1 - chance)).astype(np.float32))

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata, as a safetensors file holds them; without `relations`."""
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
        """What `packed` gave, for the relations that it was fitted on.

        Raises:
            ValueError: it is no evidence of this format, or was fitted on other relations.
        """
        if metadata.get("format") != FORMAT:
            raise ValueError(f"patterns of format {metadata.get('format')!r}; known is {FORMAT}")
        if metadata["relations"] != relations.digest():
            raise ValueError(
                "the patterns were fitted on other facts or pairs; fit them again on these"
            )
        columns = {name: tensor.numpy() for name, tensor in tensors.items()}
        weight, bias = columns.pop("weight"), columns.pop("bias")
        return RuleModel(relations, RuleBodies(**columns), weight, bias)
