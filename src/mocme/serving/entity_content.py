"""What a run's entities look like: their texts, numbers, files and types, from the data folder."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mocme.data.features.pair_sources import Mentions, Similar
from mocme.data.features.sources import Numbers, Words, source_of
from mocme.data.features.tables import gather, read_numbers, read_texts
from mocme.data.graph import Graph
from mocme.data.ingest.reader import declared
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of
from mocme.encoders.inputs import RawEncoder
from mocme.encoders.numeric_io import NumberEncoder
from mocme.runs.run import Run

# Bytes of one file that are sent.
LARGEST = 100_000_000
_MEDIA = ("image", "audio", "video")


@dataclass
class Content:
    """Raw content by entity.

    Attributes:
        notes: what could not be read, and why.
    """

    texts: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    numbers: dict[int, list[tuple[str, str, float]]] = field(default_factory=dict)
    files: dict[int, list[tuple[str, Path]]] = field(default_factory=dict)
    types: dict[int, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def of(run: Run, graph: Graph) -> Content:
        """All that the run's data folder holds of its entities.

        A table that cannot be read is left out, and told in the notes: a run can be asked without.
        """
        found = Content()
        folder = Path(graph.folder) if graph.folder else None
        if folder is None or not folder.is_dir():
            found.notes.append(
                f"the data folder {folder or '(none)'} is not there, so that texts, pictures and "
                f"numbers of entities cannot be shown"
            )
            return found
        for what, read in found._sources(run, graph, folder):
            try:
                read()
            except (ValueError, OSError) as error:
                found.notes.append(f"{what}: cannot be shown: {error}")
        return found

    def _sources(
        self, run: Run, graph: Graph, folder: Path
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        """What there is to read, by name, and how."""
        about = declared(folder)
        encoded = about.get("encode", {})
        encoded = {**(encoded if isinstance(encoded, Mapping) else {}), **_encoded(run)}
        for name, table in encoded.items():
            yield name, partial(self._raw, name, table, graph, folder)
        tables = run.experiment.modalities or about.get("modalities", {})
        for name, table in tables.items() if isinstance(tables, Mapping) else ():
            # Nothing here runs code of somebody's own.
            if ":" not in str(table.get("kind")):
                yield name, partial(self._declared, name, table, graph, folder)
        types = about.get("types")
        if isinstance(types, dict) and isinstance(types.get("path"), str):
            yield "types", lambda: self._types(folder / str(types["path"]), graph)

    def _raw(self, name: str, table: dict[str, Any], graph: Graph, folder: Path) -> None:
        encoder = encoder_of(table, f"encode.{name}")
        job = EncodingJob(graph, name, folder, folder)
        if isinstance(encoder, NumberEncoder):
            columns, _ = encoder.read(job, EncodingReport(name, ""))
            self._columns(name, columns)
        elif isinstance(encoder, RawEncoder):
            for entity, source, _ in encoder.items(job):
                if encoder.endings and source:
                    # Two modalities may be made of the same file.
                    files = self.files.setdefault(entity, [])
                    if Path(source) not in [path for _, path in files]:
                        files.append((name, Path(source)))
                elif source.strip():
                    self.texts.setdefault(entity, []).append((name, source))

    def _declared(self, name: str, table: dict[str, Any], graph: Graph, folder: Path) -> None:
        source = source_of(table, f"modalities.{name}")
        if isinstance(source, Numbers):
            columns, _ = read_numbers(folder / source.path, graph.entities)
            self._columns(name, columns)
        elif isinstance(source, Words | Similar):
            self._texts(name, source.paths, source.columns, graph, folder)
        elif isinstance(source, Mentions):
            self._texts(name, source.texts, source.columns, graph, folder)

    def _columns(self, name: str, columns: Any) -> None:
        for attribute, (entities, values) in columns.items():
            for entity, value in zip(entities, values.tolist(), strict=True):
                self.numbers.setdefault(entity, []).append((name, attribute, value))

    def _texts(
        self, name: str, paths: Sequence[str], columns: Sequence[int], graph: Graph, folder: Path
    ) -> None:
        """Texts that are not shown yet: two modalities may be made of the same one."""
        texts, _, _ = gather(folder, paths, columns, graph.entities)
        for entity, own in texts.items():
            shown = {text for _, text in self.texts.get(entity, [])}
            lines = [(name, text) for text in own if text.strip() and text not in shown]
            self.texts.setdefault(entity, []).extend(lines)

    def _types(self, path: Path, graph: Graph) -> None:
        found, _, _ = read_texts(path, 2, graph.entities)
        for entity, text in found.items():
            self.types[entity] = text.split("\n")


def _encoded(run: Run) -> dict[str, dict[str, Any]]:
    """Settings of the encoders that made the run's modalities."""
    found = {}
    for name in run.folder.about["modalities"]:
        settings = run.folder.tensors_metadata(f"modalities/{name}.safetensors").get("settings")
        if settings:
            found[name] = json.loads(settings)
    return found


def kind_of(path: Path) -> tuple[str, str]:
    """What a file shows (image, audio, video or other), and its media type."""
    media = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    kind = media.partition("/")[0]
    return (kind, media) if kind in _MEDIA else ("other", "application/octet-stream")
