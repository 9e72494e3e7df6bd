"""Ranks as a data frame."""

from __future__ import annotations

import torch

from mocme.evaluation.ranking import Ranks


def test_a_data_frame_has_the_three_ranks_of_each_pair() -> None:
    ids = torch.tensor([3, 1])
    ranks = Ranks(ids, ids + 1, ids + 2, torch.tensor([0, 4]), torch.tensor([0, 1]), ids + 9)
    frame = ranks.to_pandas()
    assert frame["head"].tolist() == [3, 1]
    assert frame["candidates"].tolist() == [12, 10]
    assert frame["optimistic"].tolist() == [1, 5]
    assert frame["pessimistic"].tolist() == [1, 6]
    assert frame["realistic"].tolist() == [1, 5.5]
    assert list(frame) == [
        *("head", "relation", "answer", "above", "ties", "candidates"),
        *("optimistic", "pessimistic", "realistic"),
    ]
