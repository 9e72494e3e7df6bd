"""A trained run in memory, whatever is added to it: adding, and predictors with additions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

from mocme.calibration.curves import Calibration
from mocme.experts.embedding.objective import Objective
from mocme.explanation.context import RunExplanationContext
from mocme.inductive.add import Adder, Advance, frozen_of
from mocme.inductive.extended_run import RunContents
from mocme.inductive.fit_embedding import FrozenQuestions
from mocme.inductive.new_entity import NewEntity
from mocme.inductive.store import Addition, Additions
from mocme.prediction.predictor import Predictor
from mocme.storage import RunFolder


@final
@dataclass(frozen=True, eq=False)
class LoadedRun:
    """What additions do not change: it is read once, and all predictors share it.

    Attributes:
        trained: graph, modalities and model as they were trained.
        calibration: None where the graph has no valid split.
        objective: of the training.
    """

    folder: RunFolder
    trained: RunContents
    calibration: Calibration | None
    objective: Objective

    @cached_property
    def _frozen(self) -> FrozenQuestions:
        return frozen_of(self.trained, self.objective)

    def add(
        self,
        entities: Sequence[NewEntity],
        present: Sequence[Addition],
        advance: Advance | None = None,
    ) -> list[Addition]:
        """The additions that entities become, next to those that are there; nothing is written.

        The first one takes longest: how the questions of the training stand is kept for the next.

        Raises:
            ValueError: something does not fit the run.
        """
        adder = Adder(self.trained, present, self.objective, ready=lambda: self._frozen)
        try:
            return adder.add(entities, advance)
        finally:
            if "_frozen" in vars(self):  # a row was fitted
                self._frozen.slim()

    def predictor(self, items: Additions = Additions()) -> Predictor:
        """Ask the run together with these additions.

        Completers do not know of each other: an earlier one answers on as it did.
        """
        asked = self.trained.extended(items)
        grounds = RunExplanationContext(self.folder, self.objective, asked, self.trained)
        return Predictor(asked.model, asked.graph, self.calibration, grounds, asked.features)
