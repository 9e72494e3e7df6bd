"""Tables of the commands: metrics, calibration, benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mocme.core.table import Column, TextTable, columns
from mocme.core.text import counted

# The calibrated probability from which candidates count in the error of likely ones.
LIKELY = 0.01
# Answers from which a calibration seldom fails for want of them.
ENOUGH = 1000
METRICS = ("mrr", "hits@1", "hits@3", "hits@10", "mr", "amri")


def metrics_table(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> TextTable:
    """A table of metrics, with a row for each part of the ranked facts."""
    titles = [name if "@" in name else name.upper() for name in METRICS]
    numbers = [Column(name, "right") for name in (*titles, "count")]
    return TextTable(
        [Column(wrap=False), *numbers], [_metrics_row(*row) for row in rows], title=title
    )


def _metrics_row(name: str, values: Mapping[str, Any]) -> list[str]:
    cells = [name]
    for metric in METRICS:
        value = values.get(metric)
        # A mean rank is in positions, the others are at most 1.
        cells.append("" if value is None else f"{value:.{1 if metric == 'mr' else 4}f}")
    return [*cells, f"{values.get('count', 0):,}"]


def reliability_table(record: Mapping[str, Any]) -> TextTable:
    """Predicted and observed frequencies of a calibration, by predicted probability."""
    before, after = record["before"], record["after"]
    titles = ("predicted between", "candidates", "predicted", "observed")
    rows = []
    for row in after["bins"]:
        empty = not row["count"]
        rates = ["-"] * 2 if empty else [f"{row['predicted']:.2%}", f"{row['observed']:.2%}"]
        rows.append([f"{row['from']:.2%} and {row['to']:.2%}", f"{row['count']:,}", *rates])
    return TextTable(
        columns(*titles, right=titles),
        rows,
        title=f"{record['answers']:,} answers of {record['questions']:,} questions, among "
        f"{record['candidates']:,} candidates",
        caption=f"error of candidates at 1 % or more: {_likely_error(after)} (uncalibrated "
        f"softmax: {_likely_error(before)}); each half of the questions was predicted from "
        f"the other",
    )


def _likely_error(part: Mapping[str, Any]) -> str:
    return f"{part['error_of_likely']:.4f}" if _has_likely(part) else "none has it"


def calibration_note(record: Mapping[str, Any]) -> str:
    """A sentence on a calibration that predicts worse than the softmax; empty for a better one."""
    before, after = (record[key]["error_of_likely"] for key in ("before", "after"))
    for key, name in (("after", "a calibrated probability"), ("before", "a softmax")):
        if not _has_likely(record[key]):
            return f"no candidate has {name} of 1 % or more, so the two errors do not compare"
    if after <= before:
        return ""
    reason = "the relations of the two halves differ; see the table"
    if record["answers"] < ENOUGH:
        reason = "that is few; more facts in the valid split help"
    return (
        f"the calibrated probabilities are worse than the uncalibrated softmax (error {after:.4f} "
        f"against {before:.4f}): half of {counted(record['answers'], 'answer')} of the valid "
        f"split had to predict the other half, and {reason}"
    )


def _has_likely(part: Mapping[str, Any]) -> bool:
    return any(row["count"] for row in part["bins"] if row["from"] >= LIKELY)


def benchmarks_table(benchmarks: Sequence[Any]) -> TextTable:
    """A table of published benchmarks, a row each."""
    numbers = ("entities", "relations", "train / valid / test")
    rows = [
        [
            benchmark.name,
            f"{benchmark.entities:,}",
            f"{benchmark.relations:,}",
            " / ".join(f"{count:,}" for count in benchmark.facts.values()),
            benchmark.licence,
            "; ".join(benchmark.defects),
        ]
        for benchmark in benchmarks
    ]
    return TextTable(
        [
            Column("benchmark", wrap=False),
            *columns(*numbers, "licence", "defects as published", right=numbers),
        ],
        rows,
        title="mocme fetch NAME",
        caption="rows as published",
        row_lines=True,
    )
