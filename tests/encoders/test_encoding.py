"""Store and run of encoders: what is kept, what is encoded again, what is written."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from mocme.core.device import Interrupted
from mocme.data.graph import Graph, Vocabulary
from mocme.encoders.base import EncodingJob, EncodingReport, UnusableItem
from mocme.encoders.neural import in_chunks, run
from mocme.encoders.store import FeatureStore
from mocme.encoders.writer import header

WIDTH = 3


def graph_of(count: int) -> Graph:
    names = Vocabulary([f"e{n}" for n in range(count)])
    return Graph(names, Vocabulary(["r"], "relation"), {"train": torch.zeros(1, 3).long()})


class Lengths:
    """A network whose vectors tell of the content and of the batch that it was encoded in."""

    width, window, unit = WIDTH, 8, False

    def __init__(self, version: str = "1", size: int = 3) -> None:
        self.identity = {"encoder": "lengths", "encoder_revision": version}
        self.size, self.seen = size, 0
        self.stop: Callable[[], None] = lambda: None
        self.most = 10**9

    def prepare(self, content: bytes, outcome: EncodingReport) -> bytes:
        if b"bad" in content:
            raise UnusableItem("is bad")
        return content

    def batches(self, ready: Sequence[bytes]) -> Iterator[list[int]]:
        order = sorted(range(len(ready)), key=lambda place: -len(ready[place]))
        for places in in_chunks(len(order), self.size):
            yield [order[place] for place in places]

    def encode(self, batch: Sequence[bytes]) -> Any:
        self.seen += len(batch)
        if self.seen >= self.most:
            self.stop()
        return np.array([[len(b), sum(b) % 97, len(batch)] for b in batch], np.float32)


def encoded(
    folder: Path,
    items: Sequence[tuple[int, str]],
    engine: Lengths,
    stop_after: int | None = None,
    unit: bool = False,
) -> EncodingReport:
    """Encode texts of entities."""
    stopped = threading.Event()
    if stop_after is not None:
        engine.most, engine.stop = stop_after, stopped.set
    count = max((entity for entity, _ in items), default=0) + 1
    job = EncodingJob(graph_of(count), "m", folder, folder, stopped=stopped)
    outcome = EncodingReport("m", "test", str(job.path))
    with FeatureStore(job.path) as store:
        store.enlist((entity, text, f"line {n}") for n, (entity, text) in enumerate(items))
        store.settle()
        run(job, store, engine, lambda item: item.source.encode(), outcome)
        outcome.present = store.write(job.path, job.bound(engine.identity), unit)
    return outcome


def file_of(folder: Path) -> Path:
    return folder / "encoded" / "m.safetensors"


TEXTS = st.lists(
    st.tuples(st.integers(0, 6), st.text("abcd", max_size=6) | st.just("bad")), max_size=40
)


@given(TEXTS)
def test_every_item_is_accounted_for_and_means_are_right(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    outcome = encoded(folder, items, Lengths(size=1))
    usable = [(entity, text) for entity, text in items if "bad" not in text]
    distinct = {text for _, text in usable}
    assert outcome.items == len(items)
    assert len(outcome.failures) == len(items) - len(usable)
    assert outcome.encoded == len(distinct)
    assert outcome.shared == len(usable) - len(distinct)
    assert outcome.reused == 0
    present = sorted({entity for entity, _ in usable})
    assert outcome.present == len(present)
    if not present:
        assert not file_of(folder).exists()
        return
    found = load_file(file_of(folder))
    assert found["rows"].tolist() == present
    for entity, row in zip(present, found["values"], strict=True):
        mine = [text.encode() for e, text in usable if e == entity]
        want = np.mean([[len(b), sum(b) % 97, 1] for b in mine], axis=0, dtype=np.float32)
        assert np.allclose(row.float().numpy(), want, rtol=1e-3)


def test_a_second_call_encodes_only_what_is_new(tmp_path: Path) -> None:
    items = [(n, f"text {n}") for n in range(20)]
    assert encoded(tmp_path, items, Lengths()).encoded == 20
    first = file_of(tmp_path).read_bytes()
    again = Lengths()
    outcome = encoded(tmp_path, items, again)
    assert (outcome.encoded, outcome.reused, again.seen) == (0, 20, 0)
    assert file_of(tmp_path).read_bytes() == first
    outcome = encoded(tmp_path, [*items, (20, "new"), (3, "also new")], Lengths())
    assert (outcome.encoded, outcome.reused) == (2, 20)


def test_another_encoder_begins_anew_and_says_so(tmp_path: Path) -> None:
    items = [(n, f"text {n}") for n in range(5)]
    encoded(tmp_path, items, Lengths("1"))
    outcome = encoded(tmp_path, items, Lengths("2"))
    assert (outcome.encoded, outcome.reused) == (5, 0)
    assert any("anew" in note for note in outcome.notes)


@pytest.mark.parametrize("stop_after", [1, 4, 9, 17, 30])
def test_what_was_stopped_goes_on_with_the_batches_it_would_have_made(
    tmp_path: Path, stop_after: int
) -> None:
    # A vector of `Lengths` holds the size of its batch, so other batches would show.
    items = [(n % 25, "ab" * (n % 7) + str(n % 31)) for n in range(45)]
    encoded(tmp_path / "whole", items, Lengths())
    with pytest.raises(Interrupted, match="the same command goes on"):
        encoded(tmp_path / "parts", items, first := Lengths(), stop_after)
    rest = Lengths()
    outcome = encoded(tmp_path / "parts", items, rest)
    assert outcome.reused >= stop_after
    assert first.seen + rest.seen == len({text for _, text in items})
    whole, parts = (file_of(tmp_path / name).read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_values_beyond_the_last_whole_batch_are_dropped(tmp_path: Path) -> None:
    items = [(n, f"text {n}") for n in range(6)]
    encoded(tmp_path, items, Lengths())
    values = tmp_path / "encoded" / "cache" / "m.values"
    whole = values.read_bytes()
    values.write_bytes(whole + b"torn")
    assert encoded(tmp_path, items, Lengths()).reused == 6
    assert values.read_bytes() == whole
    values.write_bytes(whole[:-1])
    assert encoded(tmp_path, items, Lengths()).encoded == 6
    assert len(values.read_bytes()) == len(whole)


def test_a_store_belongs_to_one_process(tmp_path: Path) -> None:
    with FeatureStore(file_of(tmp_path)), pytest.raises(ValueError, match="another process"):
        FeatureStore(file_of(tmp_path))
    damaged = tmp_path / "encoded" / "cache" / "m.sqlite"
    damaged.write_bytes(b"no database" * 100)
    with pytest.raises(ValueError, match=r"m\.sqlite: cannot be used .* delete it"):
        FeatureStore(file_of(tmp_path))


def test_vectors_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    with FeatureStore(file_of(tmp_path)) as store:
        store.begin("x", 2)
        for bad in (np.nan, np.inf, 1e5):
            with pytest.raises(ValueError, match="NaN or is beyond 65,504"):
                store.add([b"d"], np.array([[0.0, bad]], np.float32))
        assert store.rows == 0


def test_unit_means(tmp_path: Path) -> None:
    items = [(0, "aaa"), (0, "b"), (1, "ccccc")]
    encoded(tmp_path, items, Lengths(), unit=True)
    values = load_file(file_of(tmp_path))["values"].float()
    assert torch.allclose(values.norm(dim=1), torch.ones(2), atol=1e-3)


LISTED = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["", " ", "a", "b c", "d"])))


@given(LISTED)
def test_texts_of_an_entity_are_joined_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[int, str]]
) -> None:
    with FeatureStore(tmp_path_factory.mktemp("join") / "m.safetensors") as store:
        store.enlist((entity, text, str(n)) for n, (entity, text) in enumerate(items))
        several = store.settle(" | ")
        found = [item for window in store.windows(2) for item in window]
    want: dict[int, list[str]] = {}
    for entity, text in sorted(items, key=lambda item: item[0]):
        want.setdefault(entity, []).append(text)
    assert several == sum(len(texts) > 1 for texts in want.values())
    joined = {e: " | ".join(t for t in texts if t.strip()) for e, texts in want.items()}
    assert {item.entity: item.source for item in found} == joined
    assert [item.entity for item in found] == sorted(want)


def test_the_header_is_what_the_library_reads(tmp_path: Path) -> None:
    rows, values = np.arange(3, dtype="<i8"), np.arange(6, dtype="<f2").reshape(3, 2)
    text = header({"rows": ("I64", (3,), 8), "values": ("F16", (3, 2), 2)}, {"é": "ü\n"})
    path = tmp_path / "x.safetensors"
    path.write_bytes(text + rows.tobytes() + values.tobytes())
    assert (len(text) - 8) % 8 == 0
    with safe_open(path, "np") as file:
        assert file.metadata() == {"é": "ü\n"}
        assert np.array_equal(file.get_tensor("rows"), rows)
        assert np.array_equal(file.get_tensor("values"), values)


def test_an_outcome_is_plain_and_shows_what_failed() -> None:
    outcome = EncodingReport("m", "image", "x/m.safetensors", entities=4, present=1, width=2)
    for number in range(7):
        from mocme.encoders.base import EncodingFailure

        outcome.failures.append(EncodingFailure(f"e{number}", f"line {number}", "is broken"))
    outcome.count("animations")
    text = str(outcome)
    assert "1 of 4 entities" in text
    assert "'e4': line 4: is broken" in text
    assert f"and 2 more, all in x{os.sep}m.json" in text
    assert json.loads(json.dumps(outcome.as_dict()))["counts"] == {"animations": 1}
