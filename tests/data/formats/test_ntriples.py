"""N-Triples are read as pyoxigraph reads them, line by line."""

from __future__ import annotations

import gzip
import io
import math
import random
import re
import sys
from pathlib import Path

import pytest

pyoxigraph = pytest.importorskip("pyoxigraph", reason="needs pip install 'mocme[rdf]'")

from mocme.core.extras import remedy  # noqa: E402
from mocme.data.formats import rdf, tsv  # noqa: E402
from mocme.data.formats import report as report_module  # noqa: E402
from mocme.data.formats.kinds import nquads, ntriples, turtle  # noqa: E402
from mocme.data.formats.literals import Literals  # noqa: E402
from mocme.data.formats.rdf import XSD, Value  # noqa: E402
from mocme.data.formats.report import Report  # noqa: E402
from mocme.data.formats.statements import Selection  # noqa: E402
from mocme.data.ingest.indexer import FactIndexer  # noqa: E402
from rdf_files import RecordedLiterals, near, put, read  # noqa: E402


def judged(raw: bytes) -> str | tuple[str, str, str | Value]:
    """What a line is according to pyoxigraph: a statement, or "blank", "comment" or "reject"."""
    if not raw.strip(b" \t\r"):
        return "blank"
    try:
        quads = list(pyoxigraph.parse(raw, format=pyoxigraph.RdfFormat.N_TRIPLES))
    except SyntaxError:
        return "reject"
    if len(quads) != 1:
        return "reject" if quads else "comment"
    subject, predicate, target, _ = quads[0]
    if isinstance(target, pyoxigraph.Triple):
        return "reject"
    named = [str(node).removeprefix("<").removesuffix(">") for node in (subject, predicate, target)]
    if not isinstance(target, pyoxigraph.Literal):
        return named[0], named[1], named[2]
    mark = str(target).rpartition('"')[2]
    datatype = mark[3:-1] if mark.startswith("^^") else ""
    if datatype == f"{XSD}integer" and not re.fullmatch(r"\s*[+-]?[0-9]+\s*", target.value, re.A):
        return "reject"
    return named[0], named[1], Value(target.value, "" if datatype else mark[1:], datatype)


def test_every_line_is_what_pyoxigraph_says_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "KEPT", 10_000)
    source = random.Random(0)
    lines = [b"<a:a> <a:b> <a:c> .", *(near(source) for _ in range(6000))]
    lines += [b"", b" ", b"\t\r", b"# \xff", b"#", b"<a:a> <a:b> <a:c> . # \xff"]
    # Lines with and without invalid UTF-8 are split in two ways.
    text = [line for line in lines if line.decode(errors="replace").encode() == line]
    for part in (lines, text):
        # A carriage return at the end of a line belongs to the line end here.
        expected = [judged(line.removesuffix(b"\r")) for line in part]
        with RecordedLiterals() as kept:
            rows, numbers, report = read(put(tmp_path, b"\n".join(part)), literals=kept)
        results: dict[int, object] = dict.fromkeys((r.line for r in report.rejects), "reject")
        results |= zip(numbers, rows, strict=True)
        values = []
        for number, (line, what) in enumerate(zip(part, expected, strict=True), 1):
            if isinstance(what, str):
                assert results.get(number, what) == what, line
                assert (number in results) == (what == "reject"), line
            elif isinstance(what[2], Value):
                assert number not in results, line
                values.append(what)
            else:
                assert results[number] == what, line
        assert kept.values == values
        assert report.comments == expected.count("comment") > 5
        assert report.blank == expected.count("blank") > 2
        assert min(report.rows, report.literals, len(report.rejects)) > 300


@pytest.mark.parametrize("form", ["http://a/{}", "http://a/#x{}", "http://a{}/", "a:b{}", "a{}:b"])
def test_no_character_passes_that_pyoxigraph_refuses(form: str) -> None:
    plain = re.compile(rdf.PLAIN_IRI + ">")
    characters = [chr(code) for code in range(0x11000) if not 0xD800 <= code < 0xE000]
    names = [form.format(c) for c in characters if plain.fullmatch(form.format(c) + ">")]
    quads = rdf.parse_ntriples("".join(f"<{name}> <a:a> <a:a> .\n" for name in names))
    assert [quad.subject.value for quad in quads] == names
    assert len(names) > 50


def test_rejects_say_where_and_why(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "<a:a> <a:b> <a:c> .\n<a:a> <a:b> .\n\n# note\n<a> <a:b> <a:c> .\r\n"
        "<a:a> <a:b> <a:c> .\r<a:a> <a:b> <a:d> .\n<a:a> <a:b> <<( <a:a> <a:b> <a:c> )>> .\n"
        "<a:a>\n<a:b> <a:c> .\n<a:c> <a:b> _:x .",
    )
    rows, lines, report = read(path)
    assert rows == [("a:a", "a:b", "a:c"), ("a:c", "a:b", "_:x")]
    assert lines == [1, 10]
    assert (report.blank, report.comments) == (1, 1)
    reasons = {reject.line: reject.reason for reject in report.rejects}
    assert list(reasons) == [2, 5, 6, 7, 8, 9]
    assert reasons[2].startswith("The object of a triple must be")
    assert reasons[5] == "No scheme found in an absolute IRI (column 1)"
    assert reasons[6] == "2 statements in a line; end each with a line feed"
    assert reasons[7] == "a statement about a statement, which is not an entity; give it an IRI"
    assert report.rejects[1].text == "<a> <a:b> <a:c> ."


def test_pieces_compression_and_marks_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zstandard = pytest.importorskip("zstandard")
    source = random.Random(1)
    content = b"<a:a> <a:b> <a:c> .\n" + b"\n".join(near(source) for _ in range(300))
    with RecordedLiterals() as kept:
        expected = read(put(tmp_path, content), literals=kept)
    monkeypatch.setattr(ntriples, "CHUNK", 97)
    for number, packed in enumerate(
        (content, gzip.compress(content), zstandard.compress(content), b"\xef\xbb\xbf" + content)
    ):
        with RecordedLiterals() as again:
            rows, lines, report = read(put(tmp_path, packed, f"{number}.nt"), literals=again)
        assert (rows, lines) == expected[:2]
        assert report.rejects == expected[2].rejects
        assert again.values == kept.values
        assert report.bom == (number == 3)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read("-")[0] == expected[0]


def test_the_cache_of_languages_and_datatypes_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ntriples, "MARKS", 2)
    marks = ["@en", "@x", "^^<a:b>", "", "^^<relative>", "@en-GB"] * 3
    path = put(tmp_path, "".join(f'<a:a> <a:b> "c"{mark} .\n' for mark in marks))
    with RecordedLiterals() as kept:
        _, _, report = read(path, literals=kept)
    assert [reject.line for reject in report.rejects] == [2, 5, 8, 11, 14, 17]
    assert {(v.language.lower(), v.datatype) for *_, v in kept.values} == {
        ("en", ""),
        ("", "a:b"),
        ("", ""),
        ("en-gb", ""),
    }


def test_facts_become_ids(tmp_path: Path) -> None:
    path = put(tmp_path, "<a:a> <a:r> <a:b> .\n<a:b> <a:r> _:x .\n<a:a> <a:r> <a:b> .\n")
    report, indexer = Report(str(path)), FactIndexer()
    for block in ntriples.statements(path, report):
        indexer.add("train", block, report)
    entities, relations = indexer.vocabularies()
    assert entities.names == ("a:a", "a:b", "_:x")
    assert relations.names == ("a:r",)
    facts, duplicates = indexer.split("train")
    assert facts.tolist() == [[0, 0, 1], [1, 0, 2]]
    assert duplicates == 1


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for facts in (ntriples.statements, turtle.statements):
        with pytest.raises(ValueError, match=r"absent: cannot be read .* check the path"):
            list(facts(tmp_path / "absent", Report("absent")))
        noise = random.Random(0).randbytes(9999).hex()
        cut = put(tmp_path, gzip.compress(f"# {noise}\n".encode())[:-20], "cut.nt.gz")
        with pytest.raises(ValueError, match=r"cut.nt.gz: cannot be read to its end"):
            list(facts(cut, Report(str(cut))))


def test_without_pyoxigraph_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "<a:a> <a:b> <a:c> .\n")
    monkeypatch.setitem(sys.modules, "pyoxigraph", None)
    rdf.oxigraph.cache_clear()
    for facts in (ntriples.statements, turtle.statements):
        with pytest.raises(ValueError, match=re.escape(remedy("rdf"))):
            list(facts(path, Report(str(path))))
    with pytest.raises(ValueError, match=re.escape(remedy("rdf"))):
        ntriples.write(path, [])
    assert path.read_text() == "<a:a> <a:b> <a:c> .\n"


def test_statements_in_graphs_are_refused(tmp_path: Path) -> None:
    line = "<a:a> <a:b> <a:c> <a:graph> .\n"
    _, _, report = read(put(tmp_path, line))
    assert [reject.line for reject in report.rejects] == [1]
    with pytest.raises(ValueError, match=r"file.nq: .* N-Triples"):
        list(nquads.facts(put(tmp_path, line, "file.nq"), Report("file.nq")))


WIKIDATA = "http://www.wikidata.org"

DIRECT = f"{WIKIDATA}/prop/direct"

LABEL = "http://www.w3.org/2000/01/rdf-schema#label"


def wikidata() -> str:
    """Some statements in the shape of a truthy dump."""

    def item(number: int) -> str:
        return f"<{WIKIDATA}/entity/Q{number}>"

    direct = {number: f"<{DIRECT}/P{number}>" for number in (17, 31, 569, 625, 1082, 2048, 22)}
    lines = [
        f"{item(64)} {direct[31]} {item(515)} .",
        f"{item(64)} {direct[17]} {item(183)} .",
        f'{item(64)} <{LABEL}> "Berlin"@en .',
        f'{item(64)} <{LABEL}> "\\u0411\\u0435\\u0440\\u043B\\u0438\\u043D"@ru .',
        f'{item(64)} <{LABEL}> "Berlyn"@zh-min-nan .',
        f'{item(64)} {direct[1082]} "+3644826"^^<{XSD}decimal> .',
        f'{item(64)} {direct[625]} "Point(13.383333333 52.516666666)"'
        f"^^<http://www.opengis.net/ont/geosparql#wktLiteral> .",
        f'{item(937)} {direct[569]} "1879-03-14T00:00:00Z"^^<{XSD}dateTime> .',
        f"{item(937)} {direct[22]} _:a1b2c3 .",
        f"{item(937)} {direct[31]} {item(5)} .",
        f'{item(243)} {direct[2048]} "+330"^^<{XSD}decimal> .',
        f'{item(243)} {direct[569]} "unknown"^^<{XSD}dateTime> .',
    ]
    # The slice ends within a statement.
    return "\n".join(lines) + f"\n<{WIKIDATA}/entity/Q243> <{DIRECT}/P3"


def test_a_slice_of_wikidata(tmp_path: Path) -> None:
    path = put(tmp_path, gzip.compress(wikidata().encode()), "slice.nt.gz")
    chosen = {f"{DIRECT}/P{number}" for number in (17, 31, 569, 1082)} | {LABEL}
    report = Selection(str(path))
    with Literals() as literals:
        rows, _, _ = read(path, report=report, literals=literals, predicates=chosen)
        literals.write_numbers(tmp_path / "numbers.tsv")
        literals.write_texts(tmp_path / "texts.tsv")
    entity = f"{WIKIDATA}/entity/Q"
    assert rows == [
        (f"{entity}64", f"{DIRECT}/P31", f"{entity}515"),
        (f"{entity}64", f"{DIRECT}/P17", f"{entity}183"),
        (f"{entity}937", f"{DIRECT}/P31", f"{entity}5"),
    ]
    assert report.left_out == 3
    assert str(report).endswith("3 statements of other predicates left out")
    assert [reject.line for reject in report.rejects] == [12, 13]
    numbers = tsv.read(tmp_path / "numbers.tsv", 3).rows
    assert numbers[0] == (f"{entity}64", f"{DIRECT}/P1082", "+3644826")
    assert math.isclose(float(numbers[1][2]), 1879 + 72 / 365)
    assert [row[1:] for row in tsv.read(tmp_path / "texts.tsv", 3).rows] == [
        (f"{LABEL}@en", "Berlin"),
        (f"{LABEL}@ru", "Берлин"),
        (f"{LABEL}@zh-min-nan", "Berlyn"),
    ]
    # The same statements as Turtle, without the incomplete one.
    turtle_report = Selection(str(path))
    path = put(tmp_path, wikidata().rpartition("\n")[0], "slice.ttl")
    assert read(path, turtle.statements, turtle_report, predicates=chosen)[0] == rows
    assert turtle_report.left_out == 3
    for facts in (ntriples.statements, turtle.statements):
        with pytest.raises(ValueError, match="give a Selection as the report"):
            list(facts(path, Report(str(path)), predicates=chosen))
