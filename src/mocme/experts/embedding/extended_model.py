"""A trained embedding with entities added after training; everything trained stays as it is.

What the model computes for one entity depends on all entities in three places: the centre and
spread by which the values of a modality are scaled, the redundancy by which complementarity is
standardised (of views and of modalities), and the mean vector of entities without any modality. All
three stay those of the training entities, so that no trained vector or score changes by a bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mocme.experts.embedding.fusion import Fused, NormStats
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.vector_model import EmbeddingTable, Hidden, VectorModel


@final
@dataclass(frozen=True, eq=False)
class AddedEntities:
    """n entities for a trained model of M modalities, structure first.

    Attributes:
        rows: their structure rows, 0 where structure is absent.
        present: which entity has which modality.
        values: by name of a dense modality, vectors as its encoder returns them.
        positions: by name, which of the n entities these are, ascending.
    """

    rows: Float[Tensor, "n D"]
    present: Bool[Tensor, "n M"]
    values: Mapping[str, Tensor]
    positions: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.rows)


@final
@dataclass(frozen=True, eq=False)
class FusionStats:
    """Statistics of the training entities by which added entities are fused.

    Attributes:
        across: of modalities.
        within: of a modality's views, by its name.
    """

    across: NormStats | None
    within: Mapping[str, NormStats | None]

    @staticmethod
    def of(base: EmbeddingModel, hide: Hidden = ()) -> FusionStats:
        """The statistics of a trained model; `hide` as in `VectorModel.table`."""
        if len(base.modalities) == 1:
            return FusionStats(None, {})
        within = {}
        with torch.no_grad():
            for name in base.modalities[1:]:
                views, fusion = base.modules_of(name)
                outputs = views(base.modality_vectors(name)[1])
                mask = torch.ones(outputs.shape[:2], dtype=torch.bool, device=outputs.device)
                within[name] = fusion.norm_stats(outputs, mask)
            stacked = base.vectors_by_modality(None).stacked
            across = base.across.norm_stats(stacked, base.shown(hide))
        return FusionStats(across, within)


class AddedVectors:
    """Vectors of added entities, by the statistics of the training entities.

    Attributes:
        contents: (n, M, D), vectors by modality; structure stays 0.
        views: weights of the views by modality name, for the entities that have it.
    """

    def __init__(self, base: EmbeddingModel, added: AddedEntities, stats: FusionStats) -> None:
        self.base, self.stats = base, stats
        self.contents = added.rows.new_zeros(len(added), len(base.modalities), added.rows.shape[1])
        self.views: dict[str, Tensor] = {}
        if len(base.modalities) == 1:
            return
        with torch.no_grad():
            for column, name in enumerate(base.modalities[1:], 1):
                fused = self._fused_views(name, added.values[name])
                self.contents[added.positions[name], column] = fused.vector
                self.views[name] = fused.weights

    def _fused_views(self, name: str, values: Float[Tensor, "m F"]) -> Fused:
        views, fusion = self.base.modules_of(name)
        outputs = views(self.base.scaled(name, values))
        mask = torch.ones(outputs.shape[:2], dtype=torch.bool, device=outputs.device)
        fused: Fused = fusion(outputs, mask, self.stats.within[name])
        return fused

    def __call__(
        self, rows: Float[Tensor, "n D"], present: Bool[Tensor, "n M"]
    ) -> tuple[Float[Tensor, "n E"], Float[Tensor, "n M"]]:
        """Entity vectors for these structure rows, and the weights of the modalities."""
        if len(self.base.modalities) == 1:
            return rows, present.to(rows.dtype)
        stacked = torch.cat([rows.unsqueeze(1), self.contents[:, 1:]], 1)
        fused = self.base.fuse(stacked, present, self.stats.across)
        return fused.vector, fused.weights


def longest(vectors: Float[Tensor, "N E"]) -> Float[Tensor, ""]:
    """Length of the longest of the trained entity vectors; 0 without any."""
    return vectors.norm(dim=1).max() if len(vectors) else vectors.new_zeros(())


def within(vectors: Float[Tensor, "n E"], length: Float[Tensor, ""]) -> Float[Tensor, "n E"]:
    """Shorten vectors to a length, so that no entity scores beyond the range of the training.

    Shorter ones stay as they are, to the bit.
    """
    lengths = vectors.norm(dim=1, keepdim=True)
    return torch.where(lengths > length, vectors * (length / lengths), vectors)


@final
class ExtendedModel(VectorModel):
    """A trained model and added entities. It cannot be trained.

    Training entities keep their ids; the added ones follow, then the nodes of tokens. No added
    vector is longer than the longest trained one.

    Args:
        base: the trained model; its parameters are used, not copied.
        added: the added entities.
    """

    present: Tensor

    def __init__(self, base: EmbeddingModel, added: AddedEntities) -> None:
        super().__init__()
        self.base, self.added = base, added
        self.modalities = base.modalities
        self.num_entities = base.num_entities + len(added)
        self.scorer = base.scorer
        present = torch.cat([base.present, added.present.to(base.present.device)])
        self.register_buffer("present", present, persistent=False)
        self.eval()

    @property
    def device(self) -> torch.device:
        """The device of the trained tables."""
        return self.base.device

    def table(
        self,
        step: int | None = None,
        hide: Hidden = (),
        only: Int[Tensor, " n"] | None = None,
    ) -> EmbeddingTable:
        """Vectors of all nodes; those of training entities are the base model's, to the bit.

        Raises:
            ValueError: a training step is given.
        """
        if step is not None or only is not None:
            raise ValueError("a model with added entities is not trained; train its `base`")
        count = self.base.num_entities
        shown = self.shown(hide)[count:]
        base_hide: Hidden = hide
        if isinstance(hide, Mapping):
            base_hide = {name: entities[:count] for name, entities in hide.items()}
        trained = self.base.table(hide=base_hide)
        added = AddedVectors(self.base, self.added, FusionStats.of(self.base, base_hide))
        vectors, weights = added(self.added.rows, shown)
        vectors = within(vectors, longest(trained.vectors[:count]))
        unknown = ~shown.any(1)
        if bool(unknown.any()):
            has_structure = self.base.present[:, 0] & self.base.shown(base_hide).any(1)
            known = trained.vectors[:count][has_structure]
            mean = known.mean(0) if len(known) else vectors.new_zeros(vectors.shape[1])
            vectors = torch.where(unknown.unsqueeze(1), mean, vectors)
        return EmbeddingTable(
            torch.cat([trained.vectors[:count], vectors, trained.vectors[count:]]),
            torch.cat([trained.weights, weights]),
            {name: torch.cat([views, added.views[name]]) for name, views in trained.views.items()},
            trained.redundancy,
        )

    @torch.no_grad()
    def tables(self, hides: Iterable[Hidden]) -> Iterator[EmbeddingTable]:
        for hide in hides:
            yield self.table(hide=hide)

    def relations(self, ids: Int[Tensor, " B"]) -> Float[Tensor, "B E"]:
        return self.base.relations(ids)

    def query(
        self,
        heads: Float[Tensor, "B D"],
        relation: Int[Tensor, " B"],
        vectors: Float[Tensor, "B E"] | None = None,
    ) -> Float[Tensor, "B D"]:
        return self.base.query(heads, relation, vectors)

    def modality_vectors(self, name: str) -> tuple[Int[Tensor, " n"], Float[Tensor, "n F"]]:
        rows, values = self.base.modality_vectors(name)
        return (
            torch.cat([rows, self.added.positions[name] + self.base.num_entities]),
            torch.cat([values, self.base.scaled(name, self.added.values[name])]),
        )

    def compare_all(
        self, query: Float[Tensor, "B E"], vectors: Float[Tensor, "nodes E"]
    ) -> Float[Tensor, "B N"]:
        """Training entities are compared on their own, because a product rounds by its shape."""
        count = self.base.num_entities
        parts = vectors[:count], vectors[count : self.num_entities]
        return torch.cat([self.scorer.compare(query, part) for part in parts], 1)
