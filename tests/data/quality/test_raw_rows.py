"""Equal facts have equal keys, over all splits."""

from __future__ import annotations

import pytest
import torch

from mocme.data.graph import Graph, Vocabulary
from mocme.data.quality.raw_rows import keys_of


class Vast(Vocabulary):
    """Names that are too many for one number a fact."""

    def __len__(self) -> int:
        return 2**40


@pytest.mark.parametrize("kind", [Vocabulary, Vast])
def test_equal_facts_have_equal_numbers(kind: type[Vocabulary]) -> None:
    train = torch.tensor([[0, 0, 1], [1, 0, 0], [1, 1, 0]])
    graph = Graph(kind(["a", "b"]), Vocabulary(["r", "s"], "relation"), {"train": train})
    one, other = keys_of([train.numpy(), train.flip(0)[:2].numpy()], graph)
    assert len(set(one.tolist())) == 3
    assert other.tolist() == [one[2], one[1]]
