"""Every format that `kinds` declares keeps the contract of `base.Format`."""

from __future__ import annotations

import hashlib
import io
import random
import string
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fact_files import (
    FITS,
    NAMES,
    PIECES,
    Row,
    facts_of,
    fits_cypher,
    fits_openke,
    fits_tsv,
    put,
    read,
)
from mocme.core.registry import modules
from mocme.data.formats import kinds, tables
from mocme.data.formats.base import Format
from mocme.data.formats.columns import FactColumns
from mocme.data.formats.literals import Literals
from mocme.data.formats.registry import (
    ENDINGS,
    FORMATS,
    KINDS,
    ending,
    format_named,
    format_of,
)
from mocme.data.formats.report import Report
from mocme.data.formats.statements import Selection
from mocme.data.formats.streams import COMPRESSED

TWO_WAY = [known for known in FORMATS if known.readable and known.writable]


def each(formats: Iterable[Format]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("known", formats, ids=lambda known: known.name)


def path_in(folder: Path, known: Format) -> Path:
    return folder / f"facts{known.endings[0]}"


def names_for(known: Format, names: list[str]) -> list[str]:
    """The names that a format can hold."""
    return [name for name in names if FITS.get(known.endings[0], bool)(name)]


# Declarations.


def test_every_module_declares_one_format() -> None:
    declared = [module.FORMAT for module in modules(kinds)]
    assert all(type(known) is Format for known in declared)
    assert sorted(known.name for known in declared) == sorted(known.name for known in FORMATS)
    assert len({known.name for known in FORMATS}) == len(FORMATS) >= 8


def test_endings_are_distinct_and_in_lower_case() -> None:
    endings = [name for known in FORMATS for name in known.endings]
    assert len(set(endings)) == len(endings)
    assert all(name == name.lower() and name[0] == "." and name.count(".") == 1 for name in endings)
    assert not set(endings) & set(COMPRESSED)


@each(FORMATS)
def test_a_format_is_found_by_its_endings(known: Format) -> None:
    for name in known.endings:
        for packed in ("", *COMPRESSED):
            assert ending(f"a.b{name.upper()}{packed}") == name
            assert format_of(f"folder.csv/a.b{name}{packed}") is known
        assert (name in ENDINGS) == known.readable
    kind = known.endings[0][1:]
    assert (KINDS.get(kind) is known) == known.writable
    if known.writable:
        assert format_named(kind) is known


def test_unknown_endings_and_names_are_errors() -> None:
    with pytest.raises(
        ValueError, match=r"known: \.csv, \.jsonl, \.ndjson, \.nt, .*, \.tsv, \.txt"
    ):
        format_of("a.xlsx")
    assert {"csv", "cypher", "jsonl", "nt", "parquet", "tsv"} <= set(KINDS)
    with pytest.raises(ValueError, match=f"a format is one of {', '.join(KINDS)}, not 'xlsx'"):
        format_named("xlsx")


def test_formats_are_known_by_their_endings() -> None:
    for name, expected in [
        ("a.csv", "CSV"),
        ("a.CSV.GZ", "CSV"),
        ("a.ndjson.zst", "JSON lines"),
        ("a.jsonl", "JSON lines"),
        ("a.parquet", "Parquet"),
        ("a.txt", "TSV"),
        ("a.cypher", "Cypher"),
    ]:
        assert format_of(name).name == expected
    assert ".cypher" not in ENDINGS
    with pytest.raises(ValueError, match="columns of TSV have no names"):
        format_of("a.tsv").facts("a.tsv", Report("a.tsv"), FactColumns("h", "r", "t"))
    with pytest.raises(ValueError, match="Cypher is written, not read"):
        format_of("a.cypher").facts("a.cypher", Report("a.cypher"))


@each([known for known in FORMATS if not known.readable])
def test_a_format_that_is_not_read_says_what_to_do(known: Format, tmp_path: Path) -> None:
    path = put(path_in(tmp_path, known), "x")
    with pytest.raises(ValueError, match=r"; |export|save") as caught:
        list(known.facts(path, Report(str(path))))
    assert str(caught.value).startswith(f"{path}: ")


@each([known for known in FORMATS if not known.writable])
def test_a_format_that_is_not_written_says_what_to_do(known: Format, tmp_path: Path) -> None:
    path = path_in(tmp_path, known)
    with pytest.raises(ValueError, match=f"not written as {known.name}; name it"):
        known.write(path, [("a", "r", "b")])
    assert not path.exists()


# Names.


def test_the_names_are_hostile() -> None:
    assert len(set(NAMES)) == len(NAMES) == 10_000
    for fits in (fits_tsv, fits_openke, fits_cypher):
        assert 3000 < sum(map(fits, NAMES)) < 10_000


def test_the_pieces_have_all_special_characters() -> None:
    signs = set("".join(PIECES))
    assert {'"', "'", "`", "\\", ",", ";", "|", "\t", "\n", "\r", "\0", "\ufeff"} <= signs
    assert signs - set(string.printable)


@each(TWO_WAY)
def test_names_survive_a_round_trip(known: Format, tmp_path: Path) -> None:
    facts = facts_of(names_for(known, NAMES))
    path = path_in(tmp_path, known)
    known.write(path, iter(facts))
    rows, lines, report = read(path)
    assert rows == facts
    assert lines == sorted(lines)
    assert not report.rejects
    assert len(report.sha256) == 64
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@settings(max_examples=15)
@given(st.lists(st.tuples(*[st.text(st.characters(codec="utf-8"), min_size=1)] * 3), max_size=6))
def test_any_names_survive_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, facts: list[Row]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for known in TWO_WAY:
        if known.endings[0] not in FITS:
            path = folder / f"any{known.endings[0]}"
            known.write(path, facts)
            assert read(path)[0] == facts


@each([known for known in FORMATS if known.endings[0] in FITS])
def test_names_that_do_not_fit_are_refused_by_name(known: Format, tmp_path: Path) -> None:
    path = put(path_in(tmp_path, known), "old content")
    refused = [name for name in NAMES if not FITS[known.endings[0]](name)]
    for name in refused[:: len(refused) // 300]:
        row = (name, "r", "t") if len(name) > 1000 else ("h", name, "t")
        row = ("h", "r", name) if known.name == "TSV" else row
        with pytest.raises(ValueError, match=r"cannot hold; .*JSON lines") as caught:
            known.write(path, [("a", "b", "c"), row])
        assert repr(name[:80])[:-1] in str(caught.value)
        assert str(path) in str(caught.value)
    assert path.read_text() == "old content"
    assert len(list(tmp_path.iterdir())) == 1


@each([known for known in FORMATS if known.writable])
def test_names_that_no_format_can_hold(known: Format, tmp_path: Path) -> None:
    path = path_in(tmp_path, known)
    for name, problem in [("", "a name is empty"), ("a\ud800", r"name 'a\\ud800' holds half a")]:
        with pytest.raises(ValueError, match=problem):
            known.write(path, [("a", "r", "b"), ("a", "r", name)])
    assert not list(tmp_path.iterdir())


# Files.


@each(TWO_WAY)
def test_no_rows(known: Format, tmp_path: Path) -> None:
    path = path_in(tmp_path, known)
    known.write(path, [])
    assert read(path)[0] == []


@each([known for known in TWO_WAY if known.name != "Parquet"])
@pytest.mark.parametrize("packed", COMPRESSED)
def test_compressed_files(known: Format, packed: str, tmp_path: Path) -> None:
    facts = facts_of(names_for(known, NAMES[-500:]))
    plain = path_in(tmp_path, known)
    path = plain.with_name(plain.name + packed)
    for target in (plain, path):
        known.write(target, facts)
    assert path.stat().st_size < plain.stat().st_size
    assert read(path)[0] == read(plain)[0] == facts
    before = path.read_bytes()
    known.write(path, facts)
    assert path.read_bytes() == before


@each(TWO_WAY)
def test_standard_input_and_output(
    known: Format,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    known.write("-", [("a", "r", "b")])
    data = capfdbinary.readouterr().out
    path = path_in(tmp_path, known)
    known.write(path, [("a", "r", "b")])
    assert data == path.read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    (block,) = known.facts("-", report := Report("-"))
    assert [list(column) for column in block.columns] == [["a"], ["r"], ["b"]]
    assert report.accounted
    assert report.sha256 == hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    if known.name == "Parquet":
        with pytest.raises(ValueError, match="-: is not a Parquet file"):
            list(known.facts("-", Report("-")))
    else:
        assert list(known.facts("-", Report("-"))) == []


@each([known for known in FORMATS if known.writable])
def test_an_error_while_writing_keeps_the_old_file(known: Format, tmp_path: Path) -> None:
    def broken() -> Iterable[Row]:
        yield ("a", "r", "b")
        raise RuntimeError("no more")

    path = put(path_in(tmp_path, known), "old content")
    with pytest.raises(RuntimeError, match="no more"):
        known.write(path, broken())
    assert path.read_text() == "old content"
    assert list(tmp_path.iterdir()) == [path]


@each(TWO_WAY)
def test_an_absent_file_is_an_error_with_a_remedy(known: Format, tmp_path: Path) -> None:
    path = path_in(tmp_path, known)
    with pytest.raises(ValueError, match=r"cannot be read .*check the path") as caught:
        list(known.facts(path, Report(str(path))))
    assert str(caught.value).startswith(f"{path}: ")


@each(TWO_WAY)
def test_damaged_files_are_accounted_for(known: Format, tmp_path: Path) -> None:
    source = random.Random(2)
    facts = facts_of(names_for(known, [name for name in NAMES[-300:] if fits_tsv(name)]))[:40]
    path = path_in(tmp_path, known)
    known.write(path, facts)
    intact, messages = path.read_bytes(), []
    for _ in range(50):
        data = bytearray(intact)
        for _ in range(source.randrange(1, 4)):
            start = source.randrange(len(data))
            data[start : start + source.randrange(3)] = source.randbytes(source.randrange(3))
        put(path, bytes(data))
        try:
            read(path)
        except ValueError as error:
            messages.append(str(error))
    assert all(message.startswith(str(path)) for message in messages)


# Columns, cells and statements.


@each(TWO_WAY)
def test_columns_are_read_or_refused(known: Format, tmp_path: Path) -> None:
    """A format reads the requested columns, or an error names the file."""
    path = path_in(tmp_path, known)
    known.write(path, [("a", "r", "b")])
    swapped = FactColumns("tail", "relation", "head")
    has_names = known.cells is not None and not known.numbered
    if has_names:
        assert read(path, swapped)[0] == [("b", "r", "a")]
        with pytest.raises(ValueError, match="no column named 'x', one is needed"):
            read(path, FactColumns("x", "relation", "tail"))
        return
    with pytest.raises(ValueError, match="leave them out") as caught:
        known.facts(path, Report(str(path)), swapped)
    assert str(caught.value).startswith(f"{path}: ")


@each([known for known in FORMATS if known.cells])
def test_cells_of_a_table(known: Format, tmp_path: Path) -> None:
    path = path_in(tmp_path, known)
    facts = facts_of(names_for(known, NAMES[-500:]))
    known.write(path, facts)
    names = ["1", "2", "3"] if known.numbered else ["head", "relation", "tail"]
    assert tables.numbered(path) == known.numbered
    assert not tables.numbered(path, ";")
    report = Report(str(path))
    blocks = list(tables.cells(path, report, [names[2], names[0]]))
    cells = [row for block in blocks for row in zip(*block.columns, strict=True)]
    assert cells == [(tail, head) for head, _, tail in facts]
    assert report.accounted
    with pytest.raises(ValueError, match=r"column|key") as caught:
        list(tables.cells(path, Report(str(path)), [names[0], "4" if known.numbered else "x"]))
    assert str(caught.value).startswith(f"{path}: ")


@each([known for known in FORMATS if not known.cells])
def test_what_is_not_a_table_has_no_cells(known: Format, tmp_path: Path) -> None:
    path = path_in(tmp_path, known)
    with pytest.raises(ValueError, match=r"is not a table; known are \.csv, .*set delimiter"):
        list(tables.cells(path, Report(str(path)), ["a"]))


@each([known for known in FORMATS if known.statements])
def test_statements_are_facts_and_literals(known: Format, tmp_path: Path) -> None:
    path = path_in(tmp_path, known)
    known.write(path, [("a:a", "a:r", "a:b"), ("a:a", "a:s", "a:b")])
    put(path, path.read_bytes() + b'<a:a> <a:name> "A" .\n')
    assert known.statements is not None
    with Literals() as literals:
        report = Report(str(path))
        blocks = list(known.statements(path, report, literals))
        assert (sum(len(block.lines) for block in blocks), report.literals) == (2, 1)
        assert (literals.numbers, literals.texts) == (0, 1)
    selection = Selection(str(path))
    (block,) = known.statements(path, selection, predicates={"a:s"})
    assert [list(column) for column in block.columns] == [["a:a"], ["a:s"], ["a:b"]]
    assert (selection.rows, selection.left_out) == (1, 2)
    assert selection.accounted
    with pytest.raises(ValueError, match="give a Selection as the report"):
        list(known.statements(path, Report(str(path)), predicates={"a:s"}))


def test_a_file_without_facts_is_diagnosed(tmp_path: Path) -> None:
    """A diagnosis ends the sentence "not one line is a fact; ..."."""
    for known in FORMATS:
        if known.diagnose:
            path = put(path_in(tmp_path, known), "a,r,b\n")
            report = Report(str(path))
            assert list(known.facts(path, report)) == []
            assert known.diagnose(path, report).startswith("its columns seem to be separated by")
