"""The parts of a run that explanations need; measurements are cached in the run's folder."""

from __future__ import annotations

from typing import final

from mocme.core.deadline import Check, unlimited
from mocme.data.graph import Graph
from mocme.data.modality import Features
from mocme.experts.base import Expert
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.experts.rules.expert import RuleExpert
from mocme.explanation.faithfulness import Faithfulness, measure
from mocme.explanation.influence import InfluenceFinder
from mocme.explanation.schema import Support
from mocme.mixture.base import Mixture
from mocme.storage import RunFolder, kept_if_possible
from mocme.storage.errors import MEASURED_AGAIN, refuse_invalid

FAITHFULNESS = "faithfulness.json"


@final
class RunExplanationContext:
    """The explanation context of a finished run; everything is computed on first use.

    Args:
        folder: the run's folder.
        mixture: the mixture that answers queries, including added entities.
        graph: the graph of the mixture.
        features: the features of the graph's entities.
        trained: mixture and graph without added entities, on which faithfulness is measured.
        model: digest of the trained model (`RunFolder.model`).
    """

    def __init__(
        self,
        folder: RunFolder,
        mixture: Mixture,
        graph: Graph,
        features: Features,
        trained: tuple[Mixture, Graph],
        model: str | None,
    ) -> None:
        self.folder, self.trained, self.model = folder, trained, model
        self.mixture, self.graph, self.features = mixture, graph, features
        self._influence: InfluenceFinder | None = None

    def faithfulness(self) -> Faithfulness:
        """Return whether modality weights predict score drops, measured once per model.

        Warns:
            NotKept: the run cannot be written; it is measured again each time.
        """
        if self.folder.has(FAITHFULNESS):
            stored = self.folder.read_json(FAITHFULNESS, finite=True)
            with refuse_invalid(self.folder.path / FAITHFULNESS, MEASURED_AGAIN):
                if not isinstance(stored, dict):
                    raise ValueError("is not a JSON object")
                model = stored.pop("model", None)
                faithfulness = Faithfulness.unpacked(stored)
            if model == self.model:
                return faithfulness
        measured = measure(*self.trained)
        with kept_if_possible(
            f"{self.folder.path / FAITHFULNESS}: the measured faithfulness is used but not kept",
            "to keep it, explain a fact with a copy of the run that can be written",
        ):
            self.folder.require_model(self.model)
            self.folder.write_json(FAITHFULNESS, {**measured.packed(), "model": self.model})
        return measured

    def supports(
        self, head: int, relation: int, tail: int, most: int, check: Check = unlimited
    ) -> tuple[list[Support], list[str]]:
        """Return the training facts that support a fact most, strongest first, and notes."""
        if self._influence is None:
            view = self.graph.training_view()
            self._influence = InfluenceFinder(self.mixture, view, self.features)
        supports, notes = self._influence(head, relation, tail, most, check)
        return supports, [*notes, *self._content_notes()]

    def _content_notes(self) -> list[str]:
        """Name the content that acts only through training and cannot be withheld afterwards."""
        notes = []
        if tokens := [n for n in self.features.tokens if self._reads(EmbeddingExpert, n)]:
            notes.append(
                f"{', '.join(tokens)}: words act through training and cannot be "
                f"withheld afterwards; words that support the fact are listed with the training "
                f"facts"
            )
        if pairs := [n for n in self.features.pairs if self._reads(RuleExpert, n)]:
            notes.append(
                f"{', '.join(pairs)}: pairs of entities act through rules and "
                f"cannot be withheld afterwards; the rules that use them name them"
            )
        return notes

    def _reads(self, kind: type[Expert], modality: str) -> bool:
        """Whether an expert of a kind reads a modality."""
        return any(isinstance(e, kind) and modality in e.reads for e in self.mixture.experts)
