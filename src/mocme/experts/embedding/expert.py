"""A fitted embedding as an expert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.data.graph import Queries
from mocme.experts.base import DenseExpert, Extension, Packed
from mocme.experts.embedding.extended_model import AddedEntities, ExtendedModel
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.objective import Objective
from mocme.experts.embedding.vector_model import VectorModel


@dataclass(frozen=True)
class ModalityReason:
    """What a modality of the answer contributes.

    Attributes:
        name: of the modality.
        share: by how much the score falls when the modality is withheld from the answer.
    """

    name: str
    share: float


@final
class EmbeddingExpert(DenseExpert):
    """Scores every entity by vectors.

    Args:
        name: of the expert.
        reads: structure, modalities with vectors, and modalities with tokens.
        model: computes the vectors; in evaluation mode.
        objective: that it was trained with.
    """

    def __init__(
        self, name: str, reads: tuple[str, ...], model: VectorModel, objective: Objective
    ) -> None:
        self.name, self.reads = name, reads
        self.model, self.objective = model, objective

    @property
    def device(self) -> torch.device:
        """The device of the tables."""
        return self.model.device

    @property
    def base(self) -> EmbeddingModel:
        """The model as it was trained, without added entities."""
        model = self.model.base if isinstance(self.model, ExtendedModel) else self.model
        assert isinstance(model, EmbeddingModel)
        return model

    def score(self, queries: Queries, candidates: Tensor | None = None) -> Float[Tensor, "B C"]:
        return self.model.score(queries, candidates)

    def explain(self, head: int, relation: int, answer: int) -> Sequence[ModalityReason]:
        drops = self.score_drops(head, relation, answer, answer)
        reasons = [ModalityReason(name, drop) for name, drop in drops.items()]
        return sorted(reasons, key=lambda reason: -reason.share)

    @torch.no_grad()
    def score_drops(self, head: int, relation: int, answer: int, entity: int) -> dict[str, float]:
        """By how much the score falls when a modality is withheld from one entity alone.

        Args:
            head: of the query.
            relation: directed.
            answer: whose score is compared.
            entity: from which modalities are withheld, one at a time.
        """
        model, device = self.model, self.device
        flags = zip(model.modalities, model.present[entity].tolist(), strict=True)
        names = [name for name, present in flags if present]
        mask = torch.zeros(model.num_entities, dtype=torch.bool)
        mask[entity] = True
        query = Queries(
            torch.tensor([head], device=device), torch.tensor([relation], device=device)
        )
        candidate = torch.tensor([[answer]], device=device)
        before = model.score(query, candidate)
        tables = model.tables([{name: mask} for name in names])
        return {
            name: float(before - model.score(query, candidate, table))
            for name, table in zip(names, tables, strict=True)
        }

    def extended(self, extension: Extension) -> EmbeddingExpert:
        added = added_entities(self.base, extension.vectors, extension.rows.get(self.name, ()))
        model = ExtendedModel(self.base, added)
        return EmbeddingExpert(self.name, self.reads, model, self.objective)

    def packed(self) -> Packed:
        state = self.base.state_dict()
        return {name: tensor.detach().cpu() for name, tensor in state.items()}, {}


def added_entities(
    model: EmbeddingModel,
    vectors: Sequence[Mapping[str, Tensor]],
    rows: Sequence[Tensor | None],
) -> AddedEntities:
    """Added entities as a model takes them.

    Args:
        model: as it was trained.
        vectors: of each entity, by name of a modality; names that the model does not read are
            ignored.
        rows: structure rows of the entities; None where an entity has none.
    """
    dim = model.settings.embedding_dim
    structure = torch.zeros(len(vectors), dim)
    present = torch.zeros(len(vectors), len(model.modalities), dtype=torch.bool)
    for position, row in enumerate(rows):
        if row is not None:
            structure[position], present[position, 0] = row, True
    values, positions = {}, {}
    for column, name in enumerate(model.modalities[1:], 1):
        having = [position for position, by_name in enumerate(vectors) if name in by_name]
        width = len(model.get_buffer(f"centre_{name}"))
        stacked = [vectors[position][name].float() for position in having]
        values[name] = torch.stack(stacked) if having else torch.zeros(0, width)
        positions[name] = torch.tensor(having, dtype=torch.int64)
        present[positions[name], column] = True
    device = model.device
    return AddedEntities(
        structure.to(device),
        present.to(device),
        {name: tensor.to(device) for name, tensor in values.items()},
        {name: tensor.to(device) for name, tensor in positions.items()},
    )
