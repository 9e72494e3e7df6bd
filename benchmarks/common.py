"""What several scripts of this folder share: options, timing, JSON lines, tables on pages."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mocme.inductive.extended_run import RunContents
    from mocme.runs.run import Run

RESULTS = Path(__file__).parent / "accuracy" / "results"


def integer_options(description: str | None, **defaults: int) -> argparse.Namespace:
    """Parse a command line of integer options.

    Args:
        description: docstring of the script; its first line is shown by ``--help``.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def runs_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of finished runs, and of a file that results are appended to."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="append a line for each result to this file")
    return parser


def opened(paths: Iterable[Path]) -> Iterator[tuple[Run, RunContents]]:
    """Each run with its graph and its mixture, without additions, on one thread."""
    import torch

    from mocme.runs.run import Run

    torch.set_num_threads(1)
    for path in paths:
        run = Run.open(path)
        yield run, run.contents("cpu", additions=False)


def append_row(path: Path | None, run: Run, row: Mapping[str, Any]) -> None:
    """Append a result of a run to a file of JSON lines, if there is one."""
    if path is not None:
        about = {key: run.about[key] for key in ("graph", "experiment", "seed")}
        append_lines(path, [{**about, **row}])


def alternate(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call by name; every round calls each way once, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = clock()
            way()
            seconds[name].append(clock() - started)
    return seconds


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Results from a file of JSON lines; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def append_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add results to a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(_text(lines))


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace the results in a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(_text(lines), encoding="utf-8")
    temporary.replace(path)


def _text(lines: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def put_on_page(page: Path, name: str, text: str) -> None:
    """Write a text between the lines ``<!-- NAME -->`` and ``<!-- end of NAME -->`` of a page.

    Raises:
        SystemExit: the page lacks one of these lines.
    """
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    content = page.read_text(encoding="utf-8")
    if first not in content or last not in content:
        raise SystemExit(f"{page}: needs the lines {first} and {last}")
    before, after = content.split(first)[0], content.split(last)[1]
    page.write_text(f"{before}{first}\n\n{text}\n\n{last}{after}", encoding="utf-8")
