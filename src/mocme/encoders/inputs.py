"""Raw inputs by entity: texts in tables, files listed in tables, files named after their entity.

A file named after its entity has the entity's name, in which every character that a file system
refuses is written as ``%`` and two hexadecimal digits for each byte (`escaped`), and an ending.
Several files of an entity are in a folder of that name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote_to_bytes

from mocme.data.formats import tables
from mocme.data.formats.report import Report
from mocme.encoders.base import Encoder, EncodingJob, EncodingReport, UnusableItem, check_size
from mocme.encoders.store import FeatureStore, RawItem

# Characters that some file system refuses or gives a meaning; "%" is the escape character itself.
_SPECIAL = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*%]|^[. ]|[. ]$')
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")
# Bytes of a file name that file systems allow, and how many of them are kept for the ending.
MAX_FILE_NAME, MAX_ENDING = 255, 8


def escaped(name: str) -> str:
    """The file name, without an ending, for an entity's name; `unescaped` is the inverse.

    Raises:
        ValueError: the file name would exceed the 255 bytes that file systems allow.
    """
    text = _SPECIAL.sub(lambda match: "".join(f"%{b:02X}" for b in match[0].encode()), name)
    if len(text.encode()) > MAX_FILE_NAME - MAX_ENDING:
        raise ValueError(
            f"the name {name[:40]!r}... is too long for a file name; list its files in a table"
        )
    return text


def unescaped(name: str) -> str:
    """The entity's name for a file name without an ending; any character may be escaped.

    Raises:
        ValueError: the escaped bytes are not UTF-8.
    """
    return unquote_to_bytes(name).decode()


@dataclass(frozen=True, kw_only=True)
class RawEncoder(Encoder):
    """An encoder of texts or files that belong to entities.

    Args:
        paths: tables (TSV, CSV, JSON lines, Parquet); for files also folders, whose files are named
            after their entities.
        entity: the column with the entity's name, in TSV its number from 1. Default: ``1`` in TSV,
            ``entity`` in other formats.
        columns: the columns with the text or the path of the file: one for all `paths`, or one for
            each. Paths in it are relative to the table's folder. Default: ``2`` in TSV, and
            ``text`` or ``path`` in other formats.
        delimiter: reads tables as CSV with this delimiter.

    Attributes:
        column: default of `columns` in formats with named columns.
        endings: file name endings of a file encoder, in lower case; none for texts.
    """

    column: ClassVar[str] = "text"
    endings: ClassVar[Sequence[str]] = ()

    paths: Sequence[str]
    entity: str | None = None
    columns: Sequence[str] = ()
    delimiter: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.paths or isinstance(self.paths, str):
            raise ValueError("paths must be a list of files or folders, at least one")
        if isinstance(self.columns, str) or len(self.columns) not in (0, 1, len(self.paths)):
            raise ValueError("columns must be a list: one column, or one for each of the paths")

    def gather(
        self, job: EncodingJob, store: FeatureStore, report: EncodingReport
    ) -> dict[str, str]:
        """Add all items that belong to an entity to a store.

        Returns:
            The sources and their digests, for the provenance.

        Raises:
            ValueError: a table cannot be read, or a path does not exist.
        """
        digests = []
        for index, name in enumerate(self.paths):
            path = job.folder / name
            if path.is_dir() and self.endings:
                store.add_items(self._folder_items(path, job, report))
                digests.append("a folder")
                continue
            if not path.exists():
                raise ValueError(f"{path}: there is no such file or folder; check the path")
            table_report = Report(str(path))
            store.add_items(self._table_items(index, path, job, table_report, report))
            report.notes.append(str(table_report))
            digests.append(table_report.sha256)
        report.entities = job.graph.num_entities
        return {"sources": "\t".join(self.paths), "sources_sha256": "\t".join(digests)}

    def items(self, job: EncodingJob) -> Iterator[tuple[int, str, str]]:
        """All items that belong to an entity: its id, a text or the path of a file, and its origin.

        Raises:
            ValueError: a table cannot be read.
        """
        report = EncodingReport(job.name, "")
        for index, name in enumerate(self.paths):
            path = job.folder / name
            if path.is_dir() and self.endings:
                yield from self._folder_items(path, job, report)
            else:
                yield from self._table_items(index, path, job, Report(str(path)), report)

    def _table_items(
        self,
        index: int,
        path: Path,
        job: EncodingJob,
        table_report: Report,
        report: EncodingReport,
    ) -> Iterator[tuple[int, str, str]]:
        """The items of the table that is `paths[index]`."""
        numbered = tables.numbered(path, self.delimiter)
        wanted = [self.entity or ("1" if numbered else "entity")]
        column = self.columns[index if len(self.columns) > 1 else 0] if self.columns else None
        wanted.append(column or ("2" if numbered else self.column))
        for block in tables.cells(path, table_report, wanted, self.delimiter):
            names, cells = block.columns
            ids = job.graph.entities.find(names)
            for name, id, cell, line in zip(names, ids, cells, block.lines, strict=True):
                if id is None:
                    report.count_unknown(name)
                elif self.endings and cell and not _URL.match(cell):
                    yield id, os.path.join(path.parent, cell), f"{path}, line {line}"
                else:
                    yield id, cell, f"{path}, line {line}"

    def _folder_items(
        self, folder: Path, job: EncodingJob, report: EncodingReport
    ) -> Iterator[tuple[int, str, str]]:
        """Files of a folder, and of folders in it, that are named after their entities."""
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                report.count("hidden files, skipped")
                continue
            name, id = self._entity_of(entry, job)
            if id is None:
                report.count_unknown(name)
            elif not entry.is_dir():
                yield id, entry.path, entry.path
            else:
                for path in sorted(Path(entry.path).iterdir()):
                    if path.name.startswith("."):
                        report.count("hidden files, skipped")
                    elif path.is_dir():
                        report.count("folders in an entity's folder, skipped")
                    else:
                        yield id, str(path), str(path)

    def _entity_of(self, entry: os.DirEntry[str], job: EncodingJob) -> tuple[str, int | None]:
        """The entity that a file or folder is named after: its name, and its id if known.

        An unknown ending is taken for a part of the name first: "Dr. No" has no ending.
        """
        stem, ending = os.path.splitext(entry.name)
        candidates = [entry.name, stem]
        if entry.is_dir():
            candidates = [entry.name]
        elif ending.lower() in self.endings:
            candidates = [stem]
        for candidate in candidates:
            try:
                name = unescaped(candidate)
            except ValueError:
                name = candidate
            if (id := job.graph.entities.get(name)) is not None:
                return name, id
        return name, None


def find_file(item: RawItem, max_bytes: int) -> Path:
    """The path of an item's file.

    Raises:
        UnusableItem: there is no file, or it is larger than `max_bytes`.
    """
    if not item.source:
        raise UnusableItem("no file is named")
    if _URL.match(item.source):
        raise UnusableItem("is an address, and nothing is fetched; download it and name the file")
    try:
        if not os.path.isfile(item.source):
            raise UnusableItem(f"there is no file {item.source}")
        size = os.path.getsize(item.source)
    except (OSError, ValueError) as error:
        raise UnusableItem(f"{item.source!r}: cannot be read ({error})") from error
    check_size(size, max_bytes)
    return Path(item.source)


def read_file(item: RawItem, max_bytes: int) -> bytes:
    """The bytes of an item's file.

    Raises:
        UnusableItem: there is no file, it cannot be read, or it is larger than `max_bytes`.
    """
    try:
        return find_file(item, max_bytes).read_bytes()
    except OSError as error:
        raise UnusableItem(f"{item.source}: cannot be read ({error.strerror})") from error


def read_text(item: RawItem) -> bytes:
    """The text of an item, in UTF-8.

    Raises:
        UnusableItem: the text is empty or white space only.
    """
    if not item.source.strip():
        raise UnusableItem("an empty text")
    return item.source.encode()
