"""Vectors on disk, keyed by the SHA-256 of their content, and the items they are made from.

Memory grows with the number of entities only by their ids, 8 bytes each: items and digests are in
an SQLite file, vectors in a file of rows. A batch is stored as a whole or not at all, so an
encoding that was stopped resumes with exactly the batches that it would have made otherwise.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mocme.encoders.writer import write_vectors

TYPE = np.dtype("<f2")
# The folder of the stores, next to the modalities.
CACHE = "cache"
# Rows that are read or written at a time.
PAGE = 2048

# `about` has one row, which identifies the encoder. Temporary tables belong to this run.
_KEPT = """
create table if not exists about (identity text not null, width integer not null);
create table if not exists vectors (digest blob primary key, row integer not null) without rowid;
"""
_TABLES = f"""
{_KEPT}
create temp table listed (
    id integer primary key, entity integer not null, source text not null, origin text not null
);
create temp table items (
    id integer primary key, entity integer not null, source text not null, origin text not null,
    digest blob
);
"""


class RawItem(NamedTuple):
    """A text or a file that belongs to an entity.

    Attributes:
        source: the text itself, or the path of the file.
        origin: the file, or the table and line, that lists the item.
    """

    id: int
    entity: int
    source: str
    origin: str


class FeatureStore:
    """The vectors of one modality, kept between runs, and the items of this run.

    Raises:
        ValueError: the file is not a store, or another process is writing to it.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the store of the modality whose file is `path`."""
        folder, name = path.parent / CACHE, path.stem
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.lock = folder / f"{name}.sqlite", threading.Lock()
        self.values_path = folder / f"{name}.values"
        try:
            self.db = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=1.0
            )
        except sqlite3.Error as error:
            raise ValueError(
                f"{self.path}: cannot be opened ({error}); check the permissions of its folder"
            ) from error
        try:
            self.db.execute("pragma locking_mode = exclusive")
            self.db.execute("pragma temp_store = file")
            self.db.execute("pragma trusted_schema = off")
            self.db.executescript(f"begin exclusive; {_TABLES} commit;")
            if _schema(self.db) != _kept_schema():
                raise sqlite3.DatabaseError("it holds other tables, views or triggers")
        except sqlite3.Error as error:
            self.db.close()
            remedy = "delete it to encode the modality from the beginning"
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

    def open_vectors(self, identity: str, width: int) -> bool:
        """Open the vectors of an encoder, and delete those of any other.

        Args:
            identity: the encoder's identity, as text.
            width: F.

        Returns:
            Whether vectors of another encoder were deleted.
        """
        about = self.db.execute("select identity, width from about").fetchone()
        replaced = about is not None and about != (identity, width)
        if about is None or replaced:
            self.db.execute("begin")
            self.db.execute("delete from vectors")
            self.db.execute("delete from about")
            self.db.execute("insert into about values (?, ?)", (identity, width))
            self.db.execute("commit")
        self.width = width
        (self.rows,) = self.db.execute("select coalesce(max(row) + 1, 0) from vectors").fetchone()
        self.values = self.values_path.open("r+b" if self.values_path.exists() else "w+b")
        written = os.fstat(self.values.fileno()).st_size // (width * TYPE.itemsize)
        if written < self.rows:  # the file was truncated or deleted
            self.db.execute("delete from vectors")
            self.rows = 0
        # Vectors of a batch that was interrupted are not in the table yet; drop them.
        self.values.truncate(self.rows * width * TYPE.itemsize)
        return replaced

    def row(self, digest: bytes) -> int | None:
        """The row of the vector for some content; None if it is not encoded yet."""
        with self.lock:
            cursor = self.db.execute("select row from vectors where digest = ?", (digest,))
            row = cursor.fetchone()
        return None if row is None else int(row[0])

    def add_vectors(self, digests: Sequence[bytes], vectors: Float[np.ndarray, "n F"]) -> None:
        """Store a batch of vectors.

        The values are on disk before the table lists them, see `open_vectors`.

        Raises:
            ValueError: a vector is not finite in float16.
        """
        assert self.values is not None
        if not len(digests):
            return
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(vectors, dtype=TYPE)
        if not np.isfinite(rows).all():
            raise ValueError(
                "the encoder returned a vector with NaN or a value beyond 65,504; use another model"
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

    def add_items(self, items: Iterable[tuple[int, str, str]]) -> None:
        """Add items to encode: (entity, source, origin)."""
        self.db.execute("begin")
        self.db.executemany("insert into listed (entity, source, origin) values (?, ?, ?)", items)
        self.db.execute("commit")

    def sort_items(self, separator: str | None = None) -> int:
        """Sort the added items by entity, those of an entity in the order of addition.

        Args:
            separator: joins all texts of an entity to one item; the default keeps them apart.

        Returns:
            The number of entities with several items.
        """
        select = "select entity, source, origin from listed order by entity, id"
        insert = "insert into items (entity, source, origin) values (?, ?, ?)"
        several = 0
        self.db.execute("begin")
        for entity, group in groupby(self.db.execute(select), lambda row: row[0]):
            rows = [*group]
            several += len(rows) > 1
            if separator is not None:
                text = separator.join(source for _, source, _ in rows if source.strip())
                rows = [(entity, text, rows[0][2])]
            self.db.executemany(insert, rows)
        self.db.execute("delete from listed")
        self.db.execute("commit")
        return several

    def __len__(self) -> int:
        (count,) = self.db.execute("select count(*) from items").fetchone()
        return int(count)

    def windows(self, size: int) -> Iterator[Sequence[RawItem]]:
        """Items in their order, at most `size` at a time."""
        last = 0
        select = "select id, entity, source, origin from items where id > ? order by id limit ?"
        while True:
            with self.lock:
                rows = self.db.execute(select, (last, size)).fetchall()
            if not rows:
                return
            yield [RawItem(*row) for row in rows]
            last = rows[-1][0]

    def set_digests(self, pairs: Sequence[tuple[int, bytes]]) -> None:
        """Record the digests of items: (item's id, digest of its content)."""
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
            The number of entities with a vector.
        """
        cursor = self.db.execute(
            "select distinct entity from items where digest in (select digest from vectors) "
            "order by entity"
        )
        entities = np.fromiter((entity for (entity,) in cursor), np.int64)
        if len(entities):
            write_vectors(path, entities, self.width, self._entity_vectors(unit), metadata, TYPE)
        return len(entities)

    def _entity_vectors(self, unit: bool) -> Iterator[Float[np.ndarray, "n F"]]:
        """The vectors of all entities in ascending order, a page at a time."""
        cursor = self.db.execute(
            "select entity, row from items join vectors using (digest) order by id"
        )
        groups = groupby(cursor, lambda pair: pair[0])
        while page := [[row for _, row in pairs] for _, pairs in islice(groups, PAGE)]:
            yield self._means(page, unit)

    def _means(self, groups: Sequence[Sequence[int]], unit: bool) -> Float[np.ndarray, "n F"]:
        values = np.memmap(self.values_path, TYPE, "r", shape=(self.rows, self.width))
        rows = np.concatenate([np.asarray(group) for group in groups])
        means = group_means(values[rows].astype(np.float32), [len(group) for group in groups])
        if unit:
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-8)
        return means


def _schema(db: sqlite3.Connection) -> set[tuple[str, str, str]]:
    return set(db.execute("select type, name, coalesce(sql, '') from sqlite_schema"))


def _kept_schema() -> set[tuple[str, str, str]]:
    """What `_schema` returns of a store; a file of another schema could act when it is used."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_KEPT)
        return _schema(db)


def storable(vectors: Float[np.ndarray, "n F"]) -> Bool[np.ndarray, " n"]:
    """Which vectors are finite in the type in which they are stored."""
    with np.errstate(over="ignore"):
        finite: np.ndarray = np.isfinite(vectors.astype(TYPE))
    return np.asarray(finite.all(1))


def group_means(
    vectors: Float[np.ndarray, "n F"],
    sizes: Sequence[int],
    weights: Sequence[int] | None = None,
) -> Float[np.ndarray, "groups F"]:
    """Means of consecutive groups of vectors.

    Args:
        sizes: number of vectors in each group, none of them 0.
        weights: weight of each vector; equal weights by default.
    """
    starts = np.cumsum([0, *sizes[:-1]])
    if weights is None:
        totals = np.array(sizes, np.float32)[:, None]
    else:
        each = np.array(weights, np.float32)[:, None]
        vectors, totals = vectors * each, np.add.reduceat(each, starts)
    means: Float[np.ndarray, "groups F"] = np.add.reduceat(vectors, starts) / totals
    return means
