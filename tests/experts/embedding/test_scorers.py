"""Every scorer equals a naive formula, and contracts hold for every kind."""

from __future__ import annotations

import cmath
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mocme.core.registry import Spec
from mocme.data.graph import Queries
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
    return float(torch.einsum("rij,r,i,j->", scorer.core, relation, head, tail))


NAIVE: dict[type[Scorer], Callable[[Tensor, Tensor, Tensor, Scorer], float]] = {
    ComplEx: naive_complex,
    DistMult: naive_distmult,
    TransE: naive_transe,
    RotatE: naive_rotate,
    TuckER: naive_tucker,
}


def make(kind: type[Scorer], seed: int = 0) -> tuple[Scorer, torch.Generator]:
    """A scorer with drawn parameters that are not trained, in fp64."""
    generator = torch.Generator().manual_seed(seed)
    scorer = TuckER(WIDTH, relation_dim=3) if kind is TuckER else kind(WIDTH)
    scorer.reset_parameters(generator)
    return scorer.double().requires_grad_(False), generator


def randn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Scorer]:
    return request.param


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_the_naive_formula(kind: type[Scorer], seed: int) -> None:
    scorer, generator = make(kind, seed)
    head, tail = randn(generator, 4, WIDTH), randn(generator, 5, WIDTH)
    relation = randn(generator, 4, scorer.relation_dim)
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
    relation = randn(generator, 4, scorer.relation_dim)
    if kind.invert is Scorer.invert:  # not defined for this kind
        message = f'{kind.__name__} has no tied inverse; set inverse = "free"'
        with pytest.raises(ValueError, match=message):
            scorer.invert(relation)
        return
    forward = scorer.compare(scorer.query(head, relation), tail.unsqueeze(1))
    back = scorer.compare(scorer.query(tail, scorer.invert(relation)), head.unsqueeze(1))
    torch.testing.assert_close(forward, back)
    torch.testing.assert_close(scorer.invert(scorer.invert(relation)), relation)


def test_odd_dimensions_are_refused_where_entries_are_complex(kind: type[Scorer]) -> None:
    assert kind(8).relation_dim >= 1
    if kind.complex_entries:
        message = f"{kind.__name__} needs an even embedding_dim, not 7"
        with pytest.raises(ValueError, match=message):
            kind(7)
    else:
        assert kind(7).relation_dim >= 1


def test_by_product_means_that_compare_is_a_dot_product(kind: type[Scorer]) -> None:
    scorer, generator = make(kind)
    query, candidates = randn(generator, 3, WIDTH), randn(generator, 5, WIDTH)
    product = torch.einsum("bd,cd->bc", query, candidates)
    assert torch.allclose(scorer.compare(query, candidates), product) == scorer.by_product


def test_gradients_are_right(kind: type[Scorer]) -> None:
    scorer, generator = make(kind)
    head = randn(generator, 2, WIDTH).requires_grad_()
    relation = randn(generator, 2, scorer.relation_dim).requires_grad_()
    tail = randn(generator, 3, WIDTH).requires_grad_()
    names = [name for name, _ in scorer.named_parameters()]

    def score(head: Tensor, relation: Tensor, tail: Tensor, *parameters: Tensor) -> Tensor:
        for name, parameter in zip(names, parameters, strict=True):
            delattr(scorer, name)
            setattr(scorer, name, parameter)
        return scorer.compare(scorer.query(head, relation), tail)

    parameters = [p.detach().clone().requires_grad_() for p in scorer.parameters()]
    assert torch.autograd.gradcheck(score, (head, relation, tail, *parameters))


def test_parameters_are_drawn_from_the_generator_alone(kind: type[Scorer]) -> None:
    first, same, other = (dict(make(kind, seed)[0].named_parameters()) for seed in (0, 0, 1))
    for name, parameter in first.items():
        assert torch.equal(parameter, same[name])
        assert not torch.equal(parameter, other[name])


def test_tucker_owns_its_core() -> None:
    assert set(dict(make(TuckER)[0].named_parameters())) == {"core"}


def test_gradients_stay_finite_where_head_equals_tail(kind: type[Scorer]) -> None:
    scorer, generator = make(kind)
    head = randn(generator, 2, WIDTH).requires_grad_()
    relation = torch.zeros(2, scorer.relation_dim, dtype=torch.float64)
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
    in_one_block = [scorer.compare(query, candidates) for candidates in (shared, own)]
    monkeypatch.setitem(scorers.BLOCK, "cpu", limit)
    for candidates, expected in zip((shared, own), in_one_block, strict=True):
        assert torch.equal(scorer.compare(query, candidates), expected)
    assert scorer.compare(query, shared[:0]).shape == (2, 0)


@LIMITS
def test_gradient_of_rotate_is_that_of_the_formula(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scorers.BLOCK, "cpu", limit)
    scorer, generator = make(RotatE)
    query = randn(generator, 3, WIDTH).requires_grad_()
    for shape in ((5, WIDTH), (3, 5, WIDTH)):
        given = (query, randn(generator, *shape).requires_grad_())
        assert torch.autograd.gradcheck(scorer.compare, given)
        assert torch.autograd.gradgradcheck(scorer.compare, given)


def test_rotate_never_allocates_all_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, generator = make(RotatE)
    monkeypatch.setitem(scorers.BLOCK, "cpu", 100)
    query = randn(generator, 4, WIDTH).requires_grad_()
    candidates = randn(generator, 50, WIDTH).requires_grad_()
    with Largest() as largest:
        scorer.compare(query, candidates).sum().backward()
    # Scores, and candidates with their gradient; all differences would be four times as many.
    assert largest.elements <= 50 * WIDTH


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for output in result if isinstance(result, tuple | list) else [result]:
            if isinstance(output, Tensor):
                self.elements = max(self.elements, output.numel())
        return result


def test_tucker_refuses_a_relation_without_a_dimension() -> None:
    with pytest.raises(ValueError, match="relation_dim must be at least 1"):
        TuckER(WIDTH, relation_dim=0)


def test_two_models_of_the_same_settings_have_their_own_core(tiny_graph: Callable) -> None:
    tiny = tiny_graph(dense={}, tokens={})
    settings = Embedding(embedding_dim=4, scorer=Spec(TuckER, relation_dim=2), dropout={})
    models = [EmbeddingModel(settings, tiny.facts(), {}, seed) for seed in (0, 1)]
    facts = tiny.facts().facts[:3]
    queries = Queries(facts[:, 0], facts[:, 1])
    first = models[0].score(queries).detach()
    alone = EmbeddingModel(
        Embedding(embedding_dim=4, scorer=Spec(TuckER, relation_dim=2), dropout={}),
        tiny.facts(),
        {},
        0,
    )
    assert torch.equal(first, alone.score(queries).detach())
    cores = [model.scorer.core for model in models]
    assert cores[0] is not cores[1]
    assert not torch.equal(*cores)


def test_names_of_kinds_are_distinct() -> None:
    names = sorted(kind.kind_name() for kind in KINDS)
    assert all(a != b for a, b in pairwise(names))
