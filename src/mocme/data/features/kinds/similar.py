"""Pairs of entities by similar texts or vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mocme.data.features.base import Source
from mocme.data.features.kinds.encoded import read_encoded
from mocme.data.features.tables import column_per_file, gather_texts
from mocme.data.graph import Graph
from mocme.data.modality import AnyModality, Basis, EmptyModality, Modality
from mocme.data.pairs.build import basis_of_texts, build_pairs


@final
@dataclass(frozen=True, kw_only=True)
class Similar(Source):
    """Each entity with the entities of the most similar content, by texts or by encoded vectors.

    Attributes:
        paths: TSV files of texts, with an entity in column 1; see `similar_texts`.
        columns: the column of the text, one for all files or one per file of `paths`.
        vectors: instead of texts, a file of vectors that `mocme encode` made (of pictures, sounds
            or texts); see `similar_vectors`.
        nearest: the largest number of entities that an entity is paired with.
    """

    paths: Sequence[str] = ()
    columns: Sequence[int] = (2,)
    vectors: str | None = None
    nearest: int = 5

    def __post_init__(self) -> None:
        if bool(self.paths) == (self.vectors is not None):
            raise ValueError("exactly one of paths (texts) and vectors (an encoded file) is needed")
        if self.nearest < 1:
            raise ValueError("nearest must be 1 or more")
        columns = column_per_file(self.paths, self.columns) if self.paths else ()
        object.__setattr__(self, "columns", columns)
        super().__post_init__()

    def files(self) -> list[str]:
        return list(self.paths) if self.vectors is None else [self.vectors]

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        if self.vectors is None:
            basis, count, provenance, notes = self._text_basis(graph, folder)
        else:
            basis, count, provenance, notes = self._vector_basis(graph, folder / self.vectors)
        pairs = build_pairs(basis, graph.num_entities, provenance)
        first = folder / self.files()[0]
        if not len(pairs.head):
            raise EmptyModality(
                f"{first}: none of the {count:,} entities with content is similar to another "
                f"(texts must share a word or two that several, but at most a fifth, of them "
                f"have); check the file and columns, or leave the modality out"
            )
        without = count - len(pairs.head.unique())
        notes.append(f"{first}: {without:,} of {count:,} entities are similar to no other")
        return pairs, notes

    def _text_basis(
        self, graph: Graph, folder: Path
    ) -> tuple[Basis, int, dict[str, str], list[str]]:
        """Return the basis of the pairs, the number of entities, provenance and notes."""
        texts, notes, digests = gather_texts(folder, self.paths, self.columns, graph.entities)
        provenance = {"source": "\t".join(self.paths), "sha256": "\t".join(digests)}
        basis = basis_of_texts("like texts", {"nearest": self.nearest}, texts=texts)
        return basis, len(texts), provenance, notes

    def _vector_basis(
        self, graph: Graph, path: Path
    ) -> tuple[Basis, int, dict[str, str], list[str]]:
        """Return the basis of the pairs, the number of entities, provenance and notes."""
        modality, notes = read_encoded(path, graph)
        if not isinstance(modality, Modality):
            raise ValueError(f"{path}: contains no vectors; name an encoded modality that is dense")
        basis = Basis("like vectors", {"nearest": self.nearest}, vectors=modality)
        return basis, len(modality.rows), dict(modality.provenance), notes
