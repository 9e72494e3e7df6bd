"""Raw content of a run's entities for display: texts, numbers, files and types."""

from __future__ import annotations

import contextlib
import mimetypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mocme.data.features.kinds.mentions import Mentions
from mocme.data.features.kinds.similar import Similar
from mocme.data.features.sources import Numbers, Words, source_of
from mocme.data.features.tables import gather_texts, read_numbers, read_texts
from mocme.data.graph import Graph
from mocme.data.ingest.reader import read_graph_toml
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of
from mocme.encoders.inputs import RawEncoder
from mocme.encoders.numeric_io import NumberEncoder
from mocme.runs.run import Run
from mocme.runs.run_inputs import modality_file
from mocme.storage.text_formats import parse_json

# Maximum size in bytes of a file that is sent.
MAX_FILE_BYTES = 100_000_000
_MEDIA = ("image", "audio", "video")


@dataclass
class EntityContent:
    """Raw content by entity id, read from the run's data folder.

    Attributes:
        texts: (modality, text) pairs.
        numbers: (modality, attribute, value) triples.
        files: (modality, path) pairs.
        types: names of the entity's types.
        notes: what could not be read, and why.
    """

    texts: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    numbers: dict[int, list[tuple[str, str, float]]] = field(default_factory=dict)
    files: dict[int, list[tuple[str, Path]]] = field(default_factory=dict)
    types: dict[int, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def read(run: Run, graph: Graph) -> EntityContent:
        """Read the content of all entities from the run's data folder.

        A table that cannot be read is skipped and reported in the notes, because predictions do
        not need it.
        """
        content = EntityContent()
        folder = Path(graph.folder) if graph.folder else None
        if folder is None or not folder.is_dir():
            content.notes.append(
                f"the data folder {folder or '(none)'} does not exist, so texts, pictures and "
                f"numbers of entities cannot be shown"
            )
            return content
        for name, read in content._sources(run, graph, folder):
            try:
                read()
            except (ValueError, OSError) as error:
                content.notes.append(f"{name}: cannot be shown: {error}")
        return content

    def _sources(
        self, run: Run, graph: Graph, folder: Path
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield the name of each source, and a function that reads it."""
        about = read_graph_toml(folder)
        encoded = about.get("encode", {})
        encoded = {**(encoded if isinstance(encoded, Mapping) else {}), **_encoder_settings(run)}
        for name, table in encoded.items():
            yield name, partial(self._read_raw, name, table, graph, folder)
        tables = run.experiment.modalities or about.get("modalities", {})
        for name, table in tables.items() if isinstance(tables, Mapping) else ():
            # A kind with a colon names user code, which the server never runs.
            if ":" not in str(table.get("kind")):
                yield name, partial(self._read_declared, name, table, graph, folder)
        types = about.get("types")
        if isinstance(types, dict) and isinstance(types.get("path"), str):
            yield "types", lambda: self._read_types(folder / str(types["path"]), graph)

    def _read_raw(self, name: str, table: dict[str, Any], graph: Graph, folder: Path) -> None:
        """Read the inputs of an encoder."""
        encoder = encoder_of(table, f"encode.{name}")
        job = EncodingJob(graph, name, folder, folder)
        if isinstance(encoder, NumberEncoder):
            columns, _ = encoder.read(job, EncodingReport(name, ""))
            self._add_numbers(name, columns)
        elif isinstance(encoder, RawEncoder):
            for entity, source, _ in encoder.items(job):
                if encoder.endings and source:
                    # Two modalities may use the same file; it is shown once.
                    files = self.files.setdefault(entity, [])
                    if Path(source) not in [path for _, path in files]:
                        files.append((name, Path(source)))
                elif source.strip():
                    self.texts.setdefault(entity, []).append((name, source))

    def _read_declared(self, name: str, table: dict[str, Any], graph: Graph, folder: Path) -> None:
        """Read the source of a modality declared in the graph or the experiment."""
        source = source_of(table, f"modalities.{name}")
        if isinstance(source, Numbers):
            columns, _ = read_numbers(folder / source.path, graph.entities)
            self._add_numbers(name, columns)
        elif isinstance(source, Words | Similar):
            self._add_texts(name, source.paths, source.columns, graph, folder)
        elif isinstance(source, Mentions):
            self._add_texts(name, source.texts, source.columns, graph, folder)

    def _add_numbers(self, name: str, columns: Any) -> None:
        for attribute, (entities, values) in columns.items():
            for entity, value in zip(entities, values.tolist(), strict=True):
                self.numbers.setdefault(entity, []).append((name, attribute, value))

    def _add_texts(
        self, name: str, paths: Sequence[str], columns: Sequence[int], graph: Graph, folder: Path
    ) -> None:
        """Add texts that are not there yet: two modalities may use the same text."""
        texts, _, _ = gather_texts(folder, paths, columns, graph.entities)
        for entity, lines in texts.items():
            present = {text for _, text in self.texts.get(entity, [])}
            new = [(name, text) for text in lines if text.strip() and text not in present]
            self.texts.setdefault(entity, []).extend(new)

    def _read_types(self, path: Path, graph: Graph) -> None:
        texts, _, _ = read_texts(path, 2, graph.entities)
        for entity, text in texts.items():
            self.types[entity] = text.split("\n")


def _encoder_settings(run: Run) -> dict[str, dict[str, Any]]:
    """Return by modality the settings of the encoder that produced the run's features."""
    by_modality = {}
    for name in run.about["modalities"]:
        text = run.folder.tensors_metadata(modality_file(name)).get("settings")
        # A file of the user may have metadata of its own, which is no record of an encoder.
        with contextlib.suppress(ValueError):
            settings = parse_json(text or "null")
            if isinstance(settings, dict):
                by_modality[name] = settings
    return by_modality


def media_type(path: Path) -> tuple[str, str]:
    """Return the kind of a file (image, audio, video or other) and its media type."""
    media = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    kind = media.partition("/")[0]
    return (kind, media) if kind in _MEDIA else ("other", "application/octet-stream")
