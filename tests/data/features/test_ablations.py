"""Ablations keep size and presence of a modality and change its content."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
import torch

from mocme.data.features.ablations import Ablation
from mocme.data.features.kinds.words import Words
from mocme.data.modality import AnyModality, Modality, Pairs, Tokens


def vectors(count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0))


def random_tokens(seed: int, entities: int, size: int, share: float) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(entities, size, generator=generator) < share
    chosen[::3] = False
    entity, token = chosen.nonzero().unbind(1)
    return Tokens(
        tuple(f"t{n}" for n in range(size)), entity.contiguous(), token.contiguous(), entities
    )


def sizes(tokens: Tokens) -> dict[int, int]:
    return dict(Counter(tokens.entity.tolist()))


@pytest.mark.parametrize("replace", ["random", "shuffled"])
def test_ablated_vectors_keep_size_and_change_content(replace: Any) -> None:
    rows = torch.arange(1, 90, 2)
    modality = Modality(vectors(45, 4) * torch.tensor([1, 2, 3, 0.0]) + 5, rows, 90)
    ablated = Ablation(replace, seed=1)(modality)
    assert torch.equal(ablated.present(), modality.present())
    assert ablated.values.shape == modality.values.shape
    assert ablated.digest() != modality.digest()
    assert ablated.digest() == Ablation(replace, seed=1)(modality).digest()
    assert ablated.digest() != Ablation(replace, seed=2)(modality).digest()
    assert ablated.provenance["replaced"] == f"{replace}, seed 1"
    # The last column is constant, so its ablation is too.
    assert torch.equal(ablated.values[:, 3], modality.values[:, 3])
    if replace == "shuffled":
        assert sorted(ablated.values.tolist()) == sorted(modality.values.tolist())
        assert (ablated.values != modality.values).any(1).float().mean() > 0.8
    else:
        assert not (ablated.values[:, :3] == modality.values[:, :3]).any()
        assert torch.allclose(ablated.values.mean(0), modality.values.mean(0), atol=1.5)


@pytest.mark.parametrize("replace", ["random", "shuffled"])
@pytest.mark.parametrize(("size", "share"), [(300, 0.02), (20, 0.3), (5, 0.8)])
def test_ablated_tokens_keep_size_and_change_content(replace: Any, size: int, share: float) -> None:
    tokens = random_tokens(0, 120, size, share)
    ablated = Ablation(replace, seed=1)(tokens)
    assert torch.equal(ablated.present(), tokens.present())
    assert len(ablated.token) == len(tokens.token)
    assert sorted(ablated.token.tolist()) == sorted(tokens.token.tolist())
    assert ablated.digest() not in (tokens.digest(), Ablation(replace, seed=2)(tokens).digest())
    assert ablated.digest() == Ablation(replace, seed=1)(tokens).digest()
    if replace == "random":
        assert sizes(ablated) == sizes(tokens)
    else:
        assert sorted(sizes(ablated).values()) == sorted(sizes(tokens).values())
        assert sorted(contents(ablated)) == sorted(contents(tokens))


def contents(tokens: Tokens) -> list[list[int]]:
    sets = defaultdict(list)
    for entity, token in zip(tokens.entity.tolist(), tokens.token.tolist(), strict=True):
        sets[entity].append(token)
    return list(sets.values())


def some_of_each() -> list[AnyModality]:
    """Return a dense modality, token sets and pairs, of 60 entities each."""
    head, tail = torch.arange(60).repeat_interleave(2), torch.arange(1, 121) % 59
    different = head != tail
    head, tail = head[different], tail[different]
    order = (head * 60 + tail).argsort()
    return [
        Modality(vectors(40, 4), torch.arange(0, 60).reshape(20, 3)[:, :2].flatten(), 60),
        random_tokens(0, 60, 30, 0.2),
        Pairs(("alike",), torch.zeros_like(head), head[order], tail[order], 60),
    ]


def content_by_entity(modality: AnyModality) -> dict[int, Any]:
    """Return the content by entity (of pairs, by head)."""
    if isinstance(modality, Modality):
        return dict(zip(modality.rows.tolist(), modality.values.tolist(), strict=True))
    if isinstance(modality, Pairs):
        columns = (modality.head, modality.tail)
    else:
        columns = (modality.entity, modality.token)
    content = defaultdict(list)
    for entity, other in zip(*(c.tolist() for c in columns), strict=True):
        content[entity].append(other)
    return dict(content)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_larger_share_hides_all_that_a_smaller_share_hides(index: int) -> None:
    modality = some_of_each()[index]
    before, hidden = content_by_entity(modality), []
    for share in (0.2, 0.4, 0.8):
        kept = content_by_entity(Ablation("hidden", share, seed=1)(modality))
        assert all(before[entity] == content for entity, content in kept.items())
        hidden.append(set(before) - set(kept))
        assert len(hidden[-1]) == round(share * len(before))
    assert hidden[0] < hidden[1] < hidden[2]
    other = content_by_entity(Ablation("hidden", 0.2, seed=2)(modality))
    assert set(before) - set(other) != hidden[0]


@pytest.mark.parametrize("replace", ["random", "shuffled"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_only_a_share_of_entities_is_replaced(index: int, replace: Any) -> None:
    modality = some_of_each()[index]
    before = content_by_entity(modality)
    mixed = Ablation(replace, 0.5, seed=1)(modality)
    chosen = set(before) - set(content_by_entity(Ablation("hidden", 0.5, seed=1)(modality)))
    after = content_by_entity(mixed)
    assert {e: c for e, c in after.items() if e not in chosen} == {
        e: c for e, c in before.items() if e not in chosen
    }
    assert sum(after.get(e) != before[e] for e in chosen) > len(chosen) / 2
    assert mixed.provenance["replaced"] == f"{replace} for the share 0.5 of entities, seed 1"
    assert Ablation(replace, 0.0)(modality) is modality
    assert (
        Ablation(replace, 1.0, 1)(modality).digest() == Ablation(replace, seed=1)(modality).digest()
    )


def test_a_share_out_of_range_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"replace_share must be within \[0, 1\]"):
        Words(paths=["a"], replace="random", replace_share=1.5)
    with pytest.raises(ValueError, match="leave it out"):
        Words(paths=["a"], replace="hidden")


def test_replacing_nothing_returns_the_modality_itself() -> None:
    tokens = random_tokens(0, 9, 3, 0.5)
    assert Ablation("nothing", seed=0)(tokens) is tokens
