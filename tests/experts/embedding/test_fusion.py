"""Fusion: weights, presence, the formula of complementarity, and contracts for every kind."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mocme.core.registry import ConfigError, Spec, construct
from mocme.core.rng import seeded_generator
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.fusion import (
    BlocksFusion,
    ComplementaryFusion,
    Fused,
    Fusion,
    ProjectionFusion,
    masked_softmax,
    pair_redundancy,
    standardised,
)
from mocme.experts.embedding.modality_dropout import BLOCK, keep_mask
from mocme.experts.embedding.scorers import ComplEx, DistMult
from mocme.experts.embedding.views import ModalityViews

WIDTH, VIEWS = 5, 4
VARIANTS: list[Spec[Fusion]] = [Spec(kind) for kind in Fusion.kinds]
CHANGED: list[Spec[Fusion]] = [
    Spec(ComplementaryFusion, complementarity="off"),
    Spec(ComplementaryFusion, relevance=False),
    Spec(ComplementaryFusion, strength=2.0, temperature=0.3),
]
SHUFFLED: Spec[Fusion] = Spec(ComplementaryFusion, complementarity="shuffled")


def label(spec: Spec[Fusion]) -> str:
    settings = [f"{name}={value}" for name, value in spec.settings.items()]
    return "-".join([spec.component.kind_name(), *settings])


every = pytest.mark.parametrize("spec", [*VARIANTS, *CHANGED, SHUFFLED], ids=label)
unshuffled = pytest.mark.parametrize("spec", [*VARIANTS, *CHANGED], ids=label)


def make(spec: Spec[Fusion], seed: int = 0, views: int = VIEWS) -> Fusion:
    """A fusion in fp64 whose parameters are not at their start."""
    generator = torch.Generator().manual_seed(seed)
    fusion = spec.build(WIDTH, views, generator).double()
    with torch.no_grad():
        for parameter in fusion.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise * 0.3)
    return fusion


def initial(kind: type[Fusion], views: int = VIEWS, **settings: object) -> Fusion:
    """A fusion in fp64 with its initial parameters."""
    return kind(WIDTH, views, torch.Generator(), **settings).double()


def entities(seed: int, n: int = 9) -> tuple[Tensor, Tensor]:
    """Views and presence; the first entity has nothing, the second one view, the third all."""
    generator = torch.Generator().manual_seed(seed)
    views = torch.randn(n, VIEWS, WIDTH, generator=generator, dtype=torch.float64)
    present = torch.rand(n, VIEWS, generator=generator) < 0.6
    present[0], present[1], present[2] = False, False, True
    present[1, seed % VIEWS] = True
    return views, present


@every
@given(seed=st.integers(0, 10**6))
def test_weights_of_present_views_sum_to_one(spec: Spec[Fusion], seed: int) -> None:
    views, present = entities(seed)
    fused: Fused = make(spec, seed)(views, present)
    assert bool((fused.weights[~present] == 0).all())
    assert bool((fused.weights >= 0).all())
    torch.testing.assert_close(fused.weights.sum(1), present.any(1).double())
    assert torch.equal(fused.vector[0], torch.zeros(WIDTH, dtype=torch.float64))
    # These do not return the weighted sum; their own tests follow.
    if spec.component in (ProjectionFusion, BlocksFusion):
        return
    naive = sum(fused.weights[:, v, None] * views[:, v] for v in range(VIEWS))
    torch.testing.assert_close(fused.vector, naive)
    torch.testing.assert_close(fused.vector[1], views[1, seed % VIEWS])


def test_a_projection_is_a_map_of_each_view_and_starts_as_the_mean() -> None:
    views, present = entities(3)
    start = initial(ProjectionFusion)
    torch.testing.assert_close(start(views, present).vector[2], views[2].mean(0))
    module = make(Spec(ProjectionFusion))
    for e in range(len(views)):
        shown = [views[e, v] @ module.weight[v] for v in range(VIEWS) if present[e, v]]
        naive = sum(shown, torch.zeros(WIDTH, dtype=torch.float64))
        torch.testing.assert_close(module(views, present).vector[e], naive)


@pytest.mark.parametrize("width", [8, 9, 20])
def test_scores_of_blocks_are_sums_of_a_score_for_each_view(width: int) -> None:
    views = torch.randn(6, VIEWS, width, generator=torch.Generator().manual_seed(0)).double()
    relation = torch.randn(6, width, generator=torch.Generator().manual_seed(1)).double()
    present = torch.rand(6, VIEWS, generator=torch.Generator().manual_seed(2)) < 0.7
    module = BlocksFusion(width, VIEWS, torch.Generator()).double()
    scorer = DistMult(width) if width % 2 else ComplEx(width)

    def score(shown: Tensor) -> Tensor:
        vectors = module(views, shown).vector
        return scorer.compare(scorer.query(vectors, relation), vectors)

    alone = []
    for v in range(VIEWS):
        only = torch.zeros_like(present)
        only[:, v] = present[:, v]
        alone.append(score(only))
    torch.testing.assert_close(score(present), sum(alone))
    counts = module.owner.sum(1)
    assert int(counts.sum()) == width
    assert int(counts.max() - counts.min()) <= 2
    with pytest.raises(ValueError, match="an embedding_dim of 8 or more for 4 inputs"):
        BlocksFusion(6, VIEWS, torch.Generator())


@every
def test_values_of_absent_views_do_not_matter(spec: Spec[Fusion]) -> None:
    views, present = entities(3)
    module = make(spec)
    noise = views.masked_fill(~present.unsqueeze(-1), 7.0)
    torch.testing.assert_close(module(noise, present).vector, module(views, present).vector)


@unshuffled
def test_permuting_entities_permutes_the_result(spec: Spec[Fusion]) -> None:
    views, present = entities(5)
    module = make(spec)
    order = torch.randperm(len(views), generator=torch.Generator().manual_seed(1))
    fused, permuted = module(views, present), module(views[order], present[order])
    torch.testing.assert_close(permuted.vector, fused.vector[order])
    torch.testing.assert_close(permuted.weights, fused.weights[order])
    torch.testing.assert_close(permuted.redundancy, fused.redundancy)


def test_shuffled_complementarity_is_that_of_another_entity() -> None:
    views = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    present = torch.ones(2, 3, dtype=torch.bool)
    plain = initial(ComplementaryFusion, 3)(views, present)
    shuffled = initial(ComplementaryFusion, 3, complementarity="shuffled")(views, present)
    torch.testing.assert_close(shuffled.weights, plain.weights.roll(1, 0))
    assert not torch.allclose(plain.weights[0], plain.weights[1])


@every
def test_gradients_are_finite_even_where_nothing_is_present(spec: Spec[Fusion]) -> None:
    views, present = entities(2)
    views[2, 0] = 0.0  # a vector without direction
    views.requires_grad_()
    module = make(spec)
    fused = module(views, present)
    (fused.vector.square().sum() + fused.weights.square().sum() + fused.redundancy).backward()
    for tensor in (views, *module.parameters()):
        if tensor.grad is not None:
            assert bool(tensor.grad.isfinite().all())
    assert views.grad is not None
    assert bool((views.grad[~present] == 0).all())


@pytest.mark.parametrize("spec", VARIANTS + CHANGED[:1], ids=label)
def test_gradcheck(spec: Spec[Fusion], monkeypatch: pytest.MonkeyPatch) -> None:
    # The standardisation is a constant to the gradient, so it has to be one to the check as well.
    monkeypatch.setattr(
        "mocme.experts.embedding.fusion.standardised", lambda redundancy, present, *_: -redundancy
    )
    views, present = entities(4, 4)
    module = make(spec)
    names = [name for name, _ in module.named_parameters()]

    def run(views: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip(names, parameters, strict=True))
        fused = torch.func.functional_call(module, given, (views, present))
        return fused.vector, fused.redundancy

    parameters = [p.detach().clone().requires_grad_() for p in module.parameters()]
    assert torch.autograd.gradcheck(run, (views.requires_grad_(), *parameters))


def naive_weights(module: torch.nn.Module, views: Tensor, present: Tensor) -> list[list[float]]:
    """The formulas of the method, one entity and one pair at a time."""
    redundancy: dict[tuple[int, int], float] = {}
    for e, v in itertools.product(range(len(views)), range(VIEWS)):
        if not present[e, v]:
            continue
        cosines = []
        for other in range(VIEWS):
            if other != v and present[e, other]:
                a, b = views[e, v], views[e, other]
                cosines.append((float(a @ b) / float(a.norm() * b.norm())) ** 2)
        redundancy[e, v] = sum(cosines) / len(cosines) if cosines else 0.0
    mean = sum(redundancy.values()) / len(redundancy)
    spread = (sum((r - mean) ** 2 for r in redundancy.values()) / len(redundancy)) ** 0.5
    strength, tau = (float(p.detach().exp()) for p in (module.log_strength, module.log_temperature))
    gate, bias = module.gate.detach(), module.bias.detach()
    rows = []
    for e in range(len(views)):
        logits = {}
        for v in range(VIEWS):
            if present[e, v]:
                unit = views[e, v] / views[e, v].norm()
                relevance = float(unit @ gate[v]) + float(bias[v])
                gain = (mean - redundancy[e, v]) / (spread + 1e-6)
                logits[v] = math.exp((relevance + strength * gain) / tau)
        total = sum(logits.values())
        rows.append([logits[v] / total if v in logits else 0.0 for v in range(VIEWS)])
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_complementarity_equals_a_double_loop(seed: int) -> None:
    views, present = entities(seed)
    module = make(Spec(ComplementaryFusion, strength=1.5, temperature=0.7), seed)
    naive = torch.tensor(naive_weights(module, views, present), dtype=torch.float64)
    torch.testing.assert_close(module(views, present).weights.detach(), naive)


def test_off_equals_a_plain_gate() -> None:
    views, present = entities(6)
    module = make(Spec(ComplementaryFusion, complementarity="off"))
    units = views / views.norm(dim=-1, keepdim=True)
    logits = ((units * module.gate).sum(-1) + module.bias) / module.log_temperature.exp()
    gate = torch.zeros_like(logits)
    for e in range(len(views)):
        if present[e].any():
            gate[e, present[e]] = logits[e, present[e]].softmax(0)
    torch.testing.assert_close(module(views, present).weights, gate)


def test_without_relevance_the_gate_has_no_say() -> None:
    views, present = entities(6)
    module = make(Spec(ComplementaryFusion, relevance=False))
    before = module(views, present).weights
    with torch.no_grad():
        module.gate.add_(5.0)
    assert torch.equal(module(views, present).weights, before)


def test_the_standardisation_has_no_gradient_through_mean_and_spread() -> None:
    redundancy = torch.tensor([[0.1, 0.5], [0.2, 0.9]], dtype=torch.float64, requires_grad=True)
    present = torch.tensor([[True, True], [True, False]])
    result = standardised(redundancy, present)
    known = torch.tensor([0.1, 0.5, 0.2], dtype=torch.float64)
    mean, spread = known.mean(), known.std(correction=0)
    torch.testing.assert_close(result, (mean - redundancy) / (spread + 1e-6))
    result.sum().backward()
    expected = torch.full_like(redundancy, -1 / (float(spread) + 1e-6))
    torch.testing.assert_close(redundancy.grad, expected)


def test_redundancy_is_zero_alone_and_one_for_identical_views() -> None:
    view = torch.randn(1, 1, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    views = torch.cat([view, -3 * view, view.roll(1, -1)], 1)
    products = views @ views.transpose(1, 2)
    alone = pair_redundancy(products, torch.tensor([[True, False, False]]))[0]
    assert torch.equal(alone, torch.zeros(1, 3, dtype=torch.float64))
    same, mean = pair_redundancy(products, torch.tensor([[True, True, False]]))[:2]
    torch.testing.assert_close(same, torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64))
    assert float(mean) == pytest.approx(1.0)
    everyone = torch.ones(1, 3, dtype=torch.bool)
    assert float(pair_redundancy(products, everyone)[0].max()) <= 1 + 1e-12


def test_redundant_views_share_what_a_complementary_one_gets() -> None:
    """Two identical views and an orthogonal one: the latter weighs more than either."""
    a = torch.eye(WIDTH, dtype=torch.float64)[0]
    b = torch.eye(WIDTH, dtype=torch.float64)[1]
    module = initial(ComplementaryFusion, 3, strength=1.0)
    fused = module(torch.stack([a, a, b]).unsqueeze(0), torch.ones(1, 3, dtype=torch.bool))
    alike, _, different = fused.weights[0].tolist()
    assert different > 2 * alike


def test_masked_softmax_of_huge_logits() -> None:
    logits = torch.tensor([[1e30, -1e30], [1e30, 0.0], [3.0, 3.0]], requires_grad=True)
    present = torch.tensor([[True, True], [False, True], [False, False]])
    weights = masked_softmax(logits, present)
    assert weights.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    weights.sum().backward()
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("setting", ["strength", "temperature"])
def test_settings_out_of_range_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        initial(ComplementaryFusion, **{setting: 0.0})


# -- views -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonlinearity", ["none", "tanh", "gelu"])
def test_views_are_whitening_maps(nonlinearity: str) -> None:
    generator = torch.Generator().manual_seed(0)
    views = ModalityViews(7, WIDTH, generator, count=3, nonlinearity=nonlinearity).double()
    with torch.no_grad():
        views.mean.normal_(generator=generator)
    values = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    naive = torch.stack([(values - views.mean[k]) @ views.weight[:, k] for k in range(3)], 1)
    after = {"none": lambda x: x, "tanh": torch.tanh, "gelu": torch.nn.functional.gelu}
    torch.testing.assert_close(views(values), after[nonlinearity](naive))


def test_views_start_different_and_near_the_deviation_of_tables() -> None:
    views = ModalityViews(50, 40, torch.Generator().manual_seed(0), count=2)
    values = torch.randn(200, 50, generator=torch.Generator().manual_seed(1))
    outputs = views(values).detach()
    assert not torch.equal(outputs[:, 0], outputs[:, 1])
    assert 0.008 < float(outputs.std()) < 0.012


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "experts.embedding.views: count must be at least 1"),
        ({"nonlinearity": "sine"}, "views.nonlinearity: 'sine' is none of none, tanh, gelu"),
    ],
)
def test_wrong_views_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        construct(Embedding, {"views": wrong}, "experts.embedding")


def test_views_need_at_least_one() -> None:
    with pytest.raises(ValueError, match="count must be at least 1"):
        ModalityViews(7, WIDTH, torch.Generator(), count=0)


# -- modality dropout ------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**9), step=st.integers(0, 10**6), chance=st.floats(0, 0.99))
def test_dropout_never_hides_everything(seed: int, step: int, chance: float) -> None:
    present = torch.rand(40, 3, generator=torch.Generator().manual_seed(seed)) < 0.5
    kept = keep_mask(present, torch.full((3,), chance), seed, step)
    assert not bool((kept & ~present).any())
    assert torch.equal(kept.any(1), present.any(1))


def test_dropout_hides_as_often_as_it_should() -> None:
    """Chance of being kept, by enumeration of what else is kept."""
    chance = torch.tensor([0.2, 0.5, 0.9])
    present = torch.ones(60_000, 3, dtype=torch.bool)
    kept = keep_mask(present, chance, 3, 7)
    everything = float(chance.prod())  # then one of three stays
    expected = (1 - chance) + everything / 3
    # Five standard deviations of a share of 60,000 draws.
    assert (kept.float().mean(0) - expected).abs().max() < 5 * (0.25 / 60_000) ** 0.5
    alone = (kept.sum(1) == 1).float().mean()
    one = sum(
        float((1 - chance[i]) * chance[[j for j in range(3) if j != i]].prod()) for i in range(3)
    )
    assert float(alone) == pytest.approx(one + everything, abs=5 * (0.25 / 60_000) ** 0.5)


def test_dropout_of_a_row_does_not_depend_on_the_size_of_the_table() -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(2 * BLOCK + 100, 3, generator=generator) < 0.7
    chance = torch.full((3,), 0.5)
    whole = keep_mask(present, chance, 5, 2)
    assert torch.equal(keep_mask(present[: 2 * BLOCK], chance, 5, 2), whole[: 2 * BLOCK])
    assert torch.equal(keep_mask(present[:BLOCK], chance, 5, 2), whole[:BLOCK])
    assert not torch.equal(whole[:BLOCK], whole[BLOCK : 2 * BLOCK])


def test_dropout_depends_on_seed_and_step_and_on_nothing_else() -> None:
    present = torch.ones(100, 3, dtype=torch.bool)
    chance = torch.full((3,), 0.5)
    base = keep_mask(present, chance, 1, 2)
    torch.manual_seed(99)
    torch.rand(7)
    assert torch.equal(keep_mask(present, chance, 1, 2), base)
    for seed, step in ((2, 2), (1, 3), (2, 1)):
        assert not torch.equal(keep_mask(present, chance, seed, step), base)


def test_no_dropout_keeps_all_and_an_empty_table_stays_empty() -> None:
    present = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(keep_mask(present, torch.zeros(3), 0, 0), present)
    assert keep_mask(present[:0], torch.zeros(3), 0, 0).shape == (0, 3)


def test_seeded_streams_differ_by_number_and_by_order() -> None:
    seeds = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]
    streams = {tuple(torch.rand(4, generator=seeded_generator(*s)).tolist()) for s in seeds}
    assert len(streams) == len(seeds)
