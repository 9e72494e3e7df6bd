"""Encoded vectors on disk, by the digest of their content, and the items they are made from.

Nothing here grows in memory with the number of entities but their ids, 8 bytes each: items and
digests lie in an SQLite file, vectors in a file of rows. A batch is there whole or not at all,
whatever happens in between, so that an encoding that was stopped goes on with the batches it would
have made anyway.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float

from mocme.encoders.writer import write_vectors

TYPE = np.dtype("<f2")
# Rows that are fetched or written at a time.
PAGE = 2048

_TABLES = """
create table if not exists about (identity text not null, width integer not null);
create table if not exists vectors (digest blob primary key, row integer not null) without rowid;
create temp table listed (
    id integer primary key, entity integer not null, source text not null, place text not null
);
create temp table items (
    id integer primary key, entity integer not null, source text not null, place text not null,
    digest blob
);
"""


class RawItem(NamedTuple):
    """A text, or the path of a file, that says something of an entity.

    Attributes:
        source: the text itself, or the path.
        place: where it is listed, for people.
    """

    id: int
    entity: int
    source: str
    place: str


class FeatureStore:
    """The vectors of one modality, across runs, and the items of this run.

    Raises:
        ValueError: the file is no store, or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        """The store beside a modality's file."""
        folder, name = path.parent / "cache", path.stem
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.lock = folder / f"{name}.sqlite", threading.Lock()
        self.values_path = folder / f"{name}.values"
        try:
            self.db = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=1.0
            )
        except sqlite3.Error as error:
            raise ValueError(
                f"{self.path}: cannot be opened ({error}); check the rights of its folder"
            ) from error
        try:
            self.db.execute("pragma locking_mode = exclusive")
            self.db.execute("pragma temp_store = file")
            self.db.executescript(f"begin exclusive; {_TABLES} commit;")
        except sqlite3.Error as error:
            self.db.close()
            remedy = "delete it, and the modality is encoded from its beginning"
            if "locked" in str(error):
                remedy = "another process is encoding this modality; wait for it"
            raise ValueError(f"{self.path}: cannot be used ({error}); {remedy}") from error
        self.width, self.rows = 0, 0
        self.values: IO[bytes] | None = None

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *error: object) -> None:
        if self.values is not None:
            self.values.close()
        self.db.close()

    # -- vectors ---------------------------------------------------------------------------------

    def begin(self, identity: str, width: int) -> bool:
        """Take up the vectors of an encoder; those of another one are forgotten.

        Returns:
            Whether there were some to forget.
        """
        found = self.db.execute("select identity, width from about").fetchone()
        other = found is not None and found != (identity, width)
        if found is None or other:
            self.db.execute("begin")
            self.db.execute("delete from vectors")
            self.db.execute("delete from about")
            self.db.execute("insert into about values (?, ?)", (identity, width))
            self.db.execute("commit")
        self.width = width
        (self.rows,) = self.db.execute("select coalesce(max(row) + 1, 0) from vectors").fetchone()
        self.values = self.values_path.open("r+b" if self.values_path.exists() else "w+b")
        held = os.fstat(self.values.fileno()).st_size // (width * TYPE.itemsize)
        if held < self.rows:  # somebody cut or deleted it
            self.db.execute("delete from vectors")
            self.rows = 0
        # A batch that was cut short is not listed, and goes.
        self.values.truncate(self.rows * width * TYPE.itemsize)
        return other

    def row(self, digest: bytes) -> int | None:
        """Where the vector of some content lies."""
        with self.lock:
            found = self.db.execute("select row from vectors where digest = ?", (digest,))
            row = found.fetchone()
        return None if row is None else int(row[0])

    def add(self, digests: Sequence[bytes], vectors: Float[np.ndarray, "n F"]) -> None:
        """Keep a batch of vectors.

        Raises:
            ValueError: one is not finite in float16.
        """
        assert self.values is not None
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(vectors, dtype=TYPE)
        if not np.isfinite(rows).all():
            raise ValueError(
                "the encoder gave a vector that holds NaN or is beyond 65,504; use another model"
            )
        self.values.seek(self.rows * self.width * TYPE.itemsize)
        self.values.write(rows.tobytes())
        self.values.flush()
        os.fsync(self.values.fileno())
        with self.lock:
            self.db.execute("begin")
            pairs = [(digest, self.rows + n) for n, digest in enumerate(digests)]
            self.db.executemany("insert into vectors values (?, ?)", pairs)
            self.db.execute("commit")
        self.rows += len(pairs)

    # -- items -----------------------------------------------------------------------------------

    def enlist(self, items: Iterable[tuple[int, str, str]]) -> None:
        """Add what is to be encoded: (entity, source, place)."""
        self.db.execute("begin")
        self.db.executemany("insert into listed (entity, source, place) values (?, ?, ?)", items)
        self.db.execute("commit")

    def settle(self, separator: str | None = None) -> int:
        """Put what is listed in the order of entities, and of their coming for each.

        Args:
            separator: makes one item of all texts of an entity.

        Returns:
            how many entities have several.
        """
        select = "select entity, source, place from listed order by entity, id"
        insert = "insert into items (entity, source, place) values (?, ?, ?)"
        several = 0
        self.db.execute("begin")
        for entity, rows in groupby(self.db.execute(select), lambda row: row[0]):
            found = [*rows]
            several += len(found) > 1
            if separator is not None:
                text = separator.join(source for _, source, _ in found if source.strip())
                found = [(entity, text, found[0][2])]
            self.db.executemany(insert, found)
        self.db.execute("delete from listed")
        self.db.execute("commit")
        return several

    def __len__(self) -> int:
        (count,) = self.db.execute("select count(*) from items").fetchone()
        return int(count)

    def windows(self, size: int) -> Iterator[Sequence[RawItem]]:
        """Items, some at a time, in their order."""
        last = 0
        select = "select id, entity, source, place from items where id > ? order by id limit ?"
        while True:
            with self.lock:
                rows = self.db.execute(select, (last, size)).fetchall()
            if not rows:
                return
            yield [RawItem(*row) for row in rows]
            last = rows[-1][0]

    def bind(self, pairs: Sequence[tuple[int, bytes]]) -> None:
        """Say which content items have: (id, digest)."""
        with self.lock:
            self.db.execute("begin")
            self.db.executemany(
                "update items set digest = ? where id = ?", [(digest, id) for id, digest in pairs]
            )
            self.db.execute("commit")

    # -- the result ------------------------------------------------------------------------------

    def write(self, path: Path, metadata: Mapping[str, str], unit: bool) -> int:
        """Write the modality: for each entity the mean of the vectors of its items.

        Args:
            unit: scale each mean to length 1.

        Returns:
            how many entities have it.
        """
        found = self.db.execute(
            "select distinct entity from items where digest in (select digest from vectors) "
            "order by entity"
        )
        entities = np.fromiter((entity for (entity,) in found), np.int64)
        if len(entities):
            write_vectors(path, entities, self.width, self._pooled(unit), metadata, TYPE)
        return len(entities)

    def _pooled(self, unit: bool) -> Iterator[Float[np.ndarray, "n F"]]:
        """The vectors of entities, some at a time, in ascending order of the entities."""
        cursor = self.db.execute(
            "select entity, row from items join vectors using (digest) order by id"
        )
        groups = groupby(cursor, lambda pair: pair[0])
        while page := [[row for _, row in rows] for _, rows in islice(groups, PAGE)]:
            yield self._means(page, unit)

    def _means(self, groups: Sequence[Sequence[int]], unit: bool) -> Float[np.ndarray, "n F"]:
        held = np.memmap(self.values_path, TYPE, "r", shape=(self.rows, self.width))
        flat = np.concatenate([np.asarray(rows) for rows in groups])
        means = group_means(held[flat].astype(np.float32), [len(rows) for rows in groups])
        if unit:
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-8)
        return means


def group_means(
    vectors: Float[np.ndarray, "n F"],
    sizes: Sequence[int],
    weights: Sequence[int] | None = None,
) -> Float[np.ndarray, "groups F"]:
    """Means of vectors that follow each other in groups.

    Args:
        sizes: of the groups, none of them 0.
        weights: of the vectors; all alike by default.
    """
    starts = np.cumsum([0, *sizes[:-1]])
    if weights is None:
        whole = np.array(sizes, np.float32)[:, None]
    else:
        each = np.array(weights, np.float32)[:, None]
        vectors, whole = vectors * each, np.add.reduceat(each, starts)
    means: Float[np.ndarray, "groups F"] = np.add.reduceat(vectors, starts) / whole
    return means
