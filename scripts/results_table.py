"""A table of finished runs: mean and deviation over seeds by experiment and graph.

Usage: python scripts/results_table.py RUN [RUN ...] [--json OUT.json]   (each evaluated on test)
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from mocme.benchmark.markdown import spread, table

METRICS = ("mrr", "hits@1", "hits@3", "hits@10")
HEAD = ("experiment", "graph", "seeds", "MRR", "Hits@1", "Hits@3", "Hits@10")


def read_run(run: Path) -> dict[str, Any]:
    """The last test evaluation of a run, with its labels, digests and environment."""
    result = json.loads((run / "evaluation-test.json").read_text())
    about = json.loads((run / "run.json").read_text())
    evaluations = (run / "evaluations.jsonl").read_text().splitlines()
    return {
        "experiment": result["experiment"],
        "graph": result["graph"],
        "seed": result["seed"],
        **{metric: result[metric] for metric in METRICS},
        "by": {part: result["by"][part] for part in ("answer", "head")},
        "train_seconds": about["seconds"],
        "test_evaluations": sum(json.loads(line)["split"] == "test" for line in evaluations),
        "environment": about["environment"],
        "digest": {k: about["digest"][k] for k in ("graph", "features")},
    }


def runs_table(runs: list[dict[str, Any]]) -> str:
    """Markdown, one row per experiment and graph."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        groups[run["experiment"], run["graph"]].append(run)
    rows = []
    for (experiment, graph), group in sorted(groups.items()):
        seeds = ", ".join(str(seed) for seed in sorted(run["seed"] for run in group))
        metrics = [spread([run[metric] for run in group]) for metric in METRICS]
        seconds = f"{mean(run['train_seconds'] for run in group):.0f}"
        evaluations = str(sum(run["test_evaluations"] for run in group))
        rows.append([experiment, graph, seeds, *metrics, seconds, evaluations])
    return table([*HEAD, "seconds", "test evaluations"], rows)


def main() -> None:
    """Read the runs and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="write the table's data here")
    options = parser.parse_args()
    runs = [read_run(path) for path in options.runs]
    print(runs_table(runs))
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
