"""The model: its score, presence of modalities, and the table that it keeps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mocme.core.registry import Spec
from mocme.data.graph import Graph, Queries, Vocabulary
from mocme.data.modality import Features, Modality
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.fusion import AttentionFusion, MeanFusion
from mocme.experts.embedding.modality_dropout import keep_mask
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.scorers import ComplEx, DistMult, RotatE, Scorer, TransE, TuckER

WIDTH = 4
KINDS = Scorer.kinds


def make(tiny: object, seed: int = 0, **settings: object) -> EmbeddingModel:
    """A model whose parameters are large enough to tell its scores apart."""
    settings.setdefault("embedding_dim", WIDTH)
    settings.setdefault("init_std", 0.7)
    return EmbeddingModel(Embedding(**settings), tiny.facts(), tiny.features.dense, seed)


def questions(tiny: object, count: int = 7) -> Queries:
    facts = tiny.graph.directed("train")[:: max(1, len(tiny.graph.directed("train")) // count)]
    return Queries(facts[:count, 0], facts[:count, 1])


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Scorer]:
    return request.param


def test_score_is_query_then_compare(kind: type[Scorer], tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model = make(tiny, scorer=Spec(kind))
    queries = questions(tiny)
    vectors = model.table().vectors
    relation = model.relation[queries.relation]
    naive = model.scorer.compare(
        model.scorer.query(vectors[queries.head], relation), vectors[: model.num_entities]
    )
    assert torch.equal(model.score(queries), naive)


def test_candidates_none_shared_and_own_agree(kind: type[Scorer], tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model = make(tiny, scorer=Spec(kind))
    queries, count = questions(tiny), model.num_entities
    scores = model.score(queries)
    assert scores.shape == (len(queries), count)  # never a token node
    assert len(model.frozen().vectors) == count + 6
    shared = torch.tensor([3, 0, 11])
    torch.testing.assert_close(model.score(queries, shared), scores[:, shared])
    own = torch.randint(count, (len(queries), 5), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.score(queries, own), scores.gather(1, own))


@pytest.mark.parametrize("scorer", [ComplEx, DistMult, TransE, RotatE])
def test_a_head_question_is_a_tail_question_of_the_inverse(
    scorer: type[Scorer], tiny_graph: Callable
) -> None:
    tiny = tiny_graph()
    model = make(tiny, scorer=Spec(scorer), inverse="tied")
    directed = tiny.facts().num_relations
    assert len(model.relation) == directed // 2
    head, relation, tail = tiny.graph.facts("train").unbind(1)
    forward = model.score(Queries(head, relation), tail.unsqueeze(1))
    back = model.score(Queries(tail, relation + tiny.graph.num_relations), head.unsqueeze(1))
    torch.testing.assert_close(forward, back)
    # Relations about tokens are tied in the same way.
    says = torch.tensor([directed - 2, directed - 1])
    vectors = model.relations(says)
    torch.testing.assert_close(vectors[1:], model.scorer.invert(vectors[:1]))


def test_a_free_inverse_has_a_vector_of_its_own(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model = make(tiny)
    assert len(model.relation) == tiny.facts().num_relations
    every = torch.arange(tiny.facts().num_relations)
    assert torch.equal(model.relations(every), model.relation)


def test_tucker_refuses_tied_inverses(tiny_graph: Callable) -> None:
    with pytest.raises(ValueError, match="no tied inverse"):
        make(tiny_graph(), scorer=Spec(TuckER, relation_dim=2), inverse="tied")


@pytest.mark.parametrize("scorer", [ComplEx, RotatE])
def test_odd_dimensions_are_refused(scorer: type[Scorer], tiny_graph: Callable) -> None:
    with pytest.raises(ValueError, match="needs an even embedding_dim, not 5"):
        make(tiny_graph(), scorer=Spec(scorer), embedding_dim=5)


# -- presence of modalities ------------------------------------------------------------------------


def test_presence_of_structure_and_features(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model = make(tiny)
    assert model.modalities == ["structure", "shape", "sound"]
    trained = tiny.graph.linked() | tiny.features.tokens["word"].present()
    assert torch.equal(model.present[:, 0], trained)
    for column, modality in enumerate(tiny.features.dense.values(), 1):
        assert torch.equal(model.present[:, column], modality.present())


def test_an_entity_unseen_in_training_lacks_structure(tiny_graph: Callable) -> None:
    tiny = tiny_graph(tokens={})
    unseen = tiny.graph.num_entities - 2  # has all features and no training fact
    model = make(tiny)
    table = model.table()
    weights = table.weights[unseen].tolist()
    assert weights[0] == 0
    assert sum(weights) == pytest.approx(1)
    before = table.vectors[unseen].clone()
    with torch.no_grad():
        model.structure[unseen] += 5.0
    assert torch.equal(model.table().vectors[unseen], before)


def test_an_entity_without_any_modality_gets_the_mean(tiny_graph: Callable) -> None:
    tiny = tiny_graph(tokens={})
    model = make(tiny)
    nothing = tiny.graph.num_entities - 1
    assert not bool(model.known()[nothing])
    table = model.table()
    mean = table.vectors[: model.num_entities][tiny.graph.linked()].mean(0)
    torch.testing.assert_close(table.vectors[nothing], mean)
    assert table.weights[nothing].tolist() == [0.0, 0.0, 0.0]
    table.vectors[nothing].sum().backward()
    assert model.structure.grad is None or not bool(model.structure.grad.any())


def test_structure_alone_gives_the_mean_to_the_unseen(tiny_graph: Callable) -> None:
    tiny = tiny_graph(dense={}, tokens={})
    model = make(tiny)
    vectors = model.table().vectors
    seen = tiny.graph.linked()
    assert torch.equal(vectors[seen], model.structure[seen])
    for entity in (~seen).nonzero().flatten().tolist():
        torch.testing.assert_close(vectors[entity], model.structure[seen].mean(0))


def test_an_entity_added_without_a_fact_has_the_vector_of_its_features(
    tiny_graph: Callable,
) -> None:
    """Adding an entity changes no other, if the fusion has no statistics over entities."""
    tiny = tiny_graph(tokens={}, unseen=0)
    settings = {"within": Spec(MeanFusion), "across": Spec(MeanFusion)}
    small = make(tiny, **settings)
    old = tiny.graph.num_entities
    grown = tiny_graph(tokens={}, unseen=0)
    dense = {}
    for name, modality in tiny.features.dense.items():
        values = torch.cat([modality.values, modality.values.mean(0, keepdim=True)])
        rows = torch.cat([modality.rows, torch.tensor([old])])
        dense[name] = Modality(values, rows, old + 1)
    graph = Graph(
        Vocabulary([*tiny.graph.entities, "new"]), tiny.graph.relations, grown.graph.splits
    )
    grown = type(tiny)(graph, Features(dense))
    large = make(grown, **settings)
    shared = {k: v for k, v in small.state_dict().items() if k != "structure"}
    large.load_state_dict(shared, strict=False)
    with torch.no_grad():
        large.structure[:old] = small.structure
        # The new vectors change the scale of the inputs; give both models the same.
        for name in dense:
            getattr(large, f"values_{name}")[:-1] = getattr(small, f"values_{name}")
    first, second = small.table(), large.table()
    known = small.known()
    torch.testing.assert_close(second.vectors[:old][known], first.vectors[known])
    assert second.weights[old, 0].tolist() == 0
    features = [
        large.within[f"of_{n}"](
            large.views[f"of_{n}"](getattr(large, f"values_{n}")[-1:]),
            torch.ones(1, 4, dtype=torch.bool),
        ).vector
        for n in dense
    ]
    torch.testing.assert_close(second.vectors[old], torch.cat(features).mean(0))


@pytest.mark.parametrize("scorer", [ComplEx, DistMult, TuckER])
def test_each_relation_has_its_own_weights_of_modalities(
    scorer: type[Scorer], tiny_graph: Callable
) -> None:
    tiny = tiny_graph()
    plain = make(tiny, scorer=Spec(scorer))
    model = make(tiny, scorer=Spec(scorer), by_relation=True)
    queries, count = questions(tiny), model.num_entities
    # The initial gate is uniform.
    torch.testing.assert_close(model.score(queries), plain.score(queries))
    model.thaw()
    with torch.no_grad():
        model.gate.normal_(generator=torch.Generator().manual_seed(0))
    table = plain.table()
    stacked = [plain.structure[:count]]
    for name in plain.modalities[1:]:
        fused, rows = plain._modality(name)
        stacked.append(torch.zeros_like(stacked[0]).index_copy(0, rows, fused.vector))
    for row, (head, relation) in enumerate(zip(queries.head, queries.relation, strict=True)):
        weights = model.gate[relation].softmax(0) * len(stacked)
        seen = sum(weights[m] * table.weights[:, m, None] * stacked[m] for m in range(len(stacked)))
        query = plain.query(seen[head : head + 1], relation[None])
        naive = plain.scorer.compare(query, seen)[0]
        # Entities without any modality have the mean vector of the others.
        known = model.known()
        torch.testing.assert_close(model.score(queries)[row][known], naive[known])
    assert any(p is model.gate for p in model.table_parameters())
    assert not any(p is model.gate for p in model.dense_parameters())


def test_a_gate_by_relation_needs_products_and_modalities(tiny_graph: Callable) -> None:
    with pytest.raises(ValueError, match="adds up products, which TransE does not compute"):
        Embedding(scorer=Spec(TransE), by_relation=True)
    with pytest.raises(ValueError, match="the graph has no dense one"):
        make(tiny_graph(dense={}), by_relation=True)


def test_hiding_a_modality_changes_presence(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model = make(tiny)
    shown, hidden = model.table(), model.table(hide=("shape",))
    assert bool((hidden.weights[:, 1] == 0).all())
    has = model.present[:, 1] & model.present[:, [0, 2]].any(1)
    assert not torch.allclose(hidden.vectors[:12][has], shown.vectors[:12][has])
    assert torch.equal(hidden.vectors[12:], shown.vectors[12:])  # tokens have nothing to hide
    bare = model.table(hide=("structure", "shape", "sound"))
    assert not bool(bare.weights.any())
    assert bool(bare.vectors.isfinite().all())
    with pytest.raises(ValueError, match="no modality 'smell'; it has structure, shape, sound"):
        model.table(hide=("smell",))


def test_hiding_a_modality_of_some_leaves_the_others(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model = make(tiny)
    some = torch.zeros(12, dtype=torch.bool)
    some[::2] = True
    partly = model.table(hide={"shape": some})
    shown, hidden = model.table(), model.table(hide=("shape",))
    assert torch.equal(partly.weights[:, 1] > 0, (shown.weights[:, 1] > 0) & ~some)
    # A plain mean has no statistics over entities, so each vector depends on its own inputs.
    mean = make(tiny, within=Spec(MeanFusion), across=Spec(MeanFusion))
    partly, shown, hidden = (mean.table(hide=h) for h in ({"shape": some}, (), ("shape",)))
    known = mean.present[:, [0, 2]].any(1)
    either = torch.where(some.unsqueeze(1), hidden.vectors[:12], shown.vectors[:12])
    torch.testing.assert_close(partly.vectors[:12][known], either[known])
    with pytest.raises(ValueError, match="no modality 'smell'"):
        model.table(hide={"smell": some})


def test_a_table_of_some_entities_is_part_of_the_full_table(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model = make(
        tiny,
        within=Spec(MeanFusion),
        across=Spec(AttentionFusion, key_dim=2),
        dropout={"default": 0.3},
    )
    full = model.table(1)
    for ids in ([0, 3, 4, 11], [2], list(range(12))):
        only = torch.tensor(ids)
        part = model.table(1, only=only)
        assert part.vectors.shape == full.vectors.shape
        torch.testing.assert_close(part.vectors[only], full.vectors[only])
        torch.testing.assert_close(part.weights, full.weights[only])
        others = torch.ones(12, dtype=torch.bool)
        others[only] = False
        assert not bool(part.vectors[:12][others].any())
        assert torch.equal(part.vectors[12:], full.vectors[12:])
    with pytest.raises(ValueError, match="`only` is for a training step; give `step` as well"):
        model.table(only=torch.tensor([1]))


def test_a_modality_that_no_chosen_entity_has_is_empty(tiny_graph: Callable) -> None:
    model = make(tiny_graph())
    without = (~model.present[:, 1]).nonzero().flatten()
    assert len(without)
    table = model.table(1, only=without)
    assert table.views["shape"].shape[0] == 0
    table.vectors.square().sum().backward()
    assert bool(model.structure.grad.isfinite().all())


def test_a_hidden_modality_has_no_gradient(tiny_graph: Callable) -> None:
    model = make(tiny_graph())
    model.table(hide=("shape",)).vectors.square().sum().backward()
    assert not bool(model.views["of_shape"].weight.grad.any())
    assert bool(model.views["of_sound"].weight.grad.any())


def test_a_step_uses_the_dropout_of_that_step(tiny_graph: Callable) -> None:
    model = make(tiny_graph(), dropout={"default": 0.5}, seed=3)
    for step in (0, 1):
        kept = keep_mask(model.present, torch.full((3,), 0.5), 3, step)
        assert torch.equal(model.table(step).weights > 0, kept)
    assert not torch.equal(model.table(0).weights, model.table(1).weights)


def test_dropout_by_name(tiny_graph: Callable) -> None:
    model = make(tiny_graph(), dropout={"structure": 0.3, "shape": 0.0, "default": 0.1})
    torch.testing.assert_close(model.hide_probability, torch.tensor([0.3, 0.0, 0.1]))


@pytest.mark.parametrize(
    ("dropout", "message"),
    [
        ({"default": 0.0}, "dropout.structure must be above 0"),
        ({"structure": 0.0, "default": 0.5}, "dropout.structure must be above 0"),
        ({"smell": 0.5, "default": 0.5}, "dropout.smell: the graph has no such modality"),
        ({"default": 1.0}, r"lies in \[0, 1\)"),
    ],
)
def test_wrong_dropout_is_refused(
    dropout: dict[str, float], message: str, tiny_graph: Callable
) -> None:
    with pytest.raises(ValueError, match=message):
        make(tiny_graph(), dropout=dropout)


def test_structure_alone_needs_no_dropout(tiny_graph: Callable) -> None:
    assert make(tiny_graph(dense={}), dropout={"default": 0.0}).modalities == ["structure"]


def test_inputs_have_unit_deviation_over_all_columns(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    values = tiny.features.dense["shape"].values * torch.tensor([100.0, 1, 1, 1, 0.01]) + 7
    rows = tiny.features.dense["shape"].rows
    features = Features({"shape": Modality(values, rows, 12)})
    model = make(type(tiny)(tiny.graph, features))
    scaled = model.get_buffer("values_shape")
    torch.testing.assert_close(scaled.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    assert float(scaled.square().mean()) == pytest.approx(1, rel=1e-4)
    assert float(scaled[:, 4].std()) < 1e-3 * float(scaled[:, 0].std())  # columns keep their scale


# -- the frozen table ------------------------------------------------------------------------------


def test_frozen_keeps_the_table_until_thaw(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model = make(tiny)
    queries = questions(tiny)
    assert torch.equal(model.frozen().vectors, model.table().vectors)
    assert torch.equal(model.frozen().weights, model.table().weights)
    assert not model.frozen().vectors.requires_grad
    assert model.frozen() is model.frozen()
    before = model.score(queries)
    with torch.no_grad():
        model.structure.mul_(2)
    assert torch.equal(model.score(queries), before)
    model.thaw()
    assert not torch.equal(model.score(queries), before)
    assert torch.equal(model.frozen().vectors, model.table().vectors)


def test_score_takes_another_table(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model = make(tiny)
    queries = questions(tiny)
    hidden = model.table(hide=("sound",))
    assert not torch.allclose(model.score(queries, table=hidden), model.score(queries))


def test_the_same_seed_makes_the_same_model(tiny_graph: Callable) -> None:
    def state(seed: int) -> dict[str, Tensor]:
        return make(tiny_graph(), seed).state_dict()

    first, same, other = state(0), state(0), state(1)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["structure"], other["structure"])


def test_dense_parameters_are_all_but_the_tables(tiny_graph: Callable) -> None:
    model = make(tiny_graph(), scorer=Spec(TuckER, relation_dim=2))
    names = {id(p): name for name, p in model.named_parameters()}
    dense = {names[id(p)] for p in model.dense_parameters()}
    assert dense == set(names.values()) - {"structure", "relation"}
    assert "scorer.core" in dense


def test_a_model_in_fp64_scores_in_fp64(kind: type[Scorer], tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model = make(tiny, scorer=Spec(kind))
    single = model.score(questions(tiny)).detach()
    model.double().thaw()
    double = model.score(questions(tiny)).detach()
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-4)


def test_a_dimension_below_two_is_refused() -> None:
    with pytest.raises(ValueError, match="embedding_dim must be at least 2"):
        Embedding(embedding_dim=1)


@pytest.mark.parametrize("name", ["type", "values", "keys", "forward"])
def test_a_modality_may_have_any_name(tiny_graph: Callable, name: str) -> None:
    tiny = tiny_graph()
    modality = next(iter(tiny.features.dense.values()))
    model = EmbeddingModel(Embedding(embedding_dim=4), tiny.facts("trained"), {name: modality})
    assert model.modalities == ["structure", name]
    assert bool(model.table(0).vectors.isfinite().all())
