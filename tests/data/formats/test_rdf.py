"""Names become RDF terms and back, exactly."""

from __future__ import annotations

import random
import re
from itertools import product
from pathlib import Path

import pytest

pyoxigraph = pytest.importorskip("pyoxigraph", reason="needs pip install 'mocme[rdf]'")

from mocme.data.formats import rdf  # noqa: E402
from mocme.data.formats.kinds import ntriples, turtle  # noqa: E402
from rdf_files import ALPHABET, put, read  # noqa: E402


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
    # The first names as heads, relations and tails.
    rows = [(t, h, r) for h, r, t in rows[:200]] + [(r, t, h) for h, r, t in rows[:200]] + rows
    ntriples.write(tmp_path / "out.nt", rows)
    read_rows, lines, report = read(tmp_path / "out.nt")
    assert read_rows == rows
    assert lines == list(range(1, len(rows) + 1))
    assert not report.rejects
    for name, facts in (("out.nt.gz", ntriples.statements), ("out.nt.zst", turtle.statements)):
        ntriples.write(tmp_path / name, rows[:500])
        assert read(tmp_path / name, facts)[0] == rows[:500]
    # Other programs read it too, and IRIs and blank nodes stay such.
    quads = list(pyoxigraph.parse(path=tmp_path / "out.nt"))
    assert len(quads) == len(rows)
    assert len({str(quad.subject) for quad in quads}) == len({head for head, *_ in rows})
    iris = {quad.subject.value for quad in quads if not quad.subject.value.startswith("urn:mocme:")}
    assert {"a", "http://a", "http://a/%41", "http://é/名?\ue000", "URN:MOCME:a", "é"} <= iris
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


def test_an_ambiguous_iri_is_a_reject(tmp_path: Path) -> None:
    ambiguous = ["", "%61", "a:b", "http%3A%2F%2Fa", "_%3Aa", "%ff", "%C3%a9", "a/b"]
    lines = [f"<urn:mocme:{iri}> <a:a> <a:a> ." for iri in ambiguous]
    lines += ["<urn:mocme:a> <urn:mocme:_%3Aa> <urn\\u003Amocme:%C3%A9> .", "<a:a> <a:a> <a:a> ."]
    rows, numbers, report = read(put(tmp_path, "\n".join(lines)))
    assert rows == [("a", "_:a", "é"), ("a:a", "a:a", "a:a")]
    assert numbers == [len(ambiguous) + 1, len(ambiguous) + 2]
    assert [reject.line for reject in report.rejects] == list(range(1, len(ambiguous) + 1))
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
    assert [file.name for file in tmp_path.iterdir()] == ["file.nt"]
