"""Texts by entity as tensors, so that a file of tensors can hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int, UInt8
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class EntityTexts:
    """Texts of entities, an entity as often as it has texts.

    Attributes:
        entity: ids, ascending.
        end: where each text ends in `utf8`; it begins where the one before ends.
        utf8: all texts, one after the other.
    """

    entity: Int[Tensor, " n"]
    end: Int[Tensor, " n"]
    utf8: UInt8[Tensor, " b"]

    @staticmethod
    def of(texts: Mapping[int, Sequence[str]]) -> EntityTexts:
        """Texts by entity; one without texts is left out."""
        entities = [entity for entity in sorted(texts) for _ in texts[entity]]
        parts = [text.encode() for entity in sorted(texts) for text in texts[entity]]
        size = torch.tensor([len(part) for part in parts], dtype=torch.int64)
        whole = bytearray(b"".join(parts))
        utf8 = torch.frombuffer(whole, dtype=torch.uint8) if whole else torch.zeros(0).byte()
        return EntityTexts(torch.tensor(entities, dtype=torch.int64), size.cumsum(0), utf8)

    def by_entity(self) -> dict[int, list[str]]:
        """The texts by entity, ids ascending."""
        whole, first = self.utf8.numpy().tobytes(), 0
        found: dict[int, list[str]] = {}
        for entity, end in zip(self.entity.tolist(), self.end.tolist(), strict=True):
            found.setdefault(entity, []).append(whole[first:end].decode())
            first = end
        return found

    def packed(self, prefix: str) -> dict[str, Tensor]:
        """Tensors of names that begin with `prefix`."""
        return {f"{prefix}{name}": own for name, own in vars(self).items()}

    @staticmethod
    def unpacked(tensors: Mapping[str, Tensor], prefix: str) -> EntityTexts:
        """What `packed` gave."""
        return EntityTexts(*(tensors[f"{prefix}{name}"] for name in ("entity", "end", "utf8")))
