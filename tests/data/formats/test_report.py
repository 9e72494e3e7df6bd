"""A report counts every reject and keeps few of them."""

from __future__ import annotations

import pytest

from mocme.data.formats import tsv
from mocme.data.formats.report import KEPT, OTHER_REASONS, REASONS, Report


def test_all_rejects_are_counted_and_the_first_are_kept() -> None:
    count = 3 * KEPT
    report = tsv.parse(b"only one\n" * count + b"a\tb\n", 3, "f.tsv").report
    assert (report.lines, report.rejected) == (count + 1, count + 1)
    assert report.accounted
    assert [reject.line for reject in report.rejects] == list(range(1, KEPT + 1))
    assert report.reasons == {
        "1 columns where 3 are expected": count,
        "2 columns where 3 are expected": 1,
    }
    text = str(report)
    assert f"+ {count + 1:,} rejects" in text
    assert f"and {count - 4:,} more" in text
    assert f"by reason: {count:,} x 1 columns" in text
    assert text.count("\n") < 12


def test_reasons_are_bounded_though_they_may_quote_the_line() -> None:
    report = Report("f")
    for number in range(10 * REASONS):
        report.reject(number, f"reason {number}", "x" * 1000)
    assert len(report.reasons) <= REASONS + 1
    assert report.reasons[OTHER_REASONS] == 9 * REASONS
    assert sum(report.reasons.values()) == report.rejected == 10 * REASONS
    assert max(len(reject.text) for reject in report.rejects) == 80


def test_cells_are_counted_and_the_first_are_kept() -> None:
    report = Report("f", lines=5000, rows=5000)
    for number in range(5000):
        report.reject_cell(number, "not a number", "x")
    assert (report.unusable, len(report.cells)) == (5000, KEPT)
    assert report.accounted
    assert "5,000 cells of its rows are unusable" in str(report)
    assert "and 4,995 more cells" in str(report)


@pytest.mark.parametrize("path", ["a\x1b]0;x\x07b", "a\nb: 3 lines", "a\u202eb"])
def test_a_path_cannot_add_lines_or_reach_the_terminal(path: str) -> None:
    report = Report(path)
    report.reject(1, f"odd {path}", path)
    lines = str(report).split("\n")
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
