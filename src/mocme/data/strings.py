"""Texts by entity as tensors, to store them in a safetensors file."""

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
    """n texts of entities; an entity may have several.

    Attributes:
        entity: the id of the entity of each text, ascending.
        end: the end of each text in `utf8`; it starts at the end of the previous one.
        utf8: the bytes of all texts, concatenated.
    """

    entity: Int[Tensor, " n"]
    end: Int[Tensor, " n"]
    utf8: UInt8[Tensor, " b"]

    @staticmethod
    def of(texts: Mapping[int, Sequence[str]]) -> EntityTexts:
        """Encode texts by entity; entities without texts are left out."""
        entities = [entity for entity in sorted(texts) for _ in texts[entity]]
        parts = [text.encode() for entity in sorted(texts) for text in texts[entity]]
        size = torch.tensor([len(part) for part in parts], dtype=torch.int64)
        data = bytearray(b"".join(parts))
        utf8 = torch.frombuffer(data, dtype=torch.uint8) if data else torch.zeros(0).byte()
        return EntityTexts(torch.tensor(entities, dtype=torch.int64), size.cumsum(0), utf8)

    def by_entity(self) -> dict[int, list[str]]:
        """Return the texts by entity, ids ascending."""
        data, start = self.utf8.numpy().tobytes(), 0
        texts: dict[int, list[str]] = {}
        for entity, end in zip(self.entity.tolist(), self.end.tolist(), strict=True):
            texts.setdefault(entity, []).append(data[start:end].decode())
            start = end
        return texts

    def packed(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors by name, each name with `prefix`."""
        return {f"{prefix}{name}": tensor for name, tensor in vars(self).items()}

    @staticmethod
    def unpacked(tensors: Mapping[str, Tensor], prefix: str) -> EntityTexts:
        """Restore what `packed` returned."""
        return EntityTexts(*(tensors[f"{prefix}{name}"] for name in ("entity", "end", "utf8")))
