"""A trained model with entities that came after its training, and nothing else changed.

What a model does with one entity depends on all of them in three places: the centre and spread by
which a modality's values are scaled, the redundancy by which complementarity is standardised (of
views and of modalities), and the mean vector that stands for the unknown. All three stay those of
the entities it was trained with, so that no old vector or score moves by a bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mocme.data.graph import Queries
from mocme.experts.embedding.fusion import Fused, Standard
from mocme.experts.embedding.model import EmbeddingTable, Hidden, Model


@final
@dataclass(frozen=True, eq=False)
class AddedEntities:
    """n entities for a trained model of M modalities, structure first.

    Attributes:
        rows: their structure rows, 0 where structure is absent.
        present: what each of them has.
        values: by name of a dense modality, vectors as they come from its encoder.
        places: by name, which of the n these are, ascending.
    """

    rows: Float[Tensor, "n D"]
    present: Bool[Tensor, "n M"]
    values: Mapping[str, Tensor]
    places: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.rows)


@final
@dataclass(frozen=True, eq=False)
class FusionStats:
    """By what the entities that a model was trained with are fused.

    Attributes:
        across: of modalities.
        within: of a modality's views, by its name.
    """

    across: Standard | None
    within: Mapping[str, Standard | None]

    @staticmethod
    def of(base: Model, hide: Hidden = ()) -> FusionStats:
        """Those of a model; `hide` as in `Model.table`."""
        if len(base.modalities) == 1:
            return FusionStats(None, {})
        within = {}
        with torch.no_grad():
            for name in base.modalities[1:]:
                views, fusing = base.parts(name)
                seen = views(base.get_buffer(f"values_{name}"))
                mask = torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)
                within[name] = fusing.standard(seen, mask)
            across = base.across.standard(base.seen(None).stacked, base.shown(hide))
        return FusionStats(across, within)


class AddedVectors:
    """Vectors of added entities, by the statistics of those that the model was trained with.

    Attributes:
        contents: (n, M, D), each one's vector by modality, structure left at 0.
        views: experts' weights by modality name, of those that have it.
    """

    def __init__(self, base: Model, added: AddedEntities, standards: FusionStats) -> None:
        self.base, self.standards = base, standards
        self.contents = added.rows.new_zeros(len(added), len(base.modalities), added.rows.shape[1])
        self.views: dict[str, Tensor] = {}
        if len(base.modalities) == 1:
            return
        with torch.no_grad():
            for place, name in enumerate(base.modalities[1:], 1):
                inner = self._inner(name, added.values[name])
                self.contents[added.places[name], place] = inner.vector
                self.views[name] = inner.weights

    def _inner(self, name: str, values: Float[Tensor, "m F"]) -> Fused:
        """A modality's fused views of some added entities."""
        views, fusing = self.base.parts(name)
        centre, spread = (self.base.get_buffer(f"{part}_{name}") for part in ("centre", "spread"))
        seen = views((values - centre) / spread)
        mask = torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)
        inner: Fused = fusing(seen, mask, self.standards.within[name])
        return inner

    def __call__(
        self, rows: Float[Tensor, "n D"], present: Bool[Tensor, "n M"]
    ) -> tuple[Float[Tensor, "n E"], Float[Tensor, "n M"]]:
        """Vectors of these structure rows with the contents, and the weights they used."""
        if len(self.base.modalities) == 1:
            return rows, present.to(rows.dtype)
        stacked = torch.cat([rows.unsqueeze(1), self.contents[:, 1:]], 1)
        fused: Fused = self.base.across(stacked, present, self.standards.across)
        if self.base.gate is None:
            return fused.vector, fused.weights
        return self.base.beside(fused.weights.unsqueeze(-1) * stacked), fused.weights


class ExtendedModel(Model):
    """A trained model and added entities: a model of all of them, that cannot be trained.

    Entities keep their ids; the added ones follow, then the nodes of tokens. Parameters are those
    of the model; `structure` has no rows of added entities.

    Attributes:
        base: the model as it was trained.
        added: what came after.
    """

    def __init__(self, base: Model, added: AddedEntities) -> None:
        nn.Module.__init__(self)
        self.base, self.added = base, added
        self.settings, self.scorer, self.seed = base.settings, base.scorer, base.seed
        self.modalities, self.hide_probability = base.modalities, base.hide_probability
        self.num_entities = base.num_entities + len(added)
        self.structure, self.relation, self.gate = base.structure, base.relation, base.gate
        if len(base.modalities) > 1:
            self.views, self.within, self.across = base.views, base.within, base.across
        self.register_buffer("relation_row", base.relation_row, persistent=False)
        self.register_buffer("relation_flip", base.relation_flip, persistent=False)
        present = torch.cat([base.present, added.present.to(base.present.device)])
        self.register_buffer("present", present, persistent=False)
        for name in base.modalities[1:]:
            self._join(name)
        self._frozen: EmbeddingTable | None = None
        self.evidence = base.evidence
        self.eval()

    def _join(self, name: str) -> None:
        """A modality's rows and scaled values, those of added entities after the others."""
        places, values = self.added.places[name], self.added.values[name]
        centre, spread = (self.base.get_buffer(f"{part}_{name}") for part in ("centre", "spread"))
        rows = torch.cat([self.base.get_buffer(f"rows_{name}"), places + self.base.num_entities])
        scaled = torch.cat([self.base.get_buffer(f"values_{name}"), (values - centre) / spread])
        self.register_buffer(f"rows_{name}", rows, persistent=False)
        self.register_buffer(f"values_{name}", scaled, persistent=False)

    def table(
        self,
        step: int | None = None,
        hide: Hidden = (),
        only: Int[Tensor, " n"] | None = None,
    ) -> EmbeddingTable:
        """Vectors of all nodes; those of old ones are the model's own, to the bit."""
        if step is not None or only is not None:
            raise ValueError("a model with added entities is not trained; train its `base`")
        number = self.base.num_entities
        shown = self.shown(hide)[number:]
        of_old: Hidden = hide
        if isinstance(hide, Mapping):
            of_old = {name: entities[:number] for name, entities in hide.items()}
        old = self.base.table(hide=of_old)
        newcomers = AddedVectors(self.base, self.added, FusionStats.of(self.base, of_old))
        vectors, weights = newcomers(self.added.rows, shown)
        nothing = ~shown.any(1)
        if bool(nothing.any()):
            trained = self.base.present[:, 0] & self.base.shown(of_old).any(1)
            known = old.vectors[:number][trained]
            mean = known.mean(0) if len(known) else vectors.new_zeros(vectors.shape[1])
            vectors = torch.where(nothing.unsqueeze(1), mean, vectors)
        return EmbeddingTable(
            torch.cat([old.vectors[:number], vectors, old.vectors[number:]]),
            torch.cat([old.weights, weights]),
            {name: torch.cat([own, newcomers.views[name]]) for name, own in old.views.items()},
            old.redundancy,
        )

    @torch.no_grad()
    def tables(self, hides: Iterable[Hidden]) -> Iterator[EmbeddingTable]:
        """`table(hide=...)` of each, one after the other, without gradient."""
        for hide in hides:
            yield self.table(hide=hide)

    def embedding_score(
        self,
        queries: Queries,
        candidates: Tensor | None = None,
        table: EmbeddingTable | None = None,
    ) -> Float[Tensor, "B C"]:
        """As of any model; old entities are compared apart, because a product rounds by shape."""
        if candidates is not None:
            return super().embedding_score(queries, candidates, table)
        vectors, number = (table or self.frozen()).vectors, self.base.num_entities
        query = self.query(vectors[queries.head], queries.relation)
        parts = vectors[:number], vectors[number : self.num_entities]
        return torch.cat([self.scorer.compare(query, held) for held in parts], 1)
