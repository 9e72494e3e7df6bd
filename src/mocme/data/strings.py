"""Texts by entity as tensors, to store them in a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from mocme.storage.tensor_schema import Field


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
    def fields(role: str) -> dict[str, Field]:
        """Return what the tensors of `packed` have to be; `role` keeps sizes of files apart."""
        ids = Field(torch.int64, (f"n of {role}",), low=0, order="ascending")
        return {"entity": ids, "end": ids, "utf8": Field(torch.uint8, ("*b",))}

    @staticmethod
    def unpacked(tensors: Mapping[str, Tensor], prefix: str, num_entities: int) -> EntityTexts:
        """Restore what `packed` returned, from tensors that fit `fields`.

        Raises:
            ValueError: an id is no entity, or the texts are not UTF-8 or not cut between
                characters.
        """
        texts = EntityTexts(*(tensors[f"{prefix}{name}"] for name in ("entity", "end", "utf8")))
        end, utf8 = texts.end, texts.utf8
        if len(end) and int(texts.entity[-1]) >= num_entities:
            raise ValueError(f"{prefix}entity has ids of {num_entities:,} entities and more")
        if (int(end[-1]) if len(end) else 0) != len(utf8):
            raise ValueError(f"{prefix}end does not end where {prefix}utf8 does")
        utf8.numpy().tobytes().decode()
        # Bytes within a character are 10xxxxxx.
        inside = end[end < len(utf8)]
        if bool((utf8[inside] >> 6 == 2).any()):
            raise ValueError(f"{prefix}end cuts a character")
        return texts
