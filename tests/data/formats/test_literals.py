"""Literals become numbers and texts, and dates become years."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path

import pytest

pyoxigraph = pytest.importorskip("pyoxigraph", reason="needs pip install 'mocme[rdf]'")

from mocme.data.formats import rdf, tsv  # noqa: E402
from mocme.data.formats.literals import Literals, decimal_year  # noqa: E402
from mocme.data.formats.rdf import XSD, Value  # noqa: E402
from rdf_files import RecordedLiterals, put, read, triples  # noqa: E402


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
    with Literals(in_memory=1) as literals:
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
    # Without a place to store them, they are still counted.
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
def test_malformed_numbers_are_rejects(tmp_path: Path, value: str) -> None:
    path = put(tmp_path, triples('"a"', value.format(XSD)))
    with Literals() as literals:
        _, _, report = read(path, literals=literals)
        assert (literals.numbers, literals.texts) == (0, 1)
    ((line, reason),) = [(reject.line, reject.reason) for reject in report.rejects]
    assert line == 2
    assert reason.endswith(("; correct it", "; leave the value out"))


def test_a_name_that_no_table_can_hold_is_a_reject(tmp_path: Path) -> None:
    names = ["a\tb", "a\nb", "\ufeffa", "a\ufeff", "a\x0bb"]
    path = put(tmp_path, "".join(f'{rdf.term(name)} <a:p> "x" .\n' for name in names))
    with RecordedLiterals() as kept:
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
