"""How fast each format is read and written, on one core, and how much memory that takes.

    python benchmarks/formats.py [--facts 1000000] [--rounds 3] [--formats TSV CSV]

The facts are random, of names between 8 and 30 characters long, some beyond ASCII. Each reading is
a process of its own with one thread, and seconds are those of the processor. `read` is names in
blocks; `indexed` puts them into a `FactIndexer`, which is what loading a graph does; memory is the
most that process took, less what it took before it opened the file (told by Linux only). The table
gives medians.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SPLIT = "train"


def generated(facts: int, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """Random facts: an entity in every ten facts, 200 relations, few entities in many facts."""
    source = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz_ 0123456789"
    entities = []
    for number in range(max(10, facts // 10)):
        text = "".join(source.choices(letters, k=source.randrange(2, 24)))
        entities.append(f"{text}é{number}" if number % 10 == 0 else f"{text}/{number}")
    for _ in range(facts):
        head = entities[int(len(entities) * source.random() ** 2)]
        tail = entities[int(len(entities) * source.random() ** 2)]
        yield head, f"relation_{source.randrange(200)}", tail


def peak() -> int:
    """The most memory this process has taken so far, in bytes.

    Unlike ``getrusage``, which knows that of the process it comes from too.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(path: Path, indexed: bool) -> dict[str, float]:
    """Seconds, rows and bytes of memory of one reading, in this process."""
    # Loading a library (a seventh of a second for Arrow) is no work of a reader.
    import pyarrow.parquet  # noqa: F401

    from mocme.data.formats import openke
    from mocme.data.formats.registry import format_of
    from mocme.data.formats.report import Report
    from mocme.data.ingest.indexer import FactIndexer

    before = peak()
    started = time.process_time()
    report = Report(str(path))
    if path.is_dir():
        folder = openke.read(path)
        collector = FactIndexer(folder.entities, folder.relations, openke.LISTS)
        blocks = folder.facts(SPLIT, report)
    else:
        collector = FactIndexer()
        blocks = format_of(path).facts(path, report)
    rows = 0
    for block in blocks:
        rows += len(block.lines)
        if indexed:
            collector.add(SPLIT, block, report)
    if indexed:
        facts, _ = collector.split(SPLIT)
        assert len(facts) <= rows
    seconds = time.process_time() - started
    held = peak()
    assert report.accounted
    assert rows == report.rows
    return {"seconds": seconds, "rows": rows, "memory": held - before}


def separately(path: Path, indexed: bool) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--one", str(path), *(["--indexed"] if indexed else [])]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=one, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def files(folder: Path, facts: int, wanted: list[str]) -> dict[str, Path]:
    """The same facts in each format; prints how fast they were written."""
    from mocme.data.formats import openke
    from mocme.data.formats.registry import FORMATS
    from mocme.data.formats.report import Block, Report
    from mocme.data.graph import Graph
    from mocme.data.ingest.indexer import FactIndexer

    rows = list(generated(facts))
    found = {}
    for known in FORMATS:
        for packed in ("", ".gz", ".zst") if known.name == "TSV" else ("",):
            name = known.name + packed
            if wanted and name not in wanted:
                continue
            found[name] = folder / f"facts{known.endings[0]}{packed}"
            started = time.process_time()
            known.write(found[name], rows)
            print(f"written {name:12} {facts / (time.process_time() - started):12,.0f} rows/s")
    if not wanted or "OpenKE" in wanted:
        collector = FactIndexer()
        heads, relations, tails = map(list, zip(*rows, strict=True))
        collector.add(SPLIT, Block((heads, relations, tails), range(facts)), Report(""))
        graph = Graph(*collector.vocabularies(), {SPLIT: collector.split(SPLIT)[0]})
        openke.write(folder / "openke", graph)
        found["OpenKE"] = folder / "openke"
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--facts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", nargs="*", default=[])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--indexed", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.indexed)))
        return
    with tempfile.TemporaryDirectory() as room:
        paths = files(Path(room), given.facts, given.formats)
        print(
            f"\n{'format':12} {'file':>9} {'read':>13} {'indexed':>13} {'memory':>9} {'indexed':>9}"
        )
        for name, path in paths.items():
            size = sum(f.stat().st_size for f in path.rglob("*")) if path.is_dir() else 0
            size = size or path.stat().st_size
            cells = []
            for indexed in (False, True):
                found = [separately(path, indexed) for _ in range(given.rounds)]
                rate = statistics.median(one["rows"] / one["seconds"] for one in found)
                cells.append((rate, statistics.median(one["memory"] for one in found)))
            (rate, memory), (both, held) = cells
            print(
                f"{name:12} {size / 1e6:6.1f} MB {rate:9,.0f} r/s {both:9,.0f} r/s "
                f"{memory / 1e6:6.0f} MB {held / 1e6:6.0f} MB"
            )


if __name__ == "__main__":
    main()
