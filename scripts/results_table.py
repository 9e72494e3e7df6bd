"""A table of finished runs: mean and deviation over seeds of each experiment and data set.

Usage: python scripts/results_table.py RUN [RUN ...] [--json OUT.json]   (each evaluated on test)
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

METRICS = ("mrr", "hits@1", "hits@3", "hits@10")


def read(run: Path) -> dict[str, Any]:
    """What a run's last test evaluation and its description say."""
    result = json.loads((run / "evaluation-test.json").read_text())
    about = json.loads((run / "run.json").read_text())
    looks = (run / "evaluations.jsonl").read_text().splitlines()
    return {
        "experiment": result["experiment"],
        "graph": result["graph"],
        "seed": result["seed"],
        **{metric: result[metric] for metric in METRICS},
        "by": {part: result["by"][part] for part in ("answer", "head")},
        "train_seconds": about["seconds"],
        "test_evaluations": sum(json.loads(line)["split"] == "test" for line in looks),
        "environment": about["environment"],
        "digest": {k: about["digest"][k] for k in ("graph", "features")},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line an experiment and graph."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["experiment"], row["graph"]].append(row)
    lines = [
        "| experiment | graph | seeds | MRR | Hits@1 | Hits@3 | Hits@10 | seconds | looks at test |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for (experiment, graph), found in sorted(groups.items()):
        cells = [spread([row[metric] for row in found]) for metric in METRICS]
        seconds = mean(row["train_seconds"] for row in found)
        looks = sum(row["test_evaluations"] for row in found)
        seeds = ", ".join(str(row["seed"]) for row in sorted(found, key=lambda r: r["seed"]))
        lines.append(
            f"| {experiment} | {graph} | {seeds} | {' | '.join(cells)} | {seconds:.0f} | {looks} |"
        )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{mean(values):.4f} ± {stdev(values):.4f}"


def main() -> None:
    """Read the runs and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="write what was read here")
    arguments = parser.parse_args()
    rows = [read(run) for run in arguments.runs]
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
