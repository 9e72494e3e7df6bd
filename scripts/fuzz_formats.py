"""Fuzz the readers of all formats with mutations of valid files.

    python scripts/fuzz_formats.py [--files 20000] [--seed 0]

A file is either refused with a `ValueError` that names it, or every line of it is counted and the
reader gives as many rows as the report says. Anything else is a failure: another exception, a file
that takes more than a second, a lost line, or the end of the reading process (a separate one,
because a library may abort it). Prints one line per format, and exits with 1 on a failure.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import pyarrow
import pyarrow.parquet

from mocme.data.formats import coded, openke
from mocme.data.formats.registry import FORMATS, format_of
from mocme.data.formats.report import Block, Report
from mocme.data.load import load

NAMES = ("a", "b c", "naïve", "名", '"q"', "x,y", "007", "nan", "#no", "a\\b", "😀", "urn:x:1")
PIECES = (
    *(b"\t", b"\n", b"\r\n", b'"', b",", b"\0", b"\xff", b"<", b">", b" .\n", b"{", b"}", b"["),
    *(
        b"\\",
        b"#",
        b"@",
        b"^^",
        b"_:",
        b"1",
        b"-",
        b"\xef\xbb\xbf",
        b"\x1f\x8b",
        b"\x28\xb5\x2f\xfd",
    ),
)
COMPRESSED = ("", "", ".gz", ".zst")


def rows(draw: random.Random) -> list[tuple[str, str, str]]:
    """Some facts."""
    return [
        (draw.choice(NAMES), draw.choice(NAMES[:4]), draw.choice(NAMES))
        for _ in range(draw.randrange(1, 30))
    ]


def overwritten(data: bytes, draw: random.Random) -> bytes:
    """The bytes with a few of them changed, without moving any."""
    mutation = bytearray(data)
    for _ in range(draw.randrange(1, 6)):
        mutation[draw.randrange(len(mutation))] = draw.choice(
            (0, 1, 0x7F, 0xFF, draw.randrange(256))
        )
    return bytes(mutation)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """The bytes with a few pieces changed, removed, inserted, repeated, shuffled or cut off."""
    mutation = bytearray(data)
    for _ in range(draw.randrange(1, 6)):
        start = draw.randrange(len(mutation) + 1)
        length = draw.randrange(1, 9)
        match draw.randrange(6):
            case 0:
                mutation[start : start + 1] = bytes([draw.randrange(256)])
            case 1:
                del mutation[start : start + length]
            case 2:
                mutation[start:start] = draw.choice(PIECES)
            case 3:
                mutation[start:start] = mutation[start : start + 4 * length]
            case 4:
                del mutation[start:]
            case 5:
                lines = bytes(mutation).split(b"\n")
                draw.shuffle(lines)
                mutation = bytearray(b"\n".join(lines))
    return bytes(mutation)


class Lost(Exception):
    """A line or row is not counted."""


def require(holds: bool, problem: str) -> None:
    """Raise `Lost` if a condition does not hold."""
    if not holds:
        raise Lost(problem)


class Slow(Exception):
    """A file took more than a second."""


def _alarm(number: int, frame: object) -> None:
    raise Slow


def check(blocks: Iterator[Block], report: Report, path: Path) -> str:
    """Read a file to its end; return the outcome."""
    count = 0
    try:
        for block in blocks:
            sizes = {len(column) for column in block.columns} | {len(block.lines)}
            require(len(sizes) == 1, "columns of different lengths")
            require(all(map(all, block.columns)), "an empty name")
            count += len(block.lines)
    except ValueError as error:
        require(path.name in str(error), f"an error that does not name the file: {error}")
        return "refused"
    require(report.accounted, f"lines are lost: {report}")
    require(count == report.rows, f"{count} rows were read: {report}")
    require(len(report.sha256) == 64, "no digest")
    return "read with rejects" if report.rejects else "read"


def write_parquet(path: Path, draw: random.Random) -> None:
    """Write facts as one of the many variants of Parquet."""
    text = draw.choice((pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()))
    columns = [pyarrow.array(column, text) for column in zip(*rows(draw), strict=True)]
    if draw.random() < 0.2 and text != pyarrow.string_view():
        columns[1] = columns[1].dictionary_encode()
    names = ["head", "relation", "tail"]
    if draw.random() < 0.2:
        names.append("weight")
        columns.append(pyarrow.array([draw.choice((None, 1.0)) for _ in columns[0]], "float64"))
    pyarrow.parquet.write_table(
        pyarrow.Table.from_arrays(columns, names),
        path,
        compression=draw.choice(("none", "none", "snappy", "zstd", "gzip", "lz4", "brotli")),
        use_dictionary=draw.choice((True, False)),
        data_page_version=draw.choice(("1.0", "2.0")),
        write_statistics=draw.choice((True, False)),
        row_group_size=draw.choice((3, 100)),
        store_schema=draw.choice((True, False)),
    )


def write_lists(path: Path, draw: random.Random) -> None:
    """Write JSON lines whose tails are lists."""
    lines = [
        json.dumps({"head": head, "relation": relation, "tail": [tail] * draw.randrange(3)})
        for head, relation, tail in rows(draw)
    ]
    path.write_text("\n".join(lines))


def text_format(ending: str, folder: Path, draw: random.Random) -> str:
    """Mutate a file of one format, before or after its compression."""
    packed = draw.choice(COMPRESSED if ending != ".parquet" else ("",))
    path = folder / f"facts{ending}{packed}"
    change = mutated
    if ending == ".parquet" and draw.random() < 0.8:
        write_parquet(path, draw)
        # Offsets locate the parts of a file, so a mutation that moves them is noticed at once.
        change = draw.choice((mutated, overwritten, overwritten))
    elif path.suffix == ".jsonl" and draw.random() < 0.4:
        write_lists(path, draw)
    else:
        format_of(path).write(path, rows(draw))
    path.write_bytes(change(path.read_bytes(), draw))
    report = Report(str(path))
    return check(format_of(path).facts(path, report), report, path)


def openke_folder(folder: Path, draw: random.Random) -> str:
    """Mutate a file of an OpenKE folder."""
    source, target = folder / "tsv", folder / "openke"
    for old in (source, target):
        shutil.rmtree(old, ignore_errors=True)
    source.mkdir()
    lines = ["\t".join(row) + "\n" for row in rows(draw)]
    (source / "train.tsv").write_text("".join(lines))
    openke.write(target, load(source))
    path = draw.choice(sorted(target.iterdir()))
    path.write_bytes(mutated(path.read_bytes(), draw))
    try:
        read = openke.read(target)
    except ValueError as error:
        require(str(target) in str(error), f"an error that names no file: {error}")
        return "refused"
    report = Report(str(read.files["train"]))
    return check(read.facts("train", report), report, target)


def one(number: int, kind: str, seed: int, folder: Path, seconds: float) -> str:
    """Write, mutate and read a file; return the outcome or the failure."""
    draw = random.Random(f"{seed} {number}")
    # Every other file is read like a large one, with Arrow.
    coded.ARROW_BYTES = 0 if number % 2 else 1 << 22
    signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        if kind == "OpenKE":
            return openke_folder(folder, draw)
        return text_format(kind, folder, draw)
    except (Exception, Slow) as error:
        return f"FAILED: {type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Worker:
    """A reading process, which is replaced when it ends."""

    def __init__(self) -> None:
        self.context = get_context("spawn")
        self._start()

    def _start(self) -> None:
        self.pool = ProcessPoolExecutor(1, self.context)
        self.started: set[str] = set()

    def run(self, number: int, kind: str, seed: int, folder: Path) -> str:
        """Run `one`, with more time for a format whose libraries are not loaded yet."""
        seconds = 1.0 if kind in self.started else 30.0
        self.started.add(kind)
        try:
            return self.pool.submit(one, number, kind, seed, folder, seconds).result(60)
        except BrokenProcessPool:
            self._start()
            return "FAILED: the reading process has ended"
        except TimeoutError:
            # A library does not return, so the process does not handle the alarm.
            for process in self.pool._processes.values():
                process.kill()
            self._start()
            return "FAILED: a minute was not enough"


def main() -> None:
    """Read the requested number of files and count the outcomes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], help="a format; may be repeated")
    arguments = parser.parse_args()
    two_way = [known for known in FORMATS if known.readable and known.writable]
    kinds = [known.endings[0] for known in two_way] + ["OpenKE"]
    kinds = [kind for kind in kinds if not arguments.only or kind.lstrip(".") in arguments.only]
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    failures = 0
    worker = Worker()
    with tempfile.TemporaryDirectory() as name:
        for number in range(arguments.files):
            kind = kinds[number % len(kinds)]
            outcome = worker.run(number, kind, arguments.seed, Path(name))
            if outcome.startswith("FAILED"):
                failures += 1
                print(f"file {number} ({kind}): {outcome}", flush=True)
                outcome = "FAILED"
            counts[kind][outcome] += 1
    worker.pool.shutdown()
    for kind, tally in counts.items():
        print(
            f"{kind:10}",
            ", ".join(f"{count:,} {outcome}" for outcome, count in tally.most_common()),
        )
    print(f"{arguments.files:,} files, {failures} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
