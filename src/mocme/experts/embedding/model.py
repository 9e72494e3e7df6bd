"""The model: entities to vectors, and the one score of a triple."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mocme.core.registry import Configurable
from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import Queries
from mocme.data.modality import Modality
from mocme.experts.embedding.fusion import Complementary, Fused, Fusing, Fusion
from mocme.experts.embedding.modality_dropout import keep_mask
from mocme.experts.embedding.scorers import ComplEx, Scorer, TuckER
from mocme.experts.embedding.views import ModalityViews, WhiteningViews
from mocme.experts.rules.rule_model import RuleModel, RuleSettings

STRUCTURE = "structure"
Hidden = Sequence[str] | Mapping[str, Tensor]


@dataclass(frozen=True)
class EmbeddingTable:
    """Vectors of every node, and how they came about.

    Attributes:
        vectors: (nodes, D), entities first.
        weights: (N, M), each modality's weight in an entity's vector; 0 where nothing is known.
            N counts the entities whose vectors were made (`Model.table`).
        views: modality name to (n, K), the experts' weights for the n entities that have it.
        redundancy: mean redundancy within modalities, for the auxiliary term.
    """

    vectors: Float[Tensor, "nodes D"]
    weights: Float[Tensor, "N M"]
    views: Mapping[str, Tensor]
    redundancy: Float[Tensor, ""]


class ModalityVectors(NamedTuple):
    """What modalities say of n entities, before it is fused: (n, M, D); the rest as in `EmbeddingTable`."""

    stacked: Tensor
    views: Mapping[str, Tensor]
    redundancy: Tensor


class ModelSettings(Configurable):
    """Settings of the model.

    Args:
        width: D, the length of an entity's vector.
        inverse: ``free``: an inverse relation has a vector of its own; ``tied``: it follows.
        dropout: probability that a modality is hidden in a step, by name; `default` for the rest.
        initial: deviation of the tables at the start.
        by_relation: each relation weighs the modalities anew (a gate that is conditioned on the
            relation, as in NativE: Zhang et al., SIGIR 2024): the sum of w_m(r) a_m(e) v_m(e) over
            modalities m, with a_m the weights of `across` and w_m(r) learned, 1 on average.
            Vectors are then as many times as long as there are modalities, and the scorer must be
            one by product.
        patterns: paths over links and pairs of entities whose evidence is added to the score; they
            are fitted once the embedding is trained. None: no patterns.
    """

    def __init__(
        self,
        *,
        width: int = 256,
        scorer: Scorer = ComplEx(),
        inverse: Literal["free", "tied"] = "free",
        experts: ModalityViews = ModalityViews(),
        within: Fusion = Complementary(),
        across: Fusion = Complementary(),
        dropout: Mapping[str, float] = {"default": 0.2},
        initial: float = 0.01,
        by_relation: bool = False,
        patterns: RuleSettings | None = None,
    ) -> None:
        if width < 2:
            raise ValueError("width must be at least 2")
        if any(not 0 <= p < 1 for p in dropout.values()):
            raise ValueError("a dropout probability lies in [0, 1)")
        self.width, self.scorer, self.inverse = width, scorer, inverse
        self.experts, self.within, self.across = experts, within, across
        if by_relation and not scorer.by_product:
            raise ValueError(
                f"by_relation adds up products, which {type(scorer).__name__} does not make; "
                f"choose another scorer"
            )
        self.dropout, self.initial, self.by_relation = dropout, initial, by_relation
        self.patterns = patterns


class Model(nn.Module):
    """Entities to vectors by fusion, triples to scores by a scorer."""

    present: Tensor
    relation_row: Tensor
    relation_flip: Tensor

    def __init__(
        self,
        settings: ModelSettings,
        facts: TrainingFacts,
        dense: Mapping[str, Modality],
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        # A copy: a scorer may hold a part of this model (TuckER's core), and settings are shared.
        self.settings, self.scorer = settings, copy.copy(settings.scorer)
        self.num_entities, self.seed = facts.num_entities, seed
        self.modalities = [STRUCTURE, *dense]
        width = settings.width
        vectors = torch.randn(facts.num_nodes, width, generator=generator)
        self.structure = nn.Parameter(vectors * settings.initial)
        self._make_relations(facts, generator)
        self.views = nn.ModuleDict()
        self.within = nn.ModuleDict()
        for name, modality in dense.items():
            self._add_modality(name, modality, generator)
        if dense:
            self.across = settings.across.make(width, len(self.modalities), generator)
        self.gate: nn.Parameter | None = None
        if settings.by_relation:
            if not dense:
                raise ValueError("by_relation weighs modalities, and the graph has no dense one")
            self.gate = nn.Parameter(torch.zeros(len(self.relation), len(self.modalities)))
        present = [facts.present[: facts.num_entities], *(m.present() for m in dense.values())]
        self.register_buffer("present", torch.stack(present, 1), persistent=False)
        rest = settings.dropout.get("default", 0.0)
        chance = [settings.dropout.get(name, rest) for name in self.modalities]
        self.hide_probability = torch.tensor(chance)
        self._check_dropout(settings.dropout)
        self._frozen: EmbeddingTable | None = None
        self.evidence: RuleModel | None = None

    def _make_relations(self, facts: TrainingFacts, generator: torch.Generator) -> None:
        own = torch.arange(facts.num_relations)
        flip = torch.zeros(facts.num_relations, dtype=torch.bool)
        if self.settings.inverse == "tied":
            own = torch.minimum(own, facts.inverse)
            flip = torch.arange(facts.num_relations) != own
            _, own = torch.unique(own, return_inverse=True)
        self.register_buffer("relation_row", own, persistent=False)
        self.register_buffer("relation_flip", flip, persistent=False)
        length = self.scorer.relation_width(self.settings.width)
        rows = int(own.max()) + 1 if len(own) else 0
        table = torch.randn(rows, length, generator=generator)
        self.relation = nn.Parameter(table * self.settings.initial)
        if flip.any():
            self.scorer.invert(self.relation.detach()[:1])
        if isinstance(self.scorer, TuckER):
            shape = self.scorer.core_shape(self.settings.width)
            core = torch.randn(shape, generator=generator) / self.settings.width**0.5
            self.core = nn.Parameter(core)
            self.scorer.core = self.core

    def _add_modality(self, name: str, modality: Modality, generator: torch.Generator) -> None:
        values = modality.values.float()
        # Unit deviation overall, not by column: a column that hardly varies stays small.
        centre = values.mean(0)
        spread = (values - centre).square().mean().sqrt().clamp_min(1e-6)
        self.register_buffer(f"values_{name}", (values - centre) / spread, persistent=False)
        self.register_buffer(f"centre_{name}", centre, persistent=False)
        self.register_buffer(f"spread_{name}", spread, persistent=False)
        self.register_buffer(f"rows_{name}", modality.rows.clone(), persistent=False)
        experts, width = self.settings.experts, self.settings.width
        self.views[_key(name)] = experts.make(modality.width, width, generator)
        self.within[_key(name)] = self.settings.within.make(width, experts.count, generator)

    def _check_dropout(self, dropout: Mapping[str, float]) -> None:
        for name in dropout:
            if name not in (*self.modalities, "default"):
                known = ", ".join(self.modalities)
                raise ValueError(f"dropout.{name}: the graph has no such modality; it has {known}")
        if len(self.modalities) > 1 and self.hide_probability[0] == 0:
            raise ValueError(
                "dropout.structure must be above 0: otherwise vectors made of features alone are "
                "never trained"
            )

    @property
    def device(self) -> torch.device:
        """Where the tables lie."""
        return self.structure.device

    def dense_parameters(self) -> list[nn.Parameter]:
        """Parameters that every entity shares (maps, gates, core), as against table rows."""
        tables = {id(p) for p in self.table_parameters()}
        return [p for p in self.parameters() if id(p) not in tables]

    def table_parameters(self) -> list[nn.Parameter]:
        """Parameters that are rows of entities and relations."""
        tables = [self.structure, self.relation]
        return tables if self.gate is None else [*tables, self.gate]

    # -- entities to vectors ---------------------------------------------------------------------

    def table(
        self,
        step: int | None = None,
        hide: Hidden = (),
        only: Int[Tensor, " n"] | None = None,
    ) -> EmbeddingTable:
        """Vectors of all nodes.

        Args:
            step: in training, the step whose modality dropout applies; None for none.
            hide: modalities to leave out altogether, or by name the entities, a mask (N,), that
                shall do without it.
            only: in training, ids of entities in ascending order. Where vectors are fused, no
                others are made: theirs are 0, `weights` and `views` have rows for these alone, and
                redundancy and complementarity are standardised over them.
        """
        if only is not None and step is None:
            raise ValueError("a table of some entities is for a training's step")
        present = self.shown(hide)
        if step is not None and len(self.modalities) > 1:
            present = keep_mask(present, self.hide_probability, self.seed, step)
        seen = self.seen(only) if len(self.modalities) > 1 else None
        table = self._table(present, seen, only)
        if step is None:
            return replace(table, vectors=self._fill_unknown(table.vectors, present))
        return table

    @torch.no_grad()
    def tables(self, hides: Iterable[Hidden]) -> Iterator[EmbeddingTable]:
        """`table(hide=...)` of each, one after the other, without gradient.

        What each modality says of an entity is worked out once for all of them.
        """
        seen = self.seen(None) if len(self.modalities) > 1 else None
        for hide in hides:
            present = self.shown(hide)
            table = self._table(present, seen, None)
            yield replace(table, vectors=self._fill_unknown(table.vectors, present))

    def _table(
        self,
        present: Bool[Tensor, "N M"],
        seen: ModalityVectors | None,
        only: Int[Tensor, " n"] | None,
    ) -> EmbeddingTable:
        """Vectors from what modalities say; no `seen`: there is structure alone."""
        if seen is None:
            weights = present.to(self.structure.dtype)
            return EmbeddingTable(self.structure, weights, {}, self.structure.new_zeros(()))
        fused = self._fuse(seen.stacked, present if only is None else present[only])
        made = fused.vector
        if only is not None:
            made = made.new_zeros(self.num_entities, made.shape[1]).index_copy(0, only, made)
        tokens = self.structure[self.num_entities :]
        if self.gate is not None:
            own = tokens.new_zeros(len(tokens), len(self.modalities), tokens.shape[1])
            own[:, 0] = tokens
            tokens = self.beside(own)
        return EmbeddingTable(torch.cat([made, tokens]), fused.weights, seen.views, seen.redundancy)

    def shown(self, hide: Hidden) -> Bool[Tensor, "N M"]:
        """Presence, less what is hidden."""
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

    def seen(self, only: Int[Tensor, " n"] | None) -> ModalityVectors:
        """What every modality says of all entities, or of `only`."""
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

    def _fuse(self, stacked: Float[Tensor, "n M D"], present: Bool[Tensor, "n M"]) -> Fused:
        fused: Fused = self.across(stacked, present)
        if self.gate is None:
            return fused
        return fused._replace(vector=self.beside(fused.weights.unsqueeze(-1) * stacked))

    def beside(self, stacked: Float[Tensor, "n M D"]) -> Float[Tensor, "n MD"]:
        """The vectors of modalities as one, the parts of complex entries in its two halves."""
        parts = 2 if self.scorer.complex_entries else 1
        number, count, width = stacked.shape
        apart = stacked.view(number, count, parts, width // parts)
        return apart.transpose(1, 2).reshape(number, count * width)

    def _modality(
        self, name: str, only: Int[Tensor, " n"] | None = None
    ) -> tuple[Fused, Int[Tensor, " m"]]:
        """A modality's fused views, and their places among all entities or among `only`."""
        views, within = self.parts(name)
        values, rows = self.get_buffer(f"values_{name}"), self.get_buffer(f"rows_{name}")
        if only is not None:
            has = torch.isin(only, rows).nonzero().flatten()
            values, rows = values[torch.searchsorted(rows, only[has])], has
        seen = views(values)
        mask = torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)
        result: Fused = within(seen, mask)
        return result, rows

    def parts(self, name: str) -> tuple[WhiteningViews, Fusing]:
        """The experts of a modality, and what fuses their views."""
        views, within = self.views[_key(name)], self.within[_key(name)]
        assert isinstance(views, WhiteningViews)
        assert isinstance(within, Fusing)
        return views, within

    def _fill_unknown(self, vectors: Tensor, present: Bool[Tensor, "N M"]) -> Tensor:
        """Give entities of which nothing is known the mean vector of the training entities."""
        nothing = (~present.any(1)).nonzero().flatten()
        if not len(nothing):
            return vectors
        trained = self.present[:, 0] & present.any(1)
        with torch.no_grad():
            known = vectors[: self.num_entities][trained]
            mean = known.mean(0) if len(known) else vectors.new_zeros(vectors.shape[1])
        return vectors.index_copy(0, nothing, mean.expand(len(nothing), -1))

    def known(self) -> Bool[Tensor, " N"]:
        """Of which entities anything is known."""
        return self.present.any(1)

    # -- the one score ---------------------------------------------------------------------------

    def relations(self, ids: Int[Tensor, " B"]) -> Float[Tensor, "B E"]:
        """Vectors of directed relations."""
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
        """The vectors that right answers should match, from the heads' vectors.

        Args:
            vectors: those of the relations, where they are at hand.
        """
        if vectors is None:
            vectors = self.relations(relation)
        if self.gate is None:
            return self.scorer.query(heads, vectors)
        count = len(self.modalities)
        weights = self.gate[self.relation_row[relation]].softmax(1) * count
        parts = 2 if self.scorer.complex_entries else 1
        apart = heads.view(len(heads), parts, count, -1)
        head = torch.einsum("bpmd,bm->bpd", apart, weights).flatten(1)
        query = self.scorer.query(head, vectors).view(len(heads), parts, 1, -1)
        return (query * weights[:, None, :, None]).flatten(1)

    def score(
        self,
        queries: Queries,
        candidates: Tensor | None = None,
        table: EmbeddingTable | None = None,
    ) -> Float[Tensor, "B C"]:
        """Scores of candidates as answers; higher is likelier.

        That of the embedding, and the evidence of patterns where the model has any.

        Args:
            candidates: none: all N entities; (C,): shared; (B, C): own to each question.
            table: vectors to use; those of the whole model by default.
        """
        scores = self.embedding_score(queries, candidates, table)
        if self.evidence is None:
            return scores
        if candidates is None:
            return self.evidence.add_(scores, queries)
        everyone = scores.new_zeros(len(queries), self.num_entities)
        added = self.evidence.add_(everyone, queries)
        return scores + (
            added[:, candidates] if candidates.ndim == 1 else added.gather(1, candidates)
        )

    def embedding_score(
        self,
        queries: Queries,
        candidates: Tensor | None = None,
        table: EmbeddingTable | None = None,
    ) -> Float[Tensor, "B C"]:
        """The part of `score` that vectors give; arguments as there."""
        vectors = (table or self.frozen()).vectors
        query = self.query(vectors[queries.head], queries.relation)
        held = vectors[: self.num_entities] if candidates is None else vectors[candidates]
        return self.scorer.compare(query, held)

    def frozen(self) -> EmbeddingTable:
        """The table without gradient, made once and kept until the model trains again."""
        if self._frozen is None:
            with torch.no_grad():
                table = self.table()
            self._frozen = EmbeddingTable(
                table.vectors.detach(), table.weights, table.views, table.redundancy
            )
        return self._frozen

    def thaw(self) -> None:
        """Forget the kept table, because parameters have changed."""
        self._frozen = None


def _key(modality: str) -> str:
    """A name for a modality's modules that is none of a dictionary's own ("keys", "type")."""
    return f"of_{modality}"
