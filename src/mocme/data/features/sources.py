"""Where modalities come from: the kinds of ``[modalities.NAME]`` tables.

Dense: `Vectors` (.safetensors or .npy), `Numbers` (a TSV of numbers). Sets of tokens: `Words`,
`Bins`. Either: `Encoded`, what `mocme encode` made. Pairs of entities: `Mentions`, `Similar` (in
`relating`). Every kind can be replaced by a control of the same size: ``replace = "random"`` (other
values, same entities) or ``"shuffled"`` (same values, other entities); see `controls`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mocme.core.digest import file_digest
from mocme.core.registry import ConfigError, build
from mocme.data.features.ablations import Ablation, Replace
from mocme.data.features.alignment import bound, from_npy, ids, match, stack, take
from mocme.data.features.base import Source as Source
from mocme.data.features.base import read_encoded
from mocme.data.features.numeric import NumberVectors, bin_tokens, kept_scales
from mocme.data.features.pair_sources import Mentions, Similar
from mocme.data.features.tables import check_columns, gather, read_numbers
from mocme.data.features.tokens import text_tokens
from mocme.data.formats import tensors
from mocme.data.graph import Graph
from mocme.data.modality import (
    AnyModality,
    Features,
    Modality,
    check_name,
    described,
    read_safetensors,
)
from mocme.data.pairs.build import shared
from mocme.data.words import UNITS


class Vectors(Source):
    """One vector an entity.

    ``.safetensors`` holds either `values` (n, F) with `rows` (n,), the entity ids, or one vector
    under each entity's name; ``.npy`` holds (n, F) and needs `entities`, a file with one name a
    line. Bound to the list of entities are `values` with `rows` by the digest of that list in the
    file's metadata (`entities`); a file without it is taken as it is, with a note.

    With ``by = "row"``, row i is the vector of the entity with the id i, as in the feature tensors
    that are published beside benchmarks (``.pth``, ``.pt``, ``.npy``, ``.h5``, ``.safetensors``;
    `key` names one of several in a file). The graph needs a list of entities, and their number must
    be that of the rows.

    Memory-mapped are `values` with `rows` and ``.npy`` whose names are entities of the graph in
    its order. Everything else is copied: one vector a name, rows in another order, other numbers
    than floating point of this machine's byte order, and every control.
    """

    def __init__(
        self,
        *,
        path: str,
        entities: str | None = None,
        by: Literal["name", "row"] = "name",
        key: str | None = None,
        replace: Replace = "nothing",
        replace_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        if by == "row" and entities is not None:
            raise ValueError('entities is for by = "name"; rows are in the order of the ids')
        if by == "name" and key is not None:
            raise ValueError('key is for by = "row"')
        self.path, self.entities = path, entities
        self.control = Ablation(replace, replace_share, seed)
        self.by, self.key = by, key

    def files(self) -> list[str]:
        return [self.path] if self.entities is None else [self.path, self.entities]

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        path = folder / self.path
        if not path.is_file():
            raise ValueError(
                f"{path}: there is no such file; encode the modality first, or name its folder "
                f"with --features"
            )
        provenance = {"source": str(path), "sha256": file_digest(path)}
        if self.by == "row":
            rows, values, described_by = self._by_row(path, graph)
            provenance |= described_by
            notes: list[str] = []
        elif path.suffix == ".npy":
            rows, values, notes = from_npy(path, self._names(folder), graph.entities)
        else:
            tensors, metadata = read_safetensors(path)
            provenance |= described(metadata)
            if set(tensors) == {"values", "rows"}:
                notes = bound(path, metadata, graph.entities)
                rows, values = ids(tensors["rows"]), tensors["values"]
            else:
                names, values = stack(path, tensors)
                rows, kept, notes = match(path, names, graph.entities)
                values = take(values, kept)
        if not values.is_floating_point():
            values = values.float()
        dense = _checked(path, values, rows, graph.num_entities, provenance)
        if empty := int((dense.values == 0).all(1).sum()):
            notes.append(
                f"{path}: {empty:,} vectors are all zero; leave out entities that lack the modality"
            )
        return dense, notes

    def _by_row(self, path: Path, graph: Graph) -> tuple[Tensor, Tensor, dict[str, str]]:
        """Row i belongs to the entity with the id i, so ids must be those of a list of names."""
        if not graph.listed:
            raise ValueError(
                f'{path}: by = "row" needs entities.txt beside the facts, with the names in the '
                f"order of the rows"
            )
        values, provenance = tensors.read(path, self.key)
        if len(values) != graph.num_entities:
            raise ValueError(
                f"{path}: has {len(values):,} rows for {graph.num_entities:,} entities; it belongs "
                f"to another list of entities"
            )
        return torch.arange(len(values)), values, dict(provenance)

    def _names(self, folder: Path) -> Path | None:
        return None if self.entities is None else folder / self.entities


class Encoded(Source):
    """What `mocme encode` made: vectors or sets of tokens, bound to the list of entities.

    With `settings`, those of the encoder as graph.toml declares them, a file that was made with
    others is refused.
    """

    def __init__(
        self,
        *,
        path: str,
        settings: str | None = None,
        replace: Replace = "nothing",
        replace_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.path, self.settings = path, settings
        self.control = Ablation(replace, replace_share, seed)

    def files(self) -> list[str]:
        return [self.path]

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        found = read_encoded(folder / self.path, graph, self.settings)
        return found, []


class Numbers(Source):
    """Numbers as a dense modality: a TSV of (entity, value) or (entity, attribute, value).

    Each attribute is centred on its median, divided by its interquartile range and squeezed by
    asinh, so that outliers keep their order; a second column an attribute says whether it is there.

    Args:
        bins: with 2 or more, as many further columns an attribute: its piecewise linear encoding
            between quantiles (Gorishniy et al., NeurIPS 2022), so that a linear map can follow
            curves and intervals. 0 for none.
    """

    def __init__(
        self,
        *,
        path: str,
        bins: int = 0,
        replace: Replace = "nothing",
        replace_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        if bins < 0 or bins == 1:
            raise ValueError("bins must be 0 or at least 2")
        self.path, self.bins = path, bins
        self.control = Ablation(replace, replace_share, seed)

    def files(self) -> list[str]:
        return [self.path]

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        columns, notes = read_numbers(folder / self.path, graph.entities)
        vectors = NumberVectors(columns, self.bins)
        values = torch.from_numpy(vectors.block(vectors.rows))
        rows = torch.from_numpy(vectors.rows)
        provenance = {"source": str(folder / self.path), "attributes": "\t".join(columns)}
        provenance["sha256"] = file_digest(folder / self.path)
        provenance["scales"] = kept_scales(columns, self.bins)
        dense = _checked(folder / self.path, values, rows, graph.num_entities, provenance)
        return dense, notes


class Words(Source):
    """Words of texts as a set of tokens: the rarest ones of each entity (METHOD: tokens as facts).

    The files are TSV, an entity in column 1 and a text in column `column`; several texts of an
    entity count as one.

    Args:
        unit: ``bigrams`` takes pairs of words that follow each other instead.
    """

    def __init__(
        self,
        *,
        paths: Sequence[str],
        columns: Sequence[int] = (2,),
        unit: Literal["words", "bigrams"] = "words",
        per_entity: int = 6,
        at_least: int = 3,
        at_most: float = 0.2,
        replace: Replace = "nothing",
        replace_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        if min(per_entity, at_least) < 1 or not 0 < at_most <= 1:
            raise ValueError("per_entity and at_least are 1 or more; at_most is a share in (0, 1]")
        self.columns = check_columns(paths, columns, "paths columns")
        self.paths, self.unit = paths, unit
        self.per_entity, self.at_least, self.at_most = per_entity, at_least, at_most
        self.control = Ablation(replace, replace_share, seed)

    def files(self) -> list[str]:
        return list(self.paths)

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        texts, notes, digests = gather(folder, self.paths, self.columns, graph.entities)
        path, words_of = folder / self.paths[0], UNITS[self.unit]
        tokens, count, without = text_tokens(
            ((entity, words_of("\n".join(lines))) for entity, lines in texts.items()),
            graph.num_entities,
            unit=self.unit,
            per_entity=self.per_entity,
            at_least=self.at_least,
            at_most=self.at_most,
            path=path,
            provenance={
                "source": "\t".join(self.paths),
                "sha256": "\t".join(digests),
                "unit": self.unit,
            },
        )
        if without:
            notes.append(
                f"{path}: {without:,} of {count:,} texts have no {self.unit[:-1]} that "
                f"occurs in {self.at_least} entities or more and in at most the share "
                f"{self.at_most} of them"
            )
        return tokens, notes


class Bins(Source):
    """Numbers as a set of tokens: one token for each attribute's quantile bin."""

    def __init__(
        self,
        *,
        path: str,
        bins: int = 10,
        replace: Replace = "nothing",
        replace_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        if bins < 2:
            raise ValueError("bins must be at least 2")
        self.path, self.bins = path, bins
        self.control = Ablation(replace, replace_share, seed)

    def files(self) -> list[str]:
        return [self.path]

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        columns, notes = read_numbers(folder / self.path, graph.entities)
        provenance = {"source": self.path, "sha256": file_digest(folder / self.path)}
        tokens = bin_tokens(
            columns,
            self.bins,
            graph.num_entities,
            per_entity=len(columns),
            provenance=provenance,
        )
        return tokens, notes


def read_features(
    graph: Graph, tables: Mapping[str, Mapping[str, Any]], folder: Path | None = None
) -> Features:
    """Read every modality of ``[modalities.NAME]`` tables.

    Args:
        graph: whose entities the names in the files are.
        tables: settings of a `Source` by modality name.
        folder: where their paths start; the graph's own folder by default. A modality whose files
            are not there is looked for in the graph's folder too.

    Raises:
        ConfigError: a setting is wrong, or the name of a modality.
        ValueError: a file is, named with the remedy.
    """
    read: dict[str, AnyModality] = {}
    notes: list[str] = []
    home = Path(graph.folder or ".")
    for name, table in tables.items():
        path = f"modalities.{name}"
        check_name(name, path)
        source = source_of(table, path)
        made, said = source.load(graph, _folder_of(source, folder, home))
        read[name] = source.control(made)
        notes += said
    found = Features.of(read, notes)
    return replace(found, pairs={n: shared(own, found.dense) for n, own in found.pairs.items()})


def source_of(table: Mapping[str, Any], path: str) -> Source:
    """The source that a table describes.

    Raises:
        ConfigError: a setting is wrong, with its path.
    """
    settings = {**table, "kind": kind_of(table, path)}
    return build(Source, settings, path)  # type: ignore[type-abstract]


def not_encoded(table: Mapping[str, Any], graph: Graph, folder: Path | None = None) -> bool:
    """Whether a table stands for a modality, or needs one, that `mocme encode` has not made yet."""
    made = {"encoded": "path", "similar": "vectors"}.get(str(table.get("kind")).lower())
    if made is None or table.get(made) is None:
        return False
    places = (folder, Path(graph.folder or "."))
    return not any((p / str(table[made])).is_file() for p in places if p is not None)


def kind_of(table: object, path: str) -> str:
    """The kind of a table as its class is called; graph.toml may write `words` for `Words`.

    Raises:
        ConfigError: it is no table, or has no kind.
    """
    kind = table.get("kind") if isinstance(table, Mapping) else None
    if not isinstance(kind, str) or not kind:
        known = ", ".join(part.kind_name() for part in Source.kinds)
        raise ConfigError(f"{path}: must be a table with a kind, one of {known}")
    return kind if ":" in kind else kind[0].upper() + kind[1:]


def _folder_of(source: Source, folder: Path | None, home: Path) -> Path:
    """Where the files of a source lie: `folder`, unless they are all at `home` only."""
    if folder is None:
        return home
    files = source.files()
    there = all((folder / file).exists() for file in files)
    return home if not there and all((home / file).exists() for file in files) else folder


def _checked(
    path: Path, values: Tensor, rows: Tensor, num_entities: int, provenance: Mapping[str, str]
) -> Modality:
    """The modality, or what is wrong with it under the name of its file."""
    if values.ndim != 2 or rows.shape != values.shape[:1] or rows.dtype != torch.int64:
        raise ValueError(
            f"{path}: values of shape {tuple(values.shape)} with rows of shape "
            f"{tuple(rows.shape)} and type {rows.dtype}; needed are (n, F) and (n,) whole numbers"
        )
    if not values.numel():
        raise ValueError(f"{path}: holds no vector (shape {tuple(values.shape)})")
    try:
        return Modality(values, rows, num_entities, provenance)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


Source.kinds = (Vectors, Encoded, Numbers, Words, Bins, Mentions, Similar)
