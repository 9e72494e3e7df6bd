"""Link prediction: the loss and the gradient of every parameter equal a naive loop in fp64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mocme.core.registry import Spec
from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import AnswerIndex
from mocme.experts.embedding import Embedding, losses
from mocme.experts.embedding.fusion import MeanFusion
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.link_prediction import LinkPrediction
from mocme.experts.embedding.losses import Softmax
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.negative_sampling import UniformSampling
from mocme.experts.embedding.negative_weighting import (
    EntropyWeighting,
    HardestWeighting,
    ImportanceSampling,
    SelfAdversarialWeighting,
    UniformWeighting,
)
from mocme.experts.embedding.objective import Objective
from mocme.experts.embedding.scorers import ComplEx, DistMult, RotatE, Scorer, TransE, TuckER

WIDTH = 4
CPU = torch.device("cpu")


def make(
    tiny: object, scorer: Spec[Scorer], candidates: str = "trained", **settings: object
) -> tuple[EmbeddingModel, TrainingFacts]:
    """A model in fp64 whose parameters are not at their start, and its training facts."""
    settings = {"embedding_dim": WIDTH, "init_std": 0.6, "scorer": scorer, **settings}
    facts = tiny.facts(candidates)
    model = EmbeddingModel(Embedding(**settings), facts, tiny.features.dense, 1).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in ("structure", "relation"):
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(noise * 0.2)
    return model, facts


def objective(**settings: object) -> Objective:
    """Settings with a token weight that is exact in fp32, the precision of query weights."""
    return Objective(**{"token_weight": 0.25, **settings})


def gradients(model: EmbeddingModel) -> dict[str, Tensor]:
    """All gradients by name; those of the model are reset."""
    gradients = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        gradients[name] = torch.zeros_like(parameter) if gradient is None else gradient.clone()
        parameter.grad = None
    return gradients


def fast(
    settings: Objective, model: EmbeddingModel, facts: TrainingFacts, chosen: Tensor, step: int = 2
) -> tuple[dict[str, float], dict[str, Tensor]]:
    table = model.table(step)
    task = LinkPrediction(settings, model, facts, CPU)
    generator = torch.Generator().manual_seed(0)
    batch = task.batch(chosen, generator)
    terms = task.backward(batch, GradientBuffer(table.vectors), table.redundancy, generator)
    return dict(terms), gradients(model)


def naive_weights(weighting: object, scores: Tensor, reference: Tensor) -> Tensor:
    """Weights of the negatives of one query by the formulas of docs/method.md."""
    if isinstance(weighting, EntropyWeighting):
        p = torch.sigmoid((scores - reference) / weighting.temperature)
        bits = -(p * p.log2() + (1 - p) * (1 - p).log2())
        raw = weighting.floor + weighting.beta * bits.nan_to_num(0.0)
    elif isinstance(weighting, SelfAdversarialWeighting):
        raw = (weighting.alpha * scores).exp()
    elif isinstance(weighting, HardestWeighting):
        raw = (scores >= scores.sort(descending=True).values[: weighting.count][-1]).double()
    else:
        assert isinstance(weighting, UniformWeighting)
        raw = torch.ones_like(scores)
    return raw / raw.mean()


def naive_modulus(scorer: Scorer, vectors: Tensor, complex_entries: bool) -> Tensor:
    if not complex_entries:
        return vectors.abs()
    real, imaginary = vectors.chunk(2, -1)
    return (real**2 + imaginary**2).sqrt()


def naive(
    settings: Objective, model: EmbeddingModel, facts: TrainingFacts, chosen: Tensor, step: int = 2
) -> tuple[float, float, dict[str, Tensor]]:
    """Section "EGNS" of docs/method.md, query by query, through plain autograd."""
    table = model.table(step)
    vectors, scorer = table.vectors, model.scorer
    index = AnswerIndex(facts.facts)
    vocabularies = len(facts.spans) - 1
    loss = regulariser = torch.zeros((), dtype=torch.float64)
    triples = 0.0
    for q in chosen.tolist():
        head, relation = int(index.queries.head[q]), int(index.queries.relation[q])
        answers = index.answers[index.offsets[q] : index.offsets[q + 1]].tolist()
        number = int(facts.relation_class[relation])
        excluded = set(facts.excluded.tolist()) if number == 0 else set()
        candidates = [n for n in range(*facts.spans[number]) if n not in excluded]
        negatives = [n for n in candidates if n not in answers]
        weight = settings.token_weight if relation >= facts.num_relations - 2 * vocabularies else 1
        triples += weight * len(answers)
        query = model.query(vectors[head : head + 1], torch.tensor([relation]))
        positive = scorer.compare(query, vectors[answers])[0]
        negative = scorer.compare(query, vectors[negatives])[0]
        scale = naive_weights(settings.loss.weighting, negative.detach(), positive.detach().mean())
        sum_of_negatives = (scale * negative.exp()).sum()
        if settings.loss.answers == "together":
            total = (positive.exp().sum() + sum_of_negatives).log()
            loss = loss + weight * (len(answers) * total - positive.sum())
        else:
            totals = (positive.exp() + sum_of_negatives).log()
            loss = loss + weight * (totals - positive).sum()
        relation_vector = model.relations(torch.tensor([relation]))[0]
        for answer in answers:
            for vector, entries in (
                (vectors[head], scorer.complex_entries),
                (relation_vector, scorer.complex_relations),
                (vectors[answer], scorer.complex_entries),
            ):
                cubes = naive_modulus(scorer, vector, entries) ** 3
                regulariser = regulariser + settings.n3 * cubes.sum()
    objective = (loss + regulariser) / triples + settings.redundancy * table.redundancy
    objective.backward()
    terms = float(loss.detach()) / triples, float(regulariser.detach()) / triples
    return *terms, gradients(model)


def check(
    settings: Objective, model: EmbeddingModel, facts: TrainingFacts, chosen: Tensor | None = None
) -> None:
    if chosen is None:
        count = len(AnswerIndex(facts.facts))
        order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
        chosen = order[: count // 2]
    loss, n3, expected = naive(settings, model, facts, chosen)
    terms, actual = fast(settings, model, facts, chosen)
    assert terms["loss"] == pytest.approx(loss, rel=1e-9)
    assert terms["n3"] == pytest.approx(n3, rel=1e-9)
    assert any(bool(gradient.any()) for gradient in expected.values())
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-7, atol=1e-10, msg=name)


@pytest.fixture(params=Scorer.kinds, ids=lambda kind: kind.__name__)
def scorer(request: pytest.FixtureRequest) -> Spec[Scorer]:
    return Spec(TuckER, relation_dim=3) if request.param is TuckER else Spec(request.param)


@pytest.mark.parametrize("answers", ["together", "apart"])
@pytest.mark.parametrize("memory", [0.5, 1e-9], ids=["kept", "recomputed"])
def test_every_scorer_with_everything_on(
    scorer: Spec[Scorer], answers: str, memory: float, tiny_graph: Callable
) -> None:
    model, facts = make(tiny_graph(tokens={"word": 6, "code": 4}), scorer)
    loss = Softmax(weighting=EntropyWeighting(beta=1.3, temperature=0.8), answers=answers)
    settings = objective(loss=loss, n3=0.02, redundancy=0.3, score_memory=memory)
    check(settings, model, facts)


@pytest.mark.parametrize(
    "weighting",
    [
        UniformWeighting(),
        EntropyWeighting(beta=0.0),
        EntropyWeighting(floor=0.0),
        EntropyWeighting(beta=2.0, floor=0.3),
        SelfAdversarialWeighting(alpha=0.5),
        HardestWeighting(count=2),
    ],
    ids=lambda w: type(w).__name__,
)
@pytest.mark.parametrize("kind", [ComplEx, RotatE], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("answers", ["together", "apart"])
def test_every_weighting(
    kind: type[Scorer], weighting: losses.Weighting, answers: str, tiny_graph: Callable
) -> None:
    model, facts = make(tiny_graph(), Spec(kind))
    loss = Softmax(weighting=weighting, answers=answers)
    for memory in (0.5, 1e-9):
        check(objective(loss=loss, n3=0.01, score_memory=memory), model, facts)


@pytest.mark.parametrize("candidates", ["linked", "trained", "all"])
@pytest.mark.parametrize("kind", [ComplEx, TransE], ids=lambda kind: kind.__name__)
def test_excluded_candidates(kind: type[Scorer], candidates: str, tiny_graph: Callable) -> None:
    tiny = tiny_graph(unseen=3)
    model, facts = make(tiny, Spec(kind), candidates)
    has_word = tiny.features.tokens["word"].present()
    excluded = {
        "linked": ~tiny.graph.linked(),
        "trained": ~(tiny.graph.linked() | has_word),
        "all": torch.zeros(12, dtype=torch.bool),
    }
    assert torch.equal(facts.excluded, excluded[candidates].nonzero().flatten())
    assert bool((excluded["linked"] & has_word).any())  # an answer that is no candidate
    check(
        objective(loss=Softmax(weighting=EntropyWeighting()), candidates=candidates), model, facts
    )


@pytest.mark.parametrize("block", [1, 2, 5, 12, 13])
def test_blocks_of_any_size(
    block: int, tiny_graph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "BLOCK", block)
    monkeypatch.setattr(losses, "CHUNK", 4)
    model, facts = make(tiny_graph(), Spec(ComplEx))
    check(objective(loss=Softmax(weighting=EntropyWeighting())), model, facts)


def test_structure_alone(scorer: Spec[Scorer], tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(dense={}, tokens={}), scorer)
    check(objective(n3=0.1), model, facts)


@pytest.mark.parametrize("kind", [ComplEx, DistMult, RotatE], ids=lambda kind: kind.__name__)
def test_tied_inverses(kind: type[Scorer], tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), Spec(kind), inverse="tied")
    check(objective(n3=0.05), model, facts)


@pytest.mark.parametrize("seed", range(3))
def test_other_graphs_with_many_answers_to_a_query(seed: int, tiny_graph: Callable) -> None:
    tiny = tiny_graph(seed, entities=8, relations=1, facts=25, valid=2, test=2, unseen=1)
    model, facts = make(tiny, Spec(ComplEx))
    index = AnswerIndex(facts.facts)
    assert int(index.offsets.diff().max()) >= 4
    check(objective(loss=Softmax(weighting=EntropyWeighting()), n3=0.01), model, facts)


def test_a_single_query(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), Spec(ComplEx))
    check(objective(n3=0.01), model, facts, torch.tensor([4]))


def test_a_sample_of_all_entities_equals_all_entities(tiny_graph: Callable) -> None:
    for candidates in ("linked", "trained", "all"):
        model, facts = make(tiny_graph(unseen=3), Spec(ComplEx), candidates)
        chosen = torch.arange(len(AnswerIndex(facts.facts)))
        loss = Softmax(weighting=EntropyWeighting())
        full = fast(objective(loss=loss, n3=0.01), model, facts, chosen)
        all_drawn = objective(loss=loss, n3=0.01, negatives=UniformSampling(size=100))
        sampled = fast(all_drawn, model, facts, chosen)
        assert sampled[0] == pytest.approx(full[0], rel=1e-9)
        for name, gradient in full[1].items():
            torch.testing.assert_close(sampled[1][name], gradient, rtol=1e-7, atol=1e-10)


def test_the_batches_of_an_epoch_add_up(tiny_graph: Callable) -> None:
    """Losses are means per fact: weighted by facts, those of the batches give that of all."""
    model, facts = make(tiny_graph(), Spec(ComplEx))
    count = len(AnswerIndex(facts.facts))
    settings = objective(loss=Softmax(weighting=EntropyWeighting()), n3=0.01)
    full, _ = fast(settings, model, facts, torch.arange(count))
    parts = [fast(settings, model, facts, c)[0] for c in torch.arange(count).split(7)]
    total = sum(part["facts"] for part in parts)
    assert total == pytest.approx(full["facts"])
    for name in ("loss", "n3"):
        mean = sum(part[name] * part["facts"] for part in parts) / total
        assert mean == pytest.approx(full[name])


def test_queries_about_tokens_have_the_token_weight(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model, facts = make(tiny, Spec(ComplEx))
    chosen = torch.arange(len(AnswerIndex(facts.facts)))
    links = 2 * len(tiny.graph.facts("train"))
    about_tokens = 2 * len(tiny.features.tokens["word"].entity)
    for weight in (0.0, 0.3, 1.0):
        terms, _ = fast(objective(token_weight=weight), model, facts, chosen)
        assert terms["facts"] == pytest.approx(links + weight * about_tokens)


def test_token_weight_zero_trains_no_token(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model, facts = make(tiny, Spec(ComplEx))
    chosen = torch.arange(len(AnswerIndex(facts.facts)))
    _, gradients_by_name = fast(objective(token_weight=0.0), model, facts, chosen)
    assert not bool(gradients_by_name["structure"][tiny.graph.num_entities :].any())
    assert bool(gradients_by_name["structure"][: tiny.graph.num_entities].any())


def test_a_batch_of_queries_without_weight_is_finite(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), Spec(ComplEx))
    index = AnswerIndex(facts.facts)
    tokens = (index.queries.relation >= facts.num_relations - 2).nonzero().flatten()
    terms, gradients_by_name = fast(objective(token_weight=0.0, n3=0.1), model, facts, tokens)
    assert terms["loss"] == 0
    assert all(bool(g.isfinite().all()) for g in gradients_by_name.values())


def test_a_query_without_negatives_is_finite(tiny_graph: Callable) -> None:
    """A vocabulary of one token: queries for it have no negative at all."""
    for kind in (ComplEx, RotatE):
        model, facts = make(tiny_graph(tokens={"word": 1}), Spec(kind))
        for loss in (Softmax(), Softmax(weighting=EntropyWeighting()), Softmax(answers="apart")):
            check(objective(loss=loss), model, facts)
            chosen = torch.arange(len(AnswerIndex(facts.facts)))
            drawn = objective(
                loss=Softmax(weighting=ImportanceSampling(draws=3), answers=loss.answers)
            )
            terms, gradients_by_name = fast(drawn, model, facts, chosen)
            assert all(bool(g.isfinite().all()) for g in gradients_by_name.values())
            assert terms["loss"] > 0


def test_the_redundancy_term_reaches_the_views(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), Spec(ComplEx))
    chosen = torch.arange(5)
    without = fast(objective(), model, facts, chosen)[1]
    with_term, actual = fast(objective(redundancy=0.5), model, facts, chosen)
    model.zero_grad()
    table = model.table(2)
    assert with_term["redundancy"] == pytest.approx(float(table.redundancy.detach()))
    (0.5 * table.redundancy).backward()
    alone = gradients(model)
    assert bool(alone["views.of_shape.weight"].any())
    for name in without:
        torch.testing.assert_close(actual[name], without[name] + alone[name])


# Not ComplEx: the root of its naive modulus has no gradient where a modality is absent.
@pytest.mark.parametrize("scorer", [DistMult, TuckER])
def test_gates_by_relation_are_trained(scorer: type[Scorer], tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(tokens={"word": 1}), Spec(scorer), by_relation=True)
    check(objective(n3=0.01), model, facts)
    assert bool(fast(objective(n3=0.01), model, facts, torch.arange(5))[1]["gate"].any())


def test_an_objective_without_a_regulariser_reports_none(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), Spec(ComplEx))
    terms, _ = fast(objective(), model, facts, torch.arange(5))
    assert terms["n3"] == 0
    assert "redundancy" not in terms


def test_n3_of_complex_vectors_is_that_of_their_moduli(tiny_graph: Callable) -> None:
    """The regulariser of a table of known numbers, computed by hand."""
    tiny = tiny_graph(dense={}, tokens={})
    model, facts = make(tiny, Spec(ComplEx))
    with torch.no_grad():
        model.structure.fill_(0.0)
        model.structure[:, 0], model.structure[:, 2] = 3.0, 4.0  # one entry of modulus 5
        model.relation.fill_(0.0)
        model.relation[:, 1] = 2.0
    chosen = torch.arange(len(AnswerIndex(facts.facts)))
    terms, _ = fast(objective(n3=0.1), model, facts, chosen)
    assert terms["n3"] == pytest.approx(0.1 * (125 + 8 + 125))


# -- the entities that a step needs ----------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"max_answers": 1}, {"candidates": "all"}])
def test_a_step_needs_only_the_entities_that_it_names(
    settings: dict[str, object], tiny_graph: Callable
) -> None:
    """Loss and gradients with vectors of the named entities alone equal those with all vectors."""
    candidates = str(settings.pop("candidates", "trained"))
    tiny = tiny_graph(tokens={"word": 1})
    model, facts = make(
        tiny, Spec(ComplEx), candidates, within=Spec(MeanFusion), across=Spec(MeanFusion)
    )
    task = LinkPrediction(
        objective(negatives=UniformSampling(size=2), n3=0.01, **settings),
        model,
        facts,
        CPU,
    )
    for chosen in (torch.arange(3), torch.arange(len(task.index))):
        results = []
        for full in (True, False):
            generator = torch.Generator().manual_seed(0)
            batch = task.batch(chosen, generator)
            only = batch.entities(model.num_entities)
            assert only is not None
            assert len(only) <= model.num_entities
            table = model.table(2, only=None if full else only)
            terms = task.backward(batch, GradientBuffer(table.vectors), table.redundancy, generator)
            results.append((dict(terms), gradients(model)))
        assert results[0][0] == pytest.approx(results[1][0])
        for name, gradient in results[0][1].items():
            torch.testing.assert_close(results[1][1][name], gradient)


def test_a_step_against_all_entities_needs_all(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), Spec(ComplEx))
    task = LinkPrediction(objective(), model, facts, CPU)
    batch = task.batch(torch.arange(2), torch.Generator())
    assert batch.entities(model.num_entities) is None


# -- sampled answers -------------------------------------------------------------------------------


def test_max_answers_is_unbiased_in_the_linear_term(tiny_graph: Callable) -> None:
    """Over many draws, the mean share of each answer is 1."""
    tiny = tiny_graph(entities=8, relations=1, facts=25, valid=2, test=2, unseen=1)
    model, facts = make(tiny, Spec(ComplEx))
    task = LinkPrediction(objective(max_answers=2), model, facts, CPU)
    place, _ = task.index.rows(torch.arange(len(task.index)))
    counts = torch.bincount(place)
    assert int(counts.max()) >= 4
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(len(place))
    draws = 2000
    for _ in range(draws):
        used, share = task._sampled(place, generator)
        assert torch.equal(torch.bincount(place[used]), counts.clamp_max(2))
        sums = torch.zeros(len(counts)).index_add_(0, place[used], share)
        torch.testing.assert_close(sums, counts.float())
        total.index_add_(0, used, share)
    # An answer drawn with probability p counts 1/p, with a deviation of at most sqrt(1/p) here.
    worst = float(counts.max() / 2) ** 0.5
    assert float((total / draws - 1).abs().max()) < 5 * worst / draws**0.5


def test_a_limit_that_no_query_reaches_changes_nothing(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), Spec(ComplEx))
    chosen = torch.arange(len(AnswerIndex(facts.facts)))
    full = fast(objective(n3=0.01), model, facts, chosen)
    limited = fast(objective(n3=0.01, max_answers=1000), model, facts, chosen)
    assert limited[0] == full[0]
    assert all(torch.equal(limited[1][name], full[1][name]) for name in full[1])


def test_answers_that_are_not_drawn_are_not_negatives(tiny_graph: Callable) -> None:
    """With scores of 0 everywhere the loss is n log(|A| + |J|), whichever answers are drawn."""
    tiny = tiny_graph(dense={}, tokens={}, entities=8, relations=1, facts=25, valid=2, test=2)
    model, facts = make(tiny, Spec(ComplEx))
    with torch.no_grad():
        model.structure.zero_()
    chosen = torch.arange(len(AnswerIndex(facts.facts)))
    full, _ = fast(objective(), model, facts, chosen)
    limited, _ = fast(objective(max_answers=1), model, facts, chosen)
    assert limited["loss"] == pytest.approx(full["loss"])
    assert limited["facts"] == full["facts"]


def test_the_loss_does_not_depend_on_the_global_generator(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), Spec(ComplEx))
    chosen = torch.arange(10)
    settings = objective(negatives=UniformSampling(size=4), max_answers=1)
    first, same = (fast(settings, model, facts, chosen) for _ in range(2))
    torch.manual_seed(8)
    assert first[0] == same[0] == fast(settings, model, facts, chosen)[0]


@pytest.mark.parametrize(
    "wrong", [{"n3": -0.1}, {"redundancy": -0.1}, {"token_weight": -0.1}, {"max_answers": -1}]
)
def test_settings_below_zero_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Objective(**wrong)
