"""A trained run in memory: adding entities, and predictors with additions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

from mocme.calibration.curves import Calibration
from mocme.core.deadline import Check, unlimited
from mocme.explanation.context import RunExplanationContext
from mocme.inductive.add import Adder, Advance, RowFits
from mocme.inductive.extended_run import RunContents
from mocme.inductive.new_entity import NewEntity
from mocme.inductive.store import Addition, Additions
from mocme.prediction.predictor import Predictor
from mocme.storage import RunFolder


@final
@dataclass(frozen=True, eq=False)
class LoadedRun:
    """The part of a run that additions do not change; read once, shared by all predictors.

    Attributes:
        folder: of the run.
        trained: graph, modalities and mixture as they were trained.
        calibration: None where the graph has no valid split.
    """

    folder: RunFolder
    trained: RunContents
    calibration: Calibration | None

    @cached_property
    def _fits(self) -> RowFits:
        return RowFits(self.trained)

    def add(
        self,
        entities: Sequence[NewEntity],
        present: Sequence[Addition],
        advance: Advance | None = None,
        check: Check = unlimited,
    ) -> list[Addition]:
        """Compute additions from entities; nothing is written.

        The first call takes longest: it computes sums over the training queries, which are cached.

        Raises:
            ValueError: something does not fit the run.
        """
        adder = Adder(self.trained, present, fits=self._fits)
        try:
            return adder.add(entities, advance, check)
        finally:
            self._fits.slim()

    def predictor(self, items: Additions = Additions()) -> Predictor:
        """A predictor with these additions.

        Predictors are independent: an earlier one keeps answering as before.
        """
        extended, trained = self.trained.extended(items), self.trained
        context = RunExplanationContext(
            self.folder,
            extended.mixture,
            extended.graph,
            extended.features,
            (trained.mixture, trained.graph),
        )
        return Predictor(
            extended.mixture, extended.graph, self.calibration, context, extended.features
        )
