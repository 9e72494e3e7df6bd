"""Read files that went wrong: mutations of valid ones, in every format.

    python scripts/fuzz_formats.py [--files 20000] [--seed 0]

A file is either refused with a `ValueError` that names it, or every line of it is accounted for and
the rows handed on are as many as the report says. Anything else is a failure: another exception, a
file that takes more than a second, a loss. Prints a line a format, and exits with 1 on a failure.
A damaged Parquet file can make polars abort the process; ``--without parquet`` leaves that out.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mocme.graph.formats import openke
from mocme.graph.formats.registry import FORMATS, format_of
from mocme.graph.formats.report import Block, Report
from mocme.graph.loading import load

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


def mutated(data: bytes, draw: random.Random) -> bytes:
    """The bytes with a few pieces changed, removed, added, moved or cut off."""
    found = bytearray(data)
    for _ in range(draw.randrange(1, 6)):
        place = draw.randrange(len(found) + 1)
        length = draw.randrange(1, 9)
        match draw.randrange(6):
            case 0:
                found[place : place + 1] = bytes([draw.randrange(256)])
            case 1:
                del found[place : place + length]
            case 2:
                found[place:place] = draw.choice(PIECES)
            case 3:
                found[place:place] = found[place : place + 4 * length]
            case 4:
                del found[place:]
            case 5:
                lines = bytes(found).split(b"\n")
                draw.shuffle(lines)
                found = bytearray(b"\n".join(lines))
    return bytes(found)


class Lost(Exception):
    """Something was not accounted for."""


def require(good: bool, problem: str) -> None:
    """Raise where something is not as it has to be."""
    if not good:
        raise Lost(problem)


class Slow(Exception):
    """A file took more than a second."""


def _alarm(number: int, frame: object) -> None:
    raise Slow


def check(found: Iterator[Block], report: Report, path: Path) -> str:
    """Read a file to its end; what became of it."""
    count = 0
    try:
        for block in found:
            sizes = {len(column) for column in block.columns} | {len(block.lines)}
            require(len(sizes) == 1, "columns of different lengths")
            require(all(map(all, block.columns)), "an empty name")
            count += len(block.lines)
    except ValueError as error:
        require(path.name in str(error), f"an error that does not name the file: {error}")
        return "refused"
    require(report.accounted, f"lines are lost: {report}")
    require(count == report.rows, f"{count} rows handed on: {report}")
    require(len(report.sha256) == 64, "no digest")
    return "read with rejects" if report.rejects else "read"


def text_format(ending: str, folder: Path, draw: random.Random) -> str:
    """Mutate a file of one format, before or after its compression."""
    packed = draw.choice(COMPRESSED if ending != ".parquet" else ("",))
    path = folder / f"facts{ending}{packed}"
    format_of(path).write(path, rows(draw))
    path.write_bytes(mutated(path.read_bytes(), draw))
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


def main() -> None:
    """Read as many files as asked for, and count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", action="append", default=[], help="a format to leave out")
    given = parser.parse_args()
    kinds = [known.endings[0] for known in FORMATS] + ["OpenKE"]
    kinds = [kind for kind in kinds if kind.lstrip(".") not in given.without]
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    failures = 0
    signal.signal(signal.SIGALRM, _alarm)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(given.files):
            kind = kinds[number % len(kinds)]
            draw = random.Random(f"{given.seed} {number}")
            # Libraries load on their first use.
            signal.setitimer(signal.ITIMER_REAL, 1.0 if number >= len(kinds) else 30.0)
            try:
                if kind == "OpenKE":
                    found = openke_folder(folder, draw)
                else:
                    found = text_format(kind, folder, draw)
            except (Exception, Slow) as error:
                found = "FAILED"
                failures += 1
                print(f"file {number} ({kind}): {type(error).__name__}: {str(error)[:300]}")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            counts[kind][found] += 1
    for kind, tally in counts.items():
        print(f"{kind:10}", ", ".join(f"{count:,} {what}" for what, count in tally.most_common()))
    print(f"{given.files:,} files, {failures} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
