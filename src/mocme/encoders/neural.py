"""Encoding with a network: new items are prepared by threads, encoded in batches, and stored."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from mocme.core.digest import file_digest
from mocme.core.interrupts import Interrupted
from mocme.encoders.base import EncodingFailure, EncodingJob, EncodingReport, UnusableItem
from mocme.encoders.inputs import RawEncoder
from mocme.encoders.store import TYPE, FeatureStore, RawItem, storable

# Description of an encoder in the metadata of its file; stored vectors are reused if it is equal.
Identity = Mapping[str, str]


@runtime_checkable
class Engine(Protocol):
    """A loaded network together with the preparation of its inputs.

    Attributes:
        identity: model, revision, and every setting that changes a vector.
        width: F.
        window: number of items prepared together; batches do not span several windows.
        unit: whether vectors have length 1.
    """

    identity: Identity
    width: int
    window: int
    unit: bool

    def prepare(self, content: Any, report: EncodingReport) -> Any:
        """Make the network's input for an item; called from a thread.

        Args:
            content: the bytes of the item, or the path of its file, see `NeuralEncoder.content`.

        Raises:
            UnusableItem: with the reason.
        """

    def batches(self, prepared: Sequence[Any]) -> Iterator[list[int]]:
        """Divide inputs into batches of indices, in an order that depends on the inputs only."""

    def encode(self, batch: Sequence[Any]) -> Float[np.ndarray, "n F"]:
        """The vectors of a batch of inputs."""


class PreparedItem(NamedTuple):
    """An item that is ready for encoding.

    Attributes:
        digest: SHA-256 of the item's content.
        row: the row of its vector, if it is stored already; then `content` is None.
        content: the network's input.
    """

    digest: bytes
    row: int | None
    content: Any


def in_chunks(count: int, size: int) -> Iterator[list[int]]:
    """The indices 0 .. count - 1, at most `size` at a time."""
    for first in range(0, count, size):
        yield list(range(first, min(first + size, count)))


def run(
    job: EncodingJob,
    store: FeatureStore,
    engine: Engine,
    content: Callable[[RawItem], bytes | Path],
    report: EncodingReport,
) -> None:
    """Encode the items of a store that have no vector yet.

    Args:
        content: see `NeuralEncoder.content`.

    Raises:
        Interrupted: the job was stopped; all complete batches are stored.
    """
    started = time.perf_counter()
    identity = json.dumps(engine.identity, sort_keys=True)
    if store.open_vectors(identity, engine.width):
        report.notes.append("the encoder or its settings changed, so everything is encoded anew")
    report.items, report.width = len(store), engine.width
    done, rows_before = 0, store.rows
    job.progress(0, report.items)
    for window, futures in _prepared_windows(store, engine, content, report):
        new = _new_contents(job, store, window, futures, rows_before, report)
        done += len(window) - len(new)
        digests, contents = list(new), [content for _, content in new.values()]
        for batch in engine.batches(contents):
            if job.stopped.is_set():
                raise Interrupted(
                    f"stopped after {done:,} of {report.items:,}; the same command resumes"
                )
            vectors = engine.encode([contents[index] for index in batch])
            usable = storable(vectors)
            for index in itertools.compress(batch, ~usable):
                item = new[digests[index]][0]
                name, reason = (
                    job.graph.entities[item.entity],
                    f"its vector is not finite in {TYPE}",
                )
                report.failures.append(EncodingFailure(name, item.origin, reason))
            stored = [digests[index] for index in itertools.compress(batch, usable)]
            store.add_vectors(stored, vectors[usable])
            report.encoded += int(usable.sum())
            done += len(batch)
            job.progress(done, report.items)
        job.progress(done, report.items)
    report.seconds = time.perf_counter() - started


def _new_contents(
    job: EncodingJob,
    store: FeatureStore,
    window: Sequence[RawItem],
    futures: Sequence[Future[PreparedItem]],
    rows_before: int,
    report: EncodingReport,
) -> dict[bytes, tuple[RawItem, Any]]:
    """The items and inputs of a window that have no vector yet, by digest; records the others.

    Args:
        rows_before: number of vectors that earlier calls stored.
    """
    digests: list[tuple[int, bytes]] = []
    new: dict[bytes, tuple[RawItem, Any]] = {}
    for item, future in zip(window, futures, strict=True):
        try:
            prepared = future.result()
        except UnusableItem as error:
            name = job.graph.entities[item.entity]
            report.failures.append(EncodingFailure(name, item.origin, str(error)))
            continue
        digests.append((item.id, prepared.digest))
        # The previous window may have encoded the same content after this item was prepared.
        row = store.row(prepared.digest) if prepared.row is None else prepared.row
        if row is not None and row < rows_before:
            report.reused += 1
        elif row is not None or prepared.digest in new:
            report.shared += 1
        else:
            new[prepared.digest] = item, prepared.content
    store.set_digests(digests)
    return new


def _digest(content: bytes | Path) -> bytes:
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    try:
        return bytes.fromhex(file_digest(content))
    except OSError as error:
        raise UnusableItem(f"{content}: cannot be read ({error.strerror})") from error


def _prepared_windows(
    store: FeatureStore,
    engine: Engine,
    content: Callable[[RawItem], bytes | Path],
    report: EncodingReport,
) -> Iterator[tuple[Sequence[RawItem], list[Future[PreparedItem]]]]:
    """Windows of items; threads prepare the next window while this one is encoded."""

    def prepare(item: RawItem) -> PreparedItem:
        data = content(item)
        digest = _digest(data)
        row = store.row(digest)
        return PreparedItem(digest, row, engine.prepare(data, report) if row is None else None)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        previous: tuple[Sequence[RawItem], list[Future[PreparedItem]]] | None = None
        try:
            for window in store.windows(engine.window):
                futures = [pool.submit(prepare, item) for item in window]
                if previous is not None:
                    yield previous
                previous = window, futures
            if previous is not None:
                yield previous
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class NeuralEncoder(RawEncoder):
    """An encoder whose vectors come from a network, one for each text or file.

    Attributes:
        several: description of the entities with more than one item, in the report's counts.
    """

    several: ClassVar[str] = "entities with several files, averaged"

    @abstractmethod
    def engine(self, device: torch.device, allow_download: bool) -> Engine:
        """Load the network of these settings.

        Raises:
            ValueError: a library is missing, or the model cannot be loaded; with the remedy.
        """

    @abstractmethod
    def content(self, item: RawItem) -> bytes | Path:
        """The content of an item, whose digest identifies it between runs.

        It is the bytes, or the path of a file that is too large to hold in memory.

        Raises:
            UnusableItem: the item has no content.
        """

    def separator(self) -> str | None:
        """What joins all texts of an entity to one item; None to encode items separately."""
        return None

    def encode(self, job: EncodingJob) -> EncodingReport:
        report = EncodingReport(job.name, self.kind_name(), str(job.path))
        with FeatureStore(job.path) as store:
            sources = self.gather(job, store, report)
            if several := store.sort_items(self.separator()):
                report.counts[self.several] = several
            if not len(store):  # nothing to encode: do not load the network
                return report
            engine = self.engine(job.device, job.allow_download)
            run(job, store, engine, self.content, report)
            metadata = job.bound({**engine.identity, **sources})
            report.present = store.write(job.path, metadata, unit=engine.unit)
        return report
