"""Where modalities come from: the kinds of ``[modalities.NAME]`` tables.

Dense: `Vectors` (.safetensors or .npy), `Numbers` (a TSV of numbers). Sets of tokens: `Words`,
`Bins`. Every kind can be replaced by a control of the same size: ``replace = "random"`` (other
values, same entities) or ``"shuffled"`` (same values, other entities).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mocme.graph.formats import tsv
from mocme.graph.loading import file_digest
from mocme.graph.modalities import (
    Features,
    Modality,
    Tokens,
    check_entities,
    read_safetensors,
)
from mocme.graph.tokens import rarest, words
from mocme.graph.triples import Graph, Vocabulary
from mocme.parts import ConfigError, Part, build

Replace = Literal["nothing", "random", "shuffled"]


class Source(Part):
    """One way to read a modality; `load` gives it and notes for the reader."""

    @abstractmethod
    def load(self, graph: Graph, folder: Path) -> tuple[Modality | Tokens, list[str]]:
        """Read the modality for the entities of a graph; paths are relative to `folder`.

        Raises:
            ValueError: naming the file and the remedy.
        """


class Vectors(Source):
    """One vector an entity.

    ``.safetensors`` holds either `values` (n, F) with `rows` (n,), the entity ids, or one vector
    under each entity's name; ``.npy`` holds (n, F) and needs `entities`, a file with one name a line.
    """

    def __init__(
        self, *, path: str, entities: str | None = None, replace: Replace = "nothing", seed: int = 0
    ) -> None:
        self.path, self.entities, self.replace, self.seed = path, entities, replace, seed

    def load(self, graph: Graph, folder: Path) -> tuple[Modality | Tokens, list[str]]:
        path = folder / self.path
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file; encode the modality first, or name "
                             f"its folder with --features")
        provenance = {"source": str(path), "sha256": file_digest(path)}
        if path.suffix == ".npy":
            names, values = self._from_npy(path, folder)
        else:
            tensors, metadata = read_safetensors(path)
            if set(tensors) == {"values", "rows"}:
                check_entities(path, metadata, graph.entities.digest())
                values, rows = tensors["values"], tensors["rows"]
                dense = Modality(values, rows, graph.num_entities, provenance | metadata)
                return control(dense, self.replace, self.seed), []
            names, values = _stack(path, tensors)
        rows, kept, notes = _match(path, names, graph.entities)
        dense = Modality(values[kept], rows, graph.num_entities, provenance)
        return control(dense, self.replace, self.seed), notes

    def _from_npy(self, path: Path, folder: Path) -> tuple[list[str], Tensor]:
        if self.entities is None:
            raise ValueError(f"{path}: needs entities = FILE, one entity name a line in row order")
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read as .npy: {error}") from error
        table = tsv.read(folder / self.entities, 1)
        if array.ndim != 2 or len(array) != len(table.rows):
            raise ValueError(
                f"{path}: has shape {array.shape}, but {table.report.path} names "
                f"{len(table.rows)} entities; one row a name is needed"
            )
        return [row[0] for row in table.rows], torch.from_numpy(np.array(array))


class Numbers(Source):
    """Numbers as a dense modality: a TSV of (entity, value) or (entity, attribute, value).

    Each attribute is centred on its median, divided by its interquartile range and squeezed by
    asinh, so that outliers keep their order; a second column an attribute says whether it is there.
    """

    def __init__(self, *, path: str, replace: Replace = "nothing", seed: int = 0) -> None:
        self.path, self.replace, self.seed = path, replace, seed

    def load(self, graph: Graph, folder: Path) -> tuple[Modality | Tokens, list[str]]:
        columns, notes = _numbers(folder / self.path, graph.entities)
        values = torch.zeros(graph.num_entities, 2 * len(columns))
        for place, cells in enumerate(columns.values()):
            rows = torch.tensor(list(cells))
            numbers = torch.tensor(list(cells.values()), dtype=torch.float64)
            low, middle, high = numbers.quantile(torch.tensor([0.25, 0.5, 0.75]).double())
            spread = float(high - low) or float(numbers.std(correction=0)) or 1.0
            values[rows, 2 * place] = ((numbers - middle) / spread).asinh().float()
            values[rows, 2 * place + 1] = 1.0
        has = values[:, 1::2].any(1).nonzero().flatten()
        provenance = {"source": str(folder / self.path), "attributes": "\t".join(columns)}
        provenance["sha256"] = file_digest(folder / self.path)
        dense = Modality(values[has], has, graph.num_entities, provenance)
        return control(dense, self.replace, self.seed), notes


class Words(Source):
    """Words of texts as a set of tokens: the rarest ones of each entity (METHOD: tokens as facts).

    The files are TSV, an entity in column 1 and a text in column `column`; several texts of an
    entity count as one.
    """

    def __init__(
        self,
        *,
        paths: Sequence[str],
        columns: Sequence[int] = (2,),
        per_entity: int = 6,
        at_least: int = 3,
        at_most: float = 0.2,
        replace: Replace = "nothing",
        seed: int = 0,
    ) -> None:
        if len(columns) not in (1, len(paths)) or min(columns) < 2:
            raise ValueError("columns gives the text's column (2 or more), one or one a path")
        self.paths = paths
        self.columns = tuple(columns) * (len(paths) if len(columns) == 1 else 1)
        self.per_entity, self.at_least, self.at_most = per_entity, at_least, at_most
        self.replace, self.seed = replace, seed

    def load(self, graph: Graph, folder: Path) -> tuple[Modality | Tokens, list[str]]:
        texts: dict[int, str] = {}
        notes: list[str] = []
        digests: list[str] = []
        for name, column in zip(self.paths, self.columns, strict=True):
            found, said, digest = read_texts(folder / name, column, graph.entities)
            for entity, text in found.items():
                texts[entity] = f"{texts[entity]}\n{text}" if entity in texts else text
            notes += said
            digests.append(digest)
        tokens = rarest(
            {entity: words(text) for entity, text in texts.items()},
            graph.num_entities,
            per_entity=self.per_entity,
            at_least=self.at_least,
            at_most=self.at_most,
            provenance={"source": "\t".join(self.paths), "sha256": "\t".join(digests)},
        )
        if not len(tokens.entity):
            raise ValueError(f"{folder / self.paths[0]}: no word occurs in {self.at_least} entities "
                             f"or more; lower at_least or leave this modality out")
        return control(tokens, self.replace, self.seed), notes


class Bins(Source):
    """Numbers as a set of tokens: one token for each attribute's quantile bin."""

    def __init__(
        self, *, path: str, bins: int = 10, replace: Replace = "nothing", seed: int = 0
    ) -> None:
        if bins < 2:
            raise ValueError("bins must be at least 2")
        self.path, self.bins, self.replace, self.seed = path, bins, replace, seed

    def load(self, graph: Graph, folder: Path) -> tuple[Modality | Tokens, list[str]]:
        columns, notes = _numbers(folder / self.path, graph.entities)
        sets: dict[int, list[str]] = {}
        for attribute, cells in columns.items():
            numbers = torch.tensor(list(cells.values()), dtype=torch.float64)
            edges = torch.unique(numbers.quantile(torch.linspace(0, 1, self.bins + 1).double()[1:-1]))
            places = torch.bucketize(numbers, edges, right=True)
            for entity, place in zip(cells, places.tolist(), strict=True):
                sets.setdefault(entity, []).append(f"{attribute}#{place}")
        provenance = {"source": self.path, "sha256": file_digest(folder / self.path)}
        tokens = rarest(
            sets, graph.num_entities, per_entity=10**9, at_least=1, at_most=1.0, provenance=provenance
        )
        return control(tokens, self.replace, self.seed), notes


def read_features(
    graph: Graph, tables: Mapping[str, Mapping[str, Any]], folder: Path | None = None
) -> Features:
    """Read every modality of ``[modalities.NAME]`` tables.

    Args:
        folder: where their paths start; the graph's own folder by default. A file that is not
            there is looked for in the graph's folder too.
    """
    dense: dict[str, Modality] = {}
    tokens: dict[str, Tokens] = {}
    notes: list[str] = []
    home = Path(graph.folder or ".")
    for name, table in tables.items():
        path = f"modalities.{name}"
        if name == "structure":
            raise ConfigError(f"{path}: structure is the modality every graph has; choose a name")
        source = build(Source, {**table, "kind": _kind(table, path)}, path)
        found, said = source.load(graph, _folder_of(source, folder, home))
        notes += said
        if isinstance(found, Tokens):
            tokens[name] = found
        else:
            dense[name] = found
    return Features(dense, tokens, notes)


def _kind(table: Mapping[str, Any], path: str) -> str:
    """Kinds may be written as in graph.toml (`words`) or as the class (`Words`)."""
    kind = table.get("kind", "")
    if not isinstance(kind, str):
        raise ConfigError(f"{path}.kind: must be a text")
    return kind if ":" in kind else kind.capitalize()


def _folder_of(source: Source, folder: Path | None, home: Path) -> Path:
    first = getattr(source, "path", None) or getattr(source, "paths", ("",))[0]
    return folder if folder is not None and (folder / first).exists() else home


def control(modality: Any, replace: Replace, seed: int) -> Any:
    """The same modality, or a control of the same size without its content.

    ``random``: Gaussian vectors with the mean and deviation of each column, or token sets of the
    same sizes drawn by frequency. ``shuffled``: the content of another entity that has it.
    """
    if replace == "nothing":
        return modality
    generator = torch.Generator().manual_seed(seed)
    note = {**modality.provenance, "replaced": f"{replace}, seed {seed}"}
    if isinstance(modality, Modality):
        values = modality.values.float()
        if replace == "random":
            noise = torch.randn(values.shape, generator=generator)
            values = values.mean(0) + noise * values.std(0, correction=0)
        else:
            values = values[torch.randperm(len(values), generator=generator)]
        return Modality(values, modality.rows, modality.num_entities, note)
    return _control_tokens(modality, replace, generator, note)


def _control_tokens(
    tokens: Tokens, replace: Replace, generator: torch.Generator, note: Mapping[str, str]
) -> Tokens:
    if replace == "shuffled":
        has, index = torch.unique(tokens.entity, return_inverse=True)
        entity, token = has[torch.randperm(len(has), generator=generator)][index], tokens.token
    else:
        entity = tokens.entity
        token = tokens.token[torch.randperm(len(entity), generator=generator)]
    pairs = torch.unique(torch.stack([entity, token], 1), dim=0)
    return Tokens(tokens.vocabulary, pairs[:, 0], pairs[:, 1], tokens.num_entities, note)


def read_texts(path: Path, column: int, entities: Vocabulary) -> tuple[dict[int, str], list[str], str]:
    """Texts by entity id, notes on names and lines left out, and the file's digest."""
    table = tsv.read(path, None)
    if table.rows and len(table.rows[0]) < column:
        raise ValueError(f"{path}: has {len(table.rows[0])} columns; column {column} is asked for")
    texts: dict[int, str] = {}
    strange: list[str] = []
    for row in table.rows:
        entity = entities.get(row[0])
        if entity is None:
            strange.append(row[0])
        elif text := row[column - 1]:
            texts[entity] = f"{texts[entity]}\n{text}" if entity in texts else text
    return texts, [str(table.report), *_unknown(path, strange)], table.report.sha256


def _numbers(path: Path, entities: Vocabulary) -> tuple[dict[str, dict[int, float]], list[str]]:
    """Numbers by attribute and entity; the last of several values of one attribute counts."""
    table = tsv.read(path, None)
    width = len(table.rows[0]) if table.rows else 3
    if width not in (2, 3):
        raise ValueError(f"{path}: {width} columns; (entity, value) or (entity, attribute, value)")
    columns: dict[str, dict[int, float]] = {}
    strange: list[str] = []
    double = 0
    for row, line in zip(table.rows, table.lines, strict=True):
        try:
            number = float(row[-1])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{path}: line {line}: {row[-1]!r} is not a finite number; remove the "
                             f"line where the value is missing")
        entity = entities.get(row[0])
        if entity is None:
            strange.append(row[0])
            continue
        cells = columns.setdefault(row[1] if width == 3 else "value", {})
        double += entity in cells
        cells[entity] = number
    if not columns:
        raise ValueError(f"{path}: no number belongs to an entity of the graph")
    notes = [str(table.report), *_unknown(path, strange)]
    if double:
        notes.append(f"{path}: {double} entities have an attribute twice; the last value counts")
    return columns, notes


def _unknown(path: Path, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"{path}: {len(names):,} rows name no entity of the graph, the first {names[0]!r}"]


def _match(path: Path, names: list[str], entities: Vocabulary) -> tuple[Tensor, Tensor, list[str]]:
    """Entity ids in ascending order, the places of their vectors, and notes."""
    ids: dict[int, int] = {}
    strange = []
    for place, name in enumerate(names):
        entity = entities.get(name)
        if entity is None:
            strange.append(name)
        elif entity in ids:
            raise ValueError(f"{path}: {name!r} has two vectors; keep one")
        else:
            ids[entity] = place
    if not ids:
        raise ValueError(f"{path}: none of its {len(names)} names is an entity of the graph")
    rows = sorted(ids)
    return torch.tensor(rows), torch.tensor([ids[r] for r in rows]), _unknown(path, strange)


def _stack(path: Path, tensors: Mapping[str, Tensor]) -> tuple[list[str], Tensor]:
    shapes = {tuple(value.shape) for value in tensors.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"{path}: needs one vector of the same length under each entity's name, or "
                         f"`values` with `rows`; found shapes {sorted(shapes)[:3]}")
    return list(tensors), torch.stack(list(tensors.values()))


Source.kinds = (Vectors, Numbers, Words, Bins)
