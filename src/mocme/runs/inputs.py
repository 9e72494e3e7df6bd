"""A trained run in memory: adding entities, and predictors with additions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

from mocme.calibration.curves import Calibration
from mocme.core.deadline import Check, unlimited
from mocme.explanation.context import RunExplanationContext
from mocme.inductive import store
from mocme.inductive.add import Adder, Advance, RowFits
from mocme.inductive.extended_run import RunContents, check_pairs
from mocme.inductive.new_entity import NewEntity
from mocme.inductive.store import Addition, Additions
from mocme.prediction.predictor import Predictor
from mocme.storage import RunFolder
from mocme.storage.errors import refuse_invalid


def extended_contents(folder: RunFolder, trained: RunContents, items: Additions) -> RunContents:
    """The contents of a run with additions.

    Raises:
        RunError: the additions do not fit the run, which names their file.
    """
    if not items:
        return trained
    with refuse_invalid(folder.path / store.FILE, "restore the one of this run from a copy"):
        check_pairs(trained, items)
    return trained.extended(trained.usable(items, str(folder.path)))


@final
@dataclass(frozen=True, eq=False)
class LoadedRun:
    """The part of a run that additions do not change; read once, shared by all predictors.

    Attributes:
        folder: of the run.
        trained: graph, modalities and mixture as they were trained.
        calibration: None where the graph has no valid split.
        model: digest of the trained model (`RunFolder.model`).
    """

    folder: RunFolder
    trained: RunContents
    calibration: Calibration | None
    model: str | None

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

    def additions(self) -> Additions:
        """Read the present additions of the run.

        Raises:
            RunReplaced: the folder holds another model now.
            RunError: the additions are damaged, or were fitted to another model.
        """
        self.folder.require_model(self.model)
        return store.read(self.folder, self.model)

    def predictor(self, items: Additions = Additions()) -> Predictor:
        """A predictor with these additions, as far as they can be used.

        Predictors are independent: an earlier one keeps answering as before.
        """
        extended, trained = extended_contents(self.folder, self.trained, items), self.trained
        context = RunExplanationContext(
            self.folder,
            extended.mixture,
            extended.graph,
            extended.features,
            (trained.mixture, trained.graph),
            self.model,
        )
        return Predictor(
            extended.mixture,
            extended.graph,
            self.calibration,
            context,
            extended.features,
            str(self.folder.path),
        )
