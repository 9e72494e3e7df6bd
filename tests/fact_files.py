"""Hostile names, and files of facts with them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from mocme.data.formats.columns import FactColumns
from mocme.data.formats.registry import format_of
from mocme.data.formats.report import Report

Row = tuple[str, str, str]
PIECES = [
    *("\t", "\n", "\r", "\r\n", '"', '""', "'", "\\", "\\n", "\\u0041", "\\\\", "`", "``"),
    *(",", ";", "|", ":", "#", "=1+1", "+", "@", "-", "%0A", "$", "{", "}", "[", "]", "<", ">"),
    *("nan", "NaN", "None", "null", "true", "007", "1e5", "0", "-1", "_:b", "//", "/*", "head"),
    *("\0", "\x01", "\x0b", "\x0c", "\x1c", "\x7f", "\x85", "\u2028", "\u2029", "\ufeff", " "),
    *("\u202e", "\u200d", "\u00a0", "אב", "مرحبا", "名", "é", "e\u0301", "😀", "👩\u200d👩"),
    *("\uffff", "\ufffd", "\ue000", "\U0010ffff", "\ud7ff", "a", "b"),
]


def hostile(count: int = 10_000) -> list[str]:
    """Distinct names of text that is difficult for formats, the pieces themselves among them."""
    source = random.Random(0)
    names = dict.fromkeys([*PIECES, "x" * 200_000, '"\n,' * 70_000, "é\t" * 3_000])
    while len(names) < count:
        names["".join(source.choices(PIECES, k=source.randrange(1, 7)))] = None
    return list(names)


NAMES = hostile()


def facts_of(names: list[str]) -> list[Row]:
    """One fact per name, with the name as its head; other facts have it as relation and tail."""
    total = len(names)
    indices = range(total)
    return [(names[n], names[(7 * n + 1) % total], names[(3 * n + 2) % total]) for n in indices]


def read(path: Path, columns: FactColumns | None = None) -> tuple[list[Row], list[int], Report]:
    """All rows of a file, their lines, and the report, which must account for every line."""
    report = Report(str(path))
    rows: list[Row] = []
    lines: list[int] = []
    for block in format_of(path).facts(path, report, columns):
        assert len(block.columns) == 3
        rows += zip(*block.columns, strict=True)
        lines += block.lines
    assert report.accounted
    assert report.rows == len(rows) == len(lines)
    return rows, lines, report


def put(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def rejects(report: Report) -> list[tuple[int, str]]:
    return [(reject.line, reject.reason) for reject in report.rejects]


def fits_tsv(name: str) -> bool:
    return not ("\t" in name or "\n" in name or name.endswith("\r"))


def fits_openke(name: str) -> bool:
    return "\n" not in name and not name.endswith((" ", "\t"))


def fits_cypher(name: str) -> bool:
    return "\0" not in name and len(name.encode()) <= 8000


# Formats that cannot hold every name, by their first ending.
FITS: dict[str, Callable[[str], bool]] = {".tsv": fits_tsv, ".cypher": fits_cypher}
