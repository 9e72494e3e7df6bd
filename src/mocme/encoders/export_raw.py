"""A graph with the raw files of its modalities in a folder of its own, ready to be encoded."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from mocme.data.formats.writers import refusal, written
from mocme.data.graph import Graph
from mocme.data.ingest.reader import declared
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of
from mocme.encoders.inputs import RawEncoder, escaped
from mocme.encoders.store import FeatureStore

# Keys of tables whose values are paths of files.
_PATHS = ("path", "paths", "names", "texts", "entities", "tokenizer")


def export_raw(graph: Graph, out: Path) -> list[str]:
    """Add what a graph's modalities are made of to the folder that its facts were exported to.

    Tables are copied. Files that entities have (pictures, sounds) are copied into a folder named
    after the modality, each named after its entity (`inputs.escaped`), and listed in a table. What
    `mocme encode` makes is left out: it is made again from these.

    Returns:
        a line on each modality, and on each file that is listed but not there.

    Raises:
        ValueError: a file cannot be copied, or a name cannot stand in a table.
    """
    home = Path(graph.folder or ".")
    about = {k: v for k, v in declared(home).items() if k in ("name", "licence")}
    tables: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for name in graph.modalities:
        if name not in graph.encode:
            section = tables.setdefault("modalities", {})
            section[name] = _copied(home, out, graph.modalities[name])
            notes.append(f"{name}: its files copied")
            continue
        table, section = graph.encode[name], tables.setdefault("encode", {})
        encoder = encoder_of(table, f"encode.{name}")
        if isinstance(encoder, RawEncoder) and encoder.endings:
            made, missing = _files(graph, name, encoder, out)
            section[name] = {**_without_inputs(table), "paths": [f"{name}.tsv"]}
            notes.append(f"{name}: {made:,} files copied")
            notes += missing
        else:
            section[name] = _copied(home, out, table)
            what = "its tables copied" if "paths" in table else "is made of another modality"
            notes.append(f"{name}: {what}")
    text = tomli_w.dumps({**about, **tables})
    (out / "graph.toml").write_text(text, encoding="utf-8")
    return notes


def _without_inputs(table: Mapping[str, Any]) -> dict[str, Any]:
    inputs = ("paths", "entity", "columns", "delimiter")
    return {key: value for key, value in table.items() if key not in inputs}


def _copied(home: Path, out: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    """A table whose files were copied, each under its own name."""

    def moved(value: str) -> str:
        source = home / value
        if not source.exists():
            raise ValueError(f"{source}: there is no such file; check the path in graph.toml")
        inside = source.resolve().is_relative_to(home.resolve())
        name = str(Path(value)) if inside and not Path(value).is_absolute() else source.name
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
        return name

    result: dict[str, Any] = {}
    for key, value in table.items():
        if key in _PATHS and isinstance(value, str):
            result[key] = moved(value)
        elif key in _PATHS:
            result[key] = [moved(item) for item in value]
        else:
            result[key] = value
    return result


def _files(graph: Graph, name: str, encoder: RawEncoder, out: Path) -> tuple[int, list[str]]:
    """Copy the files of a modality, and list them."""
    missing: list[str] = []
    made = 0
    outcome = EncodingReport(name, "files")
    with (
        tempfile.TemporaryDirectory() as scratch,
        FeatureStore(Path(scratch) / name) as store,
        written(out / f"{name}.tsv") as table,
    ):
        encoder.gather(EncodingJob(graph, name, Path(graph.folder or "."), out), store, outcome)
        store.settle()
        for entity, source in _numbered(store):
            label, path = graph.entities[entity], Path(source)
            if "\t" in label or "\n" in label:
                raise refusal(out / f"{name}.tsv", label, "a tab or a line feed, which TSV cannot")
            if not path.is_file():
                missing.append(f"{name}: {label!r}: there is no file {path}")
                continue
            target = _place(out / name, label, path)
            shutil.copyfile(path, target)
            table.write(f"{label}\t{target.relative_to(out)}\n".encode())
            made += 1
    return made, missing


def _numbered(store: FeatureStore) -> Iterator[tuple[int, str]]:
    for window in store.windows(1024):
        for item in window:
            yield item.entity, item.source


def _place(folder: Path, label: str, path: Path) -> Path:
    """A free place for a file: NAME.png, or NAME/2.png where the entity has others."""
    try:
        stem = escaped(label)
    except ValueError:
        # Too long for a file name: the list says whose it is.
        stem = escaped(label[:40].rstrip(". "))
    target = folder / f"{stem}{path.suffix.lower()}"
    number = 1
    while target.exists():
        number += 1
        target = folder / stem / f"{number}{path.suffix.lower()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
