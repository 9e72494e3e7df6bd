"""RDF files for tests, and a function that reads them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from mocme.data.formats.kinds import ntriples
from mocme.data.formats.literals import Literals
from mocme.data.formats.rdf import XSD, Value
from mocme.data.formats.report import Block, Report

Reader = Callable[..., Iterator[Block]]
Row = tuple[str, str, str]


class RecordedLiterals(Literals):
    """Literals that records what is added."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[tuple[str, str, Value]] = []

    def add(self, entity: str, attribute: str, value: Value) -> None:
        super().add(entity, attribute, value)
        self.values.append((entity, attribute, value))


def put(folder: Path, content: str | bytes, name: str = "file.nt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(
    path: Path | str,
    statements: Reader = ntriples.statements,
    report: Report | None = None,
    **options: object,
) -> tuple[list[Row], list[int], Report]:
    """All rows of a file, their lines, and the report, which must account for every line."""
    report = report or Report(str(path))
    rows: list[Row] = []
    lines: list[int] = []
    for block in statements(path, report, **options):
        rows += zip(*block.columns, strict=True)
        lines += block.lines
    assert report.accounted
    assert report.rows == len(rows) == len(lines)
    return rows, lines, report


NODES = [
    "<http://a.org/x>",
    "<https://a.org:80/x?y=1&z#f>",
    "<http://user@a.org/>",
    "<http://[::1]/a>",
    "<http://a.org>",
    "<urn:isbn:1-2>",
    "<a:%41b%c3%A9>",
    "<a:>",
    "<http:x>",
    "<file:///x>",
    "<a:/b>",
    "<a://b>",
    "<http://a.org/é名😀>",
    "<http://a.org/\\u0041\\U0001F600>",
    "<relative>",
    "<http://a b>",
    "_:a",
    "_:0-9",
    "_:a.b",
    "_:é",
    "_:-a",
    "_:a:b",
]

TEXTS = [
    '""',
    '"text"',
    '"a\\tb\\"c\\\\d\\u00e9\\\'"',
    '"\\U0001F600"',
    '"\\uD800"',
    '"\\x"',
    '"é名😀\x00\x7f\u2028"',
    '"a"@en',
    '"a"@en-GB',
    '"a"@EN-gb-oed',
    '"a"@x',
    '"a"@abcdefghi',
    '"a"@zh-Hant-x-y',
    '"a"@ar--rtl',
    f'"1"^^<{XSD}integer>',
    f'"a"^^<{XSD}string>',
    '"a"^^<http://www.w3.org/1999/02/22-rdf-syntax-ns#langString>',
    '"a"^^<relative>',
    '"a" @en',
    "'a'",
    "1",
    "<<( <a:a> <a:b> <a:c> )>>",
]

ALPHABET = (
    "\t\r \x00\x0b\x1f\x7f!\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~u\x85\xa0\xad\u061c\u200b\u200e"
    "\u2028\u202e\u3000\ud7ff\ue000\ufdd0\ufeff\ufffd\uffff\U00010000\U0001fffe\U000e0001\U0010ffff"
)


def near(source: random.Random) -> bytes:
    """A line that is nearly, or just, valid N-Triples."""
    tails = TEXTS if source.random() < 0.6 else NODES
    parts = [source.choice(NODES), "<a:b>", source.choice(tails)]
    if source.random() < 0.2:
        parts[1] = source.choice(NODES)
    space = source.choice([" "] * 8 + ["", "\t", "  "])
    end = source.choice([" ."] * 12 + [".", " . ", "", " .# x", " ..", " . <a:a> <a:b> <a:c> ."])
    line = source.choice([""] * 12 + [" ", "#"]) + space.join(parts) + end
    for _ in range(source.choice([0, 0, 1, 1, 2])):
        start = source.randrange(len(line) + 1)
        line = line[:start] + source.choice([*ALPHABET, ""]) + line[start + source.randrange(2) :]
    raw = line.encode()
    return raw.replace(b"a", b"\xff", 1) if source.random() < 0.02 else raw


def triples(*values: str) -> str:
    return "".join(f"<a:e> <a:p> {value} .\n" for value in values)
