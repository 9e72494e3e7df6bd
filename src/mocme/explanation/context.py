"""What explanations need of a run; what is measured is kept in the run's folder."""

from __future__ import annotations

import contextlib
from typing import final

from mocme.data.graph import Graph
from mocme.data.modality import Features
from mocme.explanation.faithfulness import Faithfulness, measure
from mocme.explanation.influence import InfluenceFinder
from mocme.explanation.schema import Support
from mocme.mixture.base import Mixture
from mocme.storage import RunFolder

FAITHFULNESS = "faithfulness.json"


@final
class RunExplanationContext:
    """The context of a finished run; nothing is computed before it is needed.

    Args:
        folder: of the run.
        mixture: that answers queries, with added entities.
        graph: of the mixture.
        features: of the graph's entities.
        trained: mixture and graph without added entities; measurements are made on these.
    """

    def __init__(
        self,
        folder: RunFolder,
        mixture: Mixture,
        graph: Graph,
        features: Features,
        trained: tuple[Mixture, Graph],
    ) -> None:
        self.folder, self.trained = folder, trained
        self.mixture, self.graph, self.features = mixture, graph, features
        self._influence: InfluenceFinder | None = None

    def faithfulness(self) -> Faithfulness:
        """Whether modality weights predict score drops; measured once and kept in the run."""
        if self.folder.has(FAITHFULNESS):
            return Faithfulness.unpacked(self.folder.read_json(FAITHFULNESS))
        measured = measure(*self.trained)
        # A run that may only be read can be explained all the same.
        with contextlib.suppress(PermissionError):
            self.folder.write_json(FAITHFULNESS, measured.packed())
        return measured

    def supports(
        self, head: int, relation: int, tail: int, most: int
    ) -> tuple[list[Support], list[str]]:
        """The training facts that support a fact most, best first, and notes."""
        if self._influence is None:
            view = self.graph.training_view()
            self._influence = InfluenceFinder(self.mixture, view, self.features)
        supports, notes = self._influence(head, relation, tail, most)
        return supports, [*notes, *self._content_notes()]

    def _content_notes(self) -> list[str]:
        """Content that acts through training, and so cannot be withheld from a trained model."""
        notes = []
        if self.features.tokens:
            notes.append(
                f"{', '.join(self.features.tokens)}: words act through training and cannot be "
                f"withheld afterwards; those that support the fact are among the training facts"
            )
        if self.features.pairs:
            notes.append(
                f"{', '.join(self.features.pairs)}: pairs of entities act through rules and "
                f"cannot be withheld afterwards; rules name them"
            )
        return notes
