"""Pages: tables from stored results alone, refusals of results that do not compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_benchmark import (
    TEXT,
    call,
    members,
    page_of,
    replace_member,
    results,
    run_benchmark,
)

from mocme.benchmark import runner
from mocme.benchmark.archive import ResultError
from mocme.benchmark.markdown import put, render
from mocme.benchmark.plan import plan
from mocme.benchmark.spec import BenchmarkSpec


def rendered(home: Path) -> str:
    spec = BenchmarkSpec.read(home / "small.toml")
    return render(spec, plan(spec, home / "runs"), home / "page.md")


def test_a_page_is_rendered_from_results_again_and_again(home: Path) -> None:
    run_benchmark(home)
    page = page_of(home)
    words = (home / "small.toml", "--render", page)
    assert call(*words, "--check").exit_code == 1
    assert call(*words).exit_code == 0
    text = page.read_text()
    assert call(*words, "--check").exit_code == 0
    assert "was up to date" in call(*words).stdout
    assert page.read_text() == text
    assert text.startswith("# Before\n")
    assert text.endswith("\n\nafter\n")
    values = [
        results(home)[f"tokens/tiny/seed-{seed}"]["splits"]["valid"]["mrr"] for seed in (0, 1)
    ]
    mean, deviation = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
    assert f"| tokens | tiny | 0, 1 | {mean:.4f} ± {deviation:.4f} |" in text
    assert "| tokens | structure only | tiny | 2 and 2 |" in text
    assert "4 of 4 runs of [small.toml](small.toml), measured with mocme" in text
    page.write_text(text.replace("± ", "± 9"))
    assert call(*words, "--check").exit_code == 1


def test_a_page_shows_what_is_missing_and_marks_published_results(home: Path) -> None:
    published = '[[published]]\nname = "A | B"\ngraph = "tiny"\nmrr = 0.25\nprotocol = "unknown"\n'
    (home / "small.toml").write_text(f'{TEXT}\n{published}source = "somewhere"\nsplit = "valid"\n')
    spec = BenchmarkSpec.read(home / "small.toml")
    runs = plan(spec, home / "runs")
    empty = render(spec, runs, home / "page.md")
    assert "nothing measured yet" in empty
    assert "Test:" not in empty  # no row asks for it
    runs[3].files.write_failure({"kind": "Diverged", "message": "at step 3"})
    runner.run(spec, runs[:3], worker=runner.in_this_process, threads=1, tell=lambda _: None)
    text = render(spec, runs, home / "page.md")
    assert "| tokens | tiny | 0 (of 2) |" in text
    assert "- tokens on tiny, seed 1: not measured, Diverged: at step 3" in text
    assert "| A \\| B † 1 | tiny | - | 0.25 |" in text
    assert "† 1: A | B on tiny, not measured here; unknown; somewhere" in text


def test_results_that_cannot_be_compared_are_refused(home: Path) -> None:
    run_benchmark(home)
    stored = results(home)

    def with_other_questions(stem: str) -> dict[str, Any]:
        ranks = {**stored[stem]["ranks"], "questions": {"valid": "0"}}
        return {**stored[stem], "ranks": ranks}

    first, second = "structure-only/tiny/seed-0", "structure-only/tiny/seed-1"
    replace_member(home, f"{first}.json", with_other_questions(first))
    with pytest.raises(ResultError, match="its seeds rank different valid questions"):
        rendered(home)
    replace_member(home, f"{second}.json", with_other_questions(second))
    with pytest.raises(ResultError, match="structure only and tokens on tiny rank diff"):
        rendered(home)
    replace_member(home, f"{first}.json", b"{")
    with pytest.raises(ResultError, match=r"small\.zip: .*seed-0\.json is damaged.*zip -d"):
        rendered(home)


def test_altered_ranks_are_refused(home: Path) -> None:
    run_benchmark(home)
    name = "structure-only/tiny/seed-0.ranks.safetensors"
    replace_member(home, name, members(home)[name] + b"x")
    with pytest.raises(ResultError, match=rf"{name} is missing or was changed"):
        rendered(home)


def test_a_result_of_a_newer_format_is_refused(home: Path) -> None:
    run_benchmark(home)
    name = "structure-only/tiny/seed-0"
    replace_member(home, f"{name}.json", {**results(home)[name], "format": 99})
    with pytest.raises(ResultError, match="has the format 99; upgrade mocme"):
        rendered(home)


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    first, last = "<!-- benchmark: a -->\n", "<!-- end of benchmark: a -->\n"
    for text in ("", last + first, first * 2):
        page.write_text(text)
        with pytest.raises(ResultError, match="needs these two lines"):
            put(page, "a", "table")


def test_rendering_shows_no_results_of_another_configuration(home: Path) -> None:
    run_benchmark(home)
    (home / "small.toml").write_text(TEXT.replace(" 8\n", " 16\n"))
    result = call(home / "small.toml", "--render", page_of(home))
    assert result.exit_code == 1
    assert "experts.embedding.embedding_dim is 16, stored 8" in result.stderr


def test_a_row_may_have_several_controls(home: Path) -> None:
    third = '[[rows]]\nname = "third"\nexperiment = "structure"\n'
    third += (
        'set = {"experts.embedding.training.epochs" = 1}\ncontrol = ["tokens", "structure only"]\n'
    )
    (home / "small.toml").write_text(TEXT + third)
    run_benchmark(home)
    rows = [line.split(" | ") for line in rendered(home).splitlines() if "difference" not in line]
    pairs = [(row[0].strip("| "), row[1]) for row in rows if len(row) == 6 and " to " in row[-1]]
    assert pairs == [("tokens", "structure only"), ("third", "tokens"), ("third", "structure only")]
