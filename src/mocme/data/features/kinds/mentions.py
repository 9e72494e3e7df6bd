"""Pairs of entities by names that occur in texts and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from mocme.data.features.base import Source
from mocme.data.features.tables import column_per_file, gather_texts
from mocme.data.graph import Graph
from mocme.data.modality import AnyModality, EmptyModality, Pairs
from mocme.data.pairs.build import basis_of_texts, build_pairs, split_names
from mocme.data.pairs.mentions import check_limits


@final
@dataclass(frozen=True, kw_only=True)
class Mentions(Source):
    """Which entity's text names which other entity, and which names share words.

    The files are TSV with an entity in column 1 and a name or text in another column. See
    `mocme.data.pairs.mentions.mentions` for the kinds of pairs and for the limits.

    Attributes:
        names: files of names; an entity may have several, within a file and across files.
        texts: files of texts; without them, only names are compared with each other.
        name_columns: the column of the name, one for all files or one per file of `names`.
        columns: the column of the text, one for all files or one per file of `texts`.
        separator: separates several names in one cell.
    """

    names: Sequence[str]
    texts: Sequence[str] = ()
    name_columns: Sequence[int] = (2,)
    columns: Sequence[int] = (2,)
    separator: str | None = None
    contexts: int = 15
    part: int = 3
    share: int = 10
    shortest: int = 3

    def __post_init__(self) -> None:
        name_columns = column_per_file(
            self.names, self.name_columns, paths_setting="names", columns_setting="name_columns"
        )
        object.__setattr__(self, "name_columns", name_columns)
        columns: tuple[int, ...] = ()
        if self.texts:
            columns = column_per_file(self.texts, self.columns, paths_setting="texts")
        object.__setattr__(self, "columns", columns)
        check_limits(self.contexts, self.part, self.share, self.shortest)
        if self.separator == "":
            raise ValueError("separator must not be empty; leave it out if a cell has one name")
        super().__post_init__()

    def files(self) -> list[str]:
        return [*self.names, *self.texts]

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        names, name_notes, name_digests = gather_texts(
            folder, self.names, self.name_columns, graph.entities
        )
        texts, text_notes, text_digests = gather_texts(
            folder, self.texts, self.columns, graph.entities
        )
        basis = basis_of_texts(
            "mentions",
            {
                "contexts": self.contexts,
                "part": self.part,
                "share": self.share,
                "shortest": self.shortest,
                "separator": self.separator,
            },
            names={entity: split_names(cells, self.separator) for entity, cells in names.items()},
            texts=texts if self.texts else None,
        )
        provenance = {
            "source": "\t".join(self.files()),
            "sha256": "\t".join(name_digests + text_digests),
        }
        pairs = build_pairs(basis, graph.num_entities, provenance)
        if not len(pairs.kind):
            raise EmptyModality(
                f"{folder / self.names[0]}: of the {len(names):,} entities that have a name, none "
                f"is named in another's name or in one of the {len(texts):,} entities' texts; "
                f"check name_columns and columns in this modality's table (a name of a single word "
                f"needs {self.shortest} letters), or leave the modality out"
            )
        # A file may have both names and texts; its notes are needed once.
        notes = list(dict.fromkeys([*name_notes, *text_notes]))
        if texts:
            notes.append(f"{folder / self.texts[0]}: {_summary(pairs, len(texts))}")
        return pairs, notes


def _summary(pairs: Pairs, texts: int) -> str:
    """Say how many texts name another entity, and in how many kinds of contexts."""
    is_mention = torch.tensor([kind == "mentions" for kind in pairs.kinds])
    naming = len(pairs.head[is_mention[pairs.kind]].unique())
    contexts = sum(kind.startswith("mentions, after ") for kind in pairs.kinds)
    return (
        f"texts of {naming:,} of {texts:,} entities name another, in {contexts:,} kinds of contexts"
    )
