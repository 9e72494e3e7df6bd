"""Every scorer equals a naive formula; contracts hold for every kind."""

from __future__ import annotations

import cmath
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mocme.experts.embedding import Embedding, scorers
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.scorers import ComplEx, DistMult, RotatE, Scorer, TransE, TuckER

WIDTH = 6
KINDS = Scorer.kinds


def as_complex(vector: Tensor) -> list[complex]:
    half = len(vector) // 2
    return [complex(float(a), float(b)) for a, b in zip(vector[:half], vector[half:], strict=True)]


def naive_complex(head: Tensor, relation: Tensor, tail: Tensor, scorer: Scorer) -> float:
    triples = zip(as_complex(head), as_complex(relation), as_complex(tail), strict=True)
    return sum((h * r * t.conjugate()).real for h, r, t in triples)


def naive_distmult(head: Tensor, relation: Tensor, tail: Tensor, scorer: Scorer) -> float:
    return sum(float(h * r * t) for h, r, t in zip(head, relation, tail, strict=True))


def naive_transe(head: Tensor, relation: Tensor, tail: Tensor, scorer: Scorer) -> float:
    return -(
        sum(float(h + r - t) ** 2 for h, r, t in zip(head, relation, tail, strict=True)) ** 0.5
    )


def naive_rotate(head: Tensor, relation: Tensor, tail: Tensor, scorer: Scorer) -> float:
    triples = zip(as_complex(head), relation.tolist(), as_complex(tail), strict=True)
    return -sum(abs(h * cmath.exp(1j * r) - t) for h, r, t in triples)


def naive_tucker(head: Tensor, relation: Tensor, tail: Tensor, scorer: Scorer) -> float:
    assert isinstance(scorer, TuckER)
    assert scorer.core is not None
    return float(torch.einsum("rij,r,i,j->", scorer.core, relation, head, tail))


NAIVE: dict[type[Scorer], Callable[[Tensor, Tensor, Tensor, Scorer], float]] = {
    ComplEx: naive_complex,
    DistMult: naive_distmult,
    TransE: naive_transe,
    RotatE: naive_rotate,
    TuckER: naive_tucker,
}


def make(kind: type[Scorer], seed: int = 0, width: int = WIDTH) -> tuple[Scorer, torch.Generator]:
    """A scorer that is ready to use, in fp64."""
    generator = torch.Generator().manual_seed(seed)
    scorer = TuckER(relation_width=3) if kind is TuckER else kind()
    if isinstance(scorer, TuckER):
        shape = scorer.core_shape(width)
        scorer.core = torch.randn(shape, generator=generator, dtype=torch.float64)
    return scorer, generator


def randn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Scorer]:
    return request.param


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_the_naive_formula(kind: type[Scorer], seed: int) -> None:
    scorer, generator = make(kind, seed)
    head, tail = randn(generator, 4, WIDTH), randn(generator, 5, WIDTH)
    relation = randn(generator, 4, scorer.relation_width(WIDTH))
    scores = scorer.compare(scorer.query(head, relation), tail)
    naive = [[NAIVE[kind](h, r, t, scorer) for t in tail] for h, r in zip(head, relation)]  # noqa: B905
    torch.testing.assert_close(scores, torch.tensor(naive, dtype=torch.float64))


def test_shared_and_own_candidates_agree(kind: type[Scorer]) -> None:
    scorer, generator = make(kind)
    query, shared = randn(generator, 4, WIDTH), randn(generator, 7, WIDTH)
    own = shared.expand(4, -1, -1).contiguous()
    torch.testing.assert_close(scorer.compare(query, own), scorer.compare(query, shared))
    different = randn(generator, 4, 7, WIDTH)
    by_row = [scorer.compare(query[n : n + 1], different[n])[0] for n in range(4)]
    torch.testing.assert_close(scorer.compare(query, different), torch.stack(by_row))


def test_tied_inverse_scores_the_same_triple(kind: type[Scorer]) -> None:
    scorer, generator = make(kind)
    head, tail = randn(generator, 4, WIDTH), randn(generator, 4, WIDTH)
    relation = randn(generator, 4, scorer.relation_width(WIDTH))
    if kind is TuckER:
        with pytest.raises(ValueError, match='TuckER has no tied inverse; set inverse = "free"'):
            scorer.invert(relation)
        return
    forward = scorer.compare(scorer.query(head, relation), tail.unsqueeze(1))
    back = scorer.compare(scorer.query(tail, scorer.invert(relation)), head.unsqueeze(1))
    torch.testing.assert_close(forward, back)
    torch.testing.assert_close(scorer.invert(scorer.invert(relation)), relation)


def test_odd_widths_are_refused_where_entries_are_complex(kind: type[Scorer]) -> None:
    scorer = kind()
    assert scorer.relation_width(8) >= 1
    if scorer.complex_entries:
        with pytest.raises(ValueError, match=f"{kind.__name__} needs an even width, not 7"):
            scorer.relation_width(7)
    else:
        assert scorer.relation_width(7) >= 1


def test_by_product_means_that_compare_is_a_dot_product(kind: type[Scorer]) -> None:
    scorer, generator = make(kind)
    query, candidates = randn(generator, 3, WIDTH), randn(generator, 5, WIDTH)
    product = torch.einsum("bd,cd->bc", query, candidates)
    assert torch.allclose(scorer.compare(query, candidates), product) == scorer.by_product


def test_gradients_are_right(kind: type[Scorer]) -> None:
    scorer, generator = make(kind)
    head = randn(generator, 2, WIDTH).requires_grad_()
    relation = randn(generator, 2, scorer.relation_width(WIDTH)).requires_grad_()
    tail = randn(generator, 3, WIDTH).requires_grad_()

    def score(head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        return scorer.compare(scorer.query(head, relation), tail)

    assert torch.autograd.gradcheck(score, (head, relation, tail))


def test_gradients_stay_finite_where_head_equals_tail(kind: type[Scorer]) -> None:
    scorer, generator = make(kind)
    head = randn(generator, 2, WIDTH).requires_grad_()
    relation = torch.zeros(2, scorer.relation_width(WIDTH), dtype=torch.float64)
    scorer.compare(scorer.query(head, relation), head).sum().backward()
    assert head.grad is not None
    assert bool(head.grad.isfinite().all())


def test_moduli_are_absolute_values(kind: type[Scorer]) -> None:
    scorer, generator = make(kind)
    vectors = randn(generator, 3, WIDTH)
    rows = [
        [abs(x) for x in (as_complex(row) if scorer.complex_entries else row.tolist())]
        for row in vectors
    ]
    torch.testing.assert_close(scorer.moduli(vectors), torch.tensor(rows, dtype=torch.float64))


LIMITS = pytest.mark.parametrize("limit", [1, 24, 40, 10**9])


@LIMITS
def test_rotate_in_blocks_is_the_same_to_the_bit(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, generator = make(RotatE)
    query, shared = randn(generator, 2, WIDTH).float(), randn(generator, 9, WIDTH).float()
    own = randn(generator, 2, 9, WIDTH).float()
    whole = [scorer.compare(query, candidates) for candidates in (shared, own)]
    monkeypatch.setitem(scorers.BLOCK, "cpu", limit)
    for candidates, expected in zip((shared, own), whole, strict=True):
        assert torch.equal(scorer.compare(query, candidates), expected)
    assert scorer.compare(query, shared[:0]).shape == (2, 0)


@LIMITS
def test_rotates_gradient_is_that_of_the_formula(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scorers.BLOCK, "cpu", limit)
    scorer, generator = make(RotatE)
    query = randn(generator, 3, WIDTH).requires_grad_()
    for shape in ((5, WIDTH), (3, 5, WIDTH)):
        given = (query, randn(generator, *shape).requires_grad_())
        assert torch.autograd.gradcheck(scorer.compare, given)
        assert torch.autograd.gradgradcheck(scorer.compare, given)


def test_rotate_never_holds_all_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, generator = make(RotatE)
    monkeypatch.setitem(scorers.BLOCK, "cpu", 100)
    query = randn(generator, 4, WIDTH).requires_grad_()
    candidates = randn(generator, 50, WIDTH).requires_grad_()
    with Largest() as largest:
        scorer.compare(query, candidates).sum().backward()
    # Scores, and rows with their gradient; all differences would be four times as many.
    assert largest.elements <= 50 * WIDTH


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.numel())
        return made


def test_tucker_refuses_a_relation_without_width() -> None:
    with pytest.raises(ValueError, match="relation_width must be at least 1"):
        TuckER(relation_width=0)


def test_two_models_of_the_same_settings_keep_their_own_core(tiny_graph: Callable) -> None:
    tiny = tiny_graph(dense={}, tokens={})
    settings = Embedding(embedding_dim=4, scorer=Spec(TuckER, relation_dim=2), dropout={})
    models = [EmbeddingModel(settings, tiny.facts(), {}, seed) for seed in (0, 1)]
    queries = tiny.facts().facts[:3]
    from mocme.data.graph import Queries

    asked = Queries(queries[:, 0], queries[:, 1])
    first = models[0].score(asked).detach()
    alone = EmbeddingModel(
        Embedding(embedding_dim=4, scorer=Spec(TuckER, relation_dim=2), dropout={}),
        tiny.facts(),
        {},
        0,
    )
    assert torch.equal(first, alone.score(asked).detach())


def test_names_of_kinds_are_distinct() -> None:
    names = sorted(kind.__name__ for kind in KINDS)
    assert all(a != b for a, b in pairwise(names))
