"""The sum over negatives and the softmax equal what a loop over questions says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mocme.experts.embedding import losses
from mocme.experts.embedding import negative_weighting as weightings
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.losses import Cubes, Softmax, score_batch
from mocme.experts.embedding.negative_sampling import AllEntities, Candidates, UniformSampling
from mocme.experts.embedding.negative_weighting import (
    EntropyWeighting,
    HardestWeighting,
    ImportanceSampling,
    SelfAdversarialWeighting,
    UniformWeighting,
    Weighting,
)
from mocme.experts.embedding.scorers import ComplEx, RotatE, Scorer, TransE, TuckER

WIDTH, NODES = 4, 14
EXACT: list[Weighting] = [
    UniformWeighting(),
    EntropyWeighting(),
    EntropyWeighting(beta=0.0),
    EntropyWeighting(beta=2.5, temperature=0.4),
    EntropyWeighting(beta=1.0, floor=0.0),
    EntropyWeighting(beta=3.0, floor=0.2),
    SelfAdversarialWeighting(alpha=0.7),
    HardestWeighting(count=3),
    HardestWeighting(count=1000),
]
# Each question's answers; the last but one has many, the last leaves no negative but 9 and 10.
ANSWERS = [[0], [3, 5], [4, 5, 6, 7, 8, 12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13]]
EXCLUDED = [1, 12]


def label(value: object) -> str:
    if isinstance(value, Scorer):
        return value.kind_name()
    given = "-".join(f"{k}={v}" for k, v in vars(value).items() if isinstance(v, (int, float)))
    return f"{type(value).__name__}-{given}" if given else type(value).__name__


every_weighting = pytest.mark.parametrize("weighting", EXACT, ids=label)


def naive_weights(weighting: Weighting, scores: list[float], reference: float) -> list[float]:
    """Weights of all negatives of a question, with mean 1."""
    if isinstance(weighting, UniformWeighting):
        raw = [1.0] * len(scores)
    elif isinstance(weighting, EntropyWeighting):
        raw = []
        for score in scores:
            p = 1 / (1 + math.exp(-(score - reference) / weighting.temperature))
            bits = -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)
            raw.append(weighting.floor + weighting.beta * bits)
    elif isinstance(weighting, SelfAdversarialWeighting):
        raw = [math.exp(weighting.alpha * score) for score in scores]
    elif isinstance(weighting, HardestWeighting):
        limit = sorted(scores, reverse=True)[: weighting.count][-1]
        raw = [float(score >= limit) for score in scores]
    else:
        raise AssertionError(f"{type(weighting).__name__} needs a naive form here")
    return [weight * len(raw) / sum(raw) for weight in raw]


def naive_negative_sum(
    query: Tensor,
    vectors: Tensor,
    scorer: Scorer,
    weighting: Weighting,
    reference: Tensor,
    candidates: list[int],
    answers: list[list[int]] = ANSWERS,
) -> Tensor:
    """One question after the other, through plain autograd."""
    sums = []
    for place, known in enumerate(answers):
        negatives = [c for c in candidates if c not in known]
        scores = scorer.compare(query[place : place + 1], vectors[negatives])[0]
        weights = naive_weights(weighting, scores.tolist(), float(reference[place]))
        sums.append((torch.tensor(weights, dtype=scores.dtype) * scores.exp()).sum().log())
    return torch.stack(sums)


def pairs(answers: list[list[int]] = ANSWERS) -> tuple[Tensor, Tensor]:
    flat = [(place, node) for place, known in enumerate(answers) for node in known]
    table = torch.tensor(flat, dtype=torch.int64).reshape(-1, 2)
    return table[:, 0].contiguous(), table[:, 1].contiguous()


def problem(seed: int = 0, questions: int = len(ANSWERS)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(NODES, WIDTH, generator=generator, dtype=torch.float64)
    query = torch.randn(questions, WIDTH, generator=generator, dtype=torch.float64)
    reference = torch.randn(questions, generator=generator, dtype=torch.float64)
    return vectors, query, reference


def everyone(excluded: list[int] = EXCLUDED) -> Candidates:
    barred = torch.tensor(excluded, dtype=torch.int64)
    return AllEntities().draw((0, NODES), barred, torch.Generator())


def run(
    vectors: Tensor,
    query: Tensor,
    reference: Tensor,
    weighting: Weighting,
    scorer: Scorer,
    candidates: Candidates,
    budget: int = 1 << 20,
    answers: list[list[int]] = ANSWERS,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Result, and its gradient by query and by vectors."""
    source = vectors.clone().requires_grad_()
    rows = GradientBuffer(source)
    asked = query.clone().requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    _, result = score_batch(
        asked, rows, candidates, pairs(answers), weighting, scorer, generator, budget, reference
    )
    upstream = torch.linspace(0.5, 2.0, len(query), dtype=query.dtype)
    (result * upstream).sum().backward()
    rows.backward()
    assert asked.grad is not None
    assert source.grad is not None
    return result.detach(), asked.grad, source.grad


def naive_run(
    vectors: Tensor, query: Tensor, reference: Tensor, weighting: Weighting, scorer: Scorer
) -> tuple[Tensor, Tensor, Tensor]:
    source, asked = vectors.clone().requires_grad_(), query.clone().requires_grad_()
    candidates = [n for n in range(NODES) if n not in EXCLUDED]
    result = naive_negative_sum(asked, source, scorer, weighting, reference, candidates)
    upstream = torch.linspace(0.5, 2.0, len(query), dtype=query.dtype)
    (result * upstream).sum().backward()
    return result.detach(), asked.grad, source.grad


def assert_all_close(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> None:
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


# -- against the naive reference -------------------------------------------------------------------


def test_every_kind_of_weighting_is_tested() -> None:
    assert {type(w) for w in EXACT} | {ImportanceSampling} == set(Weighting.kinds)


@every_weighting
@pytest.mark.parametrize("kind", Scorer.kinds, ids=lambda kind: kind.__name__)
def test_sum_and_gradient_equal_a_loop_over_questions(
    kind: type[Scorer], weighting: Weighting
) -> None:
    vectors, query, reference = problem()
    scorer = kind(WIDTH)
    expected = naive_run(vectors, query, reference, weighting, scorer)
    for budget in (1 << 20, 1):  # kept and recomputed
        found = run(vectors, query, reference, weighting, scorer, everyone(), budget)
        assert_all_close(found, expected)


@every_weighting
@pytest.mark.parametrize("scorer", [ComplEx(WIDTH), RotatE(WIDTH)], ids=label)
@pytest.mark.parametrize("budget", [1, 1 << 20])
@pytest.mark.parametrize("excluded", [[1, 2], EXCLUDED], ids=["no answer", "an answer"])
def test_scores_are_held_against_the_mean_of_the_answers(
    excluded: list[int], budget: int, scorer: Scorer, weighting: Weighting
) -> None:
    """Whether or not all answers are candidates, and whether or not scores are kept."""
    vectors, query, _ = problem(13, questions=3)
    answers = [[0, 9, 13], *ANSWERS[1:3]]
    means = [scorer.compare(query[[q]], vectors[known]).mean() for q, known in enumerate(answers)]
    candidates = everyone(excluded)
    expected = run(
        vectors, query, torch.stack(means), weighting, scorer, candidates, budget, answers
    )
    generator = torch.Generator()
    rows, given = GradientBuffer(vectors.clone().requires_grad_()), query.clone().requires_grad_()
    _, found = score_batch(
        given, rows, candidates, pairs(answers), weighting, scorer, generator, budget
    )
    torch.testing.assert_close(found.detach(), expected[0])


@every_weighting
@pytest.mark.parametrize("scorer", [ComplEx(WIDTH), TransE(WIDTH)], ids=label)
@pytest.mark.parametrize("width", [1, 3, 5, 13, 14])
def test_blocks_of_any_width_agree(
    scorer: Scorer, weighting: Weighting, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, query, reference = problem(1)
    expected = naive_run(vectors, query, reference, weighting, scorer)
    monkeypatch.setattr(losses, "BLOCK", width)
    monkeypatch.setattr(losses, "CHUNK", 3)
    monkeypatch.setattr(weightings, "CHUNK", 3)
    kept = run(vectors, query, reference, weighting, scorer, everyone())
    recomputed_bytes = len(ANSWERS) * 8 * min(width, NODES - 1)
    again = run(vectors, query, reference, weighting, scorer, everyone(), recomputed_bytes)
    assert_all_close(kept, expected)
    assert_all_close(again, expected)


@every_weighting
def test_a_pool_of_everyone_equals_everyone(weighting: Weighting) -> None:
    vectors, query, reference = problem(2)
    scorer = ComplEx(WIDTH)
    barred = torch.tensor(EXCLUDED)
    pool = UniformSampling(size=NODES).draw((0, NODES), barred, torch.Generator().manual_seed(0))
    assert len(pool) == NODES - len(EXCLUDED)
    expected = run(vectors, query, reference, weighting, scorer, everyone())
    assert_all_close(run(vectors, query, reference, weighting, scorer, pool), expected)


def test_beta_zero_is_exactly_the_plain_sum() -> None:
    vectors, query, reference = problem(3)
    plain = run(vectors, query, reference, UniformWeighting(), ComplEx(WIDTH), everyone())
    for first, second in zip(
        run(vectors, query, reference, EntropyWeighting(beta=0.0), ComplEx(WIDTH), everyone()),
        plain,
        strict=True,
    ):
        torch.testing.assert_close(first, second, rtol=1e-14, atol=1e-14)
    candidates = [n for n in range(NODES) if n not in EXCLUDED]
    naive = [
        (query[q : q + 1] @ vectors[[c for c in candidates if c not in known]].T).logsumexp(1)
        for q, known in enumerate(ANSWERS)
    ]
    # A dot product of ComplEx's own query is that of any product scorer.
    torch.testing.assert_close(plain[0], torch.cat(naive))


@pytest.mark.parametrize("scorer", [ComplEx(WIDTH), TransE(WIDTH), RotatE(WIDTH)], ids=label)
def test_entropy_of_scores_far_from_the_answers_is_zero_and_finite(scorer: Scorer) -> None:
    vectors, query, _ = problem(4)
    for far in (-1e5, 1e5):
        reference = torch.full((len(query),), far, dtype=torch.float64)
        found = run(vectors, query, reference, EntropyWeighting(), scorer, everyone())
        plain = run(vectors, query, reference, UniformWeighting(), scorer, everyone())
        assert_all_close(found, plain)


# -- questions without negatives -------------------------------------------------------------------


@pytest.mark.parametrize("weighting", [*EXACT, ImportanceSampling(draws=3)], ids=label)
@pytest.mark.parametrize("scorer", [ComplEx(WIDTH), RotatE(WIDTH)], ids=label)
@pytest.mark.parametrize("budget", [1, 1 << 20])
def test_a_question_without_a_negative_adds_nothing(
    weighting: Weighting, scorer: Scorer, budget: int
) -> None:
    vectors, query, reference = problem(5, questions=2)
    answers = [[0, 2], [n for n in range(NODES) if n not in EXCLUDED]]
    pool = UniformSampling(size=NODES).draw((0, NODES), torch.tensor(EXCLUDED), torch.Generator())
    for candidates in (everyone(), pool):
        found = run(
            vectors, query, reference, weighting, scorer, candidates, budget, answers=answers
        )
        assert found[0][1] == -math.inf
        assert bool(found[0][0].isfinite())
        assert bool(found[1].isfinite().all())
        assert bool(found[2].isfinite().all())
        assert not bool(found[1][1].any())


@pytest.mark.parametrize("answers", ["together", "apart"])
def test_the_loss_of_a_question_without_a_negative_is_that_of_its_answers(answers: str) -> None:
    scores = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    place, share = torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.float64)
    nothing = torch.tensor([-math.inf], dtype=torch.float64, requires_grad=True)
    loss = Softmax(answers=answers)(scores, place, share, nothing)
    loss.sum().backward()
    expected = 2 * math.log(math.e + math.e**2) - 3 if answers == "together" else 0.0
    assert loss.tolist() == [pytest.approx(expected)]
    assert bool(scores.grad.isfinite().all())
    assert nothing.grad.tolist() == [0.0]


def test_weights_that_all_vanish_are_no_nan() -> None:
    """Without a floor, negatives far from the answers weigh nothing at all."""
    vectors, query, _ = problem(6)
    reference = torch.full((len(query),), 1e5, dtype=torch.float64)
    found = run(vectors, query, reference, EntropyWeighting(floor=0.0), ComplEx(WIDTH), everyone())
    assert found[0].tolist() == [-math.inf] * len(query)
    assert not any(bool(gradient.any()) for gradient in found[1:])


# -- sampling --------------------------------------------------------------------------------------


def test_the_sampled_sum_is_unbiased() -> None:
    """Over all pools of five of the candidates: their sums' mean is the full sum."""
    vectors, query, reference = problem(7, questions=2)
    answers = [[0], [3, 5, 12]]  # 12 is no candidate: it must not be counted as one
    scorer = ComplEx(WIDTH)
    allowed = [n for n in range(NODES) if n not in EXCLUDED]
    none, barred = torch.empty(0, dtype=torch.int64), torch.tensor(EXCLUDED)
    total = torch.zeros(2, dtype=torch.float64)
    pools = list(itertools.combinations(allowed, 5))
    for pool in pools:
        drawn = Candidates(torch.tensor(pool), none, len(allowed), barred)
        _, found = score_batch(
            query,
            GradientBuffer(vectors),
            drawn,
            pairs(answers),
            UniformWeighting(),
            scorer,
            torch.Generator(),
        )
        total += found.exp()
    naive = naive_negative_sum(
        query, vectors, scorer, UniformWeighting(), reference, allowed, answers
    ).exp()
    torch.testing.assert_close(total / len(pools), naive)


def test_a_pool_is_drawn_uniformly_without_what_is_excluded() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(20)
    for _ in range(1500):
        drawn = UniformSampling(size=4).draw((10, 20), torch.tensor([12, 19]), generator)
        assert isinstance(drawn.nodes, Tensor)
        assert len(drawn.nodes.unique()) == 4
        assert drawn.nodes.tolist() == sorted(drawn.nodes.tolist())
        assert drawn.total == 8
        counts[drawn.nodes] += 1
    assert not bool(counts[[*range(10), 12, 19]].any())
    chosen = counts[[10, 11, 13, 14, 15, 16, 17, 18]] / 1500
    assert float((chosen - 0.5).abs().max()) < 5 * 0.5 / 1500**0.5


@pytest.mark.parametrize(
    "by",
    [UniformWeighting(), EntropyWeighting(), SelfAdversarialWeighting(), HardestWeighting(count=3)],
    ids=label,
)
def test_draws_have_the_weighted_sum_as_their_mean(by: Weighting) -> None:
    vectors, query, reference = problem(8)
    vectors, query = vectors * 0.7, query * 0.7
    many = ImportanceSampling(draws=400_000, by=by)
    found = run(vectors, query, reference, many, ComplEx(WIDTH), everyone())[0]
    expected = run(vectors, query, reference, by, ComplEx(WIDTH), everyone())[0]
    torch.testing.assert_close(found.exp(), expected.exp(), rtol=0.02, atol=0)


def test_draws_take_only_negatives_and_count_them() -> None:
    """With scores of 0 each draw is worth |J| / draws, so the sum is |J| whatever is drawn."""
    _, query, reference = problem(9)
    vectors = torch.zeros(NODES, WIDTH, dtype=torch.float64)
    found = run(vectors, query, reference, ImportanceSampling(draws=7), ComplEx(WIDTH), everyone())[
        0
    ]
    allowed = [n for n in range(NODES) if n not in EXCLUDED]
    counts = [len([n for n in allowed if n not in known]) for known in ANSWERS]
    torch.testing.assert_close(found.exp(), torch.tensor(counts, dtype=torch.float64))


def test_draws_depend_on_the_generator_only() -> None:
    vectors, query, reference = problem(10)
    given = (vectors, query, reference, ImportanceSampling(draws=5), ComplEx(WIDTH), everyone())
    first, same, other = run(*given), run(*given), run(*given, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("scorer", [ComplEx(WIDTH), TransE(WIDTH), RotatE(WIDTH)], ids=label)
@pytest.mark.parametrize("budget", [1, 1 << 20])
def test_draws_have_the_gradient_of_what_was_drawn(scorer: Scorer, budget: int) -> None:
    """The gradient is that of log sum over draws of e^s, whatever was drawn."""
    vectors, query, reference = problem(11, questions=1)
    answers = [[0, 3]]
    drawn = ImportanceSampling(draws=6)
    _, by_query, _ = run(
        vectors, query, reference, drawn, scorer, everyone(), budget, answers=answers
    )
    step = 1e-6
    for place in range(WIDTH):
        shift = torch.zeros_like(query)
        shift[0, place] = step
        # A shift this small does not change what is drawn from the same stream.
        ends = [
            run(vectors, query + s, reference, drawn, scorer, everyone(), budget, answers=answers)
            for s in (shift, -shift)
        ]
        slope = float(ends[0][0] - ends[1][0]) / (2 * step) * 0.5  # upstream is 0.5
        assert slope == pytest.approx(float(by_query[0, place]), rel=1e-4, abs=1e-6)


# -- the softmax of answers and negatives ----------------------------------------------------------


@pytest.mark.parametrize("answers", ["together", "apart"])
def test_softmax_equals_a_loop(answers: str) -> None:
    generator = torch.Generator().manual_seed(0)
    place = torch.tensor([0, 1, 1, 1, 2, 2])
    scores = torch.randn(6, generator=generator, dtype=torch.float64) * 3
    negatives = torch.randn(3, generator=generator, dtype=torch.float64)
    share = torch.ones(6, dtype=torch.float64)
    found = Softmax(answers=answers)(scores, place, share, negatives)
    for q in range(3):
        own = scores[place == q].tolist()
        rest = math.exp(float(negatives[q]))
        if answers == "together":
            whole = math.log(sum(map(math.exp, own)) + rest)
            expected = sum(whole - s for s in own)
        else:
            expected = sum(math.log(math.exp(s) + rest) - s for s in own)
        assert float(found[q]) == pytest.approx(expected)


@pytest.mark.parametrize("answers", ["together", "apart"])
def test_softmax_counts_a_share_as_so_many_answers(answers: str) -> None:
    """An answer that stands for three equals three equal answers."""
    negatives = torch.tensor([0.3], dtype=torch.float64)
    one = Softmax(answers=answers)(
        torch.tensor([0.7], dtype=torch.float64),
        torch.tensor([0]),
        torch.tensor([3.0], dtype=torch.float64),
        negatives,
    )
    three = Softmax(answers=answers)(
        torch.full((3,), 0.7, dtype=torch.float64),
        torch.zeros(3, dtype=torch.int64),
        torch.ones(3, dtype=torch.float64),
        negatives,
    )
    torch.testing.assert_close(one, three)


def test_softmax_survives_scores_that_overflow_an_exponential() -> None:
    scores = torch.tensor([800.0, -800.0], requires_grad=True)
    negatives = torch.tensor([900.0, -900.0], requires_grad=True)
    loss = Softmax()(scores, torch.tensor([0, 1]), torch.ones(2), negatives)
    loss.sum().backward()
    assert loss.tolist() == [100.0, 0.0]
    assert bool(scores.grad.isfinite().all())
    assert bool(negatives.grad.isfinite().all())


# -- the regulariser -------------------------------------------------------------------------------


@pytest.mark.parametrize("complex_entries", [False, True])
def test_cubes_equal_the_naive_sum_and_gradient(complex_entries: bool) -> None:
    vectors = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)).double()
    found = Cubes.apply(vectors, complex_entries)
    for row, value in zip(vectors.tolist(), found.tolist(), strict=True):
        entries = [complex(a, b) for a, b in zip(row[:3], row[3:], strict=True)]
        assert value == pytest.approx(
            sum(abs(x) ** 3 for x in (entries if complex_entries else row))
        )
    vectors.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Cubes.apply(x, complex_entries), (vectors,))


@pytest.mark.parametrize("complex_entries", [False, True])
def test_the_gradient_of_cubes_is_zero_at_zero(complex_entries: bool) -> None:
    vectors = torch.zeros(2, 4, requires_grad=True)
    Cubes.apply(vectors, complex_entries).sum().backward()
    assert torch.equal(vectors.grad, torch.zeros(2, 4))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: EntropyWeighting(temperature=0.0),
        lambda: EntropyWeighting(beta=-1.0),
        lambda: EntropyWeighting(beta=0.0, floor=0.0),
        lambda: SelfAdversarialWeighting(alpha=0.0),
        lambda: HardestWeighting(count=0),
        lambda: ImportanceSampling(draws=0),
        lambda: UniformSampling(size=0),
    ],
)
def test_settings_out_of_range_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        wrong()


def test_a_product_in_bfloat16_is_near_the_exact_one() -> None:
    vectors, query, reference = problem(12)
    exact = run(
        vectors.float(),
        query.float(),
        reference.float(),
        UniformWeighting(),
        ComplEx(WIDTH),
        everyone(),
    )
    source = vectors.float().requires_grad_()
    rows = GradientBuffer(source, low=True)
    asked = query.float().requires_grad_()
    _, result = score_batch(
        asked, rows, everyone(), pairs(), UniformWeighting(), ComplEx(WIDTH), torch.Generator()
    )
    (result * torch.linspace(0.5, 2.0, len(query))).sum().backward()
    rows.backward()
    torch.testing.assert_close(result.detach(), exact[0], rtol=0.02, atol=0.02)
    torch.testing.assert_close(asked.grad, exact[1], rtol=0.05, atol=0.05)
    torch.testing.assert_close(source.grad, exact[2], rtol=0.05, atol=0.05)
    assert result.dtype == source.grad.dtype == torch.float32


def test_tucker_is_compared_by_product() -> None:
    assert TuckER(WIDTH).by_product


@pytest.mark.parametrize("scorer", [ComplEx(WIDTH), TransE(WIDTH)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("budget", [1 << 20, 64], ids=["kept", "made again"])
def test_answers_have_the_scores_and_gradients_of_pairs(scorer: Scorer, budget: int) -> None:
    """Taken from the kept blocks or pair by pair: the same numbers, in the order of the answers."""
    vectors, query, _ = problem(13)
    place, node = pairs([[9, 0], [3], [], [5, 1, 2], [0], [7]][: len(query)])
    source, asked = vectors.clone().requires_grad_(), query.clone().requires_grad_()
    rows = GradientBuffer(source)
    found, _ = score_batch(
        asked,
        rows,
        everyone([]),
        (place, node),
        EntropyWeighting(),
        scorer,
        torch.Generator(),
        budget,
    )
    upstream = torch.arange(1, len(found) + 1, dtype=found.dtype)
    (found * upstream).sum().backward()
    rows.backward()
    plain_source, plain = vectors.clone().requires_grad_(), query.clone().requires_grad_()
    expected = scorer.compare(plain[place], plain_source[node].unsqueeze(1)).squeeze(1)
    (expected * upstream).sum().backward()
    assert_all_close((found, asked.grad, source.grad), (expected, plain.grad, plain_source.grad))
