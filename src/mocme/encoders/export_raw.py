"""Export a graph together with the raw files of its modalities, ready to be encoded."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from mocme.data.formats.writers import atomic_file, name_error
from mocme.data.graph import Graph
from mocme.data.ingest.reader import read_graph_toml
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of
from mocme.encoders.inputs import RawEncoder, escaped
from mocme.encoders.store import PAGE, FeatureStore

# Keys of tables whose values are paths.
_PATHS = ("path", "paths", "names", "texts", "entities", "tokenizer")


def export_raw(graph: Graph, out: Path, *, trust_code: bool = False) -> list[str]:
    """Add the sources of a graph's modalities to the folder that its facts were exported to.

    Tables are copied. Files of entities (images, sounds) are copied into a folder named after the
    modality, each named after its entity (`inputs.escaped`), and listed in a table. Encoded
    modalities are left out: `mocme encode` makes them again from these files.

    Args:
        trust_code: import the code that the graph's tables name
            (``kind = "package.module:Class"``); by default, they are refused.

    Returns:
        A line for each modality, and for each listed file that does not exist.

    Raises:
        ValueError: a file cannot be copied, or a name cannot be written to a table.
    """
    home = Path(graph.folder or ".")
    about = {k: v for k, v in read_graph_toml(home).items() if k in ("name", "licence")}
    tables: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for name in graph.modalities:
        if name not in graph.encode:
            section = tables.setdefault("modalities", {})
            section[name] = _copy_sources(home, out, graph.modalities[name])
            notes.append(f"{name}: its files copied")
            continue
        table, section = graph.encode[name], tables.setdefault("encode", {})
        encoder = encoder_of(table, f"encode.{name}", trust_code=trust_code)
        if isinstance(encoder, RawEncoder) and encoder.endings:
            copied, missing = _copy_files(graph, name, encoder, out)
            section[name] = {**_without_inputs(table), "paths": [f"{name}.tsv"]}
            notes.append(f"{name}: {copied:,} files copied")
            notes += missing
        else:
            section[name] = _copy_sources(home, out, table)
            source = "its tables copied" if "paths" in table else "is made of another modality"
            notes.append(f"{name}: {source}")
    text = tomli_w.dumps({**about, **tables})
    (out / "graph.toml").write_text(text, encoding="utf-8")
    return notes


def _without_inputs(table: Mapping[str, Any]) -> dict[str, Any]:
    inputs = ("paths", "entity", "columns", "delimiter")
    return {key: value for key, value in table.items() if key not in inputs}


def _copy_sources(home: Path, out: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the files that a table names; returns the table with the new paths."""

    def copied(value: str) -> str:
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
            result[key] = copied(value)
        elif key in _PATHS:
            result[key] = [copied(item) for item in value]
        else:
            result[key] = value
    return result


def _copy_files(graph: Graph, name: str, encoder: RawEncoder, out: Path) -> tuple[int, list[str]]:
    """Copy the files of a modality, and list them in a table.

    Returns:
        The number of copied files, and a line for each missing one.
    """
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
                    out / f"{name}.tsv", label, "a tab or a line feed, which TSV cannot"
                )
            if not path.is_file():
                missing.append(f"{name}: {label!r}: there is no file {path}")
                continue
            target = _free_path(out / name, label, path)
            shutil.copyfile(path, target)
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
