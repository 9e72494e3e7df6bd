"""What is to be encoded, by entity: texts in tables, files in lists, files named by their entity.

A file may be named after its entity: the name, with every character that file systems refuse as
``%`` and two hexadecimal digits a byte (`escaped`), and an ending. Several files of an entity lie
in a folder of that name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes

from mocme.data.formats import tables
from mocme.data.formats.report import Report
from mocme.encoders.base import STRANGE, Encoder, EncodingJob, EncodingReport, UnusableItem
from mocme.encoders.store import FeatureStore, RawItem

# Refused by some file system, or with a meaning of its own; "%" is the escape itself.
_SPECIAL = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*%]|^[. ]|[. ]$')
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")
LONGEST = 255


def escaped(name: str) -> str:
    """A file name (without an ending) for an entity's name; `unescaped` leads back.

    Raises:
        ValueError: it would be longer than the 255 bytes that file systems hold.
    """
    text = _SPECIAL.sub(lambda found: "".join(f"%{b:02X}" for b in found[0].encode()), name)
    if len(text.encode()) > LONGEST - 8:
        raise ValueError(
            f"the name {name[:40]!r}... is too long for a file name; list its files in a table"
        )
    return text


def unescaped(name: str) -> str:
    """The entity's name of a file name without an ending; any character may be escaped.

    Raises:
        ValueError: what is escaped is no UTF-8.
    """
    return unquote_to_bytes(name).decode()


class RawEncoder(Encoder):
    """An encoder of what tables or folders hold for entities.

    Args:
        paths: tables (TSV, CSV, JSON lines, Parquet), or, for files, also folders of files that
            are named after their entities.
        entity: the column of the entity's name; in TSV a number from 1. By default ``1`` in TSV and
            ``entity`` elsewhere.
        columns: the column of the text or of the file's path, one, or one a path. By default ``2``
            in TSV, and ``text`` or ``path`` elsewhere. Paths start in the table's folder.
        delimiter: reads tables as CSV with this delimiter.
    """

    column = "text"
    endings: Sequence[str] = ()

    def __init__(
        self,
        *,
        paths: Sequence[str],
        entity: str | None = None,
        columns: Sequence[str] = (),
        delimiter: str | None = None,
    ) -> None:
        if not paths or isinstance(paths, str):
            raise ValueError("paths is a list of files or folders, at least one")
        if isinstance(columns, str) or len(columns) not in (0, 1, len(paths)):
            raise ValueError("columns is a list: one column, or one for each of the paths")
        self.paths, self.entity, self.delimiter = tuple(paths), entity, delimiter
        self.columns = tuple(columns) * (len(paths) if len(columns) == 1 else 1)

    def gather(
        self, job: EncodingJob, store: FeatureStore, outcome: EncodingReport
    ) -> dict[str, str]:
        """List everything that belongs to an entity.

        Returns:
            what was read, for the provenance.

        Raises:
            ValueError: a table cannot be read, or nothing belongs to an entity.
        """
        digests = []
        for number, name in enumerate(self.paths):
            path = job.folder / name
            if path.is_dir() and self.endings:
                store.enlist(self._named(path, job, outcome))
                digests.append("a folder")
                continue
            if not path.exists():
                raise ValueError(f"{path}: there is no such file or folder; check the path")
            report = Report(str(path))
            column = self.columns[number] if self.columns else None
            store.enlist(self._rows(path, column, job, report, outcome))
            outcome.notes.append(str(report))
            digests.append(report.sha256)
        outcome.entities = job.graph.num_entities
        return {"sources": "\t".join(self.paths), "sources_sha256": "\t".join(digests)}

    def items(self, job: EncodingJob) -> Iterator[tuple[int, str, str]]:
        """What belongs to each entity: its id, a text or the path of a file, and where it stands.

        Raises:
            ValueError: a table cannot be read.
        """
        outcome = EncodingReport(job.name, "")
        for number, name in enumerate(self.paths):
            path = job.folder / name
            if path.is_dir() and self.endings:
                yield from self._named(path, job, outcome)
            else:
                column = self.columns[number] if self.columns else None
                yield from self._rows(path, column, job, Report(str(path)), outcome)

    def _rows(
        self,
        path: Path,
        column: str | None,
        job: EncodingJob,
        report: Report,
        outcome: EncodingReport,
    ) -> Iterator[tuple[int, str, str]]:
        numbered = tables.numbered(path, self.delimiter)
        wanted = [self.entity or ("1" if numbered else "entity")]
        wanted.append(column or ("2" if numbered else self.column))
        for block in tables.cells(path, report, wanted, self.delimiter):
            names, cells = block.columns
            ids = job.graph.entities.find(names)
            for name, id, cell, line in zip(names, ids, cells, block.lines, strict=True):
                if id is None:
                    count_unknown(outcome, name)
                elif self.endings and cell and not _ADDRESS.match(cell):
                    yield id, os.path.join(path.parent, cell), f"{path}, line {line}"
                else:
                    yield id, cell, f"{path}, line {line}"

    def _named(
        self, folder: Path, job: EncodingJob, outcome: EncodingReport
    ) -> Iterator[tuple[int, str, str]]:
        """Files of a folder, or of folders in it, that are named after their entities."""
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                outcome.count("hidden files, passed over")
                continue
            name, id = self._entity(entry, job)
            if id is None:
                count_unknown(outcome, name)
            elif not entry.is_dir():
                yield id, entry.path, entry.path
            else:
                for path in sorted(Path(entry.path).iterdir()):
                    if path.name.startswith("."):
                        outcome.count("hidden files, passed over")
                    elif path.is_dir():
                        outcome.count("folders in an entity's folder, passed over")
                    else:
                        yield id, str(path), str(path)

    def _entity(self, entry: os.DirEntry[str], job: EncodingJob) -> tuple[str, int | None]:
        """The name that a file or folder is called by, and whose it is.

        An ending that is not known is taken for a part of the name first: "Dr. No" has none.
        """
        stem, known = os.path.splitext(entry.name)
        names = [entry.name, stem]
        if entry.is_dir():
            names = [entry.name]
        elif known.lower() in self.endings:
            names = [stem]
        for name in names:
            try:
                plain = unescaped(name)
            except ValueError:
                plain = name
            if (id := job.graph.entities.get(plain)) is not None:
                return plain, id
        return plain, None


def count_unknown(outcome: EncodingReport, name: str) -> None:
    """Count a name that is no entity of the graph; of many only the first are kept."""
    outcome.unknown += 1
    if len(outcome.strange) < STRANGE:
        outcome.strange.append(name)


def find_file(item: RawItem, limit: int) -> Path:
    """The path of an item's file.

    Raises:
        Unusable: there is none, or it has more than `limit` bytes.
    """
    if not item.source:
        raise UnusableItem("no file is named")
    if _ADDRESS.match(item.source):
        raise UnusableItem("is an address, and nothing is fetched; download it and name the file")
    try:
        if not os.path.isfile(item.source):
            raise UnusableItem(f"there is no file {item.source}")
        size = os.path.getsize(item.source)
    except (OSError, ValueError) as error:
        raise UnusableItem(f"{item.source!r}: cannot be read ({error})") from error
    if size > limit:
        raise UnusableItem(f"has {size / 1e6:,.1f} MB; the limit is {limit / 1e6:,.0f} MB")
    return Path(item.source)


def read_file(item: RawItem, limit: int) -> bytes:
    """The bytes of an item's file.

    Raises:
        Unusable: there is none, it cannot be read, or it has more than `limit` bytes.
    """
    try:
        return find_file(item, limit).read_bytes()
    except OSError as error:
        raise UnusableItem(f"{item.source}: cannot be read ({error.strerror})") from error


def read_text(item: RawItem) -> bytes:
    """The text of an item.

    Raises:
        Unusable: it is empty.
    """
    if not item.source.strip():
        raise UnusableItem("an empty text")
    return item.source.encode()
