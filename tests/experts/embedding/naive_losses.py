"""A small problem for tests of losses, and the sum over negatives by a loop over questions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.losses import score_batch
from mocme.experts.embedding.negative_sampling import AllEntities, Candidates
from mocme.experts.embedding.negative_weighting import (
    EntropyWeighting,
    HardestWeighting,
    ImportanceSampling,
    SelfAdversarialWeighting,
    UniformWeighting,
    Weighting,
)
from mocme.experts.embedding.scorers import Scorer

WIDTH, NODES = 4, 14
VARIANTS: dict[type[Weighting], list[Weighting]] = {
    EntropyWeighting: [
        EntropyWeighting(beta=0.0),
        EntropyWeighting(beta=2.5, temperature=0.4),
        EntropyWeighting(beta=1.0, floor=0.0),
        EntropyWeighting(beta=3.0, floor=0.2),
    ],
    SelfAdversarialWeighting: [SelfAdversarialWeighting(alpha=0.7)],
    HardestWeighting: [HardestWeighting(count=3), HardestWeighting(count=1000)],
    ImportanceSampling: [
        ImportanceSampling(draws=3),
        ImportanceSampling(draws=5, by=SelfAdversarialWeighting()),
    ],
}
# Every kind with its defaults, then with other settings. A new kind is picked up here; unless it
# samples, it also needs a form in `naive_weights`.
ALL: list[Weighting] = [
    weighting for kind in Weighting.kinds for weighting in (kind(), *VARIANTS.get(kind, []))
]
EXACT = [weighting for weighting in ALL if not isinstance(weighting, ImportanceSampling)]
# Each question's answers; the last but one has many, the last leaves no negative but 9 and 10.
ANSWERS = [[0], [3, 5], [4, 5, 6, 7, 8, 12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13]]
EXCLUDED = [1, 12]
ALLOWED = [node for node in range(NODES) if node not in EXCLUDED]


def label(value: object) -> str:
    settings = "-".join(f"{k}={v}" for k, v in vars(value).items() if isinstance(v, (int, float)))
    return f"{type(value).__name__}-{settings}" if settings else type(value).__name__


def naive_weights(weighting: Weighting, scores: list[float], reference: float) -> list[float]:
    """Weights of all negatives of a question, with mean 1."""
    if isinstance(weighting, UniformWeighting):
        weights = [1.0] * len(scores)
    elif isinstance(weighting, EntropyWeighting):
        weights = []
        for score in scores:
            p = 1 / (1 + math.exp(-(score - reference) / weighting.temperature))
            bits = -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)
            weights.append(weighting.floor + weighting.beta * bits)
    elif isinstance(weighting, SelfAdversarialWeighting):
        weights = [math.exp(weighting.alpha * score) for score in scores]
    elif isinstance(weighting, HardestWeighting):
        limit = sorted(scores, reverse=True)[: weighting.count][-1]
        weights = [float(score >= limit) for score in scores]
    else:
        raise AssertionError(f"{type(weighting).__name__} needs a naive form here")
    return [weight * len(weights) / sum(weights) for weight in weights]


def naive_negative_sum(
    query: Tensor,
    vectors: Tensor,
    scorer: Scorer,
    weighting: Weighting,
    reference: Tensor,
    candidates: list[int],
    answers: list[list[int]] = ANSWERS,
) -> Tensor:
    """The log of the weighted sum, one question after the other, through plain autograd."""
    sums = []
    for question, known in enumerate(answers):
        negatives = [c for c in candidates if c not in known]
        scores = scorer.compare(query[question : question + 1], vectors[negatives])[0]
        weights = naive_weights(weighting, scores.tolist(), float(reference[question]))
        sums.append((torch.tensor(weights, dtype=scores.dtype) * scores.exp()).sum().log())
    return torch.stack(sums)


def pairs(answers: list[list[int]] = ANSWERS) -> tuple[Tensor, Tensor]:
    """(question, node) of all answers."""
    flat = [(question, node) for question, known in enumerate(answers) for node in known]
    table = torch.tensor(flat, dtype=torch.int64).reshape(-1, 2)
    return table[:, 0].contiguous(), table[:, 1].contiguous()


def problem(seed: int = 0, questions: int = len(ANSWERS)) -> tuple[Tensor, Tensor, Tensor]:
    """Random vectors (NODES, WIDTH), queries (questions, WIDTH) and references (questions,)."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(NODES, WIDTH, generator=generator, dtype=torch.float64)
    query = torch.randn(questions, WIDTH, generator=generator, dtype=torch.float64)
    reference = torch.randn(questions, generator=generator, dtype=torch.float64)
    return vectors, query, reference


def all_candidates(excluded: list[int] = EXCLUDED) -> Candidates:
    barred = torch.tensor(excluded, dtype=torch.int64)
    return AllEntities().draw((0, NODES), barred, torch.Generator())


def run(
    vectors: Tensor,
    query: Tensor,
    reference: Tensor,
    weighting: Weighting,
    scorer: Scorer,
    candidates: Candidates,
    max_bytes: int = 1 << 20,
    answers: list[list[int]] = ANSWERS,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The log sum over negatives, and its gradient by query and by vectors."""
    source = vectors.clone().requires_grad_()
    table = GradientBuffer(source)
    query = query.clone().requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    _, negatives = score_batch(
        query, table, candidates, pairs(answers), weighting, scorer, generator, max_bytes, reference
    )
    upstream = torch.linspace(0.5, 2.0, len(query), dtype=query.dtype)
    (negatives * upstream).sum().backward()
    table.backward()
    assert query.grad is not None
    assert source.grad is not None
    return negatives.detach(), query.grad, source.grad


def naive_run(
    vectors: Tensor, query: Tensor, reference: Tensor, weighting: Weighting, scorer: Scorer
) -> tuple[Tensor, Tensor, Tensor]:
    """What `run` returns for all candidates."""
    source, query = vectors.clone().requires_grad_(), query.clone().requires_grad_()
    negatives = naive_negative_sum(query, source, scorer, weighting, reference, ALLOWED)
    upstream = torch.linspace(0.5, 2.0, len(query), dtype=query.dtype)
    (negatives * upstream).sum().backward()
    return negatives.detach(), query.grad, source.grad


def assert_all_close(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> None:
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
