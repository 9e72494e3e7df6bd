"""Evaluations in a run's folder: what was ranked how, and how often a split was looked at."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mocme.data.graph import Graph
from mocme.evaluation.ranking import Ranks
from mocme.runs.run_files import EVALUATIONS, evaluation_file, read_evaluations
from mocme.storage import RunFolder, kept_if_possible

_NOT_LOGGED = ("by", "optimistic", "pessimistic")


def protocol(split: str, graph: Graph) -> dict[str, Any]:
    """How a split is ranked, for the record."""
    filtered = ("train", "valid") if split == "valid" else tuple(graph.splits)
    return {
        "filter": list(filtered),
        "ties": "realistic (mean of optimistic and pessimistic rank)",
        "directions": "both",
        "candidates": "all entities",
        "precision": "float32",
        "facts": {s: len(graph.facts(s)) for s in graph.splits},
    }


def record_evaluation(
    folder: RunFolder, result: dict[str, Any], ranks: Ranks, model: str | None
) -> dict[str, Any]:
    """Store an evaluation, and number it among those of its split.

    Args:
        model: digest of the model that was ranked (`RunFolder.model`).

    Returns:
        The result with its number.

    Warns:
        NotKept: the run cannot be written.
    """
    split, number = result["split"], "evaluations_of_this_split"

    def numbered(earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {**result, number: 1 + sum(record["split"] == split for record in earlier)}

    def record(earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        # Counted while no other process appends.
        result.update(numbered(earlier))
        kept = {k: v for k, v in result.items() if k not in _NOT_LOGGED}
        return {"time": time.time(), "model": model, **kept}

    result.update(numbered(read_evaluations(folder)))
    with kept_if_possible(
        f"{folder.path / EVALUATIONS}: this evaluation of the {split} split is not recorded",
        f"to record it, run: mocme evaluate COPY --split {split}, with a copy of the run that "
        f"can be written",
    ):
        folder.require_model(model)
        folder.append(EVALUATIONS, record)
        folder.write_json(evaluation_file(split), {**result, "model": model})
        columns = {name: getattr(ranks, name) for name in Ranks.__dataclass_fields__}
        folder.write_tensors(f"ranks-{split}.safetensors", columns)
    return result
