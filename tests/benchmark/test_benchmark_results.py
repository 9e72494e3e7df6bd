"""Stored results: archives with reproducible bytes, ranks in small types, the test log."""

from __future__ import annotations

import multiprocessing
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import numpy as safetensors_numpy

from mocme.benchmark.archive import ResultArchive, ResultError
from mocme.benchmark.results import (
    TEST_LOG,
    ResultFiles,
    canonical,
    count_test_evaluations,
    log_test_evaluation,
    pack_ranks,
)
from mocme.evaluation.ranking import Ranks

SHIPPED = sorted((Path(__file__).parents[2] / "benchmarks/accuracy/results").glob("*.zip"))


# -- archives --------------------------------------------------------------------------------------


def add(path: Path, content: dict[str, bytes]) -> None:
    ResultArchive(path).update(lambda members: members.update(content))


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    content = {"b/one.json": b"1" * 500, "a.jsonl": b"", "é": bytes(range(256))}
    add(tmp_path / "first.zip", content)
    for name in reversed(content):
        add(tmp_path / "second.zip", {name: content[name]})
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == content
        assert archive.namelist() == sorted(content)
        assert {info.date_time[0] for info in archive.infolist()} == {1980}


def test_a_missing_or_empty_file_has_no_members(tmp_path: Path) -> None:
    archive = ResultArchive(tmp_path / "a.zip")
    assert archive.names() == []
    assert archive.read("x") is None
    archive.path.touch()
    assert archive.names() == []
    add(archive.path, {"x": b"1"})
    assert archive.read("x") == b"1"


def _add_many(path: Path, prefix: str) -> None:
    for number in range(20):
        add(path, {f"{prefix}-{number}": b"x"})


def test_processes_lose_no_update_of_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "a.zip"
    writers = [context.Process(target=_add_many, args=(path, prefix)) for prefix in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(ResultArchive(path).names()) == 60
    assert os.listdir(tmp_path) == ["a.zip"]


def _update_for_long(path: Path) -> None:
    def edit(members: dict[str, bytes]) -> None:
        members["lost"] = b"y"
        path.with_name("started").touch()
        time.sleep(600)

    ResultArchive(path).update(edit)


def test_a_process_that_is_killed_in_an_update_loses_only_that(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    add(path, {"kept": b"x"})
    before = path.read_bytes()
    writer = multiprocessing.get_context("fork").Process(target=_update_for_long, args=(path,))
    writer.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    (tmp_path / ".a.zip.tmp").write_bytes(b"half of an arch")
    writer.kill()
    writer.join()
    assert path.read_bytes() == before
    add(path, {"later": b"z"})
    assert ResultArchive(path).names() == ["kept", "later"]
    assert not (tmp_path / ".a.zip.tmp").exists()


def test_an_update_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zip"
    add(path, {"kept": b"x"})
    before = path.read_bytes()

    def fail(path: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("mocme.benchmark.archive.sync", fail)
    with pytest.raises(OSError, match="disk full"):
        add(path, {"later": b"z"})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_archive_is_refused_and_left_alone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.zip"
    add(path, {"a": os.urandom(200)})
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    broken = {"cut": bytes(content[:150]), "flipped": bytes(content), "text": b"not a zip"}[damage]
    path.write_bytes(broken)
    with pytest.raises(ResultError, match=r"a\.zip is damaged .*restore it from a copy"):
        ResultArchive(path).read("a")
    with pytest.raises(ResultError, match="is damaged"):
        add(path, {"b": b"1"})
    assert path.read_bytes() == broken


# -- ranks -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(2, 2**31 - 1), max_size=20), st.sampled_from([2**8, 2**16, 2**31]))
def test_packed_ranks_take_the_smallest_type_and_are_exact(values: list[int], limit: int) -> None:
    ranks = torch.tensor([min(value, limit - 1) for value in values], dtype=torch.int32)
    packed = pack_ranks({"valid": ranks})
    assert packed == pack_ranks({"valid": ranks})
    stored = safetensors_numpy.load(packed)["valid"]
    assert stored.tolist() == ranks.tolist()
    assert stored.itemsize == next(
        size for size in (1, 2, 4) if max(ranks.tolist(), default=0) < 256**size
    )


def test_questions_have_one_order_and_a_digest(tiny_graph: Callable[..., Any]) -> None:
    graph = tiny_graph().graph
    generator = torch.Generator().manual_seed(0)
    questions = torch.cartesian_prod(torch.arange(4), torch.arange(3), torch.arange(4))
    above, ties = (torch.randint(0, 9, (len(questions),), generator=generator) for _ in range(2))
    candidates = torch.full_like(above, 12)
    columns = (*questions.unbind(1), above, ties, candidates)
    double_ranks, digest = canonical(Ranks(*columns), graph)
    assert double_ranks.tolist() == (2 * Ranks(*columns).realistic).long().tolist()
    order = torch.randperm(len(questions), generator=generator)
    again, same = canonical(Ranks(*(column[order] for column in columns)), graph)
    assert torch.equal(again, double_ranks)
    assert same == digest
    fewer = canonical(Ranks(*(column[1:] for column in columns)), graph)[1]
    elsewhere = canonical(Ranks(*columns), tiny_graph(entities=13).graph)[1]
    assert len({digest, fewer, elsewhere}) == 3


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_ranks_give_the_shipped_metrics(path: Path) -> None:
    archive = ResultArchive(path)
    stems = [name.removesuffix(".ranks.safetensors") for name in archive.names() if "ranks" in name]
    assert stems
    for stem in stems:
        files = ResultFiles(archive, stem)
        result = files.read_result()
        assert result is not None
        for split, metrics in result["splits"].items():
            double_ranks = files.read_ranks(result, split)
            assert len(double_ranks) == metrics["count"]
            assert np.mean(2 / double_ranks) == pytest.approx(metrics["mrr"], abs=1e-12)
            assert np.mean(double_ranks) / 2 == pytest.approx(metrics["mr"], rel=1e-12)


# -- evaluations of test ---------------------------------------------------------------------------


def test_an_unreadable_line_hides_no_test_evaluation(tmp_path: Path) -> None:
    archive = ResultArchive(tmp_path / "a.zip")
    log_test_evaluation(archive, {"row": "a", "graph": "g"})
    assert count_test_evaluations(archive) == {("a", "g"): 1}
    archive.update(lambda members: members.update({TEST_LOG: members[TEST_LOG] + b'{"row": "b"'}))
    log_test_evaluation(archive, {"row": "c", "graph": "g"})
    with pytest.raises(ResultError, match="line 2 is unreadable"):
        count_test_evaluations(archive)
    assert len((archive.read(TEST_LOG) or b"").splitlines()) == 3


def test_test_evaluations_of_two_processes_are_all_counted(tmp_path: Path) -> None:
    archive = ResultArchive(tmp_path / "a.zip")
    context = multiprocessing.get_context("fork")

    def log() -> None:
        for _ in range(10):
            log_test_evaluation(archive, {"row": "a", "graph": "g"})

    writers = [context.Process(target=log) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert count_test_evaluations(archive) == {("a", "g"): 20}


def test_an_archive_that_unpacks_to_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mocme.benchmark.archive.MEMBER_BYTES", 1000)
    monkeypatch.setattr("mocme.benchmark.archive.ARCHIVE_BYTES", 1500)
    add(tmp_path / "good.zip", {"a": b"x" * 700, "b": b"x" * 700})
    assert ResultArchive(tmp_path / "good.zip").read("a") == b"x" * 700
    for name, members in (("one", {"a": b"x" * 1001}), ("all", dict.fromkeys("abc", b"x" * 600))):
        path = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        for action in (ResultArchive(path).names, lambda path=path: add(path, {"d": b"x"})):
            with pytest.raises(ResultError, match="unpacks to more than"):
                action()


def test_an_archive_is_a_regular_file(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    os.mkfifo(path)
    with pytest.raises(ResultError, match="is no regular file"):
        ResultArchive(path).names()
    with pytest.raises(ResultError, match="is no regular file"):
        add(path, {"a": b"x"})
