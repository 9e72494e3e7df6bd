"""Export a graph together with the raw files of its modalities, ready to be encoded."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from mocme.core.allowed_files import AllowedFolders, NotAllowed
from mocme.core.media_type import HEAD_BYTES, media_type
from mocme.core.text import counted
from mocme.data.formats.writers import atomic_file, name_error
from mocme.data.graph import Graph
from mocme.data.ingest.reader import read_graph_toml
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of
from mocme.encoders.inputs import RawEncoder, escaped
from mocme.encoders.store import PAGE, FeatureStore

# Keys of tables whose values are paths.
_PATHS = ("path", "paths", "names", "texts", "entities", "tokenizer")
_REMEDY = "to copy files of a folder DIR, name it with --files-from DIR (files_from in Python)"


def export_raw(
    graph: Graph,
    out: Path,
    *,
    trust_code: bool = False,
    files_from: Sequence[str | Path] = (),
) -> list[str]:
    """Add the sources of a graph's modalities to the folder that its facts were exported to.

    Tables are copied. Files of entities (images, sounds) are copied into a folder named after the
    modality, each named after its entity (`inputs.escaped`), and listed in a table. Encoded
    modalities are left out: `mocme encode` makes them again from these files.

    Args:
        trust_code: import the code that the graph's tables name
            (``kind = "package.module:Class"``); by default, they are refused.
        files_from: folders besides the graph's whose files may be copied. A graph's tables may come
            from anyone and can name any file, so other files are refused. Of a modality of
            pictures, sounds or videos, only such files are copied from these folders.

    Returns:
        A line for each modality, and for each listed file that does not exist.

    Raises:
        NotAllowed: a file lies in none of these folders.
        ValueError: a file cannot be copied, or a name cannot be written to a table.
    """
    home = Path(graph.folder or ".")
    copier = _Copier(home, out, files_from)
    about = {k: v for k, v in read_graph_toml(home).items() if k in ("name", "licence")}
    tables: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for name in graph.modalities:
        if name not in graph.encode:
            section = tables.setdefault("modalities", {})
            section[name] = copier.sources(graph.modalities[name])
            notes.append(f"{name}: its files copied")
            continue
        table, section = graph.encode[name], tables.setdefault("encode", {})
        encoder = encoder_of(table, f"encode.{name}", trust_code=trust_code)
        if isinstance(encoder, RawEncoder) and encoder.endings:
            copied, missing = _copy_files(graph, name, encoder, out, copier)
            section[name] = {**_without_inputs(table), "paths": [f"{name}.tsv"]}
            notes.append(f"{name}: {counted(copied, 'file')} copied")
            notes += missing
        else:
            section[name] = copier.sources(table)
            source = "its tables copied" if "paths" in table else "is made of another modality"
            notes.append(f"{name}: {source}")
    text = tomli_w.dumps({**about, **tables})
    (out / "graph.toml").write_text(text, encoding="utf-8")
    return notes


def _without_inputs(table: Mapping[str, Any]) -> dict[str, Any]:
    inputs = ("paths", "entity", "columns", "delimiter")
    return {key: value for key, value in table.items() if key not in inputs}


class _Copier:
    """Copies files of a graph to a folder, from the folders that are allowed."""

    def __init__(self, home: Path, out: Path, files_from: Sequence[str | Path]) -> None:
        self.home, self.out = home, out
        self.own = AllowedFolders([home])
        self.allowed = AllowedFolders([home, *files_from], "copied")

    def sources(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Copy the files that a table names; returns the table with the new paths."""
        result: dict[str, Any] = {}
        for key, value in table.items():
            if key in _PATHS and isinstance(value, str):
                result[key] = self._source(value)
            elif key in _PATHS:
                result[key] = [self._source(item) for item in value]
            else:
                result[key] = value
        return result

    def _source(self, value: str) -> str:
        """Copy a file or a folder; returns its new path, relative to the output folder."""
        source = self.home / value
        if not source.exists():
            raise ValueError(f"{source}: there is no such file; check the path in graph.toml")
        inside = self.own.holds(source) and not Path(value).is_absolute()
        # A path with ".." stays within the graph's folder, but could leave the output folder.
        name = os.path.normpath(value) if inside else source.name
        if os.pardir in Path(name).parts:
            name = source.name
        for file in _files_of(source):
            self.file(file, self.out / name / file.relative_to(source))
        return name

    def file(self, source: Path, target: Path) -> None:
        """Copy a file.

        Raises:
            NotAllowed: it lies outside of the allowed folders; with the remedy.
        """
        try:
            opened = self.allowed.open(source)
        except NotAllowed as error:
            raise NotAllowed(f"{error}; {_REMEDY}") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened, target.open("wb") as copy:
            shutil.copyfileobj(opened, copy, 1 << 20)

    def check(self, value: str) -> None:
        """Check a table or folder that lists files, before it is read.

        Raises:
            NotAllowed: it lies outside of the allowed folders; with the remedy.
        """
        source = self.home / value
        if source.exists() and not self.allowed.holds(source):
            raise NotAllowed(f"{source}: {self.allowed.outside_reason}; {_REMEDY}")

    def is_media(self, source: Path) -> bool:
        """Whether a file may be copied as the picture, sound or video that a table says it is.

        What lies in the graph's folder belongs to it; elsewhere the content of the file decides.
        """
        if self.own.holds(source):
            return True
        try:
            with self.allowed.open(source) as file:
                return media_type(file.read(HEAD_BYTES)) is not None
        except NotAllowed as error:
            raise NotAllowed(f"{error}; {_REMEDY}") from error


def _files_of(source: Path) -> Iterator[Path]:
    """The file itself, or all files of a folder.

    Raises:
        ValueError: the folder has a link to a folder, which could lead in a circle.
    """
    if not source.is_dir():
        yield source
        return
    for folder, inner, names in os.walk(source):
        for name in inner:
            if (link := Path(folder, name)).is_symlink():
                raise ValueError(f"{link}: is a link to a folder; put the folder in its place")
        for name in names:
            yield Path(folder, name)


def _copy_files(
    graph: Graph, name: str, encoder: RawEncoder, out: Path, copier: _Copier
) -> tuple[int, list[str]]:
    """Copy the files of a modality, and list them in a table.

    Returns:
        The number of copied files, and a line for each that is missing or of another kind.

    Raises:
        NotAllowed: a file lies outside of the allowed folders.
    """
    for listed in encoder.paths:
        copier.check(listed)
    missing: list[str] = []
    copied = 0
    report = EncodingReport(name, "files")
    with (
        tempfile.TemporaryDirectory() as scratch,
        FeatureStore(Path(scratch) / name) as store,
        atomic_file(out / f"{name}.tsv") as table,
    ):
        encoder.gather(EncodingJob(graph, name, Path(graph.folder or "."), out), store, report)
        store.sort_items()
        for entity, source in _sources(store):
            label, path = graph.entities[entity], Path(source)
            if "\t" in label or "\n" in label:
                raise name_error(
                    Path(f"{name}.tsv"), label, "a tab or a line feed, which TSV cannot"
                )
            if not path.is_file():
                missing.append(f"{name}: {label!r}: there is no file {path}")
                continue
            if not copier.is_media(path):
                missing.append(f"{name}: {label!r}: {path} is no picture, sound or video")
                continue
            target = _free_path(out / name, label, path)
            copier.file(path, target)
            table.write(f"{label}\t{target.relative_to(out)}\n".encode())
            copied += 1
    return copied, missing


def _sources(store: FeatureStore) -> Iterator[tuple[int, str]]:
    for window in store.windows(PAGE):
        for item in window:
            yield item.entity, item.source


def _free_path(folder: Path, label: str, path: Path) -> Path:
    """An unused path for a file: NAME.png, or NAME/2.png if the entity has other files."""
    try:
        stem = escaped(label)
    except ValueError:
        # Too long for a file name; the table still tells whose file it is.
        stem = escaped(label[:40].rstrip(". "))
    target = folder / f"{stem}{path.suffix.lower()}"
    number = 1
    while target.exists():
        number += 1
        target = folder / stem / f"{number}{path.suffix.lower()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
