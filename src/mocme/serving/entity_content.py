"""Raw content of a run's entities for display: texts, numbers, files and types."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mocme.core.allowed_files import AllowedFolders, NotAllowed
from mocme.core.text_formats import parse_json
from mocme.data.features.kinds.mentions import Mentions
from mocme.data.features.kinds.similar import Similar
from mocme.data.features.sources import Numbers, Source, Words, source_of
from mocme.data.features.tables import gather_texts, read_numbers, read_texts
from mocme.data.graph import Graph
from mocme.data.ingest.reader import holds_graph, read_graph_toml
from mocme.encoders.base import Encoder, EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of
from mocme.encoders.inputs import RawEncoder
from mocme.encoders.numeric_io import NumberEncoder
from mocme.runs.run import Run
from mocme.runs.run_inputs import modality_file

_REMEDY = "to show files of a folder DIR, start with --files-from DIR"


@dataclass
class EntityContent:
    """Raw content by entity id, read from the run's data folder.

    Attributes:
        texts: (modality, text) pairs.
        numbers: (modality, attribute, value) triples.
        files: (modality, path) pairs.
        types: names of the entity's types.
        notes: what could not be read, and why.
        folders: where content may be read from. A graph's tables may come from anyone and can name
            any file, so only files in the graph's folder are shown, and in folders that the
            server's starter names.
    """

    texts: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    numbers: dict[int, list[tuple[str, str, float]]] = field(default_factory=dict)
    files: dict[int, list[tuple[str, Path]]] = field(default_factory=dict)
    types: dict[int, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    folders: AllowedFolders = AllowedFolders(())

    @staticmethod
    def read(run: Run, graph: Graph, files_from: Sequence[str | Path] = ()) -> EntityContent:
        """Read the content of all entities from the run's data folder.

        A table that cannot be read is skipped and reported in the notes, because predictions do
        not need it.

        Args:
            files_from: folders besides the graph's whose content may be shown.

        Raises:
            ValueError: one of them is not a folder.
        """
        folder = Path(graph.folder) if graph.folder else None
        # A run's file names the data folder; only a folder that holds a graph is taken for one.
        own = [folder] if folder is not None and holds_graph(folder) else []
        content = EntityContent(folders=AllowedFolders([*own, *files_from]))
        if folder is None or not folder.is_dir():
            content.notes.append(
                f"the data folder {folder or '(none)'} does not exist, so texts, pictures and "
                f"numbers of entities cannot be shown"
            )
            return content
        if not content.folders.holds(folder):
            content.notes.append(
                f"the data folder {folder} has no train.tsv, so texts, pictures and numbers of "
                f"entities are not shown; if they are in it, start with --files-from {folder}"
            )
            return content
        for name, read in content._sources(run, graph, folder):
            try:
                read()
            except NotAllowed as error:
                content.notes.append(f"{name}: is not shown: {error}; {_REMEDY}")
            except (ValueError, OSError) as error:
                content.notes.append(f"{name}: cannot be shown: {error}")
        content._count_outside()
        return content

    def _count_outside(self) -> None:
        """Note how many files are not shown because of the folder that they are in."""
        paths = [path for files in self.files.values() for _, path in files]
        outside = self.folders.outside(paths)
        if outside:
            self.notes.append(
                f"{len(outside):,} of {len(paths):,} files are not shown, because they lie outside "
                f"of the graph's folder, first {outside[0]}; {_REMEDY}"
            )

    def _sources(
        self, run: Run, graph: Graph, folder: Path
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield the name of each source, and a function that reads it."""
        about = read_graph_toml(folder)
        encoded = about.get("encode", {})
        encoded = {**(encoded if isinstance(encoded, Mapping) else {}), **_encoder_settings(run)}
        # Code that these tables name is imported only where the run's code is trusted.
        for name, table in encoded.items():
            encoder = partial(encoder_of, table, f"encode.{name}", trust_code=run.trust_code)
            yield name, partial(self._read_raw, name, encoder, graph, folder)
        tables = run.experiment.modalities or about.get("modalities", {})
        for name, table in tables.items() if isinstance(tables, Mapping) else ():
            source = partial(source_of, table, f"modalities.{name}", trust_code=run.trust_code)
            yield name, partial(self._read_declared, name, source, graph, folder)
        types = about.get("types")
        if isinstance(types, dict) and isinstance(types.get("path"), str):
            path = folder / str(types["path"])
            yield "types", lambda: self._read_types(path, graph)

    def _read_raw(self, name: str, make: Callable[[], Encoder], graph: Graph, folder: Path) -> None:
        """Read the inputs of an encoder."""
        encoder = make()
        job = EncodingJob(graph, name, folder, folder)
        if isinstance(encoder, NumberEncoder | RawEncoder):
            self._check(folder, encoder.paths)
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

    def _read_declared(
        self, name: str, make: Callable[[], Source], graph: Graph, folder: Path
    ) -> None:
        """Read the source of a modality declared in the graph or the experiment."""
        source = make()
        if isinstance(source, Numbers):
            self._check(folder, [source.path])
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
        self._check(folder, paths)
        texts, _, _ = gather_texts(folder, paths, columns, graph.entities)
        for entity, lines in texts.items():
            present = {text for _, text in self.texts.get(entity, [])}
            new = [(name, text) for text in lines if text.strip() and text not in present]
            self.texts.setdefault(entity, []).extend(new)

    def _check(self, folder: Path, paths: Sequence[str]) -> None:
        """Check tables before they are read.

        Raises:
            NotAllowed: one is not in an allowed folder.
        """
        for path in paths:
            self.folders.check(folder / path)

    def _read_types(self, path: Path, graph: Graph) -> None:
        self._check(path.parent, [path.name])
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
