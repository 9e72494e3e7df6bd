"""Tables of a bench on a Markdown page, made of its result files and of nothing else."""

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

from mocme.benchmark import bootstrap as comparing
from mocme.benchmark import results
from mocme.benchmark.plan import PlannedRun, check
from mocme.benchmark.spec import SPLITS, BenchmarkSpec, PublishedResult, Row

HITS = ("hits@1", "hits@3", "hits@10")
PARTS = {
    "answer seen": ("answer", "seen in training"),
    "answer unseen": ("answer", "unseen in training"),
    "head unseen": ("head", "unseen in training"),
}
NONE = "-"


@dataclass(frozen=True)
class ResultRow:
    """A row on a graph, with what there is of its results.

    Attributes:
        found: result by run, in the order of seeds.
        failed: why a run has none, by run.
    """

    row: Row
    graph: str
    found: Mapping[PlannedRun, Mapping[str, Any]]
    failed: Mapping[PlannedRun, str]

    @property
    def shown(self) -> str:
        """The graph as tables show it."""
        as_published = any(r["version"] == "as-published" for r in self.found.values())
        return f"{self.graph} (as published)" if as_published else self.graph

    def of(self, split: str) -> list[Mapping[str, Any]]:
        """Metrics of a split, a mapping for each seed that has them."""
        return [r["splits"][split] for r in self._having(split).values()]

    def questions(self, split: str) -> str:
        """The digest of what was asked.

        Raises:
            ResultError: the seeds rank different questions.
        """
        asked = {str(r["ranks"]["questions"][split]) for r in self._having(split).values()}
        if len(asked) > 1:
            raise results.ResultError(
                f"{self.row.name} on {self.graph}: its seeds rank different {split} questions; "
                f"delete the results on the graph that is not meant, and run the bench again"
            )
        return asked.pop()

    def ranks(self, split: str) -> Int[np.ndarray, "S n"]:
        """Twice the ranks of each seed."""
        having = self._having(split).items()
        return np.stack([results.read_ranks(t.place.ranks, r, split) for t, r in having])

    def _having(self, split: str) -> dict[PlannedRun, Mapping[str, Any]]:
        return {t: r for t, r in self.found.items() if split in r["splits"]}


def gather(trials: Iterable[PlannedRun]) -> list[ResultRow]:
    """Rows by graph, in the order of the graphs' first mention, then of the rows.

    Raises:
        ResultError: a result is damaged or of another configuration.
    """
    groups: dict[tuple[str, str], list[PlannedRun]] = {}
    graphs: dict[str, None] = {}
    for trial in trials:
        graphs.setdefault(trial.graph)
        groups.setdefault((trial.graph, trial.row.name), []).append(trial)
    lines = []
    for (graph, _), members in groups.items():
        found, failed = {}, {}
        for trial in members:
            if (result := results.read(trial.place.result)) is not None:
                check(trial, result)
                found[trial] = result
            elif (failure := results.read(trial.place.failure)) is not None:
                failed[trial] = f"{failure['kind']}: {failure['message']}"
        lines.append(ResultRow(members[0].row, graph, found, failed))
    order = list(graphs)
    return sorted(lines, key=lambda line: order.index(line.graph))


def render(bench: BenchmarkSpec, trials: Sequence[PlannedRun], page: Path) -> str:
    """All tables of a bench as Markdown, the same for the same result files.

    Args:
        page: that it is for, as its links are relative to it.

    Raises:
        ResultError: a result is damaged, of another configuration, or not comparable.
    """
    lines = gather(trials)
    blocks = [f"**{bench.title}**"]
    for split in SPLITS:
        told = [figure for figure in bench.published if figure.split == split]
        if told or any(split in line.row.splits or line.of(split) for line in lines):
            blocks += _split(bench, lines, told, split)
    blocks.append(_costs(lines, results.looks(bench.results)))
    blocks.append(_made(bench, lines, page))
    if failed := [
        f"- {trial}: not measured, {why}" for line in lines for trial, why in line.failed.items()
    ]:
        blocks.append("\n".join(failed))
    if bench.picture is not None and bench.picture.is_file():
        link = os.path.relpath(bench.picture.resolve(), page.resolve().parent)
        blocks.append(f"![{bench.title}]({Path(link).as_posix()})")
    return "\n\n".join(block for block in blocks if block)


def put(page: Path, name: str, text: str) -> str:
    """The page with a text between the markers of a bench.

    Raises:
        ResultError: the page cannot be read, or has not exactly one pair of markers.
    """
    first, last = f"<!-- bench: {name} -->", f"<!-- end of bench: {name} -->"
    try:
        old = page.read_text(encoding="utf-8")
    except OSError as error:
        raise results.ResultError(f"{page}: cannot be read ({error.strerror})") from error
    if old.count(first) != 1 or old.count(last) != 1 or old.index(first) > old.index(last):
        raise results.ResultError(
            f"{page}: needs these two lines, once each, where the tables shall stand:\n"
            f"{first}\n{last}"
        )
    start, end = old.index(first) + len(first), old.index(last)
    return f"{old[:start]}\n\n{text}\n\n{old[end:]}"


# -- tables ----------------------------------------------------------------------------------------


def _split(
    bench: BenchmarkSpec,
    lines: Sequence[ResultRow],
    published: Sequence[PublishedResult],
    split: str,
) -> list[str]:
    head = ["", "graph", "seeds", "MRR", "Hits@1", "Hits@3", "Hits@10", *PARTS]
    lines = [line for line in lines if split in line.row.splits or line.of(split)]
    _one_list(lines, split)
    graphs = list(dict.fromkeys([line.graph for line in lines] + [p.graph for p in published]))
    rows: list[list[str]] = []
    for graph in graphs:
        rows += [_accuracy(line, split) for line in lines if line.graph == graph]
        rows += [_foreign(p, published) for p in published if p.graph == graph]
    blocks = [f"{split.capitalize()}: {_protocol(lines, split)}", table(head, rows)]
    if published:
        notes = [
            f"† {number}: {p.name} on {p.graph}, not measured here; {p.protocol}; {p.source}"
            for number, p in enumerate(published, start=1)
        ]
        blocks.append("\\\n".join(notes))
    return [*blocks, *_differences(lines, split)]


def _accuracy(line: ResultRow, split: str) -> list[str]:
    found = line.of(split)
    cells = [line.row.name, line.shown, _seeds(line, split)]
    cells += [spread([f[key] for f in found]) for key in ("mrr", *HITS)]
    for group, part in PARTS.values():
        values = [f["by"][group][part]["mrr"] for f in found if part in f["by"].get(group, {})]
        cells.append(f"{mean(values):.3f}" if values else NONE)
    return cells


def _foreign(figure: PublishedResult, all_of_them: Sequence[PublishedResult]) -> list[str]:
    number = list(all_of_them).index(figure) + 1
    values = [figure.metrics.get(key) for key in ("mrr", *HITS)]
    cells = [NONE if value is None else f"{value:.4g}" for value in values]
    return [f"{figure.name} † {number}", figure.graph, NONE, *cells, *[NONE] * len(PARTS)]


def _differences(lines: Sequence[ResultRow], split: str) -> list[str]:
    """A table of each row's difference to its controls, with what it rests on; nothing without."""
    places = {(line.row.name, line.graph): line for line in lines}
    rows, most = [], 0
    pairs = [
        (line, places.get((control, line.graph))) for line in lines for control in line.row.control
    ]
    for line, other in pairs:
        if other is None or not line.of(split) or not other.of(split):
            continue
        found = compare(line, other, split)
        most = max(most, found.questions)
        interval = f"{found.low:+.4f} to {found.high:+.4f}"
        seeds = f"{len(line.of(split))} and {len(other.of(split))}"
        rows.append(
            [line.row.name, other.row.name, line.shown, seeds, f"{found.mean:+.4f}", interval]
        )
    if not rows:
        return []
    head = ["", "against", "graph", "seeds", f"difference of {split} MRR", "95 % interval"]
    note = (
        f"Paired bootstrap: {comparing.RESAMPLES:,} resamples of the questions (seed "
        f"{comparing.SEED}), reciprocal ranks averaged over seeds before; it tells how sure the "
        f"difference is over questions, not over seeds."
    )
    return [table(head, rows), note]


def compare(line: ResultRow, control: ResultRow, split: str) -> comparing.Difference:
    """How much better a line is than its control.

    Raises:
        ResultError: they rank different questions.
    """
    if line.questions(split) != control.questions(split):
        raise results.ResultError(
            f"{line.row.name} and {control.row.name} on {line.graph} rank different {split} "
            f"questions, so that they cannot be compared; use one version of the graph, or take "
            f"the control away"
        )
    return comparing.difference(line.ranks(split), control.ranks(split))


def _costs(lines: Sequence[ResultRow], looks: Counter[tuple[str, str]]) -> str:
    head = ["", "graph", "width", "passes", "training, s", "ranking, s", "peak memory, GiB"]
    rows = []
    for line in lines:
        found = list(line.found.values())
        ranking = [sum(s["seconds"] for s in r["splits"].values()) for r in found]
        peaks = [max(r["peak_bytes"].values()) / 2**30 for r in found if r["peak_bytes"]]
        rows.append(
            [
                line.row.name,
                line.shown,
                _all([r["config"]["model"]["width"] for r in found]),
                _all([len(r["training"]["passes"]) for r in found]),
                _mean([r["training"]["seconds"] for r in found], ".0f"),
                _mean(ranking, ".1f"),
                f"{max(peaks):.2f}" if peaks else NONE,
                str(looks[line.row.name, line.graph]),
            ]
        )
    return table([*head, "looks at test"], rows)


def _one_list(lines: Sequence[ResultRow], split: str) -> None:
    """What stands in one table under one graph must answer the same questions."""
    asked: dict[str, tuple[str, ResultRow]] = {}
    for line in lines:
        if not line.of(split):
            continue
        questions = line.questions(split)
        first, other = asked.setdefault(line.shown, (questions, line))
        if questions != first:
            raise results.ResultError(
                f"{other.row.name} and {line.row.name} on {line.shown} rank different {split} "
                f"questions, so that they cannot be compared; delete the results on the graph that "
                f"is not meant, and run the bench again"
            )


def _protocol(lines: Sequence[ResultRow], split: str) -> str:
    """How the ranks were counted, as the results say."""
    said: dict[str, dict[str, None]] = {}
    for line in lines:
        for found in line.of(split):
            p = found["protocol"]
            text = (
                f"filtered by {', '.join(p['filter'])}; ties {p['ties']}; directions "
                f"{p['directions']}; candidates {p['candidates']}; ranked in {p['precision']}"
            )
            said.setdefault(text, {})[line.shown] = None
    if not said:
        return "nothing measured yet."
    parts = [text if len(said) == 1 else f"{', '.join(on)}: {text}" for text, on in said.items()]
    return f"{'. '.join(parts)}. Mean ± standard deviation over seeds; parts are MRR."


def _made(bench: BenchmarkSpec, lines: Sequence[ResultRow], page: Path) -> str:
    found = [result for line in lines for result in line.found.values()]
    wanted = sum(len(line.row.seeds) for line in lines)
    by: set[str] = set()
    for result in found:
        place = result["package"]["checkout"]
        changed = " with local changes" if place and place["changed"] else ""
        at = f" at {place['commit'][:10]}{changed}" if place else ""
        by.add(f"mocme {result['package']['version']}{at}")
    threads = _all([r["environment"]["threads"] for r in found])
    precision = _all([r["precision"] for r in found])
    devices = {r["environment"]["cuda"] or "processor" for r in found}
    file = Path(os.path.relpath(bench.path.resolve(), page.resolve().parent)).as_posix()
    text = f"From {len(found)} of {wanted} runs of [{bench.path.name}]({file})"
    if not found:
        return f"{text}."
    return (
        f"{text}, measured by {', '.join(sorted(by))} ({', '.join(sorted(devices))}; "
        f"threads: {threads}; products of training in {precision})."
    )


# -- cells -----------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    every = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, cells)) + " |" for cells in every)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, which a single value does not have."""
    if not values:
        return NONE
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _seeds(line: ResultRow, split: str) -> str:
    done = [str(t.seed) for t, r in line.found.items() if split in r["splits"]]
    missing = len(line.row.seeds) - len(done)
    return (", ".join(done) or "none") + (f" (of {len(line.row.seeds)})" if missing else "")


def _all(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in sorted(set(values))) or NONE


def _mean(values: Sequence[float], form: str) -> str:
    return format(mean(values), form) if values else NONE


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
