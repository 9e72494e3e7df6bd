"""Sources of pairs: which entities names, texts, pictures or sounds connect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mocme.data.features.ablations import Ablation, Replace
from mocme.data.features.base import Source, read_encoded
from mocme.data.features.tables import check_columns, gather
from mocme.data.graph import Graph
from mocme.data.modality import AnyModality, Basis, Modality, Pairs
from mocme.data.pairs.build import apart, make, of_texts
from mocme.data.pairs.mentions import check_limits


class Mentions(Source):
    """Which entity's text names which other entity, and which names share words.

    The files are TSV, an entity in column 1 and a name or text in another; see `mentions` for the
    kinds of pairs and the limits.

    Args:
        names: files of names; an entity may have several, within a file and over files.
        texts: files of texts; without them only names are compared with each other.
        name_columns: the name's column, one for all or one a file of `names`.
        columns: the text's column, one for all or one a file of `texts`.
        separator: what stands between several names in one cell.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        texts: Sequence[str] = (),
        name_columns: Sequence[int] = (2,),
        columns: Sequence[int] = (2,),
        separator: str | None = None,
        contexts: int = 15,
        part: int = 3,
        share: int = 10,
        shortest: int = 3,
        replace: Replace = "nothing",
        replace_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.name_columns = check_columns(names, name_columns, "names name_columns")
        self.columns = check_columns(texts, columns, "texts columns") if texts else ()
        check_limits(contexts, part, share, shortest)
        if separator == "":
            raise ValueError("separator is what stands between names; leave it out for none")
        self.names, self.texts, self.separator = names, texts, separator
        self.contexts, self.part, self.share, self.shortest = contexts, part, share, shortest
        self.control = Ablation(replace, replace_share, seed)

    def files(self) -> list[str]:
        return [*self.names, *self.texts]

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        names, notes, digests = gather(folder, self.names, self.name_columns, graph.entities)
        texts, said, more = gather(folder, self.texts, self.columns, graph.entities)
        settings = {"contexts": self.contexts, "part": self.part, "share": self.share}
        basis = of_texts(
            "mentions",
            {**settings, "shortest": self.shortest, "separator": self.separator},
            names={entity: apart(own, self.separator) for entity, own in names.items()},
            texts=texts if self.texts else None,
        )
        provenance = {"source": "\t".join(self.files()), "sha256": "\t".join(digests + more)}
        pairs = make(basis, graph.num_entities, provenance)
        first = folder / self.names[0]
        if not len(pairs.kind):
            raise ValueError(
                f"{first}: of the {len(names):,} entities that have a name, none is named in "
                f"another's name or in one of the {len(texts):,} entities' texts; check "
                f"name_columns and columns in this modality's table (a name of a single word "
                f"needs {self.shortest} letters), or leave the modality out"
            )
        notes = list(dict.fromkeys([*notes, *said]))
        if texts:
            notes.append(f"{folder / self.texts[0]}: {_summary(pairs, len(texts))}")
        return pairs, notes


class Similar(Source):
    """Each entity with those whose content is most alike: by texts or by encoded vectors.

    Args:
        paths: TSV files of texts, an entity in column 1; see `similar_texts`.
        columns: the text's column, one for all or one a file.
        vectors: instead of texts, vectors that `mocme encode` made (of pictures, sounds, texts).
        nearest: how many others each entity is paired with, at most.
    """

    def __init__(
        self,
        *,
        paths: Sequence[str] = (),
        columns: Sequence[int] = (2,),
        vectors: str | None = None,
        nearest: int = 5,
        replace: Replace = "nothing",
        replace_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        if bool(paths) == (vectors is not None):
            raise ValueError("exactly one of paths (texts) and vectors (an encoded file) is needed")
        if nearest < 1:
            raise ValueError("nearest must be 1 or more")
        self.columns = check_columns(paths, columns, "paths columns") if paths else ()
        self.paths, self.vectors, self.nearest = paths, vectors, nearest
        self.control = Ablation(replace, replace_share, seed)

    def files(self) -> list[str]:
        return list(self.paths) if self.vectors is None else [self.vectors]

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        settings = {"nearest": self.nearest}
        if self.vectors is None:
            texts, notes, digests = gather(folder, self.paths, self.columns, graph.entities)
            basis, number = of_texts("like texts", settings, texts=texts), len(texts)
            provenance = {"source": "\t".join(self.paths), "sha256": "\t".join(digests)}
        else:
            path = folder / self.vectors
            found = read_encoded(path, graph)
            if not isinstance(found, Modality):
                raise ValueError(
                    f"{path}: holds no vectors; name an encoded modality that is dense"
                )
            basis, number = Basis("like vectors", settings, vectors=found), len(found.rows)
            provenance, notes = dict(found.provenance), []
        pairs = make(basis, graph.num_entities, provenance)
        first = folder / self.files()[0]
        if not len(pairs.head):
            raise ValueError(
                f"{first}: none of the {number:,} entities it has something for is near to "
                f"another (texts need a word or two that several, but at most a fifth, of them "
                f"have); check the file and columns, or leave the modality out"
            )
        alone = number - len(pairs.head.unique())
        notes.append(f"{first}: {alone:,} of {number:,} entities are near to no other")
        return pairs, notes


def _summary(pairs: Pairs, texts: int) -> str:
    """How many texts name another entity, and in how many kinds of contexts."""
    kinds = [kind == "mentions" for kind in pairs.kinds]
    naming = len(pairs.head[torch.tensor(kinds)[pairs.kind]].unique())
    after = sum(kind.startswith("mentions, after ") for kind in pairs.kinds)
    return f"texts of {naming:,} of {texts:,} entities name another, in {after:,} kinds of contexts"
