"""Words of texts as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from mocme.data.features.base import Source
from mocme.data.features.tables import column_per_file, gather_texts
from mocme.data.features.tokens import text_tokens
from mocme.data.graph import Graph
from mocme.data.modality import AnyModality
from mocme.data.words import UNITS


@final
@dataclass(frozen=True, kw_only=True)
class Words(Source):
    """Words of texts as sets of tokens: the rarest words of each entity.

    The files are TSV with an entity in column 1 and a text in another column; several texts of an
    entity count as one.

    Attributes:
        columns: the column of the texts, one for all files or one per file of `paths`.
        unit: ``bigrams`` takes pairs of adjacent words instead of words.
        per_entity, at_least, at_most: limits on the tokens, see `rarest`.
    """

    paths: Sequence[str]
    columns: Sequence[int] = (2,)
    unit: Literal["words", "bigrams"] = "words"
    per_entity: int = 6
    at_least: int = 3
    at_most: float = 0.2

    def __post_init__(self) -> None:
        if min(self.per_entity, self.at_least) < 1 or not 0 < self.at_most <= 1:
            raise ValueError("per_entity and at_least are 1 or more; at_most is a share in (0, 1]")
        object.__setattr__(self, "columns", column_per_file(self.paths, self.columns))
        super().__post_init__()

    def files(self) -> list[str]:
        return list(self.paths)

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        texts, notes, digests = gather_texts(folder, self.paths, self.columns, graph.entities)
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
                f"{path}: {without:,} of {count:,} texts have no {self.unit[:-1]} that occurs in "
                f"{self.at_least} entities or more and in at most the share {self.at_most} of them"
            )
        return tokens, notes
