"""What explanations need of a run besides its model and graph; what is measured is kept in it."""

from __future__ import annotations

import contextlib
from typing import final

from mocme.data.features.tokens import TrainingFacts
from mocme.experts.embedding.objective import Objective
from mocme.explanation.faithfulness import Faithfulness, measure
from mocme.explanation.influence import InfluenceFinder
from mocme.explanation.schema import Support
from mocme.inductive.extended_run import RunContents
from mocme.storage import RunFolder

FAITHFULNESS = "faithfulness.json"


@final
class RunExplanationContext:
    """Grounds of a finished run; nothing is done before it is asked for.

    Args:
        asked: what questions are asked of, additions included.
        trained: the same without additions: what is measured of a run is measured of that.
    """

    def __init__(
        self, folder: RunFolder, objective: Objective, asked: RunContents, trained: RunContents
    ) -> None:
        self.folder, self.objective, self.trained = folder, objective, trained
        self.model, self.graph, self.features = asked.model, asked.graph, asked.features
        self._supporting: InfluenceFinder | None = None

    def faithfulness(self) -> Faithfulness:
        """Whether weights tell what matters; measured once, and kept in the run."""
        if self.folder.has(FAITHFULNESS):
            return Faithfulness.unpacked(self.folder.read_json(FAITHFULNESS))
        found = measure(self.trained.model, self.trained.graph)
        # A run that may only be read can be asked all the same.
        with contextlib.suppress(PermissionError):
            self.folder.write_json(FAITHFULNESS, found.packed())
        return found

    def supports(
        self, head: int, relation: int, tail: int, most: int
    ) -> tuple[list[Support], list[str]]:
        """The training facts that support a fact most, best first, and notes."""
        if self._supporting is None:
            graph, tokens = self.graph.training_view(), self.features.tokens
            facts = TrainingFacts.of(graph, tokens, self.objective.candidates)
            self._supporting = InfluenceFinder(
                self.objective, self.model, facts, graph, self.features
            )
        found, notes = self._supporting(head, relation, tail, most)
        return found, [*notes, *self._content()]

    def _content(self) -> list[str]:
        """Content that acts through training, and so cannot be withheld when asked."""
        notes = []
        if self.features.tokens:
            notes.append(
                f"{', '.join(self.features.tokens)}: words act through training and cannot be "
                f"withheld when asked; those that support the fact stand among the training facts"
            )
        if self.features.pairs:
            notes.append(
                f"{', '.join(self.features.pairs)}: pairs of entities act through patterns and "
                f"cannot be withheld when asked; patterns name them"
            )
        return notes
