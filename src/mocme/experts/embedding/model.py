"""The trained embedding: fuses modalities to entity vectors and scores triples of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mocme.data.features.tokens import TrainingFacts
from mocme.data.modality import Modality
from mocme.experts.embedding.fusion import Fused, Fusion
from mocme.experts.embedding.modality_dropout import keep_mask
from mocme.experts.embedding.settings import EmbeddingSettings
from mocme.experts.embedding.vector_model import EmbeddingTable, Hidden, VectorModel
from mocme.experts.embedding.views import ModalityViews

STRUCTURE = "structure"


class ModalityVectors(NamedTuple):
    """Vectors of n entities by modality before they are fused: (n, M, D).

    The other fields are those of `EmbeddingTable`.
    """

    stacked: Tensor
    views: Mapping[str, Tensor]
    redundancy: Tensor


@final
class EmbeddingModel(VectorModel):
    """Entity vectors by fusion of modalities, triple scores by a scorer.

    Args:
        settings: of the expert.
        facts: of the training; they number the nodes and relations.
        dense: modalities with a vector for each entity, by name.
        seed: of the first parameters and of modality dropout.

    Raises:
        ValueError: the settings do not fit the modalities.
    """

    present: Tensor
    relation_row: Tensor
    relation_flip: Tensor

    def __init__(
        self,
        settings: EmbeddingSettings,
        facts: TrainingFacts,
        dense: Mapping[str, Modality],
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.settings, self.num_entities, self.seed = settings, facts.num_entities, seed
        self.modalities = [STRUCTURE, *dense]
        dim = settings.embedding_dim
        self.scorer = settings.scorer.build(dim)
        vectors = torch.randn(facts.num_nodes, dim, generator=generator)
        self.structure = nn.Parameter(vectors * settings.init_std)
        self._make_relations(facts, generator)
        self.scorer.reset_parameters(generator)
        self.views = nn.ModuleDict()
        self.within = nn.ModuleDict()
        for name, modality in dense.items():
            self._add_modality(name, modality, generator)
        if dense:
            self.across = settings.across.build(dim, len(self.modalities), generator)
        self.gate: nn.Parameter | None = None
        if settings.by_relation:
            if not dense:
                raise ValueError(
                    "by_relation weighs modalities, and the graph has no dense one that this "
                    "embedding reads"
                )
            self.gate = nn.Parameter(torch.zeros(len(self.relation), len(self.modalities)))
        present = [facts.present[: facts.num_entities], *(m.present() for m in dense.values())]
        self.register_buffer("present", torch.stack(present, 1), persistent=False)
        default = settings.dropout.get("default", 0.0)
        dropout = [settings.dropout.get(name, default) for name in self.modalities]
        self.hide_probability = torch.tensor(dropout)
        self._check_dropout(settings.dropout)

    def _make_relations(self, facts: TrainingFacts, generator: torch.Generator) -> None:
        row = torch.arange(facts.num_relations)
        flip = torch.zeros(facts.num_relations, dtype=torch.bool)
        if self.settings.inverse == "tied":
            row = torch.minimum(row, facts.inverse)
            flip = torch.arange(facts.num_relations) != row
            _, row = torch.unique(row, return_inverse=True)
        self.register_buffer("relation_row", row, persistent=False)
        self.register_buffer("relation_flip", flip, persistent=False)
        count = int(row.max()) + 1 if len(row) else 0
        table = torch.randn(count, self.scorer.relation_dim, generator=generator)
        self.relation = nn.Parameter(table * self.settings.init_std)
        if flip.any():
            self.scorer.invert(self.relation.detach()[:1])

    def _add_modality(self, name: str, modality: Modality, generator: torch.Generator) -> None:
        values = modality.values.float()
        # Unit deviation overall, not by column: a column that hardly varies stays small.
        centre = values.mean(0)
        spread = (values - centre).square().mean().sqrt()
        if not bool(centre.isfinite().all() and spread.isfinite()):
            # Squares of values above 1e19 are infinite in float32.
            exact = values.double().mean(0)
            centre, spread = exact.float(), (values - exact).square().mean().sqrt().float()
        spread = spread.clamp_min(1e-6)
        self.register_buffer(f"values_{name}", (values - centre) / spread, persistent=False)
        self.register_buffer(f"centre_{name}", centre, persistent=False)
        self.register_buffer(f"spread_{name}", spread, persistent=False)
        self.register_buffer(f"rows_{name}", modality.rows.clone(), persistent=False)
        dim = self.settings.embedding_dim
        views = self.settings.views.build(modality.width, dim, generator)
        self.views[_key(name)] = views
        self.within[_key(name)] = self.settings.within.build(dim, views.count, generator)

    def _check_dropout(self, dropout: Mapping[str, float]) -> None:
        for name in dropout:
            if name not in (*self.modalities, "default"):
                known = ", ".join(self.modalities)
                raise ValueError(
                    f"dropout.{name}: the graph has no such modality, or this embedding does not "
                    f"read its vectors; it reads {known}"
                )
        if len(self.modalities) > 1 and self.hide_probability[0] == 0:
            raise ValueError(
                "dropout.structure must be above 0: otherwise vectors from features alone are "
                "never trained"
            )

    @property
    def device(self) -> torch.device:
        """The device of the tables."""
        return self.structure.device

    def dense_parameters(self) -> list[nn.Parameter]:
        """Parameters that all entities share (maps, gates, core), as against table rows."""
        tables = {id(p) for p in self.table_parameters()}
        return [p for p in self.parameters() if id(p) not in tables]

    def table_parameters(self) -> list[nn.Parameter]:
        """Parameters that are rows of entities and relations."""
        tables = [self.structure, self.relation]
        return tables if self.gate is None else [*tables, self.gate]

    # -- entity vectors --------------------------------------------------------------------------

    def table(
        self,
        step: int | None = None,
        hide: Hidden = (),
        only: Int[Tensor, " n"] | None = None,
    ) -> EmbeddingTable:
        if only is not None and step is None:
            raise ValueError("`only` is for a training step; give `step` as well")
        present = self.shown(hide)
        if step is not None and len(self.modalities) > 1:
            present = keep_mask(present, self.hide_probability, self.seed, step)
        vectors = self.vectors_by_modality(only) if len(self.modalities) > 1 else None
        table = self._table(present, vectors, only)
        if step is None:
            return replace(table, vectors=self._fill_unknown(table.vectors, present))
        return table

    @torch.no_grad()
    def tables(self, hides: Iterable[Hidden]) -> Iterator[EmbeddingTable]:
        """`table(hide=...)` for each, without gradient.

        Vectors by modality are computed once for all of them.
        """
        vectors = self.vectors_by_modality(None) if len(self.modalities) > 1 else None
        for hide in hides:
            present = self.shown(hide)
            table = self._table(present, vectors, None)
            yield replace(table, vectors=self._fill_unknown(table.vectors, present))

    def _table(
        self,
        present: Bool[Tensor, "N M"],
        by_modality: ModalityVectors | None,
        only: Int[Tensor, " n"] | None,
    ) -> EmbeddingTable:
        """The table from vectors by modality; without these there is structure alone."""
        if by_modality is None:
            weights = present.to(self.structure.dtype)
            return EmbeddingTable(self.structure, weights, {}, self.structure.new_zeros(()))
        fused = self.fuse(by_modality.stacked, present if only is None else present[only])
        vectors = fused.vector
        if only is not None:
            empty = vectors.new_zeros(self.num_entities, vectors.shape[1])
            vectors = empty.index_copy(0, only, vectors)
        tokens = self.structure[self.num_entities :]
        if self.gate is not None:
            stacked = tokens.new_zeros(len(tokens), len(self.modalities), tokens.shape[1])
            stacked[:, 0] = tokens
            tokens = self.concatenated(stacked)
        return EmbeddingTable(
            torch.cat([vectors, tokens]), fused.weights, by_modality.views, by_modality.redundancy
        )

    def vectors_by_modality(self, only: Int[Tensor, " n"] | None) -> ModalityVectors:
        """Vectors of all entities, or of `only`, by modality."""
        structure = self.structure[: self.num_entities]
        if only is not None:
            structure = structure[only]
        vectors = [structure]
        weights: dict[str, Tensor] = {}
        redundancy = []
        for name in self.modalities[1:]:
            inner, rows = self._modality(name, only)
            vectors.append(torch.zeros_like(structure).index_copy(0, rows, inner.vector))
            weights[name] = inner.weights
            redundancy.append(inner.redundancy)
        return ModalityVectors(torch.stack(vectors, 1), weights, torch.stack(redundancy).mean())

    def fuse(
        self,
        stacked: Float[Tensor, "n M D"],
        present: Bool[Tensor, "n M"],
        stats: tuple[Tensor, Tensor] | None = None,
    ) -> Fused:
        """Vectors by modality to entity vectors."""
        fused: Fused = self.across(stacked, present, stats)
        if self.gate is None:
            return fused
        return fused._replace(vector=self.concatenated(fused.weights.unsqueeze(-1) * stacked))

    def concatenated(self, stacked: Float[Tensor, "n M D"]) -> Float[Tensor, "n MD"]:
        """Vectors of modalities side by side; complex entries stay [real | imaginary]."""
        parts = 2 if self.scorer.complex_entries else 1
        entities, count, dim = stacked.shape
        split = stacked.view(entities, count, parts, dim // parts)
        return split.transpose(1, 2).reshape(entities, count * dim)

    def _modality(
        self, name: str, only: Int[Tensor, " n"] | None = None
    ) -> tuple[Fused, Int[Tensor, " m"]]:
        """A modality's fused views, and their rows among all entities or among `only`."""
        views, within = self.modules_of(name)
        rows, values = self.modality_vectors(name)
        if only is not None:
            has = torch.isin(only, rows).nonzero().flatten()
            values, rows = values[torch.searchsorted(rows, only[has])], has
        outputs = views(values)
        mask = torch.ones(outputs.shape[:2], dtype=torch.bool, device=outputs.device)
        fused: Fused = within(outputs, mask)
        return fused, rows

    def modules_of(self, name: str) -> tuple[ModalityViews, Fusion]:
        """The views of a modality, and the fusion of these views."""
        views, within = self.views[_key(name)], self.within[_key(name)]
        assert isinstance(views, ModalityViews)
        assert isinstance(within, Fusion)
        return views, within

    def modality_vectors(self, name: str) -> tuple[Int[Tensor, " n"], Float[Tensor, "n F"]]:
        return self.get_buffer(f"rows_{name}"), self.get_buffer(f"values_{name}")

    def scaled(self, name: str, values: Float[Tensor, "n F"]) -> Float[Tensor, "n F"]:
        """Vectors of a modality, centred and scaled like those that the model was built with."""
        centre, spread = (self.get_buffer(f"{part}_{name}") for part in ("centre", "spread"))
        return (values - centre) / spread

    def _fill_unknown(self, vectors: Tensor, present: Bool[Tensor, "N M"]) -> Tensor:
        """Give entities without any modality the mean vector of the training entities."""
        unknown = (~present.any(1)).nonzero().flatten()
        if not len(unknown):
            return vectors
        trained = self.present[:, 0] & present.any(1)
        with torch.no_grad():
            known = vectors[: self.num_entities][trained]
            mean = known.mean(0) if len(known) else vectors.new_zeros(vectors.shape[1])
        return vectors.index_copy(0, unknown, mean.expand(len(unknown), -1))

    # -- relations and queries -------------------------------------------------------------------

    def relations(self, ids: Int[Tensor, " B"]) -> Float[Tensor, "B E"]:
        vectors = self.relation[self.relation_row[ids]]
        flip = self.relation_flip[ids]
        if self.settings.inverse == "free" or not bool(flip.any()):
            return vectors
        return torch.where(flip.unsqueeze(1), self.scorer.invert(vectors), vectors)

    def query(
        self,
        heads: Float[Tensor, "B D"],
        relation: Int[Tensor, " B"],
        vectors: Float[Tensor, "B E"] | None = None,
    ) -> Float[Tensor, "B D"]:
        if vectors is None:
            vectors = self.relations(relation)
        if self.gate is None:
            return self.scorer.query(heads, vectors)
        count = len(self.modalities)
        weights = self.gate[self.relation_row[relation]].softmax(1) * count
        parts = 2 if self.scorer.complex_entries else 1
        # Not -1 for the last dimension, which is ambiguous for an empty batch.
        shape = (len(heads), parts, count, heads.shape[1] // (parts * count))
        head = torch.einsum("bpmd,bm->bpd", heads.view(shape), weights).flatten(1)
        query = self.scorer.query(head, vectors).view(len(heads), parts, 1, shape[-1])
        return (query * weights[:, None, :, None]).flatten(1)


def _key(modality: str) -> str:
    """A key that cannot collide with an attribute of ModuleDict, such as "keys" or "type"."""
    return f"of_{modality}"
