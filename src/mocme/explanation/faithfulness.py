"""Do the weights of modalities tell what matters? Measured, before anyone takes them for reasons.

Of every fact of the valid split, both directions, whose answer has a modality and at least one
more: the modality's weight in the answer's vector, and how much the answer's score falls when that
modality is withheld from the answer alone. The measure is their rank correlation (Spearman).
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

# Weights are shown as reasons from this rank correlation on.
ENOUGH = 0.5
# Of the entities, how many are hidden from at a time, at most. What a fusion standardises over all
# entities then stays almost what it is; hidden from all of them, it would not.
PART = 20

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of weights and falls; None where one of the two does not vary.

    Attributes:
        facts: how many cases it was measured on, each an answer and one of its modalities.
    """

    correlation: float | None
    facts: int


@dataclass(frozen=True)
class Faithfulness:
    """What was measured of a run.

    Attributes:
        together: over the cases of all modalities.
        apart: by modality.
    """

    together: Agreement
    apart: Mapping[str, Agreement]

    @property
    def reasons(self) -> bool:
        """Whether weights may be shown as reasons."""
        found = self.together.correlation
        return found is not None and found >= ENOUGH

    @property
    def text(self) -> str:
        """What a reader should know of weights, in a sentence."""
        found = self.together
        if not found.facts:
            return "whether weights tell what matters was not measured: no valid fact could tell"
        if found.correlation is None:
            return (
                f"weights are no reasons: they, or the changes of {found.facts:,} scores when a "
                f"modality is withheld, do not vary"
            )
        said = f"rank correlation {found.correlation:.2f} over {found.facts:,} cases"
        if apart := [own.correlation for own in self.apart.values() if own.correlation is not None]:
            said += f", {min(apart):.2f} to {max(apart):.2f} by modality"
        if self.reasons:
            return f"weights predict how much a score falls without a modality ({said})"
        return (
            f"weights are no reasons: they do not predict how much a score falls without a "
            f"modality ({said}; {ENOUGH} would do); look at the changes instead"
        )

    def packed(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @staticmethod
    def unpacked(table: Mapping[str, Any]) -> Faithfulness:
        """What `packed` gave."""
        apart = {name: Agreement(**row) for name, row in table["apart"].items()}
        return Faithfulness(Agreement(**table["together"]), apart)


@dataclass(frozen=True, eq=False)
class ScoreDrops:
    """Of one modality: weight in the answer and fall of its score, of n answers."""

    modality: str
    weight: Float[Tensor, " n"]
    fall: Float[Tensor, " n"]


def measure(mixture: Mixture, graph: Graph, advance: Advance | None = None) -> Faithfulness:
    """Measure the first embedding of a mixture on a graph's valid split.

    Args:
        mixture: of trained experts; without an embedding there is nothing to measure.
        graph: with a valid split.
        advance: receives (answers done, answers in all).
    """
    embedding = first_embedding(mixture)
    found = [] if embedding is None else list(falls(embedding.model, graph, advance))
    none = torch.empty(0, dtype=torch.float64)
    weight = torch.cat([none, *(own.weight for own in found)])
    fall = torch.cat([none, *(own.fall for own in found)])
    apart = {own.modality: _agreement(own.weight, own.fall) for own in found}
    return Faithfulness(_agreement(weight, fall), apart)


def first_embedding(mixture: Mixture) -> EmbeddingExpert | None:
    """The first expert of a mixture that is an embedding."""
    return next((e for e in mixture.experts if isinstance(e, EmbeddingExpert)), None)


def falls(model: VectorModel, graph: Graph, advance: Advance | None = None) -> Iterator[ScoreDrops]:
    """Weights and falls of each modality; nothing where the model has a single one."""
    facts = graph.directed("valid")
    if len(model.modalities) < 2 or not len(facts):
        return
    device = model.device
    facts = facts.to(device)
    whole = model.frozen()
    several = model.present.sum(1) > 1
    total = len(facts) * len(model.modalities)
    for place, name in enumerate(model.modalities):
        asked = facts[(several & model.present[:, place])[facts[:, 2]]]
        fall = torch.empty(len(asked), dtype=torch.float64)
        parts = _parts(torch.unique(asked[:, 2]), max(1, model.num_entities // PART))
        hides = [{name: mask} for mask in _masks(parts, model.num_entities)]
        for part, table in zip(parts, model.tables(hides), strict=True):
            own = torch.isin(asked[:, 2], part).nonzero().flatten()
            chosen = asked[own]
            queries, answer = Queries(chosen[:, 0], chosen[:, 1]), chosen[:, 2:]
            with torch.no_grad():
                # Heads keep all they have: an answer may be the head of another question.
                query = model.query(whole.vectors[queries.head], queries.relation)
                before = model.scorer.compare(query, whole.vectors[answer])
                after = model.scorer.compare(query, table.vectors[answer])
            fall[own.cpu()] = (before - after)[:, 0].double().cpu()
        weight = whole.weights[asked[:, 2], place].detach().double().cpu()
        if advance is not None:
            advance((place + 1) * len(facts), total)
        yield ScoreDrops(name, weight, fall)


def spearman(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float | None:
    """Rank correlation; None where one of them does not vary, or there are fewer than three."""
    # Costs a third of a second, which only a measurement should pay.
    from scipy.stats import spearmanr

    if len(first) < 3 or float(first.std()) < 1e-9 or float(second.std()) < 1e-9:
        return None
    return float(spearmanr(first.numpy(), second.numpy()).statistic)


def _agreement(weight: Tensor, fall: Tensor) -> Agreement:
    return Agreement(spearman(weight, fall), len(weight))


def _parts(entities: Int[Tensor, " n"], size: int) -> list[Tensor]:
    return list(entities.split(size)) if len(entities) else []


def _masks(parts: list[Tensor], number: int) -> Iterator[Tensor]:
    for part in parts:
        mask = torch.zeros(number, dtype=torch.bool, device=part.device)
        mask[part] = True
        yield mask
