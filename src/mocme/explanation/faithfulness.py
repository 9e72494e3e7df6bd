"""Measure whether modality weights predict score drops, before they are shown as reasons.

A case is a directed fact of the valid split and one modality of its answer, where the answer has at
least one more modality. For each case, the modality's weight in the answer's vector is compared
with the drop of the answer's score when the modality is withheld from the answer only. The measure
is the Spearman rank correlation of weights and drops over all cases.

Only the ranks are compared, because weights sum to 1 while score drops have the unit of the scorer.
Answers with a single modality are left out: without it the vector is the mean of all entities,
which says nothing about the share of one modality among several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.graph import Graph, Queries
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.experts.embedding.vector_model import VectorModel
from mocme.mixture.base import Mixture

# The smallest rank correlation at which weights are shown as reasons.
MIN_CORRELATION = 0.5
# A modality is withheld from at most 1/20 of all entities at a time. A fusion may standardise its
# inputs over all entities; withholding from a few keeps these statistics nearly unchanged, while
# withholding from all answers at once would shift them. One entity at a time would be exact, but
# needs a table of all vectors for each.
MASK_DIVISOR = 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of weights and score drops.

    Attributes:
        correlation: None where weights or drops do not vary, or with fewer than three cases.
        facts: number of measured cases, each an answer and one of its modalities.
    """

    correlation: float | None
    facts: int


@dataclass(frozen=True)
class Faithfulness:
    """The faithfulness of the modality weights of a run.

    Attributes:
        together: agreement over the cases of all modalities.
        apart: agreement by modality.
    """

    together: Agreement
    apart: Mapping[str, Agreement]

    @property
    def reasons(self) -> bool:
        """Whether weights may be shown as reasons."""
        correlation = self.together.correlation
        return correlation is not None and correlation >= MIN_CORRELATION

    @property
    def text(self) -> str:
        """Summarise the measurement in a sentence."""
        overall = self.together
        if not overall.facts:
            return (
                "weights are not reasons: whether they predict score drops was not measured, "
                "because the run has no embedding or no valid fact whose answer has two modalities"
            )
        if overall.correlation is None:
            return (
                f"weights are not reasons: over {overall.facts:,} cases, the weights or the score "
                f"drops without a modality do not vary, or there are fewer than three cases"
            )
        details = f"rank correlation {overall.correlation:.2f} over {overall.facts:,} cases"
        correlations = [
            agreement.correlation
            for agreement in self.apart.values()
            if agreement.correlation is not None
        ]
        if correlations:
            details += f", {min(correlations):.2f} to {max(correlations):.2f} by modality"
        if self.reasons:
            return f"weights predict how much a score drops without a modality ({details})"
        return (
            f"weights are not reasons: they do not predict how much a score drops without a "
            f"modality ({details}; at least {MIN_CORRELATION} is required); use the score drops "
            f"instead"
        )

    def packed(self) -> dict[str, Any]:
        """Return a dictionary for JSON."""
        return asdict(self)

    @staticmethod
    def unpacked(table: Mapping[str, Any]) -> Faithfulness:
        """Restore the result of `packed`.

        Raises:
            ValueError: a key is missing, unknown or wrong.
        """
        if not isinstance(table, Mapping) or set(table) != {"together", "apart"}:
            raise ValueError("does not hold together and apart")
        apart = table["apart"]
        if not isinstance(apart, Mapping):
            raise ValueError("apart is not an object")
        by_modality = {name: _restored(name, row) for name, row in apart.items()}
        return Faithfulness(_restored("together", table["together"]), by_modality)


@dataclass(frozen=True, eq=False)
class ScoreDrops:
    """The cases of one modality.

    Attributes:
        weight: weight of the modality in each answer's vector.
        drop: score of each answer minus its score without the modality.
    """

    modality: str
    weight: Float[Tensor, " n"]
    drop: Float[Tensor, " n"]


def measure(mixture: Mixture, graph: Graph, progress: Progress | None = None) -> Faithfulness:
    """Measure the first embedding of a mixture on a graph's valid split.

    Args:
        mixture: trained experts; without an embedding the result has no cases.
        graph: a graph with a valid split.
        progress: receives (facts done, facts in total), counted once per modality.
    """
    embedding = first_embedding(mixture)
    drops = [] if embedding is None else list(score_drops(embedding.model, graph, progress))
    empty = torch.empty(0, dtype=torch.float64)
    weights = torch.cat([empty, *(cases.weight for cases in drops)])
    all_drops = torch.cat([empty, *(cases.drop for cases in drops)])
    by_modality = {cases.modality: _agreement(cases.weight, cases.drop) for cases in drops}
    return Faithfulness(_agreement(weights, all_drops), by_modality)


def first_embedding(mixture: Mixture) -> EmbeddingExpert | None:
    """Return the first embedding expert of a mixture."""
    return next((e for e in mixture.experts if isinstance(e, EmbeddingExpert)), None)


def score_drops(
    model: VectorModel, graph: Graph, progress: Progress | None = None
) -> Iterator[ScoreDrops]:
    """Yield weights and score drops of each modality; nothing for a model with one modality."""
    facts = graph.directed("valid")
    if len(model.modalities) < 2 or not len(facts):
        return
    device = model.device
    facts = facts.to(device)
    full = model.frozen()  # vectors (N, D) and weights (N, M) with all modalities
    has_several = model.present.sum(1) > 1
    total = len(facts) * len(model.modalities)
    for column, name in enumerate(model.modalities):
        # (n, 3) facts whose answer has this modality and at least one more.
        cases = facts[(has_several & model.present[:, column])[facts[:, 2]]]
        drops = torch.empty(len(cases), dtype=torch.float64)
        groups = _groups(torch.unique(cases[:, 2]), max(1, model.num_entities // MASK_DIVISOR))
        hides = [{name: mask} for mask in _masks(groups, model.num_entities)]
        for entities, table in zip(groups, model.tables(hides), strict=True):
            # The cases whose answer is one of the entities without the modality in this table.
            rows = torch.isin(cases[:, 2], entities).nonzero().flatten()
            selected = cases[rows]
            queries, answer = Queries(selected[:, 0], selected[:, 1]), selected[:, 2:]
            with torch.no_grad():
                # The head keeps all its modalities, even if it is a masked answer of another case:
                # the drop must come from the answer only.
                query = model.query(full.vectors[queries.head], queries.relation)
                before = model.scorer.compare(query, full.vectors[answer])
                after = model.scorer.compare(query, table.vectors[answer])
            drops[rows.cpu()] = (before - after)[:, 0].double().cpu()
        weights = full.weights[cases[:, 2], column].detach().double().cpu()
        if progress is not None:
            progress((column + 1) * len(facts), total)
        yield ScoreDrops(name, weights, drops)


def spearman(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float | None:
    """Return the rank correlation; None with fewer than three values, or if one is constant."""
    # The import takes a third of a second, so only measurements pay for it.
    from scipy.stats import spearmanr

    if len(first) < 3 or float(first.std()) < 1e-9 or float(second.std()) < 1e-9:
        return None
    return float(spearmanr(first.numpy(), second.numpy()).statistic)


def _agreement(weight: Tensor, drop: Tensor) -> Agreement:
    return Agreement(spearman(weight, drop), len(weight))


def _restored(name: str, row: Any) -> Agreement:
    """Restore an agreement.

    Raises:
        ValueError: a key is missing, unknown or wrong.
    """
    if not isinstance(row, Mapping) or set(row) != {"correlation", "facts"}:
        raise ValueError(f"{name} does not hold correlation and facts")
    correlation, facts = row["correlation"], row["facts"]
    if correlation is not None and not (
        type(correlation) in (int, float) and -1.001 <= correlation <= 1.001
    ):
        raise ValueError(f"{name}: correlation must be within -1 and 1, not {correlation!r}")
    if type(facts) is not int or facts < 0:
        raise ValueError(f"{name}: facts must be a number of cases, not {facts!r}")
    return Agreement(correlation, facts)


def _groups(entities: Int[Tensor, " n"], size: int) -> list[Tensor]:
    # `split` returns one empty group for no entities, which would cost a table of vectors.
    return list(entities.split(size)) if len(entities) else []


def _masks(groups: list[Tensor], num_entities: int) -> Iterator[Tensor]:
    """Yield a mask (N,) for each group of entities."""
    for entities in groups:
        mask = torch.zeros(num_entities, dtype=torch.bool, device=entities.device)
        mask[entities] = True
        yield mask
