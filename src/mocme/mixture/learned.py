"""Learned mixtures: a model that ranks the pool of a query by what every expert says of it."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mocme.core.text_formats import parse_json
from mocme.data.graph import Graph, Queries
from mocme.evaluation.ranking import rank_split
from mocme.experts.base import Expert, Packed, Progress
from mocme.mixture import sum as sums
from mocme.mixture.base import Mixture, MixtureSettings
from mocme.mixture.fact_index import FactIndex
from mocme.mixture.held_out import Groups, counted_answers, make_groups, parts_of
from mocme.mixture.pool import feature_names, make_pool
from mocme.mixture.selection import Chosen, Selection, alone_weight
from mocme.mixture.sum import Sum
from mocme.mixture.weight_search import Weight

FORMAT = "mocme learned mixture 1"
# Facts below which a model would fit noise, and below which even the weights of a sum would.
FEW_FACTS = 200
FEWEST_FACTS = 30
# Most of the training facts that are held out where there are few.
MOST_HELD_OUT = 0.2
# Scores of all experts that are held at once while queries are scored.
CELLS = 1 << 24


class PoolModel(ABC):
    """A function of what the experts say of the candidates in a pool."""

    @abstractmethod
    def __call__(
        self, features: Float[np.ndarray, "n F"], relation: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Scores of candidates.

        Args:
            features: in the order of `feature_names`.
            relation: that each candidate answers, a directed one.
        """

    @property
    @abstractmethod
    def least(self) -> float:
        """A lower bound of the scores."""

    @abstractmethod
    def scaled(self, factor: float) -> PoolModel:
        """The model with every score multiplied by a factor above 0."""

    @abstractmethod
    def packed(self) -> dict[str, Tensor]:
        """Tensors for a file."""


@final
class Learned(Mixture):
    """A model of what the experts say of a candidate in the pool of its query.

    A candidate in the pool scores L + f(x), with f the model and L such that this is at least 1.
    Any other candidate scores its log share in the sum of the experts, which is at most 0.

    Args:
        kind: of the settings.
        experts: as in `Mixture`.
        facts: that the experts were fitted on.
        weights: of each expert in the sum, by name.
        model: over the features of `mixture.pool`.
        pool: candidates that each expert brings.
        parts: if the valid split fitted the model, the models that were fitted without each part of
            it, by `held_out.parts_of`.
        seed: of the parts.
    """

    def __init__(
        self,
        kind: str,
        experts: Sequence[Expert],
        facts: FactIndex,
        weights: Mapping[str, Weight],
        model: PoolModel,
        pool: int,
        parts: Sequence[PoolModel] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(experts, facts.num_entities)
        self.kind = kind
        self.weights = {expert.name: weights[expert.name] for expert in experts}
        self.facts, self.model, self.pool = facts, model, pool
        self.parts, self.seed = tuple(parts), seed
        self._base = 1 - model.least

    def unseen(self, graph: Graph, split: str) -> Sequence[tuple[Mixture, Tensor]]:
        facts = graph.directed(split)
        if split != "valid" or not self.parts:
            return [(self, facts)]
        part = parts_of(facts, graph.num_relations, len(self.parts), self.seed)
        of = self.kind, self.experts, self.facts, self.weights
        return [
            (Learned(*of, model, self.pool), facts[part == number])
            for number, model in enumerate(self.parts)
        ]

    def without_parts(self) -> Learned:
        """The mixture that is served, which has seen the facts of valid."""
        return Learned(self.kind, self.experts, self.facts, self.weights, self.model, self.pool)

    def score(self, queries: Queries, candidates: Tensor | None = None) -> Float[Tensor, "B C"]:
        block = max(1, CELLS // (self.num_entities * len(self.experts)))
        starts = range(0, max(1, len(queries)), block)
        scores = torch.cat([self._scores(queries[first : first + block]) for first in starts])
        scores = scores.to(self.device)
        if candidates is None:
            return scores
        return scores[:, candidates] if candidates.ndim == 1 else scores.gather(1, candidates)

    def _scores(self, queries: Queries) -> Float[Tensor, "B N"]:
        pool = make_pool(self.experts, self.weights, self.facts, queries, self.pool)
        scores = pool.outside
        relation = queries.relation.cpu().numpy()[pool.row]
        inside = torch.from_numpy(self._base + self.model(pool.features, relation))
        row, column = torch.from_numpy(pool.row), torch.from_numpy(pool.column)
        scores[row, column] = inside.to(scores.dtype)
        return scores

    def contribution(self, name: str, value: float) -> float:
        """What an expert adds to the log of the odds in the sum: the model does not add up."""
        return sums.contribution(self.expert(name), self.weights[name], value)

    def extended(self, experts: Sequence[Expert], graph: Graph) -> Learned:
        facts, parts = self.facts.extended(graph), (self.parts, self.seed)
        return Learned(self.kind, experts, facts, self.weights, self.model, self.pool, *parts)

    def packed(self) -> Packed:
        metadata = {
            "format": FORMAT,
            "kind": self.kind,
            "experts": json.dumps(list(self.weights)),
            "features": json.dumps(feature_names(self.experts)),
            "pool": str(self.pool),
            "parts": str(len(self.parts)),
            "seed": str(self.seed),
        }
        tensors = {"weights": sums.packed_weights(self.weights), **self.model.packed()}
        for number, model in enumerate(self.parts):
            tensors |= {f"part {number} {name}": part for name, part in model.packed().items()}
        return tensors, metadata

    @staticmethod
    def unpacked(
        packed: Packed, experts: Sequence[Expert], graph: Graph, settings: LearnedSettings
    ) -> Learned:
        """The mixture that `packed` describes.

        Raises:
            ValueError: the tensors do not fit the experts or the settings.
        """
        tensors, metadata = packed
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"a mixture of format {metadata.get('format')!r} cannot be read; expected {FORMAT}"
            )
        kind = settings.kind_name()
        if metadata.get("kind") != kind:
            raise ValueError(f"is a {metadata.get('kind')!r}; the settings are of a {kind}")
        weights = sums.unpacked_weights(packed, experts)
        names = feature_names(experts)
        if parse_json(metadata.get("features", "null")) != names:
            raise ValueError("the model was fitted on other features than these experts have")
        pool = _number(metadata, "pool", "the size of the pool", 1, 10_000)
        if pool != settings.pool:
            raise ValueError(f"has a pool of {pool}; the settings have {settings.pool}")
        count = _number(metadata, "parts", "the number of parts", 0, 100)
        seed = _number(metadata, "seed", "the seed of the parts", 0, 2**31 - 1)
        own = {name: tensor for name, tensor in tensors.items() if name != "weights"}
        models = []
        for number in range(count):
            prefix = f"part {number} "
            held = {name: own.pop(name) for name in list(own) if name.startswith(prefix)}
            short = {name.removeprefix(prefix): tensor for name, tensor in held.items()}
            models.append(settings.unpacked_model(short, experts, graph))
        model = settings.unpacked_model(own, experts, graph)
        facts = FactIndex.of(graph)
        return Learned(kind, experts, facts, weights, model, pool, models, seed)


def _number(metadata: Mapping[str, str], key: str, what: str, low: int, high: int) -> int:
    text = metadata.get(key, "")
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ValueError(f"{what} is {text!r}; it must be {low} to {high}")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class LearnedSettings(MixtureSettings):
    """A learned mixture that is never worse than its best expert on the facts that fitted it.

    It is fitted on facts that the experts have not seen: on the valid split, but for facts that are
    training facts too, or on training facts that are held out. For the latter, the experts are
    fitted without them first, and those that joined the mixture are fitted again on all training
    facts.

    The experts join the mixture one at a time, the best first, unless the cross-fitted MRR falls.
    If neither the model nor the sum are above the best expert, this expert serves alone. With fewer
    than 200 facts there is no model: experts join a sum while its MRR rises. With fewer than 30,
    the sum of all experts has default weights.

    Args:
        fitted_on: ``valid``, ``train`` (held-out training facts), or ``auto``: train where valid
            has fewer than 200 facts and 200 can be held out, or where valid has fewer than 30;
            valid otherwise, and where an expert cannot be fitted again.
        held_out: share of the training facts that are held out. ``auto`` takes more of a small
            graph without valid facts, 20 % at most.
        pool: candidates that each expert brings to the pool of a query.
        negatives: candidates of the pool, drawn by the seed, that an answer is compared with while
            the model is fitted.
        parts: of the facts, for cross-fitting.
        seed: of the parts and the model. The held-out facts are drawn by the seed of the run.
    """

    fitted_on: Literal["auto", "valid", "train"] = "auto"
    held_out: float = 0.05
    pool: int = 50
    negatives: int = 64
    parts: int = 5
    seed: int = 0

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "held_out": (0.001, 0.5),
        "pool": (1, 10_000),
        # With its answer, a group has the 10,000 rows that LightGBM takes.
        "negatives": (1, 9_999),
        "parts": (2, 100),
        "seed": (0, 2**31 - 1),
    }

    def __post_init__(self) -> None:
        for name, (low, high) in self.bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be {low} to {high}, not {getattr(self, name)}")

    @abstractmethod
    def fitted_model(
        self, groups: Groups, chosen: Bool[np.ndarray, " G"], experts: Sequence[Expert], trial: bool
    ) -> PoolModel:
        """A model that ranks the answers of the chosen groups high.

        Args:
            experts: whose features the groups have.
            trial: for a comparison while experts join.
        """

    @abstractmethod
    def unpacked_model(
        self, tensors: Mapping[str, Tensor], experts: Sequence[Expert], graph: Graph
    ) -> PoolModel:
        """The model that `PoolModel.packed` describes.

        Raises:
            ValueError: the tensors do not fit.
        """

    @property
    def selects(self) -> bool:
        return True

    @property
    def refits(self) -> bool:
        return self.fitted_on == "train"

    def share(self, graph: Graph, refittable: bool) -> float:
        if self.fitted_on != "auto":
            return self.held_out if self.fitted_on == "train" else 0.0
        valid, train = len(graph.facts("valid")), len(graph.facts("train"))
        if not refittable or valid >= FEW_FACTS or not train:
            return 0.0
        if round(self.held_out * train) >= FEW_FACTS:
            return self.held_out
        if valid >= FEWEST_FACTS:
            return 0.0
        share = max(self.held_out, min(MOST_HELD_OUT, FEW_FACTS / train))
        return share if round(share * train) >= FEWEST_FACTS else 0.0

    def fit(
        self,
        experts: Sequence[Expert],
        graph: Graph,
        memory: float,
        progress: Progress | None = None,
        *,
        held_out: bool = False,
    ) -> tuple[Mixture, dict[str, Any]]:
        started = time.perf_counter()
        facts = len(graph.facts("valid"))
        record: dict[str, Any] = {"fitted_on": "train" if held_out else "valid", "facts": facts}
        mixture: Mixture
        if facts < FEWEST_FACTS:
            weights = {e.name: sums.default_weight(e) for e in experts}
            mixture = Sum(experts, graph.num_entities, weights)
            of = "held-out facts" if held_out else "facts of the valid split"
            reason = f"{facts} {of} are fewer than {FEWEST_FACTS}: the sum has default weights"
            record |= {"kind": "Sum", "reason": reason}
            _Steps(progress, 1).finished()
        else:
            learns = facts >= FEW_FACTS
            steps = len(experts) + 1 + (learns and 2 + self.parts * (len(experts) + 1))
            steps_done = _Steps(progress, steps)
            fit = _Fit(self, experts, graph, memory, steps_done, held_out, learns)
            mixture, chosen = fit.mixture()
            record |= chosen
        return mixture, {
            **record,
            "weights": {name: weight.as_dict() for name, weight in mixture.weights.items()},
            "seconds": round(time.perf_counter() - started, 3),
        }

    def unpacked(self, packed: Packed, experts: Sequence[Expert], graph: Graph) -> Mixture:
        if packed[1].get("format") == sums.FORMAT:
            return Sum.unpacked(packed, experts, graph)
        return Learned.unpacked(packed, experts, graph, self)


@final
@dataclass(frozen=True, eq=False)
class _Fit:
    """The fit of a mixture.

    Attributes:
        graph: its valid split are the facts that fit the mixture.
        held_out: whether these are training facts that the experts will be fitted on.
        learns: whether they are enough for a model.
    """

    settings: LearnedSettings
    experts: Sequence[Expert]
    graph: Graph
    memory: float
    steps: _Steps
    held_out: bool
    learns: bool

    def mixture(self) -> tuple[Learned | Sum, dict[str, Any]]:
        """The better of model and sum, or the best expert; and how it was chosen."""
        chosen = self._chosen()
        mixture, reason = self._best(chosen)
        kind = "Sum" if isinstance(mixture, Sum) else self.settings.kind_name()
        self.steps.finished()
        return mixture, {
            "alone": dict(chosen.alone),
            "steps": list(chosen.steps),
            "left_out": chosen.left_out,
            "learned": chosen.learned,
            "sum": chosen.sum,
            "kind": kind,
            "reason": reason,
        }

    def _chosen(self) -> Chosen:
        graph, answers = self.graph, self.graph.answers("valid")
        counted = counted_answers(answers, graph.num_relations, self.settings.seed)
        alone = {}
        for expert in self.experts:
            ranks = rank_split(_alone(expert, graph.num_entities), graph, "valid", self.memory)
            # Of the answers that have a group, as for the mixtures.
            alone[expert.name] = float((1 / ranks.realistic)[counted].mean())
            self.steps.done()
        weights = {expert.name: sums.default_weight(expert) for expert in self.experts}
        groups = self._groups(self.experts, weights)
        selection = Selection(self.experts, groups, graph.num_entities)
        if not self.learns:
            return selection.choose_sum(alone)
        return selection.choose(alone, self._cross_fitted)

    def _best(self, chosen: Chosen) -> tuple[Learned | Sum, str]:
        experts = [expert for expert in self.experts if expert.name in chosen.names]
        best = max(experts, key=lambda expert: chosen.alone[expert.name])
        learned = -1.0 if chosen.learned is None else chosen.learned
        if max(learned, chosen.sum) <= chosen.alone[best.name]:
            return _alone(best, self.graph.num_entities), f"no mixture is above {best.name} alone"
        kind = self.settings.kind_name()
        if chosen.sum >= learned:
            facts = len(self.graph.facts("valid"))
            reason = (
                f"the sum is above the {kind}"
                if self.learns
                else f"{facts} facts are fewer than the {FEW_FACTS} that a {kind} needs"
            )
            return Sum(experts, self.graph.num_entities, chosen.weights), reason
        groups = self._groups(experts, chosen.weights)
        model = self.settings.fitted_model(groups, np.ones(len(groups), bool), experts, False)
        self.steps.done()
        parts, scores = [], np.zeros(len(groups.cell))
        for part, fitted in enumerate(self._parts(groups, experts, trial=False)):
            inside = np.repeat(groups.part == part, np.diff(groups.start))
            scores[inside] = _scores(groups, fitted, part)[groups.cell[inside]]
            parts.append(fitted)
        # The shares of a softmax of the scores are likely then, which calibration starts from.
        factor = groups.likeliest_factor(scores)
        # Where valid is ranked or calibrated afterwards, models do it that have not seen the fact.
        kept = [] if self.held_out else [fitted.scaled(factor) for fitted in parts]
        own, of = FactIndex.of(self.graph), (self.settings.pool, kept, self.settings.seed)
        mixture = Learned(kind, experts, own, chosen.weights, model.scaled(factor), *of)
        return mixture, f"the {kind} is above the sum and every expert"

    def _groups(self, experts: Sequence[Expert], weights: Mapping[str, Weight]) -> Groups:
        made = make_groups(
            experts,
            weights,
            self.graph,
            self.settings.pool,
            self.settings.parts,
            self.settings.seed,
            self.memory,
            lambda *_: self.steps.heard(),
        )
        self.steps.done()
        return made

    def _cross_fitted(self, groups: Groups, experts: Sequence[Expert]) -> Float[np.ndarray, " G"]:
        """Reciprocal rank of each group, by a model that was fitted without its part."""
        ranks = np.zeros(len(groups))
        for part, fitted in enumerate(self._parts(groups, experts, trial=True)):
            inside = groups.part == part
            ranks[inside] = groups.reciprocal_ranks(_scores(groups, fitted, part))[inside]
        return ranks

    def _parts(self, groups: Groups, experts: Sequence[Expert], trial: bool) -> Iterator[PoolModel]:
        """Models that are fitted without each part."""
        for part in range(self.settings.parts):
            yield self.settings.fitted_model(groups, groups.part != part, experts, trial)
            self.steps.done()


def _scores(groups: Groups, model: PoolModel, part: int) -> Float[np.ndarray, " n"]:
    """Scores of the rows that a part uses; 0 for others."""
    rows, scores = groups.rows(groups.part == part), np.zeros(len(groups.features))
    scores[rows] = model(groups.features[rows], groups.relation[rows])
    return scores


def _alone(expert: Expert, num_entities: int) -> Sum:
    return Sum([expert], num_entities, {expert.name: alone_weight(expert)})


@dataclass
class _Steps:
    """Counts the steps of a fit."""

    progress: Progress | None
    total: int
    count: int = 0

    def done(self) -> None:
        """One more step is done."""
        self.count += 1
        self.heard()

    def heard(self) -> None:
        """Report the steps so far: where a training is stopped, this raises."""
        if self.progress is not None:
            self.progress(self.count, self.total)

    def finished(self) -> None:
        """All steps are done, also those that were not needed."""
        self.count = self.total
        self.heard()
