"""Contracts of every kind of weighting and of negative sampling, and properties of single kinds.

Kinds are taken from `kinds`: a new one is tested without a change here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from naive_losses import (
    ALL,
    ALLOWED,
    ANSWERS,
    EXACT,
    EXCLUDED,
    NODES,
    WIDTH,
    all_candidates,
    assert_all_close,
    label,
    naive_negative_sum,
    pairs,
    problem,
    run,
)
from torch import Tensor

from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.losses import score_batch
from mocme.experts.embedding.negative_sampling import (
    AllEntities,
    Candidates,
    NegativeSampling,
    UniformSampling,
)
from mocme.experts.embedding.negative_weighting import (
    EntropyWeighting,
    HardestWeighting,
    ImportanceSampling,
    SelfAdversarialWeighting,
    UniformWeighting,
    Weighting,
)
from mocme.experts.embedding.scorers import ComplEx, RotatE, Scorer, TransE

every_weighting = pytest.mark.parametrize("weighting", ALL, ids=label)
# Every kind with its defaults, and with settings that make it small beside the tests' classes.
SAMPLINGS: list[NegativeSampling] = [
    *(kind() for kind in NegativeSampling.kinds),
    UniformSampling(size=1),
    UniformSampling(size=5),
]
every_sampling = pytest.mark.parametrize("sampling", SAMPLINGS, ids=label)


# -- the contract of a weighting -------------------------------------------------------------------


def masked_scores(seed: int = 0, columns: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of five questions, references, and counts. The last question has no negative."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(5, columns, generator=generator, dtype=torch.float64) * 2
    scores[torch.rand(5, columns, generator=generator) < 0.3] = -math.inf
    scores[4] = -math.inf
    reference = torch.randn(5, generator=generator, dtype=torch.float64)
    return scores, reference, scores.isfinite().sum(1).double()


def weigh(
    weighting: Weighting, scores: Tensor, reference: Tensor, count: Tensor, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """s + log w, and the log of the sum of w, of a copy of the scores."""
    weighted = scores.clone()
    generator = torch.Generator().manual_seed(seed)
    return weighted, weighting.weigh_(weighted, reference, count, generator)


def test_every_kind_of_weighting_is_tested() -> None:
    assert {type(weighting) for weighting in ALL} == set(Weighting.kinds)
    assert {type(weighting) for weighting in EXACT} | {ImportanceSampling} == set(Weighting.kinds)


@every_weighting
def test_the_returned_value_is_the_log_of_the_sum_of_weights(weighting: Weighting) -> None:
    scores, reference, count = masked_scores()
    weighted, log_sum = weigh(weighting, scores, reference, count)
    log_weights = torch.where(scores.isneginf(), scores, weighted - scores)
    has_negatives = count > 0
    torch.testing.assert_close(log_weights.logsumexp(1)[has_negatives], log_sum[has_negatives])


@every_weighting
def test_what_is_no_negative_stays_so(weighting: Weighting) -> None:
    scores, reference, count = masked_scores(1)
    weighted, log_sum = weigh(weighting, scores, reference, count)
    assert bool(weighted[scores.isneginf()].isneginf().all())
    assert not bool(weighted.isnan().any())
    assert not bool(log_sum.isnan().any())
    # Some negative of each question that has any keeps a weight.
    assert bool(weighted[count > 0].isfinite().any(1).all())


@every_weighting
def test_blocks_of_a_row_have_the_weights_of_the_row(weighting: Weighting) -> None:
    """Unless the weighting says that it needs the whole row."""
    if weighting.whole_row:
        return
    scores, reference, count = masked_scores(2)
    expected, expected_sum = weigh(weighting, scores, reference, count)
    parts, sums = [], []
    for block in scores.split([1, 12, 7], dim=1):
        weighted, log_sum = weigh(weighting, block, reference, block.isfinite().sum(1).double())
        parts.append(weighted)
        sums.append(log_sum)
    torch.testing.assert_close(torch.cat(parts, 1), expected)
    torch.testing.assert_close(torch.stack(sums).logsumexp(0), expected_sum)


@every_weighting
def test_weights_do_not_depend_on_a_constant_in_all_scores(weighting: Weighting) -> None:
    """The mean of w is 1: the weighted sum moves by the constant, and nothing else."""
    scores, reference, count = masked_scores(3)

    def log_mean(shift: float) -> Tensor:
        weighted, log_sum = weigh(weighting, scores + shift, reference + shift, count)
        return (weighted.logsumexp(1) - log_sum)[count > 0]

    torch.testing.assert_close(log_mean(7.5), log_mean(0.0) + 7.5)


@every_weighting
@pytest.mark.parametrize("scorer", [ComplEx(), TransE()], ids=label)
@pytest.mark.parametrize("max_bytes", [1, 1 << 20], ids=["recomputed", "kept"])
def test_the_gradient_is_that_with_the_weights_held_constant(
    max_bytes: int, scorer: Scorer, weighting: Weighting
) -> None:
    vectors, query, reference = problem(20)
    result = run(vectors, query, reference, weighting, scorer, all_candidates(), max_bytes)
    source, leaf_query = vectors.clone().requires_grad_(), query.clone().requires_grad_()
    scores = scorer.compare(leaf_query, source)
    is_negative = torch.ones_like(scores, dtype=torch.bool)
    is_negative[pairs()] = False
    is_negative[:, EXCLUDED] = False
    masked = scores.detach().masked_fill(~is_negative, -math.inf)
    count = is_negative.sum(1).double()
    weighted, log_sum = weigh(weighting, masked, reference, count)
    log_weights = torch.where(is_negative, weighted - masked, -math.inf)
    shift = (count.log() - log_sum).unsqueeze(1)
    expected = (scores.masked_fill(~is_negative, -math.inf) + log_weights + shift).logsumexp(1)
    upstream = torch.linspace(0.5, 2.0, len(query), dtype=query.dtype)
    (expected * upstream).sum().backward()
    assert_all_close(result, (expected.detach(), leaf_query.grad, source.grad))


@every_weighting
def test_weights_depend_on_the_given_generator_only(weighting: Weighting) -> None:
    scores, reference, count = masked_scores(4)
    first = weigh(weighting, scores, reference, count)
    torch.rand(3)
    state = torch.random.get_rng_state()
    again = weigh(weighting, scores, reference, count)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


# -- the contract of negative sampling -------------------------------------------------------------

SPAN, BARRED = (10, 24), [10, 13, 14, 23]


def draw(
    sampling: NegativeSampling,
    seed: int = 0,
    span: tuple[int, int] = SPAN,
    barred: list[int] = BARRED,
) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    return sampling.draw(span, torch.tensor(barred, dtype=torch.int64), generator)


def drawn_nodes(candidates: Candidates) -> list[int]:
    """Ids of the candidates, without the excluded positions."""
    nodes = candidates.nodes
    ids = torch.arange(nodes.start, nodes.stop) if isinstance(nodes, slice) else nodes
    kept = torch.ones(len(ids), dtype=torch.bool)
    kept[candidates.excluded] = False
    assert len(candidates) == len(ids)
    return ids[kept].tolist()


def test_every_kind_of_negative_sampling_is_tested() -> None:
    assert {type(sampling) for sampling in SAMPLINGS} == set(NegativeSampling.kinds)


@every_sampling
def test_candidates_are_distinct_allowed_nodes_of_the_class(sampling: NegativeSampling) -> None:
    allowed = set(range(*SPAN)) - set(BARRED)
    for seed in range(20):
        candidates = draw(sampling, seed)
        nodes = drawn_nodes(candidates)
        assert nodes == sorted(set(nodes))
        assert set(nodes) <= allowed
        assert nodes
        assert candidates.total == len(allowed)
        assert candidates.barred.tolist() == BARRED
        # All of them, unless it says that it is a sample.
        assert candidates.sampled or set(nodes) == allowed


@every_sampling
def test_every_allowed_node_is_drawn_at_times(sampling: NegativeSampling) -> None:
    drawn = set(itertools.chain(*(drawn_nodes(draw(sampling, seed)) for seed in range(200))))
    assert drawn == set(range(*SPAN)) - set(BARRED)


@every_sampling
def test_a_class_without_candidates_has_none(sampling: NegativeSampling) -> None:
    for span, barred in (((5, 8), [5, 6, 7]), ((5, 5), [])):
        candidates = draw(sampling, span=span, barred=barred)
        assert drawn_nodes(candidates) == []
        assert candidates.total == 0


@every_sampling
def test_candidates_depend_on_the_given_generator_only(sampling: NegativeSampling) -> None:
    first = drawn_nodes(draw(sampling))
    torch.rand(3)
    state = torch.random.get_rng_state()
    assert drawn_nodes(draw(sampling)) == first
    assert torch.equal(torch.random.get_rng_state(), state)


@every_sampling
def test_the_sum_over_sampled_negatives_is_unbiased(sampling: NegativeSampling) -> None:
    vectors, query, reference = problem(7, questions=2)
    vectors, query = vectors * 0.5, query * 0.5  # a small variance of e^s
    answers = [[0], [3, 5, 12]]  # 12 is no candidate: it must not be counted as one
    scorer, weighting = ComplEx(), UniformWeighting()
    generator = torch.Generator().manual_seed(0)
    draws = 600 if draw(sampling).sampled else 1
    total = torch.zeros(2, dtype=torch.float64)
    for _ in range(draws):
        candidates = sampling.draw((0, NODES), torch.tensor(EXCLUDED), generator)
        _, negatives = score_batch(
            query,
            GradientBuffer(vectors),
            candidates,
            pairs(answers),
            weighting,
            scorer,
            generator,
        )
        total += negatives.exp()
    expected = naive_negative_sum(query, vectors, scorer, weighting, reference, ALLOWED, answers)
    if len(candidates) == 1:
        # Where the only candidate is an answer, there is no negative, and the sum is 0.
        expected += torch.tensor([1 - 1 / len(ALLOWED), 1 - 2 / len(ALLOWED)]).double().log()
    torch.testing.assert_close(total / draws, expected.exp(), rtol=0.06, atol=0)


# -- properties of single kinds --------------------------------------------------------------------


def test_the_mean_over_all_samples_is_the_full_sum() -> None:
    """Exactly, over all samples of five of the candidates."""
    vectors, query, reference = problem(7, questions=2)
    answers = [[0], [3, 5, 12]]  # 12 is no candidate: it must not be counted as one
    scorer = ComplEx()
    none, barred = torch.empty(0, dtype=torch.int64), torch.tensor(EXCLUDED)
    total = torch.zeros(2, dtype=torch.float64)
    samples = list(itertools.combinations(ALLOWED, 5))
    for sample in samples:
        candidates = Candidates(torch.tensor(sample), none, len(ALLOWED), barred)
        _, negatives = score_batch(
            query,
            GradientBuffer(vectors),
            candidates,
            pairs(answers),
            UniformWeighting(),
            scorer,
            torch.Generator(),
        )
        total += negatives.exp()
    naive = naive_negative_sum(
        query, vectors, scorer, UniformWeighting(), reference, ALLOWED, answers
    ).exp()
    torch.testing.assert_close(total / len(samples), naive)


def test_a_sample_is_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(20)
    for _ in range(1500):
        candidates = UniformSampling(size=4).draw((10, 20), torch.tensor([12, 19]), generator)
        assert isinstance(candidates.nodes, Tensor)
        assert len(candidates.nodes.unique()) == 4
        assert candidates.nodes.tolist() == sorted(candidates.nodes.tolist())
        assert candidates.total == 8
        counts[candidates.nodes] += 1
    assert not bool(counts[[*range(10), 12, 19]].any())
    shares = counts[[10, 11, 13, 14, 15, 16, 17, 18]] / 1500
    assert float((shares - 0.5).abs().max()) < 5 * 0.5 / 1500**0.5


def test_all_entities_are_a_slice_of_the_table() -> None:
    candidates = draw(AllEntities())
    assert candidates.nodes == slice(*SPAN)
    assert not candidates.sampled


@pytest.mark.parametrize(
    "by",
    [UniformWeighting(), EntropyWeighting(), SelfAdversarialWeighting(), HardestWeighting(count=3)],
    ids=label,
)
def test_draws_have_the_weighted_sum_as_their_mean(by: Weighting) -> None:
    vectors, query, reference = problem(8)
    vectors, query = vectors * 0.7, query * 0.7
    many = ImportanceSampling(draws=400_000, by=by)
    negatives = run(vectors, query, reference, many, ComplEx(), all_candidates())[0]
    expected = run(vectors, query, reference, by, ComplEx(), all_candidates())[0]
    torch.testing.assert_close(negatives.exp(), expected.exp(), rtol=0.02, atol=0)


def test_draws_take_only_negatives_and_count_them() -> None:
    """With scores of 0 each draw is worth |J| / draws, so the sum is |J| whatever is drawn."""
    _, query, reference = problem(9)
    vectors = torch.zeros(NODES, WIDTH, dtype=torch.float64)
    weighting = ImportanceSampling(draws=7)
    negatives = run(vectors, query, reference, weighting, ComplEx(), all_candidates())[0]
    counts = [len([n for n in ALLOWED if n not in known]) for known in ANSWERS]
    torch.testing.assert_close(negatives.exp(), torch.tensor(counts, dtype=torch.float64))


def test_draws_depend_on_the_generator_only() -> None:
    vectors, query, reference = problem(10)
    weighting = ImportanceSampling(draws=5)
    arguments = (vectors, query, reference, weighting, ComplEx(), all_candidates())
    first, same, other = run(*arguments), run(*arguments), run(*arguments, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("scorer", [ComplEx(), TransE(), RotatE()], ids=label)
@pytest.mark.parametrize("max_bytes", [1, 1 << 20])
def test_draws_have_the_gradient_of_what_was_drawn(scorer: Scorer, max_bytes: int) -> None:
    """The gradient is that of log sum over draws of e^s, whatever was drawn."""
    vectors, query, reference = problem(11, questions=1)
    answers = [[0, 3]]
    weighting = ImportanceSampling(draws=6)

    def negatives_and_gradient(query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return run(
            vectors,
            query,
            reference,
            weighting,
            scorer,
            all_candidates(),
            max_bytes,
            answers=answers,
        )

    _, by_query, _ = negatives_and_gradient(query)
    step = 1e-6
    for entry in range(WIDTH):
        shift = torch.zeros_like(query)
        shift[0, entry] = step
        # A shift this small does not change what is drawn from the same stream.
        above, below = (negatives_and_gradient(query + s)[0] for s in (shift, -shift))
        slope = float(above - below) / (2 * step) * 0.5  # upstream is 0.5
        assert slope == pytest.approx(float(by_query[0, entry]), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "invalid",
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
def test_settings_out_of_range_are_refused(invalid: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        invalid()
