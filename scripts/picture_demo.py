"""Plot the results of the demonstration: MRR with and without modalities, and predicted facts.

Usage: python scripts/picture_demo.py runs/demo docs/demo.png   (after `make demo`)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import mocme
from mocme.cli.demonstration import new_facts
from mocme.explanation.faithfulness import first_embedding

PARTS = {
    "all\nanswers": None,
    "answer seen\nin training": "seen in training",
    "answer\nunseen": "unseen in training",
}
SERIES = {"structure only": ("structure", "#9aa5b1"), "MoCME": ("default", "#2f6f9f")}
SHADES = ("#9aa5b1", "#2f6f9f", "#d98e32", "#5a9e6f", "#8d6cab")


def draw(runs: Path, out: Path) -> None:
    """Draw two panels: metrics of both runs, and the weights behind five predictions."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), width_ratios=(1, 1.35))
    for position, (title, (folder, colour)) in enumerate(SERIES.items()):
        result = json.loads((runs / folder / "evaluation-test.json").read_text())
        values = [
            result["mrr"] if part is None else result["by"]["answer"][part]["mrr"]
            for part in PARTS.values()
        ]
        centres = [n + 0.4 * (position - 0.5) for n in range(len(values))]
        bars = left.bar(centres, values, 0.38, label=title, color=colour)
        left.bar_label(bars, fmt="%.3f", fontsize=8, padding=1)
    left.set_xticks(range(len(PARTS)), list(PARTS))
    left.set_ylabel("test MRR (filtered, realistic ties)")
    left.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.08), fontsize=8)
    left.set_title("Are the answers found?", loc="left", fontsize=11)
    _draw_facts(right, runs)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, dpi=130)


def _draw_facts(axes: plt.Axes, runs: Path) -> None:
    """Draw the weights of the modalities in the answers of five predicted facts."""
    predictor = mocme.open(runs / "default")
    embedding = first_embedding(predictor.mixture)
    assert embedding is not None
    predictions = new_facts(predictor, 5)[::-1]
    names = [f"{i.head} · {i.relation} · {i.tail} ({i.probability:.0%})" for i in predictions]
    start = [0.0] * len(predictions)
    for modality, shade in zip(embedding.model.modalities, SHADES, strict=False):
        widths = [item.weights[modality] for item in predictions]
        axes.barh(names, widths, left=start, color=shade, label=modality, height=0.6)
        start = [a + b for a, b in zip(start, widths, strict=True)]
    axes.set_xlim(0, 1)
    axes.set_xlabel("weight of each modality in the answer's vector")
    axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1.08), fontsize=8)
    axes.set_title("Five predicted facts that are not in the graph", loc="left", fontsize=11)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
