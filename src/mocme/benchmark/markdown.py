"""Tables of a benchmark on a Markdown page, from its stored results alone."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from jaxtyping import Int

from mocme.benchmark import bootstrap
from mocme.benchmark.archive import ResultArchive, ResultError
from mocme.benchmark.plan import PlannedRun, check
from mocme.benchmark.results import count_test_evaluations
from mocme.benchmark.spec import METRICS, SPLITS, BenchmarkSpec, PublishedResult, Row

# Column, group of `by` in a result, part of the group.
PARTS = {
    "answer seen": ("answer", "seen in training"),
    "answer unseen": ("answer", "unseen in training"),
    "head unseen": ("head", "unseen in training"),
}
EMPTY = "-"


@dataclass(frozen=True)
class ResultRow:
    """A row on a graph with the results that are available.

    Attributes:
        results: result by run, in the order of seeds.
        failures: reason of the failure by run, for runs without a result.
    """

    row: Row
    graph: str
    results: Mapping[PlannedRun, Mapping[str, Any]]
    failures: Mapping[PlannedRun, str]

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def graph_label(self) -> str:
        """The graph in tables, with its version unless that is the default."""
        as_published = any(r["version"] == "as-published" for r in self.results.values())
        return f"{self.graph} (as published)" if as_published else self.graph

    def metrics(self, split: str) -> list[Mapping[str, Any]]:
        """Metrics of each seed for which the split was ranked."""
        return [result["splits"][split] for result in self._ranked(split).values()]

    def is_shown(self, split: str) -> bool:
        """Whether the split is asked for or was ranked."""
        return split in self.row.splits or bool(self.metrics(split))

    def questions(self, split: str) -> str:
        """Digest of the ranked questions.

        Raises:
            ResultError: the seeds rank different questions.
        """
        digests = {str(r["ranks"]["questions"][split]) for r in self._ranked(split).values()}
        if len(digests) > 1:
            raise ResultError(
                f"{self.name} on {self.graph}: its seeds rank different {split} questions; delete "
                f"the results on the wrong version of the graph, and run the benchmark again"
            )
        return digests.pop()

    def double_ranks(self, split: str) -> Int[np.ndarray, "S n"]:
        """2 x realistic ranks of each seed."""
        ranked = self._ranked(split).items()
        return np.stack([run.files.read_ranks(result, split) for run, result in ranked])

    def _ranked(self, split: str) -> dict[PlannedRun, Mapping[str, Any]]:
        return {run: r for run, r in self.results.items() if split in r["splits"]}


def gather(runs: Iterable[PlannedRun]) -> list[ResultRow]:
    """Rows sorted by graph, in the order of first mention of graphs and rows.

    Raises:
        ResultError: a result is damaged or of another configuration.
    """
    groups: dict[tuple[str, str], list[PlannedRun]] = {}
    graphs: dict[str, None] = {}
    for run in runs:
        graphs.setdefault(run.graph)
        groups.setdefault((run.graph, run.row.name), []).append(run)
    rows = []
    for (graph, _), members in groups.items():
        results, failures = {}, {}
        for run in members:
            if (result := run.files.read_result()) is not None:
                check(run, result)
                results[run] = result
            elif (failure := run.files.read_failure()) is not None:
                failures[run] = f"{failure['kind']}: {failure['message']}"
        rows.append(ResultRow(members[0].row, graph, results, failures))
    order = list(graphs)
    return sorted(rows, key=lambda row: order.index(row.graph))


def render(spec: BenchmarkSpec, runs: Sequence[PlannedRun], page: Path) -> str:
    """All tables of a benchmark as Markdown; equal results give equal text.

    Args:
        page: where the text goes; links are relative to it.

    Raises:
        ResultError: a result is damaged, of another configuration, or not comparable.
    """
    rows = gather(runs)
    blocks = [f"**{spec.title}**"]
    for split in SPLITS:
        published = [result for result in spec.published if result.split == split]
        if published or any(row.is_shown(split) for row in rows):
            blocks += _split_blocks(rows, published, split)
    blocks.append(_costs(rows, count_test_evaluations(ResultArchive(spec.results))))
    blocks.append(_origin(spec, rows, page))
    blocks.append(
        "\n".join(
            f"- {run}: not measured, {reason}"
            for row in rows
            for run, reason in row.failures.items()
        )
    )
    if spec.picture is not None and spec.picture.is_file():
        link = os.path.relpath(spec.picture.resolve(), page.resolve().parent)
        blocks.append(f"![{spec.title}]({Path(link).as_posix()})")
    return "\n\n".join(block for block in blocks if block)


def put(page: Path, name: str, text: str) -> str:
    """The content of the page with `text` between the markers of a benchmark.

    Raises:
        ResultError: the page cannot be read, or does not have exactly one pair of markers.
    """
    first, last = f"<!-- benchmark: {name} -->", f"<!-- end of benchmark: {name} -->"
    try:
        content = page.read_text(encoding="utf-8")
    except OSError as error:
        raise ResultError(f"{page}: cannot be read ({error.strerror})") from error
    one_pair = content.count(first) == content.count(last) == 1
    if not one_pair or content.index(first) > content.index(last):
        raise ResultError(
            f"{page}: needs these two lines, once each, where the tables belong:\n{first}\n{last}"
        )
    start, end = content.index(first) + len(first), content.index(last)
    return f"{content[:start]}\n\n{text}\n\n{content[end:]}"


# -- tables ----------------------------------------------------------------------------------------


def _split_blocks(
    rows: Sequence[ResultRow], published: Sequence[PublishedResult], split: str
) -> list[str]:
    """Accuracy on a split, notes on published results, and differences to the controls."""
    head = ["", "graph", "seeds", "MRR", "Hits@1", "Hits@3", "Hits@10", *PARTS]
    rows = [row for row in rows if row.is_shown(split)]
    _check_questions(rows, split)
    numbered = list(enumerate(published, start=1))
    graphs = dict.fromkeys([row.graph for row in rows] + [result.graph for result in published])
    cells: list[list[str]] = []
    for graph in graphs:
        cells += [_accuracy(row, split) for row in rows if row.graph == graph]
        cells += [
            _literature(number, result) for number, result in numbered if result.graph == graph
        ]
    blocks = [f"{split.capitalize()}: {_protocol(rows, split)}", table(head, cells)]
    if published:
        notes = [
            f"† {number}: {result.name} on {result.graph}, not measured here; {result.protocol}; "
            f"{result.source}"
            for number, result in numbered
        ]
        blocks.append("\\\n".join(notes))
    return [*blocks, *_differences(rows, split)]


def _accuracy(row: ResultRow, split: str) -> list[str]:
    seeds = row.metrics(split)
    cells = [row.name, row.graph_label, _seeds(row, split)]
    cells += [spread([metrics[key] for metrics in seeds]) for key in METRICS]
    for group, part in PARTS.values():
        groups = [metrics["by"].get(group, {}) for metrics in seeds]
        cells.append(_mean([parts[part]["mrr"] for parts in groups if part in parts], ".3f"))
    return cells


def _literature(number: int, result: PublishedResult) -> list[str]:
    values = [result.metrics.get(key) for key in METRICS]
    cells = [EMPTY if value is None else f"{value:.4g}" for value in values]
    return [f"{result.name} † {number}", result.graph, EMPTY, *cells, *[EMPTY] * len(PARTS)]


def _differences(rows: Sequence[ResultRow], split: str) -> list[str]:
    """A table of the differences of rows to their controls, with a note; nothing without any."""
    by_name = {(row.name, row.graph): row for row in rows}
    pairs = [
        (row, by_name.get((control, row.graph))) for row in rows for control in row.row.control
    ]
    cells = []
    for row, control in pairs:
        if control is None or not row.metrics(split) or not control.metrics(split):
            continue
        difference = compare(row, control, split)
        cells.append(
            [
                row.name,
                control.name,
                row.graph_label,
                f"{len(row.metrics(split))} and {len(control.metrics(split))}",
                f"{difference.mean:+.4f}",
                f"{difference.low:+.4f} to {difference.high:+.4f}",
            ]
        )
    if not cells:
        return []
    head = ["", "control", "graph", "seeds", f"difference in {split} MRR", "95 % interval"]
    note = (
        f"Paired bootstrap: {bootstrap.RESAMPLES:,} resamples of the questions (seed "
        f"{bootstrap.SEED}), with reciprocal ranks averaged over seeds first. The interval covers "
        f"variation between questions, not between seeds."
    )
    return [table(head, cells), note]


def compare(row: ResultRow, control: ResultRow, split: str) -> bootstrap.Difference:
    """MRR of a row less that of its control.

    Raises:
        ResultError: they rank different questions.
    """
    if row.questions(split) != control.questions(split):
        raise ResultError(
            f"{row.name} and {control.name} on {row.graph} rank different {split} questions, so "
            f"they cannot be compared; use one version of the graph, or remove the control"
        )
    return bootstrap.difference(row.double_ranks(split), control.double_ranks(split))


def _costs(rows: Sequence[ResultRow], test_evaluations: Counter[tuple[str, str]]) -> str:
    head = ["", "graph", "embedding dim", "epochs", "training (s)", "ranking (s)"]
    head += ["peak memory (GiB)", "test evaluations"]
    cells = []
    for row in rows:
        results = list(row.results.values())
        ranking = [sum(s["seconds"] for s in r["splits"].values()) for r in results]
        peaks = [max(r["peak_bytes"].values()) / 2**30 for r in results if r["peak_bytes"]]
        cells.append(
            [
                row.name,
                row.graph_label,
                _distinct([_embedding_dims(r["config"]) for r in results]),
                _distinct([len(r["training"]["epochs"]) for r in results]),
                _mean([r["training"]["seconds"] for r in results], ".0f"),
                _mean(ranking, ".1f"),
                f"{max(peaks):.2f}" if peaks else EMPTY,
                str(test_evaluations[row.name, row.graph]),
            ]
        )
    return table(head, cells)


def _check_questions(rows: Sequence[ResultRow], split: str) -> None:
    """Refuse a table in which rows of one graph rank different questions."""
    first_of_graph: dict[str, tuple[str, ResultRow]] = {}
    for row in rows:
        if not row.metrics(split):
            continue
        questions = row.questions(split)
        first, other = first_of_graph.setdefault(row.graph_label, (questions, row))
        if questions != first:
            raise ResultError(
                f"{other.name} and {row.name} on {row.graph_label} rank different {split} "
                f"questions, so they cannot be compared; delete the results on the wrong version "
                f"of the graph, and run the benchmark again"
            )


def _protocol(rows: Sequence[ResultRow], split: str) -> str:
    """How the ranks were counted, according to the results."""
    graphs_by_protocol: dict[str, dict[str, None]] = {}
    for row in rows:
        for metrics in row.metrics(split):
            p = metrics["protocol"]
            text = (
                f"filtered by {', '.join(p['filter'])}; ties {p['ties']}; directions "
                f"{p['directions']}; candidates {p['candidates']}; ranked in {p['precision']}"
            )
            graphs_by_protocol.setdefault(text, {})[row.graph_label] = None
    if not graphs_by_protocol:
        return "nothing measured yet."
    if len(graphs_by_protocol) == 1:
        parts = list(graphs_by_protocol)
    else:
        parts = [f"{', '.join(graphs)}: {text}" for text, graphs in graphs_by_protocol.items()]
    return f"{'. '.join(parts)}. Mean ± standard deviation over seeds; columns by part are MRR."


def _origin(spec: BenchmarkSpec, rows: Sequence[ResultRow], page: Path) -> str:
    """How many runs there are, and which versions, devices and threads made them."""
    results = [result for row in rows for result in row.results.values()]
    planned = sum(len(row.row.seeds) for row in rows)
    link = Path(os.path.relpath(spec.path.resolve(), page.resolve().parent)).as_posix()
    text = f"{len(results)} of {planned} runs of [{spec.path.name}]({link})"
    if not results:
        return f"{text}."
    versions = {_version(result["package"]) for result in results}
    threads = _distinct([r["environment"]["threads"] for r in results])
    precision = _distinct([r["precision"] for r in results])
    devices = {r["environment"]["cuda"] or "CPU" for r in results}
    return (
        f"{text}, measured with {', '.join(sorted(versions))} ({', '.join(sorted(devices))}; "
        f"threads: {threads}; training precision: {precision})."
    )


def _version(package: Mapping[str, Any]) -> str:
    """Version of the package, with the commit of a checkout."""
    checkout = package["checkout"]
    changed = " with local changes" if checkout and checkout["changed"] else ""
    commit = f" at {checkout['commit'][:10]}{changed}" if checkout else ""
    return f"mocme {package['version']}{commit}"


# -- cells -----------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, cells)) + " |" for cells in lines)


def spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation if there are several values."""
    if not values:
        return EMPTY
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _seeds(row: ResultRow, split: str) -> str:
    ranked = [str(run.seed) for run, r in row.results.items() if split in r["splits"]]
    incomplete = len(ranked) < len(row.row.seeds)
    return (", ".join(ranked) or "none") + (f" (of {len(row.row.seeds)})" if incomplete else "")


def _distinct(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in sorted(set(values))) or EMPTY


def _embedding_dims(config: Mapping[str, Any]) -> str:
    """The sizes of a run's embeddings; a run may have none, or several."""
    dims = [e["embedding_dim"] for e in config["experts"] if "embedding_dim" in e]
    return " and ".join(map(str, dims)) or EMPTY


def _mean(values: Sequence[float], form: str) -> str:
    return format(mean(values), form) if values else EMPTY


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
