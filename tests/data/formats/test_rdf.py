"""RDF comes in as pyoxigraph reads it, line by line, and names go out and back exactly."""

from __future__ import annotations

import gzip
import io
import math
import random
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path

import pytest

pyoxigraph = pytest.importorskip("pyoxigraph", reason="needs pip install 'mocme[rdf]'")

from mocme.data.formats import (  # noqa: E402
    ntriples,
    quads,
    rdf,
    tsv,
    turtle,
)
from mocme.data.formats.literals import Literals, decimal_year  # noqa: E402
from mocme.data.formats.rdf import Value  # noqa: E402
from mocme.data.formats.report import Block, Report  # noqa: E402
from mocme.data.formats.statements import Selection  # noqa: E402
from mocme.data.ingest.indexer import FactIndexer  # noqa: E402

XSD = "http://www.w3.org/2001/XMLSchema#"
Reader = Callable[..., Iterator[Block]]
Row = tuple[str, str, str]


class Kept(Literals):
    """Remembers the literals that it is given."""

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
    path: Path | str, facts: Reader = ntriples.facts, report: Report | None = None, **given: object
) -> tuple[list[Row], list[int], Report]:
    report = report or Report(str(path))
    rows: list[Row] = []
    lines: list[int] = []
    for block in facts(path, report, **given):
        rows += zip(*block.columns, strict=True)
        lines += block.lines
    assert report.accounted
    assert report.rows == len(rows) == len(lines)
    return rows, lines, report


# A line at a time, against pyoxigraph alone.


def judged(raw: bytes) -> str | tuple[str, str, str | Value]:
    """What a line is: a statement, or the name of something else."""
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
    """A line near the border of what is N-Triples."""
    tails = TEXTS if source.random() < 0.6 else NODES
    parts = [source.choice(NODES), "<a:b>", source.choice(tails)]
    if source.random() < 0.2:
        parts[1] = source.choice(NODES)
    space = source.choice([" "] * 8 + ["", "\t", "  "])
    end = source.choice([" ."] * 12 + [".", " . ", "", " .# x", " ..", " . <a:a> <a:b> <a:c> ."])
    line = source.choice([""] * 12 + [" ", "#"]) + space.join(parts) + end
    for _ in range(source.choice([0, 0, 1, 1, 2])):
        place = source.randrange(len(line) + 1)
        line = line[:place] + source.choice([*ALPHABET, ""]) + line[place + source.randrange(2) :]
    raw = line.encode()
    return raw.replace(b"a", b"\xff", 1) if source.random() < 0.02 else raw


def test_every_line_is_what_pyoxigraph_says_it_is(tmp_path: Path) -> None:
    source = random.Random(0)
    lines = [b"<a:a> <a:b> <a:c> .", *(near(source) for _ in range(6000))]
    lines += [b"", b" ", b"\t\r", b"# \xff", b"#", b"<a:a> <a:b> <a:c> . # \xff"]
    # Text and bytes that are none are taken apart in two ways.
    text = [line for line in lines if line.decode(errors="replace").encode() == line]
    for part in (lines, text):
        # What ends with a carriage return ends with CRLF here.
        expected = [judged(line.removesuffix(b"\r")) for line in part]
        with Kept() as kept:
            rows, numbers, report = read(put(tmp_path, b"\n".join(part)), literals=kept)
        found: dict[int, object] = dict.fromkeys((r.line for r in report.rejects), "reject")
        found |= zip(numbers, rows, strict=True)
        values = []
        for number, (line, what) in enumerate(zip(part, expected, strict=True), 1):
            if isinstance(what, str):
                assert found.get(number, what) == what, line
                assert (number in found) == (what == "reject"), line
            elif isinstance(what[2], Value):
                assert number not in found, line
                values.append(what)
            else:
                assert found[number] == what, line
        assert kept.values == values
        assert report.comments == expected.count("comment") > 5
        assert report.blank == expected.count("blank") > 2
        assert min(report.rows, report.literals, len(report.rejects)) > 300


@pytest.mark.parametrize("form", ["http://a/{}", "http://a/#x{}", "http://a{}/", "a:b{}", "a{}:b"])
def test_no_character_passes_that_pyoxigraph_refuses(form: str) -> None:
    plain = re.compile(rdf.PLAIN_IRI + ">")
    characters = [chr(code) for code in range(0x11000) if not 0xD800 <= code < 0xE000]
    names = [form.format(c) for c in characters if plain.fullmatch(form.format(c) + ">")]
    found = rdf.parsed("".join(f"<{name}> <a:a> <a:a> .\n" for name in names))
    assert [quad.subject.value for quad in found] == names
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
    assert reasons[7] == "a statement about a statement, which is no entity; give it an IRI"
    assert report.rejects[1].text == "<a> <a:b> <a:c> ."


def test_pieces_compression_and_marks_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zstandard = pytest.importorskip("zstandard")
    source = random.Random(1)
    content = b"<a:a> <a:b> <a:c> .\n" + b"\n".join(near(source) for _ in range(300))
    with Kept() as kept:
        whole = read(put(tmp_path, content), literals=kept)
    monkeypatch.setattr(ntriples, "SIZE", 97)
    for number, packed in enumerate(
        (content, gzip.compress(content), zstandard.compress(content), b"\xef\xbb\xbf" + content)
    ):
        with Kept() as again:
            found = read(put(tmp_path, packed, f"{number}.nt"), literals=again)
        assert found[:2] == whole[:2]
        assert found[2].rejects == whole[2].rejects
        assert again.values == kept.values
        assert found[2].bom == (number == 3)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read("-")[0] == whole[0]


def test_a_language_or_datatype_is_remembered_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ntriples, "MARKS", 2)
    marks = ["@en", "@x", "^^<a:b>", "", "^^<relative>", "@en-GB"] * 3
    path = put(tmp_path, "".join(f'<a:a> <a:b> "c"{mark} .\n' for mark in marks))
    with Kept() as kept:
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
    report, collector = Report(str(path)), FactIndexer()
    for block in ntriples.facts(path, report):
        collector.add("train", block, report)
    entities, relations = collector.vocabularies()
    assert entities.names == ("a:a", "a:b", "_:x")
    assert relations.names == ("a:r",)
    facts, duplicates = collector.split("train")
    assert facts.tolist() == [[0, 0, 1], [1, 0, 2]]
    assert duplicates == 1


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for facts in (ntriples.facts, turtle.facts):
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
    for facts in (ntriples.facts, turtle.facts):
        with pytest.raises(ValueError, match=r"pip install 'mocme\[rdf\]'"):
            list(facts(path, Report(str(path))))
    with pytest.raises(ValueError, match=r"pip install 'mocme\[rdf\]'"):
        ntriples.write(path, [])
    assert path.read_text() == "<a:a> <a:b> <a:c> .\n"


def test_statements_in_graphs_are_refused(tmp_path: Path) -> None:
    line = "<a:a> <a:b> <a:c> <a:graph> .\n"
    _, _, report = read(put(tmp_path, line))
    assert [reject.line for reject in report.rejects] == [1]
    with pytest.raises(ValueError, match=r"file.nq: .* N-Triples"):
        list(quads.facts(put(tmp_path, line, "file.nq"), Report("file.nq")))


# Literals.


def triples(*values: str) -> str:
    return "".join(f"<a:e> <a:p> {value} .\n" for value in values)


def test_literals_become_numbers_and_texts(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        triples(
            f'"007"^^<{XSD}integer>',
            f'"+1.50"^^<{XSD}decimal>',
            f'" -2e3 "^^<{XSD}double>',
            f'"1879"^^<{XSD}gYear>',
            '"plain"',
            '"nan"@en',
            '"a\\tb\\nc\\r"@de-AT',
            '"Point(1 2)"^^<http://www.opengis.net/ont/geosparql#wktLiteral>',
            f'"true"^^<{XSD}boolean>',
            '""',
            "<a:e>",
        ),
    )
    with Literals(held=1) as literals:
        rows, _, report = read(path, literals=literals)
        assert str(literals) == (
            "4 numbers and 6 texts; tabs and line breaks became spaces in 1 of the texts"
        )
        for _ in range(2):
            assert literals.write_numbers(tmp_path / "numbers.tsv") == 4
            assert literals.write_texts(tmp_path / "texts.tsv.gz") == 6
        literals.add("a:e", "a:p", Value("more"))
        literals.write_texts(tmp_path / "more.tsv")
    assert rows == [("a:e", "a:p", "a:e")]
    assert report.literals == 10
    assert tsv.read(tmp_path / "numbers.tsv", 3).rows == [
        ("a:e", "a:p", "007"),
        ("a:e", "a:p", "+1.50"),
        ("a:e", "a:p", "-2e3"),
        ("a:e", "a:p", "1879.0"),
    ]
    texts = tsv.read(tmp_path / "texts.tsv.gz", None).rows
    assert [row[1:] for row in texts] == [
        ("a:p", "plain"),
        ("a:p@en", "nan"),
        (texts[2][1], "a b c "),
        ("a:p^^http://www.opengis.net/ont/geosparql#wktLiteral", "Point(1 2)"),
        (f"a:p^^{XSD}boolean", "true"),
        ("a:p", ""),
    ]
    assert texts[2][1].lower() == "a:p@de-at"
    assert tsv.read(tmp_path / "more.tsv", None).rows == [*texts, ("a:e", "a:p", "more")]
    # Counted all the same without a place to go.
    assert read(path)[2].literals == 10


@pytest.mark.parametrize(
    "value",
    [
        *('"NaN"^^<{}double>', '"INF"^^<{}float>', '"-INF"^^<{}double>', '"1e999"^^<{}double>'),
        *('"nan"^^<{}double>', '"1_0"^^<{}integer>', '"1.0"^^<{}int>', '"1e1"^^<{}decimal>'),
        *('""^^<{}integer>', '"٣"^^<{}integer>', '"x"^^<{}gYear>', '"1999"^^<{}date>'),
        *('"1999-13-01"^^<{}date>', '"1999-02-29"^^<{}date>', '"1999-00-00"^^<{}date>'),
        *('"1999-01-01T25:00:00Z"^^<{}dateTime>', '"19990101"^^<{}date>'),
    ],
)
def test_numbers_that_are_none_are_rejects(tmp_path: Path, value: str) -> None:
    path = put(tmp_path, triples('"a"', value.format(XSD)))
    with Literals() as literals:
        _, _, report = read(path, literals=literals)
        assert (literals.numbers, literals.texts) == (0, 1)
    ((line, reason),) = [(reject.line, reject.reason) for reject in report.rejects]
    assert line == 2
    assert reason.endswith(("; correct it", "; leave the value out"))


def test_a_name_that_no_table_holds_is_a_reject(tmp_path: Path) -> None:
    names = ["a\tb", "a\nb", "\ufeffa", "a\ufeff", "a\x0bb"]
    path = put(tmp_path, "".join(f'{rdf.term(name)} <a:p> "x" .\n' for name in names))
    with Kept() as kept:
        _, _, report = read(path, literals=kept)
    assert [entity for entity, *_ in kept.values] == names[3:]
    assert [reject.line for reject in report.rejects] == [1, 2, 3]
    assert "'a\\tb' has a literal" in report.rejects[0].reason


def test_dates_are_years_with_a_fraction() -> None:
    source = random.Random(0)
    for _ in range(300):
        moment = datetime(1, 1, 2) + timedelta(seconds=source.randrange(9998 * 365 * 86400))
        year = datetime(moment.year, 1, 1)
        length = (datetime(moment.year, 12, 31) - year).days + 1
        share = (moment - year).total_seconds() / 86400 / length
        text = moment.isoformat()
        for zone in ("", "Z", "+00:00"):
            assert decimal_year(text + zone, "dateTime") == moment.year + share
        shift = timedelta(minutes=source.randrange(-840, 841))
        moved = (moment + shift).isoformat()
        minutes = int(shift.total_seconds()) // 60
        zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
        assert decimal_year(moved + zone, "dateTime") == pytest.approx(
            moment.year + share, abs=1e-9
        )
        day = datetime(moment.year, moment.month, moment.day)
        assert decimal_year(day.date().isoformat()) == moment.year + (day - year).days / length
    assert decimal_year("1999", "gYear") == decimal_year("1999-05:00", "gYear") == 1999
    assert decimal_year("1999-02", "gYearMonth") == 1999 + 31 / 365
    assert decimal_year("-0043-01-01T00:00:00Z", "dateTime") == -43
    assert decimal_year("-13798000000-01-01T00:00:00Z", "dateTime") == -13798000000
    assert decimal_year("1999-12-31T24:00:00", "dateTime") == 2000
    assert decimal_year("2000-02-29+14:00") == 2000 + 59 / 366


# Names.


def hostile(count: int) -> list[str]:
    source = random.Random(0)
    names = [
        *("nan", "007", "None", " ", "a b", "\t", "\n", "\r", "\0", "a\tb\nc\r\n", '"', "'", "\\"),
        *("<", ">", "<http://a>", "http://a> <b:b> <c:c> .\n<d:d", "_:a", "_:a b", "_:", "_:é"),
        *("_:a.", "_:a:b", "_:a <b:b> <c:c> . _:a", ":", "a:", "http://a", "http://a b", "a:b#c#d"),
        *("http://a/%zz", "http://a/%41", "http://a/\\u0041", "http://é/名?\ue000", "a:\u202eb"),
        *("urn:mocme:", "urn:mocme:a", "urn:mocme:%61", "urn:mocme:urn%3Amocme%3Aa", "URN:MOCME:a"),
        *("שלום", "مرحبا", "😀", "\ufeff", "\u2028", "\x85", "%", "%41", "x" * 50_000, "é" * 9999),
    ]
    alphabet = [
        *ALPHABET,
        "\n",
        "http://",
        "_:",
        "urn:mocme:",
        "a",
        "b",
        "1",
        "é",
        "ש",
        "😀",
        "%3A",
    ]
    while len(names) < count:
        names.append("".join(source.choices(alphabet, k=source.randrange(1, 12))))
    return names


def test_hostile_names_come_back(tmp_path: Path) -> None:
    names = hostile(10_002)
    rows = [(names[n], names[n + 1], names[n + 2]) for n in range(0, len(names), 3)]
    # The first in every place.
    rows = [(t, h, r) for h, r, t in rows[:200]] + [(r, t, h) for h, r, t in rows[:200]] + rows
    ntriples.write(tmp_path / "out.nt", rows)
    found, lines, report = read(tmp_path / "out.nt")
    assert found == rows
    assert lines == list(range(1, len(rows) + 1))
    assert not report.rejects
    for name, facts in (("out.nt.gz", ntriples.facts), ("out.nt.zst", turtle.facts)):
        ntriples.write(tmp_path / name, rows[:500])
        assert read(tmp_path / name, facts)[0] == rows[:500]
    # It is N-Triples to others too, and what are IRIs and blank nodes stay so.
    quads = list(pyoxigraph.parse(path=tmp_path / "out.nt"))
    assert len(quads) == len(rows)
    assert len({str(quad.subject) for quad in quads}) == len({head for head, *_ in rows})
    kept = {quad.subject.value for quad in quads if not quad.subject.value.startswith("urn:mocme:")}
    assert {"a", "http://a", "http://a/%41", "http://é/名?\ue000", "URN:MOCME:a", "é"} <= kept
    ntriples.write(tmp_path / "none.nt", [])
    assert read(tmp_path / "none.nt")[0] == []


def test_every_name_has_a_term_of_its_own() -> None:
    names = {*hostile(3000), *("".join(letters) for letters in product("a%:6_1", repeat=4))}
    for relation in (False, True):
        terms = {rdf.term(name, relation) for name in names}
        assert len(terms) == len(names)
        assert all(re.fullmatch(r"<[^\0-\x20<>]+>|_:[^\0-\x20]+", term) for term in terms)
    assert rdf.term("_:a") == "_:a"
    assert rdf.term("_:a", relation=True) == "<urn:mocme:_%3Aa>"
    assert rdf.term("a b") == "<urn:mocme:a%20b>"


def test_an_iri_that_might_be_taken_for_another_name_is_a_reject(tmp_path: Path) -> None:
    strange = ["", "%61", "a:b", "http%3A%2F%2Fa", "_%3Aa", "%ff", "%C3%a9", "a/b"]
    lines = [f"<urn:mocme:{iri}> <a:a> <a:a> ." for iri in strange]
    lines += ["<urn:mocme:a> <urn:mocme:_%3Aa> <urn\\u003Amocme:%C3%A9> .", "<a:a> <a:a> <a:a> ."]
    rows, numbers, report = read(put(tmp_path, "\n".join(lines)))
    assert rows == [("a", "_:a", "é"), ("a:a", "a:a", "a:a")]
    assert numbers == [len(strange) + 1, len(strange) + 2]
    assert [reject.line for reject in report.rejects] == list(range(1, len(strange) + 1))
    assert "use another namespace than urn:mocme:" in report.rejects[0].reason


@pytest.mark.parametrize("name", ["", "a\ud800"])
def test_names_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, "before")
    for row in ((name, "r", "t"), ("h", name, "t"), ("h", "r", name)):
        with pytest.raises(ValueError, match=r"file.nt: .*name"):
            ntriples.write(path, [("h", "r", "t"), row])
    with pytest.raises(ValueError, match=r"name|surrogate"):
        rdf.term(name)
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == ["file.nt"]


# Turtle.


def test_turtle_says_what_its_triples_say(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        """@prefix a: <http://a/> . @base <http://b/> .
        a:x a:r <y>, a:z ; a:n 1, 2.5, 1e3, true ; a:t "plain", "deutsch"@de .
        _:me a:r [ a:r (a:x) ] .""",
        "file.ttl",
    )
    with Kept() as kept:
        rows, lines, report = read(path, turtle.facts, literals=kept)
    first, rest, end = (
        f"http://www.w3.org/1999/02/22-rdf-syntax-ns#{part}" for part in ("first", "rest", "nil")
    )
    # Which of the two nodes comes first, pyoxigraph decides; it is the same each time.
    inner, outer = sorted(["_:b0", "_:b1"], key=[row[0] for row in rows].index)
    assert set(rows) == {
        ("http://a/x", "http://a/r", "http://b/y"),
        ("http://a/x", "http://a/r", "http://a/z"),
        ("_:me", "http://a/r", outer),
        (outer, "http://a/r", inner),
        (inner, first, "http://a/x"),
        (inner, rest, end),
    }
    assert report.lines == 12
    assert report.literals == len(kept.values) == 6
    assert lines == sorted(lines)
    assert [tuple(value) for *_, value in kept.values] == [
        ("1", "", f"{XSD}integer"),
        ("2.5", "", f"{XSD}decimal"),
        ("1e3", "", f"{XSD}double"),
        ("true", "", f"{XSD}boolean"),
        ("plain", "", ""),
        ("deutsch", "de", ""),
    ]


def test_nodes_without_a_label_have_stable_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random.Random(0)
    for trial in range(30):
        labels = [f"_:b{source.randrange(12)}" for _ in range(20)]
        nodes = [source.choice(["[]", label]) for label in labels]
        gaps = [source.choice([" ", "\n", "  # _:b3\n"]) for _ in labels]
        text = "".join(
            f"{node}{gap}<a:r> <a:{place}> ."
            for place, (node, gap) in enumerate(zip(nodes, gaps, strict=True))
        )
        path = put(tmp_path, text, "file.ttl")
        rows, *_ = read(path, turtle.facts)
        assert len(rows) == len(nodes)
        monkeypatch.setattr(turtle, "ROWS", source.randrange(1, 9))
        again, *_ = read(put(tmp_path, gzip.compress(text.encode()), "f.ttl"), turtle.facts)
        assert again == rows, trial
        # A name stands for one label, or for one node without any.
        given: dict[str, str] = {}
        for place, (node, (head, *_)) in enumerate(zip(nodes, rows, strict=True)):
            assert given.setdefault(head, node if node != "[]" else f"[{place}]") == (
                node if node != "[]" else f"[{place}]"
            )
        assert len(given) == nodes.count("[]") + len({*nodes} - {"[]"})
    text = "@prefix : <a:> . _:b1:r[]._:x.y :r[]._:é:a _:b1."
    rows, *_ = read(put(tmp_path, text, "labels.ttl"), turtle.facts)
    assert rows == [("_:b1", "a:r", "_:b0"), ("_:x.y", "a:r", "_:b2"), ("_:é", "a:a", "_:b1")]


def test_errors_of_turtle_name_the_line(tmp_path: Path) -> None:
    path = put(tmp_path, "<a:a> <a:b> <a:c> .\n<a:a> <a:b>\n<c d> .\n", "file.ttl")
    with pytest.raises(ValueError, match=r"file.ttl: line 3: .*; correct it there"):
        list(turtle.facts(path, Report(str(path))))
    path = put(tmp_path, "\ufeff<x> <a:b> <<( <a:a> <a:b> <a:c> )>>, <y> .\n", "file.ttl")
    with pytest.raises(ValueError, match=r"file.ttl: line 1: .*; correct it there"):
        list(turtle.facts(path, Report(str(path))))
    rows, _, report = read(path, turtle.facts, base="http://a/b")
    assert rows == [("http://a/x", "a:b", "http://a/y")]
    assert report.bom
    assert [reject.reason[:30] for reject in report.rejects] == ["a statement about a statement,"]
    with pytest.raises(ValueError, match="the base 'x' is no absolute IRI"):
        list(turtle.facts(path, Report(str(path)), base="x"))


def test_what_is_longer_than_pyoxigraph_reads_is_named(tmp_path: Path) -> None:
    path = put(tmp_path, f'<a:a> <a:b> <a:c> .\n<a:a> <a:b> "\\U0001F600{"x" * (1 << 24)}" .\n')
    rows, _, report = read(path)
    assert len(rows) == 1
    assert [reject.line for reject in report.rejects] == [2]
    assert "maximal size" in report.rejects[0].reason
    with pytest.raises(ValueError, match=r"longer than 16 MiB; shorten it"):
        list(turtle.facts(path, Report(str(path))))


# A slice of Wikidata.

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
    # Where the slice ends.
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
    # The same statements as Turtle, which must end with one.
    again = Selection(str(path))
    path = put(tmp_path, wikidata().rpartition("\n")[0], "slice.ttl")
    assert read(path, turtle.facts, again, predicates=chosen)[0] == rows
    assert again.left_out == 3
    for facts in (ntriples.facts, turtle.facts):
        with pytest.raises(ValueError, match="give a Selection as the report"):
            list(facts(path, Report(str(path)), predicates=chosen))
