"""Which settings to try next, and when to give up a training: Optuna, and nothing else of it.

A proposal is a function of the seed, its number and the trials before it, so a search that was
killed and begun again anywhere proposes what an unbroken one does. The trials themselves are ours
(`trials.jsonl`); Optuna is told of them in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mocme.tuning.plan import Plan, Pruning, Range, canonical
from mocme.tuning.trials import Trial

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

ENOUGH = 10  # complete trials, below which importance is a guess


class Proposal:
    """Settings to try, and what was seen while they were trained."""

    def __init__(self, asked: optuna.Trial, settings: Mapping[str, Any]) -> None:
        self.asked, self.settings = asked, settings
        self._reported: set[int] = set()

    def report(self, epoch: int, mrr: float) -> bool:
        """Tell of a validation; False if it was told of before."""
        if epoch in self._reported:
            return False
        self._reported.add(epoch)
        self.asked.report(mrr, epoch)
        return True

    def hopeless(self) -> bool:
        """Is it worse than the median of the others at this pass?"""
        return self.asked.should_prune()


class Study:
    """Proposes settings by the tree-structured Parzen estimator, from all trials so far.

    Raises:
        ValueError: Optuna is not installed, with the remedy.
    """

    def __init__(self, plan: Plan, trials: Sequence[Trial]) -> None:
        self.optuna = _optuna()
        self.plan = plan
        self.distributions = {
            path: _distribution(self.optuna, found) for path, found in plan.ranges.items()
        }
        self.study = self.optuna.create_study(
            direction="maximize", pruner=_pruner(self.optuna, plan.pruning)
        )
        for trial in trials:
            self.study.add_trial(self._frozen(trial))

    def propose(self) -> Proposal:
        """What to try next."""
        number = len(self.study.trials)
        seed = np.random.SeedSequence([self.plan.seed, number]).generate_state(1)[0]
        self.study.sampler = self.optuna.samplers.TPESampler(seed=int(seed))
        asked = self.study.ask(self.distributions)
        settings = {}
        for path, found in self.plan.ranges.items():
            value = asked.params[path]
            settings[path] = value if found.choices is None else json.loads(value)
        return Proposal(asked, settings)

    def conclude(self, proposal: Proposal, trial: Trial) -> None:
        """Tell what became of a proposal."""
        for epoch, mrr in trial.curve:
            proposal.report(epoch, mrr)
        self.study.tell(proposal.asked, trial.mrr, state=self._state(trial))

    def importance(self) -> dict[str, float]:
        """Share of each setting in what makes a trial one of the best; empty below ten trials.

        PED-ANOVA, Watanabe, Bansal and Hutter, IJCAI 2023 (https://arxiv.org/abs/2304.10255): by
        settings of the best tenth of all complete trials against those of all.
        """
        complete = [t for t in self.study.trials if t.value is not None]
        if len(complete) < ENOUGH or len({t.value for t in complete}) < 2:
            return {}
        found: dict[str, float] = self.optuna.importance.get_param_importances(self.study)
        return found

    def _frozen(self, trial: Trial) -> optuna.trial.FrozenTrial:
        params = {
            path: trial.settings[path] if found.choices is None else canonical(trial.settings[path])
            for path, found in self.plan.ranges.items()
        }
        made: optuna.trial.FrozenTrial = self.optuna.trial.create_trial(
            state=self._state(trial),
            value=trial.mrr,
            params=params,
            distributions=self.distributions,
            intermediate_values=dict(trial.curve),
        )
        return made

    def _state(self, trial: Trial) -> optuna.trial.TrialState:
        names = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
        found: optuna.trial.TrialState = self.optuna.trial.TrialState[names[trial.state]]
        return found


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ValueError(
            "a search needs Optuna, which is not installed; pip install 'mocme[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: Any, found: Range) -> BaseDistribution:
    known = optuna.distributions
    if found.choices is not None:
        # As text, for a choice may be a table or a list.
        made: BaseDistribution = known.CategoricalDistribution(
            [canonical(value) for value in found.choices]
        )
    elif found.whole:
        made = known.IntDistribution(found.low, found.high, log=found.log, step=found.step or 1)
    else:
        made = known.FloatDistribution(found.low, found.high, log=found.log, step=found.step)
    return made


def _pruner(optuna: Any, pruning: Pruning | None) -> Any:
    if pruning is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(
        n_startup_trials=pruning.after, n_warmup_steps=pruning.warmup
    )
