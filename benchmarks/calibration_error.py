"""Calibration error on test: probabilities fitted on valid, by models that have seen it and not.

    python benchmarks/calibration_error.py RUN... [--json FILE]

Every candidate of every question of test is counted, as in a calibration: what is known from train
is no candidate, and everything else that is no fact of test counts as false. "cross-fitted" is what
a run does: each fact of valid is scored by a part of the mixture that has not seen it. "naive" lets
the model that is served score it. A mixture that was fitted on held-out training facts has seen no
fact of valid, so there is one way only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from common import append_row, opened, runs_parser
from mocme.calibration.curves import Calibration
from mocme.calibration.fit import Reliability, bin_centres, calibrate, count_candidates
from mocme.data.graph import Graph
from mocme.evaluation.ranking import Rankable
from mocme.mixture.learned import Learned

MEMORY = 0.5


def main() -> None:
    """Print both errors for each run."""
    arguments = runs_parser(__doc__).parse_args()
    for run, contents in opened(arguments.runs):
        served: Rankable = contents.mixture
        ways: dict[str, Rankable] = {"cross-fitted": contents.mixture}
        if isinstance(contents.mixture, Learned) and contents.mixture.parts:
            served = contents.mixture.without_parts()
            ways["naive"] = served
        fitted_on = run.folder.read_json("mixture.json").get("fitted_on", "valid")
        print(f"{run.path}: {type(contents.mixture).__name__}, fitted on {fitted_on}")
        view = contents.graph.training_view()
        for way, model in ways.items():
            calibration = calibrate(model, view, MEMORY)
            record = on_test(served, contents.graph, calibration)
            valid = calibration.record["after"]
            print(
                f"  {way:14} expected on valid {valid['error_of_likely']:.4f}"
                f"  test {record['error_of_likely']:.4f} (likely candidates)"
                f"  {record['error']:.2e} (all)",
                flush=True,
            )
            row = {"fitted_on": fitted_on, "way": way, "valid": valid["error_of_likely"]}
            row |= {"test": record["error_of_likely"], "bins": record["bins"]}
            append_row(arguments.json, run, row)


def on_test(model: Rankable, graph: Graph, calibration: Calibration) -> dict[str, object]:
    """Predicted and observed frequencies of all candidates of test."""
    # Counted as valid is; facts of valid stay candidates there too, so they are known here.
    splits = {"train": graph.facts("train", "valid"), "valid": graph.facts("test")}
    counts = count_candidates(model, replace(graph, splits=splits), MEMORY).sum()
    table = Reliability.empty()
    for relation in np.flatnonzero(counts.all.sum(1)).tolist():
        curve = calibration.by_relation.get(relation, calibration.pooled)
        table.add(curve(bin_centres()), counts[relation])
    return table.record()


if __name__ == "__main__":
    main()
