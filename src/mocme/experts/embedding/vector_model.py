"""What scores triples by vectors of entities, however the vectors are computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mocme.data.graph import Queries
from mocme.experts.embedding.scorers import Scorer

# Modalities to leave out: by name for all entities, or by name with a mask (N,) of the entities
# that do without.
Hidden = Sequence[str] | Mapping[str, Tensor]


@dataclass(frozen=True)
class EmbeddingTable:
    """Vectors of every node, and the weights that they were fused with.

    Attributes:
        vectors: (nodes, E), entities first.
        weights: (N, M), each modality's weight in an entity's vector; 0 where nothing is known.
            N counts the entities whose vectors were computed (`VectorModel.table`).
        views: modality name to (n, K), the weights of the views for the n entities that have it.
        redundancy: mean redundancy within modalities, for the auxiliary term.
    """

    vectors: Float[Tensor, "nodes E"]
    weights: Float[Tensor, "N M"]
    views: Mapping[str, Tensor]
    redundancy: Float[Tensor, ""]


class VectorModel(nn.Module, ABC):
    """Scores triples by vectors of entities.

    Attributes:
        num_entities: N.
        modalities: names of the M modalities that vectors are made of, structure first.
        present: (N, M), which entity has which modality.
        scorer: compares vectors.
    """

    num_entities: int
    modalities: Sequence[str]
    present: Tensor
    scorer: Scorer

    def __init__(self) -> None:
        super().__init__()
        self._frozen: EmbeddingTable | None = None

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the parameters."""

    @abstractmethod
    def table(
        self,
        step: int | None = None,
        hide: Hidden = (),
        only: Int[Tensor, " n"] | None = None,
    ) -> EmbeddingTable:
        """Vectors of all nodes.

        Args:
            step: in training, the step whose modality dropout applies; None for none.
            hide: modalities to leave out.
            only: in training, ids of entities in ascending order. Where vectors are fused, only
                theirs are computed: all others are 0, `weights` and `views` have rows for these
                entities alone, and redundancy and complementarity are standardised over them.
        """

    @abstractmethod
    def tables(self, hides: Iterable[Hidden]) -> Iterator[EmbeddingTable]:
        """`table(hide=...)` for each, without gradient."""

    @abstractmethod
    def relations(self, ids: Int[Tensor, " B"]) -> Float[Tensor, "B E"]:
        """Vectors of directed relations."""

    @abstractmethod
    def query(
        self,
        heads: Float[Tensor, "B D"],
        relation: Int[Tensor, " B"],
        vectors: Float[Tensor, "B E"] | None = None,
    ) -> Float[Tensor, "B D"]:
        """The vectors that right answers should match, from the heads' vectors.

        Args:
            vectors: of the relations, where they are computed already.
        """

    @abstractmethod
    def modality_vectors(self, name: str) -> tuple[Int[Tensor, " n"], Float[Tensor, "n F"]]:
        """The n entities that have a dense modality, and its scaled vectors."""

    def score(
        self,
        queries: Queries,
        candidates: Tensor | None = None,
        table: EmbeddingTable | None = None,
    ) -> Float[Tensor, "B C"]:
        """Scores of candidates as answers; higher is likelier.

        Args:
            queries: B queries.
            candidates: none: all N entities; (C,): shared; (B, C): one set for each query.
            table: vectors to use; those of `frozen` by default.
        """
        vectors = (table or self.frozen()).vectors
        query = self.query(vectors[queries.head], queries.relation)
        if candidates is None:
            return self.compare_all(query, vectors)
        return self.scorer.compare(query, vectors[candidates])

    def compare_all(
        self, query: Float[Tensor, "B E"], vectors: Float[Tensor, "nodes E"]
    ) -> Float[Tensor, "B N"]:
        """Scores of all entities."""
        return self.scorer.compare(query, vectors[: self.num_entities])

    def known(self) -> Bool[Tensor, " N"]:
        """Which entities have any modality."""
        return self.present.any(1)

    def shown(self, hide: Hidden) -> Bool[Tensor, "N M"]:
        """Presence without what is hidden.

        Raises:
            ValueError: the model has no such modality.
        """
        for name in hide:
            if name not in self.modalities:
                known = ", ".join(self.modalities)
                raise ValueError(f"the model has no modality {name!r}; it has {known}")
        if not isinstance(hide, Mapping):
            shown = [m not in hide for m in self.modalities]
            return self.present & torch.tensor(shown, device=self.present.device)
        present = self.present.clone()
        for name, entities in hide.items():
            present[:, self.modalities.index(name)] &= ~entities.to(present.device)
        return present

    def frozen(self) -> EmbeddingTable:
        """The table without gradient, computed once and kept until `thaw`."""
        if self._frozen is None:
            with torch.no_grad():
                table = self.table()
            self._frozen = EmbeddingTable(
                table.vectors.detach(), table.weights, table.views, table.redundancy
            )
        return self._frozen

    def thaw(self) -> None:
        """Drop the kept table, because parameters have changed."""
        self._frozen = None
