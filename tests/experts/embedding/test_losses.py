"""The sum over negatives, the softmax and the regulariser equal a loop over questions."""

from __future__ import annotations

import math

import pytest
import torch
from naive_losses import (
    ANSWERS,
    EXACT,
    EXCLUDED,
    NODES,
    WIDTH,
    all_candidates,
    assert_all_close,
    label,
    naive_run,
    pairs,
    problem,
    run,
)

from mocme.experts.embedding import losses, negative_weighting
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.losses import CubedModuli, Softmax, score_batch
from mocme.experts.embedding.negative_sampling import UniformSampling
from mocme.experts.embedding.negative_weighting import (
    EntropyWeighting,
    ImportanceSampling,
    UniformWeighting,
    Weighting,
)
from mocme.experts.embedding.scorers import ComplEx, RotatE, Scorer, TransE, TuckER

every_weighting = pytest.mark.parametrize("weighting", EXACT, ids=label)


# -- the sum over negatives against the naive reference --------------------------------------------


@every_weighting
@pytest.mark.parametrize("kind", Scorer.kinds, ids=lambda kind: kind.__name__)
def test_sum_and_gradient_equal_a_loop_over_questions(
    kind: type[Scorer], weighting: Weighting
) -> None:
    vectors, query, reference = problem()
    scorer = kind(WIDTH)
    expected = naive_run(vectors, query, reference, weighting, scorer)
    for max_bytes in (1 << 20, 1):  # kept and recomputed
        result = run(vectors, query, reference, weighting, scorer, all_candidates(), max_bytes)
        assert_all_close(result, expected)


@every_weighting
@pytest.mark.parametrize("scorer", [ComplEx(WIDTH), RotatE(WIDTH)], ids=label)
@pytest.mark.parametrize("max_bytes", [1, 1 << 20])
@pytest.mark.parametrize("excluded", [[1, 2], EXCLUDED], ids=["no answer", "an answer"])
def test_the_default_reference_is_the_mean_score_of_the_answers(
    excluded: list[int], max_bytes: int, scorer: Scorer, weighting: Weighting
) -> None:
    """Whether or not all answers are candidates, and whether or not scores are kept."""
    vectors, query, _ = problem(13, questions=3)
    answers = [[0, 9, 13], *ANSWERS[1:3]]
    means = [scorer.compare(query[[q]], vectors[known]).mean() for q, known in enumerate(answers)]
    candidates = all_candidates(excluded)
    expected = run(
        vectors, query, torch.stack(means), weighting, scorer, candidates, max_bytes, answers
    )
    generator = torch.Generator()
    table = GradientBuffer(vectors.clone().requires_grad_())
    query = query.clone().requires_grad_()
    _, negatives = score_batch(
        query, table, candidates, pairs(answers), weighting, scorer, generator, max_bytes
    )
    torch.testing.assert_close(negatives.detach(), expected[0])


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
    monkeypatch.setattr(negative_weighting, "CHUNK", 3)
    kept = run(vectors, query, reference, weighting, scorer, all_candidates())
    # Memory for one block, and never for all: scores are computed again for the backward pass.
    max_bytes = len(ANSWERS) * 8 * min(width, NODES - 1)
    recomputed = run(vectors, query, reference, weighting, scorer, all_candidates(), max_bytes)
    assert_all_close(kept, expected)
    assert_all_close(recomputed, expected)


@every_weighting
def test_a_sample_of_all_candidates_equals_all_candidates(weighting: Weighting) -> None:
    vectors, query, reference = problem(2)
    scorer = ComplEx(WIDTH)
    barred = torch.tensor(EXCLUDED)
    sample = UniformSampling(size=NODES).draw((0, NODES), barred, torch.Generator().manual_seed(0))
    assert len(sample) == NODES - len(EXCLUDED)
    expected = run(vectors, query, reference, weighting, scorer, all_candidates())
    assert_all_close(run(vectors, query, reference, weighting, scorer, sample), expected)


def test_entropy_with_beta_zero_is_exactly_the_plain_sum() -> None:
    vectors, query, reference = problem(3)
    plain = run(vectors, query, reference, UniformWeighting(), ComplEx(WIDTH), all_candidates())
    for first, second in zip(
        run(
            vectors, query, reference, EntropyWeighting(beta=0.0), ComplEx(WIDTH), all_candidates()
        ),
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
        weighted = run(vectors, query, reference, EntropyWeighting(), scorer, all_candidates())
        plain = run(vectors, query, reference, UniformWeighting(), scorer, all_candidates())
        assert_all_close(weighted, plain)


@pytest.mark.parametrize("scorer", [ComplEx(WIDTH), TransE(WIDTH)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("max_bytes", [1 << 20, 64], ids=["kept", "recomputed"])
def test_answers_have_the_scores_and_gradients_of_pairs(scorer: Scorer, max_bytes: int) -> None:
    """Taken from the kept blocks or pair by pair: the same numbers, in the order of the answers."""
    vectors, query, _ = problem(13)
    question, node = pairs([[9, 0], [3], [], [5, 1, 2], [0], [7]][: len(query)])
    source, blocked_query = vectors.clone().requires_grad_(), query.clone().requires_grad_()
    table = GradientBuffer(source)
    scores, _ = score_batch(
        blocked_query,
        table,
        all_candidates([]),
        (question, node),
        EntropyWeighting(),
        scorer,
        torch.Generator(),
        max_bytes,
    )
    upstream = torch.arange(1, len(scores) + 1, dtype=scores.dtype)
    (scores * upstream).sum().backward()
    table.backward()
    plain_source, plain_query = vectors.clone().requires_grad_(), query.clone().requires_grad_()
    expected = scorer.compare(plain_query[question], plain_source[node].unsqueeze(1)).squeeze(1)
    (expected * upstream).sum().backward()
    assert_all_close(
        (scores, blocked_query.grad, source.grad), (expected, plain_query.grad, plain_source.grad)
    )


def test_a_product_in_bfloat16_is_near_the_exact_one() -> None:
    vectors, query, reference = (values.float() for values in problem(12))
    exact = run(vectors, query, reference, UniformWeighting(), ComplEx(WIDTH), all_candidates())
    source = vectors.requires_grad_()
    table = GradientBuffer(source, bfloat16=True)
    query.requires_grad_()
    _, negatives = score_batch(
        query,
        table,
        all_candidates(),
        pairs(),
        UniformWeighting(),
        ComplEx(WIDTH),
        torch.Generator(),
    )
    (negatives * torch.linspace(0.5, 2.0, len(query))).sum().backward()
    table.backward()
    torch.testing.assert_close(negatives.detach(), exact[0], rtol=0.02, atol=0.02)
    torch.testing.assert_close(query.grad, exact[1], rtol=0.05, atol=0.05)
    torch.testing.assert_close(source.grad, exact[2], rtol=0.05, atol=0.05)
    assert negatives.dtype == source.grad.dtype == torch.float32


def test_tucker_is_compared_by_product() -> None:
    assert TuckER(WIDTH).by_product


# -- questions without negatives -------------------------------------------------------------------


@pytest.mark.parametrize("weighting", [*EXACT, ImportanceSampling(draws=3)], ids=label)
@pytest.mark.parametrize("scorer", [ComplEx(WIDTH), RotatE(WIDTH)], ids=label)
@pytest.mark.parametrize("max_bytes", [1, 1 << 20])
def test_a_question_without_a_negative_adds_nothing(
    weighting: Weighting, scorer: Scorer, max_bytes: int
) -> None:
    vectors, query, reference = problem(5, questions=2)
    answers = [[0, 2], [n for n in range(NODES) if n not in EXCLUDED]]
    sample = UniformSampling(size=NODES).draw((0, NODES), torch.tensor(EXCLUDED), torch.Generator())
    for candidates in (all_candidates(), sample):
        negatives, by_query, by_vectors = run(
            vectors, query, reference, weighting, scorer, candidates, max_bytes, answers=answers
        )
        assert negatives[1] == -math.inf
        assert bool(negatives[0].isfinite())
        assert bool(by_query.isfinite().all())
        assert bool(by_vectors.isfinite().all())
        assert not bool(by_query[1].any())


@pytest.mark.parametrize("answers", ["together", "apart"])
def test_the_loss_of_a_question_without_a_negative_is_that_of_its_answers(answers: str) -> None:
    scores = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    question, multiplicity = torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.float64)
    negatives = torch.tensor([-math.inf], dtype=torch.float64, requires_grad=True)
    loss = Softmax(answers=answers)(scores, question, multiplicity, negatives)
    loss.sum().backward()
    expected = 2 * math.log(math.e + math.e**2) - 3 if answers == "together" else 0.0
    assert loss.tolist() == [pytest.approx(expected)]
    assert bool(scores.grad.isfinite().all())
    assert negatives.grad.tolist() == [0.0]


def test_weights_that_all_vanish_are_no_nan() -> None:
    """Without a floor, negatives far from the answers have no weight at all."""
    vectors, query, _ = problem(6)
    reference = torch.full((len(query),), 1e5, dtype=torch.float64)
    negatives, *gradients = run(
        vectors, query, reference, EntropyWeighting(floor=0.0), ComplEx(WIDTH), all_candidates()
    )
    assert negatives.tolist() == [-math.inf] * len(query)
    assert not any(bool(gradient.any()) for gradient in gradients)


# -- the softmax of answers and negatives ----------------------------------------------------------


@pytest.mark.parametrize("answers", ["together", "apart"])
def test_softmax_equals_a_loop(answers: str) -> None:
    generator = torch.Generator().manual_seed(0)
    question = torch.tensor([0, 1, 1, 1, 2, 2])
    scores = torch.randn(6, generator=generator, dtype=torch.float64) * 3
    negatives = torch.randn(3, generator=generator, dtype=torch.float64)
    multiplicity = torch.ones(6, dtype=torch.float64)
    loss = Softmax(answers=answers)(scores, question, multiplicity, negatives)
    for q in range(3):
        answer_scores = scores[question == q].tolist()
        negative_sum = math.exp(float(negatives[q]))
        if answers == "together":
            log_total = math.log(sum(map(math.exp, answer_scores)) + negative_sum)
            expected = sum(log_total - s for s in answer_scores)
        else:
            expected = sum(math.log(math.exp(s) + negative_sum) - s for s in answer_scores)
        assert float(loss[q]) == pytest.approx(expected)


@pytest.mark.parametrize("answers", ["together", "apart"])
def test_softmax_counts_multiplicity_as_equal_answers(answers: str) -> None:
    """An answer that represents three equals three equal answers."""
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
    cubes = CubedModuli.apply(vectors, complex_entries)
    for row, value in zip(vectors.tolist(), cubes.tolist(), strict=True):
        entries = [complex(a, b) for a, b in zip(row[:3], row[3:], strict=True)]
        assert value == pytest.approx(
            sum(abs(x) ** 3 for x in (entries if complex_entries else row))
        )
    vectors.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: CubedModuli.apply(x, complex_entries), (vectors,))


@pytest.mark.parametrize("complex_entries", [False, True])
def test_the_gradient_of_cubes_is_zero_at_zero(complex_entries: bool) -> None:
    vectors = torch.zeros(2, 4, requires_grad=True)
    CubedModuli.apply(vectors, complex_entries).sum().backward()
    assert torch.equal(vectors.grad, torch.zeros(2, 4))
