"""Store and run of encoders: what is stored, what is encoded again, what is written."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from mocme.core.interrupts import Interrupted
from mocme.data.graph import Graph, Vocabulary
from mocme.encoders import encode as encode_module
from mocme.encoders.base import EncodingFailure, EncodingJob, EncodingReport, UnusableItem
from mocme.encoders.neural import in_chunks, run
from mocme.encoders.store import FeatureStore
from mocme.encoders.writer import safetensors_header

WIDTH = 3


def graph_of(count: int) -> Graph:
    names = Vocabulary([f"e{n}" for n in range(count)])
    return Graph(names, Vocabulary(["r"], "relation"), {"train": torch.zeros(1, 3).long()})


class Lengths:
    """An engine whose vectors depend on the content and on the size of the batch."""

    width, window, unit = WIDTH, 8, False

    def __init__(self, version: str = "1", size: int = 3) -> None:
        self.identity = {"encoder": "lengths", "encoder_revision": version}
        self.size, self.encoded = size, 0
        self.stop: Callable[[], None] = lambda: None
        self.stop_after = 10**9

    def prepare(self, content: bytes, report: EncodingReport) -> bytes:
        if b"bad" in content:
            raise UnusableItem("is bad")
        return content

    def batches(self, prepared: Sequence[bytes]) -> Iterator[list[int]]:
        order = sorted(range(len(prepared)), key=lambda index: -len(prepared[index]))
        for positions in in_chunks(len(order), self.size):
            yield [order[position] for position in positions]

    def encode(self, batch: Sequence[bytes]) -> Any:
        self.encoded += len(batch)
        if self.encoded >= self.stop_after:
            self.stop()
        return np.array([[len(b), sum(b) % 97, len(batch)] for b in batch], np.float32)


def encode(
    folder: Path,
    items: Sequence[tuple[int, str]],
    engine: Lengths,
    stop_after: int | None = None,
    unit: bool = False,
) -> EncodingReport:
    """Encode texts of entities."""
    stopped = threading.Event()
    if stop_after is not None:
        engine.stop_after, engine.stop = stop_after, stopped.set
    count = max((entity for entity, _ in items), default=0) + 1
    job = EncodingJob(graph_of(count), "m", folder, folder, stopped=stopped)
    report = EncodingReport("m", "test", str(job.path))
    with FeatureStore(job.path) as store:
        store.add_items((entity, text, f"line {n}") for n, (entity, text) in enumerate(items))
        store.sort_items()
        run(job, store, engine, lambda item: item.source.encode(), report)
        report.present = store.write(job.path, job.bound(engine.identity), unit)
    return report


def file_of(folder: Path) -> Path:
    return folder / "encoded" / "m.safetensors"


TEXTS = st.lists(
    st.tuples(st.integers(0, 6), st.text("abcd", max_size=6) | st.just("bad")), max_size=40
)


@given(TEXTS)
def test_the_report_accounts_for_every_item_and_means_are_right(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    report = encode(folder, items, Lengths(size=1))
    usable = [(entity, text) for entity, text in items if "bad" not in text]
    distinct = {text for _, text in usable}
    assert report.items == len(items)
    assert len(report.failures) == len(items) - len(usable)
    assert report.encoded == len(distinct)
    assert report.shared == len(usable) - len(distinct)
    assert report.reused == 0
    present = sorted({entity for entity, _ in usable})
    assert report.present == len(present)
    if not present:
        assert not file_of(folder).exists()
        return
    tensors = load_file(file_of(folder))
    assert tensors["rows"].tolist() == present
    for entity, row in zip(present, tensors["values"], strict=True):
        texts = [text.encode() for e, text in usable if e == entity]
        expected = np.mean([[len(b), sum(b) % 97, 1] for b in texts], axis=0, dtype=np.float32)
        assert np.allclose(row.float().numpy(), expected, rtol=1e-3)


def test_a_second_call_encodes_only_what_is_new(tmp_path: Path) -> None:
    items = [(n, f"text {n}") for n in range(20)]
    assert encode(tmp_path, items, Lengths()).encoded == 20
    first = file_of(tmp_path).read_bytes()
    again = Lengths()
    report = encode(tmp_path, items, again)
    assert (report.encoded, report.reused, again.encoded) == (0, 20, 0)
    assert file_of(tmp_path).read_bytes() == first
    report = encode(tmp_path, [*items, (20, "new"), (3, "also new")], Lengths())
    assert (report.encoded, report.reused) == (2, 20)


def test_another_encoder_starts_again_and_notes_it(tmp_path: Path) -> None:
    items = [(n, f"text {n}") for n in range(5)]
    encode(tmp_path, items, Lengths("1"))
    report = encode(tmp_path, items, Lengths("2"))
    assert (report.encoded, report.reused) == (5, 0)
    assert any("anew" in note for note in report.notes)


@pytest.mark.parametrize("stop_after", [1, 4, 9, 17, 30])
def test_a_stopped_encoding_resumes_with_the_same_batches(tmp_path: Path, stop_after: int) -> None:
    # Vectors of `Lengths` contain the size of their batch, so other batches would give other bytes.
    items = [(n % 25, "ab" * (n % 7) + str(n % 31)) for n in range(45)]
    encode(tmp_path / "once", items, Lengths())
    with pytest.raises(Interrupted, match="the same command resumes"):
        encode(tmp_path / "twice", items, first := Lengths(), stop_after)
    second = Lengths()
    report = encode(tmp_path / "twice", items, second)
    assert report.reused >= stop_after
    assert first.encoded + second.encoded == len({text for _, text in items})
    once, twice = (file_of(tmp_path / name).read_bytes() for name in ("once", "twice"))
    assert once == twice


def test_values_of_an_incomplete_batch_are_dropped(tmp_path: Path) -> None:
    items = [(n, f"text {n}") for n in range(6)]
    encode(tmp_path, items, Lengths())
    values = tmp_path / "encoded" / "cache" / "m.values"
    complete = values.read_bytes()
    values.write_bytes(complete + b"torn")
    assert encode(tmp_path, items, Lengths()).reused == 6
    assert values.read_bytes() == complete
    values.write_bytes(complete[:-1])
    assert encode(tmp_path, items, Lengths()).encoded == 6
    assert len(values.read_bytes()) == len(complete)


def test_a_store_belongs_to_one_process(tmp_path: Path) -> None:
    with FeatureStore(file_of(tmp_path)), pytest.raises(ValueError, match="another process"):
        FeatureStore(file_of(tmp_path))
    damaged = tmp_path / "encoded" / "cache" / "m.sqlite"
    damaged.write_bytes(b"no database" * 100)
    with pytest.raises(ValueError, match=r"m\.sqlite: cannot be used .* delete it"):
        FeatureStore(file_of(tmp_path))


def test_vectors_beyond_float16_are_an_error(tmp_path: Path) -> None:
    with FeatureStore(file_of(tmp_path)) as store:
        store.open_vectors("x", 2)
        for bad in (np.nan, np.inf, 1e5):
            with pytest.raises(ValueError, match="NaN or a value beyond 65,504"):
                store.add_vectors([b"d"], np.array([[0.0, bad]], np.float32))
        assert store.rows == 0


def test_means_can_be_scaled_to_unit_length(tmp_path: Path) -> None:
    items = [(0, "aaa"), (0, "b"), (1, "ccccc")]
    encode(tmp_path, items, Lengths(), unit=True)
    values = load_file(file_of(tmp_path))["values"].float()
    assert torch.allclose(values.norm(dim=1), torch.ones(2), atol=1e-3)


ITEMS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["", " ", "a", "b c", "d"])))


@given(ITEMS)
def test_texts_of_an_entity_are_joined_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[int, str]]
) -> None:
    with FeatureStore(tmp_path_factory.mktemp("join") / "m.safetensors") as store:
        store.add_items((entity, text, str(n)) for n, (entity, text) in enumerate(items))
        several = store.sort_items(" | ")
        stored = [item for window in store.windows(2) for item in window]
    texts_of: dict[int, list[str]] = {}
    for entity, text in sorted(items, key=lambda item: item[0]):
        texts_of.setdefault(entity, []).append(text)
    assert several == sum(len(texts) > 1 for texts in texts_of.values())
    joined = {e: " | ".join(t for t in texts if t.strip()) for e, texts in texts_of.items()}
    assert {item.entity: item.source for item in stored} == joined
    assert [item.entity for item in stored] == sorted(texts_of)


def test_the_library_reads_the_header(tmp_path: Path) -> None:
    rows, values = np.arange(3, dtype="<i8"), np.arange(6, dtype="<f2").reshape(3, 2)
    header = safetensors_header(
        {"rows": ("I64", (3,), 8), "values": ("F16", (3, 2), 2)}, {"é": "ü\n"}
    )
    path = tmp_path / "x.safetensors"
    path.write_bytes(header + rows.tobytes() + values.tobytes())
    assert (len(header) - 8) % 8 == 0
    with safe_open(path, "np") as file:
        assert file.metadata() == {"é": "ü\n"}
        assert np.array_equal(file.get_tensor("rows"), rows)
        assert np.array_equal(file.get_tensor("values"), values)


def test_a_report_shows_failures_and_can_be_written_as_json() -> None:
    report = EncodingReport("m", "image", "x/m.safetensors", entities=4, present=1, width=2)
    for number in range(7):
        report.failures.append(EncodingFailure(f"e{number}", f"line {number}", "is broken"))
    report.count("animations")
    text = str(report)
    assert "1 of 4 entities" in text
    assert "'e4': line 4: is broken" in text
    assert f"and 2 more, all in x{os.sep}m.json" in text
    assert json.loads(json.dumps(report.as_dict()))["counts"] == {"animations": 1}


@pytest.mark.parametrize("bad", [np.nan, np.inf, 70_000.0])
def test_a_vector_that_cannot_be_stored_costs_one_item(bad: float, tmp_path: Path) -> None:
    """70,000 is finite in float32 and not in float16, the type of the store."""

    class Spoilt(Lengths):
        def encode(self, batch: Sequence[bytes]) -> Any:
            vectors = super().encode(batch)
            vectors[[b"huge" in content for content in batch], 1] = bad
            return vectors

    items = [(0, "a"), (1, "huge"), (2, "bc"), (2, "huge too")]
    report = encode(tmp_path, items, Spoilt())
    assert [(f.entity, f.place) for f in report.failures] == [("e2", "line 3"), ("e1", "line 1")]
    assert "not finite in float16" in report.failures[0].reason
    assert (report.items, report.encoded, report.present) == (4, 2, 2)
    tensors = load_file(file_of(tmp_path))
    assert tensors["rows"].tolist() == [0, 2]
    assert bool(tensors["values"].isfinite().all())


@pytest.mark.parametrize("name", ["n.json", "n.safetensors", "cache/n.values", "cache/n.sqlite"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_results_never_follow_a_link_of_a_graph(name: str, kind: str, tmp_path: Path) -> None:
    data, other = _words_graph(tmp_path / "data"), tmp_path / "mine.txt"
    other.write_text("mine")
    result = data / "encoded" / name
    result.parent.mkdir(parents=True)
    if kind == "link":
        result.symlink_to(other)
    else:
        os.mkfifo(result)
    with pytest.raises(ValueError, match=rf"{name}: is no regular file.*remove it"):
        encode_module.encode(data, {"n": {"kind": "words", "paths": ["t.tsv"], "at_least": 1}})
    assert other.read_text() == "mine"


@pytest.mark.parametrize("name", ["encoded", "encoded/cache"])
def test_results_never_go_into_a_folder_that_a_graph_links(name: str, tmp_path: Path) -> None:
    data, other = _words_graph(tmp_path / "data"), tmp_path / "mine"
    other.mkdir()
    (other / "n.json").write_text("mine")
    (data / name).parent.mkdir(exist_ok=True)
    (data / name).symlink_to(other)
    with pytest.raises(ValueError, match=r"is a link.*--out"):
        encode_module.encode(data, {"n": {"kind": "words", "paths": ["t.tsv"], "at_least": 1}})
    assert [file.name for file in other.iterdir()] == ["n.json"]
    assert (other / "n.json").read_text() == "mine"


def _words_graph(folder: Path) -> Path:
    folder.mkdir()
    (folder / "train.tsv").write_text("a\tr\tb\nb\tr\ta\n")
    (folder / "t.tsv").write_text("a\tred\nb\tred\n")
    return folder


def test_a_store_with_a_trigger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with FeatureStore(path):
        pass
    with closing(sqlite3.connect(tmp_path / "cache" / "m.sqlite")) as db:
        db.execute("create trigger t after insert on about begin delete from vectors; end")
    with pytest.raises(ValueError, match=r"other tables, views or triggers.*delete it"):
        FeatureStore(path)
