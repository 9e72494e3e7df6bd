"""The whole objective: its value and every parameter's gradient equal a naive loop in fp64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import AnswerIndex
from mocme.experts.embedding import Embedding, losses
from mocme.experts.embedding.gradient_buffer import GradientBuffer
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
from mocme.experts.embedding.objective import LinkPrediction, Objective
from mocme.experts.embedding.scorers import ComplEx, DistMult, RotatE, Scorer, TransE, TuckER

WIDTH = 4


def make(
    tiny: object, scorer: Scorer, candidates: str = "trained", **settings: object
) -> tuple[EmbeddingModel, TrainingFacts]:
    settings = {"width": WIDTH, "initial": 0.6, **settings}
    facts = tiny.facts(candidates)
    model = EmbeddingModel(
        Embedding(scorer=scorer, **settings), facts, tiny.features.dense, 1
    ).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in ("structure", "relation"):
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(noise * 0.2)
    return model, facts


def objective(**settings: object) -> Objective:
    """Settings whose weight of tokens is exact in fp32, in which the weights of questions are."""
    return Objective(**{"token_weight": 0.25, **settings})


def gradients(model: EmbeddingModel) -> dict[str, Tensor]:
    """All gradients, and none left behind."""
    found = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        found[name] = torch.zeros_like(parameter) if gradient is None else gradient.clone()
        parameter.grad = None
    return found


def fast(
    settings: Objective, model: EmbeddingModel, facts: TrainingFacts, chosen: Tensor, step: int = 2
) -> tuple[dict[str, float], dict[str, Tensor]]:
    table = model.table(step)
    trained = LinkPrediction(settings, model, facts, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    batch = trained.batch(chosen, generator)
    terms = trained.backward(batch, GradientBuffer(table.vectors), table.redundancy, generator)
    return dict(terms), gradients(model)


def naive_weights(weighting: object, scores: Tensor, reference: Tensor) -> Tensor:
    """Weights of the negatives of one question, as the method writes them."""
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
    """Section "EGNS" of the method, question by question, through plain autograd."""
    table = model.table(step)
    vectors, scorer = table.vectors, experts.embedding.scorer
    index = AnswerIndex(facts.facts)
    vocabularies = len(facts.spans) - 1
    loss = regulariser = torch.zeros((), dtype=torch.float64)
    triples = 0.0
    for q in chosen.tolist():
        head, relation = int(index.queries.head[q]), int(index.queries.relation[q])
        answers = index.answers[index.offsets[q] : index.offsets[q + 1]].tolist()
        number = int(facts.relation_class[relation])
        barred = set(facts.excluded.tolist()) if number == 0 else set()
        candidates = [n for n in range(*facts.spans[number]) if n not in barred]
        negatives = [n for n in candidates if n not in answers]
        weight = settings.token_weight if relation >= facts.num_relations - 2 * vocabularies else 1
        triples += weight * len(answers)
        query = model.query(vectors[head : head + 1], torch.tensor([relation]))
        own = scorer.compare(query, vectors[answers])[0]
        others = scorer.compare(query, vectors[negatives])[0]
        scale = naive_weights(settings.loss.weighting, others.detach(), own.detach().mean())
        rest = (scale * others.exp()).sum()
        if settings.loss.answers == "together":
            loss = loss + weight * (len(answers) * (own.exp().sum() + rest).log() - own.sum())
        else:
            loss = loss + weight * ((own.exp() + rest).log() - own).sum()
        of_relation = model.relations(torch.tensor([relation]))[0]
        for answer in answers:
            for vector, entries in (
                (vectors[head], scorer.complex_entries),
                (of_relation, scorer.complex_relations),
                (vectors[answer], scorer.complex_entries),
            ):
                cubes = naive_modulus(scorer, vector, entries) ** 3
                regulariser = regulariser + settings.n3 * cubes.sum()
    total = (loss + regulariser) / triples + settings.redundancy * table.redundancy
    total.backward()
    found = gradients(model)
    return float(loss.detach()) / triples, float(regulariser.detach()) / triples, found


def check(
    settings: Objective, model: EmbeddingModel, facts: TrainingFacts, chosen: Tensor | None = None
) -> None:
    if chosen is None:
        count = len(AnswerIndex(facts.facts))
        order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
        chosen = order[: count // 2]
    loss, n3, expected = naive(settings, model, facts, chosen)
    terms, found = fast(settings, model, facts, chosen)
    assert terms["loss"] == pytest.approx(loss, rel=1e-9)
    assert terms["n3"] == pytest.approx(n3, rel=1e-9)
    assert any(bool(gradient.any()) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-10, msg=name)


@pytest.fixture(params=Scorer.kinds, ids=lambda kind: kind.__name__)
def scorer(request: pytest.FixtureRequest) -> Scorer:
    return TuckER(relation_width=3) if request.param is TuckER else request.param()


@pytest.mark.parametrize("answers", ["together", "apart"])
@pytest.mark.parametrize("memory", [0.5, 1e-9], ids=["kept", "recomputed"])
def test_every_scorer_with_everything_on(
    scorer: Scorer, answers: str, memory: float, tiny_graph: Callable
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
    model, facts = make(tiny_graph(), kind())
    loss = Softmax(weighting=weighting, answers=answers)
    for memory in (0.5, 1e-9):
        check(objective(loss=loss, n3=0.01, score_memory=memory), model, facts)


@pytest.mark.parametrize("candidates", ["linked", "trained", "all"])
@pytest.mark.parametrize("kind", [ComplEx, TransE], ids=lambda kind: kind.__name__)
def test_excluded_candidates(kind: type[Scorer], candidates: str, tiny_graph: Callable) -> None:
    tiny = tiny_graph(unseen=3)
    model, facts = make(tiny, kind(), candidates)
    said = tiny.features.tokens["word"].present()
    out = {
        "linked": ~tiny.graph.linked(),
        "trained": ~(tiny.graph.linked() | said),
        "all": torch.zeros(12, dtype=torch.bool),
    }
    assert torch.equal(facts.excluded, out[candidates].nonzero().flatten())
    assert bool((out["linked"] & said).any())  # an answer that is no candidate
    check(
        objective(loss=Softmax(weighting=EntropyWeighting()), candidates=candidates), model, facts
    )


@pytest.mark.parametrize("block", [1, 2, 5, 12, 13])
def test_blocks_of_any_width(
    block: int, tiny_graph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "BLOCK", block)
    monkeypatch.setattr(losses, "CHUNK", 4)
    model, facts = make(tiny_graph(), ComplEx())
    check(objective(loss=Softmax(weighting=EntropyWeighting())), model, facts)


def test_structure_alone(scorer: Scorer, tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(dense={}, tokens={}), scorer)
    check(objective(n3=0.1), model, facts)


@pytest.mark.parametrize("kind", [ComplEx, DistMult, RotatE], ids=lambda kind: kind.__name__)
def test_tied_inverses(kind: type[Scorer], tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), kind(), inverse="tied")
    check(objective(n3=0.05), model, facts)


@pytest.mark.parametrize("seed", range(3))
def test_other_graphs_with_many_answers_a_question(seed: int, tiny_graph: Callable) -> None:
    tiny = tiny_graph(seed, entities=8, relations=1, facts=25, valid=2, test=2, unseen=1)
    model, facts = make(tiny, ComplEx())
    index = AnswerIndex(facts.facts)
    assert int(index.offsets.diff().max()) >= 4
    check(objective(loss=Softmax(weighting=EntropyWeighting()), n3=0.01), model, facts)


def test_one_question_alone(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), ComplEx())
    check(objective(n3=0.01), model, facts, torch.tensor([4]))


def test_a_pool_of_everyone_equals_everyone(tiny_graph: Callable) -> None:
    for candidates in ("linked", "trained", "all"):
        model, facts = make(tiny_graph(unseen=3), ComplEx(), candidates)
        chosen = torch.arange(len(AnswerIndex(facts.facts)))
        loss = Softmax(weighting=EntropyWeighting())
        whole = fast(objective(loss=loss, n3=0.01), model, facts, chosen)
        pool = objective(loss=loss, n3=0.01, negatives=UniformSampling(size=100))
        sampled = fast(pool, model, facts, chosen)
        assert sampled[0] == pytest.approx(whole[0], rel=1e-9)
        for name, gradient in whole[1].items():
            torch.testing.assert_close(sampled[1][name], gradient, rtol=1e-7, atol=1e-10)


def test_the_batches_of_a_pass_add_up(tiny_graph: Callable) -> None:
    """Losses are means per fact: weighted by facts, those of parts give that of the whole."""
    model, facts = make(tiny_graph(), ComplEx())
    count = len(AnswerIndex(facts.facts))
    settings = objective(loss=Softmax(weighting=EntropyWeighting()), n3=0.01)
    whole, _ = fast(settings, model, facts, torch.arange(count))
    parts = [fast(settings, model, facts, c)[0] for c in torch.arange(count).split(7)]
    together = sum(part["facts"] for part in parts)
    assert together == pytest.approx(whole["facts"])
    for name in ("loss", "n3"):
        mean = sum(part[name] * part["facts"] for part in parts) / together
        assert mean == pytest.approx(whole[name])


def test_token_questions_weigh_what_they_should(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model, facts = make(tiny, ComplEx())
    chosen = torch.arange(len(AnswerIndex(facts.facts)))
    links = 2 * len(tiny.graph.facts("train"))
    about_tokens = 2 * len(tiny.features.tokens["word"].entity)
    for weight in (0.0, 0.3, 1.0):
        terms, _ = fast(objective(token_weight=weight), model, facts, chosen)
        assert terms["facts"] == pytest.approx(links + weight * about_tokens)


def test_token_weight_zero_trains_no_token(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model, facts = make(tiny, ComplEx())
    chosen = torch.arange(len(AnswerIndex(facts.facts)))
    _, found = fast(objective(token_weight=0.0), model, facts, chosen)
    assert not bool(found["structure"][tiny.graph.num_entities :].any())
    assert bool(found["structure"][: tiny.graph.num_entities].any())


def test_a_batch_of_nothing_but_weightless_questions_is_no_nan(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), ComplEx())
    index = AnswerIndex(facts.facts)
    tokens = (index.queries.relation >= facts.num_relations - 2).nonzero().flatten()
    terms, found = fast(objective(token_weight=0.0, n3=0.1), model, facts, tokens)
    assert terms["loss"] == 0
    assert all(bool(g.isfinite().all()) for g in found.values())


def test_a_question_that_everyone_answers_is_no_nan(tiny_graph: Callable) -> None:
    """A vocabulary of one token: its questions have no negative at all."""
    for kind in (ComplEx, RotatE):
        model, facts = make(tiny_graph(tokens={"word": 1}), kind())
        for loss in (Softmax(), Softmax(weighting=EntropyWeighting()), Softmax(answers="apart")):
            check(objective(loss=loss), model, facts)
            chosen = torch.arange(len(AnswerIndex(facts.facts)))
            drawn = objective(
                loss=Softmax(weighting=ImportanceSampling(draws=3), answers=loss.answers)
            )
            terms, found = fast(drawn, model, facts, chosen)
            assert all(bool(g.isfinite().all()) for g in found.values())
            assert terms["loss"] > 0


def test_the_redundancy_term_reaches_the_experts(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), ComplEx())
    chosen = torch.arange(5)
    without = fast(objective(), model, facts, chosen)[1]
    with_term, found = fast(objective(redundancy=0.5), model, facts, chosen)
    model.zero_grad()
    table = model.table(2)
    assert with_term["redundancy"] == pytest.approx(float(table.redundancy.detach()))
    (0.5 * table.redundancy).backward()
    alone = gradients(model)
    assert bool(alone["views.of_shape.weight"].any())
    for name in without:
        torch.testing.assert_close(found[name], without[name] + alone[name])


# Not ComplEx: the root of its naive modulus has no gradient where a modality is absent.
@pytest.mark.parametrize("scorer", [DistMult, TuckER])
def test_gates_by_relation_are_trained(scorer: type[Scorer], tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(tokens={"word": 1}), scorer(), by_relation=True)
    check(objective(n3=0.01), model, facts)
    assert bool(fast(objective(n3=0.01), model, facts, torch.arange(5))[1]["gate"].any())


def test_an_experiment_without_a_regulariser_reports_none(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), ComplEx())
    terms, _ = fast(objective(), model, facts, torch.arange(5))
    assert terms["n3"] == 0
    assert "redundancy" not in terms


def test_n3_of_complex_vectors_is_that_of_their_moduli(tiny_graph: Callable) -> None:
    """The regulariser alone, by hand, from a table of known numbers."""
    tiny = tiny_graph(dense={}, tokens={})
    model, facts = make(tiny, ComplEx())
    with torch.no_grad():
        model.structure.fill_(0.0)
        model.structure[:, 0], model.structure[:, 2] = 3.0, 4.0  # one entry of modulus 5
        model.relation.fill_(0.0)
        model.relation[:, 1] = 2.0
    chosen = torch.arange(len(AnswerIndex(facts.facts)))
    terms, _ = fast(objective(n3=0.1), model, facts, chosen)
    assert terms["n3"] == pytest.approx(0.1 * (125 + 8 + 125))


# -- only what a step needs ------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"max_answers": 1}, {"candidates": "all"}])
def test_a_step_needs_no_other_entities_than_it_says(
    settings: dict[str, object], tiny_graph: Callable
) -> None:
    """Loss and gradients with vectors of the named entities alone equal those with all vectors."""
    candidates = str(settings.pop("candidates", "trained"))
    tiny = tiny_graph(tokens={"word": 1})
    model, facts = make(
        tiny, ComplEx(), candidates, within=Spec(MeanFusion), across=Spec(MeanFusion)
    )
    trained = LinkPrediction(
        objective(negatives=UniformSampling(size=2), n3=0.01, **settings),
        model,
        facts,
        torch.device("cpu"),
    )
    for chosen in (torch.arange(3), torch.arange(len(trained.index))):
        found = []
        for whole in (True, False):
            generator = torch.Generator().manual_seed(0)
            batch = trained.batch(chosen, generator)
            only = batch.entities(model.num_entities)
            assert only is not None
            assert len(only) <= model.num_entities
            table = model.table(2, only=None if whole else only)
            terms = trained.backward(
                batch, GradientBuffer(table.vectors), table.redundancy, generator
            )
            found.append((dict(terms), gradients(model)))
        assert found[0][0] == pytest.approx(found[1][0])
        for name, gradient in found[0][1].items():
            torch.testing.assert_close(found[1][1][name], gradient)


def test_a_step_against_everyone_needs_everyone(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), ComplEx())
    trained = LinkPrediction(objective(), model, facts, torch.device("cpu"))
    batch = trained.batch(torch.arange(2), torch.Generator())
    assert batch.entities(model.num_entities) is None


# -- answers that are drawn ------------------------------------------------------------------------


def test_max_answers_is_unbiased_in_the_linear_term(tiny_graph: Callable) -> None:
    """Over many draws, each answer stands for itself once."""
    tiny = tiny_graph(entities=8, relations=1, facts=25, valid=2, test=2, unseen=1)
    model, facts = make(tiny, ComplEx())
    trained = LinkPrediction(objective(max_answers=2), model, facts, torch.device("cpu"))
    place, _ = trained.index.rows(torch.arange(len(trained.index)))
    counts = torch.bincount(place)
    assert int(counts.max()) >= 4
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(len(place))
    draws = 2000
    for _ in range(draws):
        used, share = trained._sampled(place, generator)
        assert torch.equal(torch.bincount(place[used]), counts.clamp_max(2))
        sums = torch.zeros(len(counts)).index_add_(0, place[used], share)
        torch.testing.assert_close(sums, counts.float())
        total.index_add_(0, used, share)
    # An answer drawn with chance p counts 1/p, with a deviation of at most sqrt(1/p) here.
    worst = float(counts.max() / 2) ** 0.5
    assert float((total / draws - 1).abs().max()) < 5 * worst / draws**0.5


def test_max_answers_of_enough_changes_nothing(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), ComplEx())
    chosen = torch.arange(len(AnswerIndex(facts.facts)))
    whole = fast(objective(n3=0.01), model, facts, chosen)
    limited = fast(objective(n3=0.01, max_answers=1000), model, facts, chosen)
    assert limited[0] == whole[0]
    assert all(torch.equal(limited[1][name], whole[1][name]) for name in whole[1])


def test_answers_that_are_not_drawn_are_still_no_negatives(tiny_graph: Callable) -> None:
    """With scores of 0 everywhere the loss is n log(|A| + |J|), whichever answers are drawn."""
    tiny = tiny_graph(dense={}, tokens={}, entities=8, relations=1, facts=25, valid=2, test=2)
    model, facts = make(tiny, ComplEx())
    with torch.no_grad():
        model.structure.zero_()
    chosen = torch.arange(len(AnswerIndex(facts.facts)))
    whole, _ = fast(objective(), model, facts, chosen)
    limited, _ = fast(objective(max_answers=1), model, facts, chosen)
    assert limited["loss"] == pytest.approx(whole["loss"])
    assert limited["facts"] == whole["facts"]


def test_the_gradient_does_not_depend_on_what_else_was_drawn(tiny_graph: Callable) -> None:
    model, facts = make(tiny_graph(), ComplEx())
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
