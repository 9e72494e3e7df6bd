"""How a learned mixture is fitted: on which facts, of which experts, and whether it serves."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from mocme.data.graph import Graph
from mocme.evaluation.ranking import rank_split
from mocme.experts.base import Expert, Packed, Progress
from mocme.mixture import sum as sums
from mocme.mixture.base import Mixture, MixtureSettings
from mocme.mixture.fact_index import FactIndex
from mocme.mixture.held_out import Groups, counted_answers, make_groups
from mocme.mixture.learned import Learned, PoolModel
from mocme.mixture.selection import Chosen, Selection, alone_weight
from mocme.mixture.sum import Sum
from mocme.mixture.weight_search import Weight

# Facts below which a model would fit noise, and below which even the weights of a sum would.
FEW_FACTS = 200
FEWEST_FACTS = 30
# Most of the training facts that are held out where there are few.
MOST_HELD_OUT = 0.2


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
        return Learned.unpacked(
            packed,
            experts,
            graph,
            self.kind_name(),
            self.pool,
            lambda tensors: self.unpacked_model(tensors, experts, graph),
        )


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
