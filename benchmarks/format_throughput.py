"""Throughput of reading and writing each format on one core, and the memory that reading takes.

    python benchmarks/format_throughput.py [--facts 1000000] [--rounds 3] [--formats TSV CSV]

The facts are random, with names of 8 to 30 characters, some beyond ASCII. Each reading is a process
of its own with one thread; seconds are processor time. `read` yields names in blocks; `indexed`
passes them to a `FactIndexer`, as loading a graph does. Memory is the peak of that process less
what it took before it opened the file (on Linux only). The table gives medians.
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


def generate(facts: int, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """Random facts: one entity per ten facts, 200 relations, few entities in many facts."""
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


def peak_memory() -> int:
    """Peak memory of this process in bytes.

    ``getrusage`` would include the peak of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(path: Path, indexed: bool) -> dict[str, float]:
    """Seconds, rows and bytes of memory of one reading, in this process."""
    # Importing a library (a seventh of a second for Arrow) is not part of reading.
    import pyarrow.parquet  # noqa: F401

    from mocme.data.formats import openke
    from mocme.data.formats.registry import format_of
    from mocme.data.formats.report import Report
    from mocme.data.ingest.indexer import FactIndexer

    memory_before = peak_memory()
    started = time.process_time()
    report = Report(str(path))
    if path.is_dir():
        folder = openke.read(path)
        indexer = FactIndexer(folder.entities, folder.relations, openke.LISTS)
        blocks = folder.facts(SPLIT, report)
    else:
        indexer = FactIndexer()
        blocks = format_of(path).facts(path, report)
    rows = 0
    for block in blocks:
        rows += len(block.lines)
        if indexed:
            indexer.add(SPLIT, block, report)
    if indexed:
        facts, _ = indexer.split(SPLIT)
        assert len(facts) <= rows
    seconds = time.process_time() - started
    memory = peak_memory() - memory_before
    assert report.accounted
    assert rows == report.rows
    return {"seconds": seconds, "rows": rows, "memory": memory}


def measure_in_own_process(path: Path, indexed: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", str(path), *(["--indexed"] if indexed else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    measurement: dict[str, float] = json.loads(done.stdout)
    return measurement


def write_files(folder: Path, facts: int, names: list[str]) -> dict[str, Path]:
    """The same facts in each format; prints the throughput of writing.

    Args:
        names: formats to write; all that are both read and written if empty.
    """
    from mocme.data.formats import openke
    from mocme.data.formats.registry import FORMATS
    from mocme.data.formats.report import Block, Report
    from mocme.data.graph import Graph
    from mocme.data.ingest.indexer import FactIndexer

    rows = list(generate(facts))
    paths = {}
    for known in FORMATS:
        if not (known.readable and known.writable):
            continue
        for suffix in ("", ".gz", ".zst") if known.name == "TSV" else ("",):
            name = known.name + suffix
            if names and name not in names:
                continue
            paths[name] = folder / f"facts{known.endings[0]}{suffix}"
            started = time.process_time()
            known.write(paths[name], rows)
            print(f"written {name:12} {facts / (time.process_time() - started):12,.0f} rows/s")
    if not names or "OpenKE" in names:
        indexer = FactIndexer()
        heads, relations, tails = map(list, zip(*rows, strict=True))
        indexer.add(SPLIT, Block((heads, relations, tails), range(facts)), Report(""))
        graph = Graph(*indexer.vocabularies(), {SPLIT: indexer.split(SPLIT)[0]})
        openke.write(folder / "openke", graph)
        paths["OpenKE"] = folder / "openke"
    return paths


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--facts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", nargs="*", default=[])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--indexed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.indexed)))
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), options.facts, options.formats)
        print(
            f"\n{'format':12} {'file':>9} {'read':>13} {'indexed':>13} {'memory':>9} {'indexed':>9}"
        )
        for name, path in paths.items():
            size = sum(f.stat().st_size for f in path.rglob("*")) if path.is_dir() else 0
            size = size or path.stat().st_size
            cells = []
            for indexed in (False, True):
                rounds = [measure_in_own_process(path, indexed) for _ in range(options.rounds)]
                rate = statistics.median(one["rows"] / one["seconds"] for one in rounds)
                cells.append((rate, statistics.median(one["memory"] for one in rounds)))
            (read_rate, read_memory), (index_rate, index_memory) = cells
            print(
                f"{name:12} {size / 1e6:6.1f} MB {read_rate:9,.0f} r/s {index_rate:9,.0f} r/s "
                f"{read_memory / 1e6:6.0f} MB {index_memory / 1e6:6.0f} MB"
            )


if __name__ == "__main__":
    main()
