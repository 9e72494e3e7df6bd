"""Encoding by a network: what is new is prepared by threads, encoded in batches, and kept."""

from __future__ import annotations

import hashlib
import json
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from mocme.core.device import Interrupted
from mocme.encoders.base import EncodingFailure, EncodingJob, EncodingReport, UnusableItem
from mocme.encoders.inputs import RawEncoder
from mocme.encoders.pretrained import sha256
from mocme.encoders.store import FeatureStore, RawItem

# What is told of an encoder in the file that it makes; it decides whether vectors may be reused.
Identity = Mapping[str, str]


@runtime_checkable
class Engine(Protocol):
    """A network that is loaded, and how its input is made.

    Attributes:
        identity: model, revision, and every setting that changes a vector.
        width: F.
        window: items that are looked at together; batches do not reach beyond them.
        unit: vectors have length 1.
    """

    identity: Identity
    width: int
    window: int
    unit: bool

    def prepare(self, content: Any, outcome: EncodingReport) -> Any:
        """Input for the network, made in a thread.

        Args:
            content: what `run` was told to get of an item, bytes or a path.

        Raises:
            Unusable: with the reason.
        """

    def batches(self, ready: Sequence[Any]) -> Iterator[list[int]]:
        """Places of what goes together, in an order that depends on nothing but their content."""

    def encode(self, batch: Sequence[Any]) -> Float[np.ndarray, "n F"]:
        """The vectors of a batch."""


class PreparedItem(NamedTuple):
    """An item that was looked at.

    Attributes:
        row: of its vector, where there is one already; then `ready` is None.
    """

    digest: bytes
    row: int | None
    ready: Any


def in_chunks(count: int, size: int) -> Iterator[list[int]]:
    """The places 0 .. count - 1, `size` at a time."""
    for first in range(0, count, size):
        yield list(range(first, min(first + size, count)))


def run(
    job: EncodingJob,
    store: FeatureStore,
    engine: Engine,
    content: Callable[[RawItem], bytes | Path],
    outcome: EncodingReport,
) -> None:
    """Encode the items of a store that it has no vectors for, and write the modality.

    Args:
        content: the bytes of an item, by which it is known again; or the path of its file, where
            that is too large to be held.

    Raises:
        Interrupted: it was stopped; all whole batches are kept.
    """
    started = time.perf_counter()
    identity = json.dumps(engine.identity, sort_keys=True)
    if store.begin(identity, engine.width):
        outcome.notes.append("the encoder or its settings changed, so all is encoded anew")
    outcome.items, outcome.width = len(store), engine.width
    done, before = 0, store.rows
    job.advance(0, outcome.items)
    for window, futures in _looked_at(store, engine, content, outcome):
        keep: list[tuple[int, bytes]] = []
        new: dict[bytes, Any] = {}
        for item, future in zip(window, futures, strict=True):
            try:
                found = future.result()
            except UnusableItem as error:
                name = job.graph.entities[item.entity]
                outcome.failures.append(EncodingFailure(name, item.place, str(error)))
                continue
            keep.append((item.id, found.digest))
            # The window before may have encoded the same content after this was looked at.
            row = store.row(found.digest) if found.row is None else found.row
            if row is not None and row < before:
                outcome.reused += 1
            elif row is not None or found.digest in new:
                outcome.shared += 1
            else:
                new[found.digest] = found.ready
        store.bind(keep)
        done += len(window) - len(new)
        digests, ready = list(new), list(new.values())
        for places in engine.batches(ready):
            if job.stopped.is_set():
                raise Interrupted(
                    f"stopped after {done:,} of {outcome.items:,}; the same command goes on"
                )
            vectors = engine.encode([ready[place] for place in places])
            store.add([digests[place] for place in places], vectors)
            outcome.encoded += len(places)
            done += len(places)
            job.advance(done, outcome.items)
        job.advance(done, outcome.items)
    outcome.seconds = time.perf_counter() - started


def _digest(content: bytes | Path) -> bytes:
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    try:
        return bytes.fromhex(sha256(content))
    except OSError as error:
        raise UnusableItem(f"{content}: cannot be read ({error.strerror})") from error


def _looked_at(
    store: FeatureStore,
    engine: Engine,
    content: Callable[[RawItem], bytes | Path],
    outcome: EncodingReport,
) -> Iterator[tuple[Sequence[RawItem], list[Future[PreparedItem]]]]:
    """Windows of items; threads prepare the next one while this one is encoded."""

    def look(item: RawItem) -> PreparedItem:
        data = content(item)
        digest = _digest(data)
        row = store.row(digest)
        return PreparedItem(digest, row, engine.prepare(data, outcome) if row is None else None)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        ahead: tuple[Sequence[RawItem], list[Future[PreparedItem]]] | None = None
        try:
            for window in store.windows(engine.window):
                futures = [pool.submit(look, item) for item in window]
                if ahead is not None:
                    yield ahead
                ahead = window, futures
            if ahead is not None:
                yield ahead
        finally:
            pool.shutdown(cancel_futures=True)


class NeuralEncoder(RawEncoder):
    """Encoders whose vectors a network makes, one text or file at a time.

    Attributes:
        several: what is said of entities that have more than one.
    """

    several = "entities with several files, averaged"

    @abstractmethod
    def engine(self, device: torch.device, allow_download: bool) -> Engine:
        """The network of these settings.

        Raises:
            ValueError: a library is missing, or the model cannot be loaded; with the remedy.
        """

    @abstractmethod
    def content(self, item: RawItem) -> bytes | Path:
        """What an item is known by, see `run`.

        Raises:
            Unusable: there is nothing.
        """

    def separator(self) -> str | None:
        """What joins all texts of an entity to one; None where each counts by itself."""
        return None

    def encode(self, job: EncodingJob) -> EncodingReport:
        outcome = EncodingReport(job.name, self.kind_name(), str(job.path))
        with FeatureStore(job.path) as store:
            sources = self.gather(job, store, outcome)
            if several := store.settle(self.separator()):
                outcome.counts[self.several] = several
            if not len(store):  # then no network is needed to say so
                return outcome
            engine = self.engine(job.device, job.allow_download)
            run(job, store, engine, self.content, outcome)
            metadata = job.bound({**engine.identity, **sources})
            outcome.present = store.write(job.path, metadata, unit=engine.unit)
        return outcome
