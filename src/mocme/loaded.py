"""A trained run in memory, from which completers are made, whatever was added to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from mocme.additions.kept import Additions
from mocme.additions.world import World
from mocme.grounds import RunGrounds
from mocme.inference.calibration import Calibration
from mocme.inference.completer import Completer
from mocme.runs import RunFolder
from mocme.training.objectives import Objective


@final
@dataclass(frozen=True, eq=False)
class Loaded:
    """What additions do not change: it is read once, and completers share it.

    Attributes:
        trained: graph, modalities and model as they were trained.
        calibration: None where the graph has no valid split.
        objective: of the training.
    """

    folder: RunFolder
    trained: World
    calibration: Calibration | None
    objective: Objective

    def completer(self, items: Additions = Additions()) -> Completer:
        """Ask the run together with these additions.

        Completers do not know of each other: an earlier one answers on as it did.
        """
        asked = self.trained.extended(items)
        grounds = RunGrounds(self.folder, self.objective, asked, self.trained)
        return Completer(asked.model, asked.graph, self.calibration, grounds, asked.features)
