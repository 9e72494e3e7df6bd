"""Optuna's part of a search: which settings to try next, and when to prune a training.

A proposal is a function of the seed, its number and the trials before it, so a search that was
killed and resumed anywhere proposes what an uninterrupted one does. Trials are stored in
`trials.jsonl`; Optuna has them in memory only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mocme.core.extras import extra
from mocme.tuning.plan import Plan, Pruning, Range, canonical
from mocme.tuning.trials import Trial

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

ENOUGH = 10  # complete trials; importance is a guess below


class Proposal:
    """Settings to try, and the validations of their training so far."""

    def __init__(self, optuna_trial: optuna.Trial, settings: Mapping[str, Any]) -> None:
        self.optuna_trial, self.settings = optuna_trial, settings
        self._reported: set[int] = set()

    def report(self, epoch: int, mrr: float) -> bool:
        """Report a validation; False if that epoch was reported before."""
        if epoch in self._reported:
            return False
        self._reported.add(epoch)
        self.optuna_trial.report(mrr, epoch)
        return True

    def should_prune(self) -> bool:
        """Whether it is below the median of the other trials at this epoch."""
        return self.optuna_trial.should_prune()


class Study:
    """Proposes settings by the tree-structured Parzen estimator, from all trials so far.

    Raises:
        ValueError: Optuna is not installed, with the remedy.
    """

    def __init__(self, plan: Plan, trials: Sequence[Trial]) -> None:
        self.optuna = _optuna()
        self.plan = plan
        self.distributions = {
            path: _distribution(self.optuna, span) for path, span in plan.ranges.items()
        }
        self.study = self.optuna.create_study(
            direction="maximize", pruner=_pruner(self.optuna, plan.pruning)
        )
        for trial in trials:
            self.study.add_trial(self._frozen(trial))

    def propose(self) -> Proposal:
        """The settings to try next."""
        number = len(self.study.trials)
        # A sampler of its own for each proposal: resuming needs no state of a generator.
        seed = np.random.SeedSequence([self.plan.seed, number]).generate_state(1)[0]
        self.study.sampler = self.optuna.samplers.TPESampler(seed=int(seed))
        optuna_trial = self.study.ask(self.distributions)
        settings = {}
        for path, span in self.plan.ranges.items():
            value = optuna_trial.params[path]
            settings[path] = value if span.choices is None else json.loads(value)
        return Proposal(optuna_trial, settings)

    def conclude(self, proposal: Proposal, trial: Trial) -> None:
        """Hand the outcome of a proposal to Optuna."""
        for epoch, mrr in trial.curve:
            proposal.report(epoch, mrr)
        self.study.tell(proposal.optuna_trial, trial.mrr, state=self._state(trial))

    def importance(self) -> dict[str, float]:
        """Share of each setting in what makes a trial one of the best; empty below ten trials.

        PED-ANOVA, Watanabe, Bansal and Hutter, IJCAI 2023 (https://arxiv.org/abs/2304.10255): the
        settings of the best tenth of all complete trials are compared with those of all.
        """
        complete = [t for t in self.study.trials if t.value is not None]
        if len(complete) < ENOUGH or len({t.value for t in complete}) < 2:
            return {}
        shares: dict[str, float] = self.optuna.importance.get_param_importances(self.study)
        return shares

    def _frozen(self, trial: Trial) -> optuna.trial.FrozenTrial:
        params = {
            path: trial.settings[path] if span.choices is None else canonical(trial.settings[path])
            for path, span in self.plan.ranges.items()
        }
        frozen: optuna.trial.FrozenTrial = self.optuna.trial.create_trial(
            state=self._state(trial),
            value=trial.mrr,
            params=params,
            distributions=self.distributions,
            intermediate_values=dict(trial.curve),
        )
        return frozen

    def _state(self, trial: Trial) -> optuna.trial.TrialState:
        names = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
        state: optuna.trial.TrialState = self.optuna.trial.TrialState[names[trial.state]]
        return state


def _optuna() -> Any:
    with extra("Optuna", "tune", "a search needs"):
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: Any, span: Range) -> BaseDistribution:
    distributions = optuna.distributions
    if span.choices is not None:
        # As strings, for a choice may be a table or a list.
        choices = [canonical(value) for value in span.choices]
        distribution: BaseDistribution = distributions.CategoricalDistribution(choices)
    elif span.is_integer:
        distribution = distributions.IntDistribution(
            span.low, span.high, log=span.log, step=span.step or 1
        )
    else:
        distribution = distributions.FloatDistribution(
            span.low, span.high, log=span.log, step=span.step
        )
    return distribution


def _pruner(optuna: Any, pruning: Pruning | None) -> Any:
    if pruning is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(
        n_startup_trials=pruning.after, n_warmup_steps=pruning.warmup
    )
