"""Read the modalities that the ``[modalities.NAME]`` tables of a graph or experiment declare.

Each kind of table is a `Source` in `mocme.data.features.kinds`. Dense modalities come from
`Vectors` (.safetensors, .npy and other tensors) and `Numbers` (a TSV of numbers), sets of tokens
from `Words` and `Bins`, either of them from `Encoded` (what `mocme encode` made), and pairs of
entities from `Mentions` and `Similar`. Every source can replace its content by that of an ablation,
for instance with ``replace = "shuffled"``; see `Ablation`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mocme.core.registry import ConfigError, build, discover
from mocme.data.features import kinds
from mocme.data.features.base import Source as Source
from mocme.data.features.kinds.bins import Bins as Bins
from mocme.data.features.kinds.encoded import Encoded as Encoded
from mocme.data.features.kinds.encoded import nothing_encoded
from mocme.data.features.kinds.numbers import Numbers as Numbers
from mocme.data.features.kinds.vectors import Vectors as Vectors
from mocme.data.features.kinds.words import Words as Words
from mocme.data.graph import Graph
from mocme.data.modality import AnyModality, EmptyModality, Features, check_name
from mocme.data.pairs.build import share_vectors

Source.kinds = discover(Source, kinds)


def read_features(
    graph: Graph,
    tables: Mapping[str, Mapping[str, Any]],
    folder: Path | None = None,
    required: Collection[str] = (),
    *,
    trust_code: bool = False,
) -> Features:
    """Read every modality of ``[modalities.NAME]`` tables.

    One of which nothing can be made is left out, with a note.

    Args:
        graph: the graph whose entities the names in the files are.
        tables: settings of a `Source` by modality name.
        folder: where relative paths start; by default, the folder of the graph. A modality whose
            files are not there is looked for in the folder of the graph too.
        required: modalities that must not be left out.
        trust_code: import the classes of the user that the tables name.

    Raises:
        EmptyModality: nothing can be made of one that is required.
        ConfigError: a setting or the name of a modality is wrong.
        ValueError: a file is missing or wrong; the message names it and the remedy.
    """
    modalities: dict[str, AnyModality] = {}
    notes: list[str] = []
    home = Path(graph.folder or ".")
    for name, table in tables.items():
        path = f"modalities.{name}"
        check_name(name, path)
        source = source_of(table, path, trust_code=trust_code)
        try:
            modality, source_notes = source.load(graph, _folder_of(source, folder, home))
        except EmptyModality as error:
            if name in required:
                raise EmptyModality(
                    f"{name}: the experiment asks for it, but nothing can be made of it: {error}"
                ) from error
            notes.append(f"{name}: is left out, because nothing can be made of it: {error}")
            continue
        modalities[name] = source.ablation()(modality)
        notes += source_notes
    features = Features.of(modalities, notes)
    pairs = {name: share_vectors(p, features.dense) for name, p in features.pairs.items()}
    return replace(features, pairs=pairs)


def source_of(table: Mapping[str, Any], path: str, *, trust_code: bool = False) -> Source:
    """Build the source that a table describes.

    Args:
        trust_code: import the class of the user that the table names.

    Raises:
        ConfigError: a setting is wrong; the message begins with its path.
    """
    settings = {**table, "kind": kind_of(table, path)}
    return build(Source, settings, path, trust_code=trust_code)  # type: ignore[type-abstract]


def kind_of(table: object, path: str) -> str:
    """Return the kind of a table with the spelling of its class: `words` becomes `Words`.

    Raises:
        ConfigError: it is not a table, or has no kind.
    """
    kind = table.get("kind") if isinstance(table, Mapping) else None
    if not isinstance(kind, str) or not kind:
        names = ", ".join(source.kind_name() for source in Source.kinds)
        raise ConfigError(f"{path}: must be a table with a kind, one of {names}")
    return kind if ":" in kind else kind[0].upper() + kind[1:]


def needs_encoding(table: Mapping[str, Any], graph: Graph, folder: Path | None = None) -> bool:
    """Return whether a table needs a file of `mocme encode` that does not exist yet."""
    setting = {"encoded": "path", "similar": "vectors"}.get(str(table.get("kind")).lower())
    if setting is None or table.get(setting) is None:
        return False
    folders = (folder, Path(graph.folder or "."))
    files = [f / str(table[setting]) for f in folders if f is not None]
    return not any(file.is_file() or nothing_encoded(file, graph) for file in files)


def _folder_of(source: Source, folder: Path | None, home: Path) -> Path:
    """Return the folder of a source's files: `folder`, unless all of them are in `home` only."""
    if folder is None:
        return home
    files = source.files()
    in_folder = all((folder / file).exists() for file in files)
    in_home = all((home / file).exists() for file in files)
    return home if in_home and not in_folder else folder
