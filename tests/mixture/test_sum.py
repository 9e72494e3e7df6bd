"""The weights of a sum: the search on the valid split equals a ranking with each weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import mocme
from mocme.core.console import mixture_lines, rules_line
from mocme.data.graph import AnswerIndex, Graph, Queries, Vocabulary
from mocme.data.modality import Features, Pairs
from mocme.evaluation import metrics
from mocme.evaluation.ranking import rank_split
from mocme.experts.base import Expert, FitTask
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.experts.embedding.settings import TrainingSettings
from mocme.experts.rules import Rules
from mocme.experts.scores import ScoreExpert
from mocme.mixture.sum import DEFAULT_DENSE, DEFAULT_SPARSE, Sum, SumSettings
from mocme.mixture.weight_search import (
    DENSE_STRENGTHS,
    SHARPNESSES,
    STRENGTHS,
    Search,
    Weight,
    search,
)
from mocme.runs.run import Run
from table_experts import DenseTable, SparseTable, random_graph

ENTITIES = 40


def graph(seed: int = 0) -> Graph:
    """Facts of which a third follow from a rule: r0, then r1 implies r2."""
    generator = torch.Generator().manual_seed(seed)
    facts = torch.randint(ENTITIES, (160, 3), generator=generator)
    facts[:, 1] %= 2
    first, second = facts[facts[:, 1] == 0], facts[facts[:, 1] == 1]
    joined = [(int(h), 2, int(t)) for h, _, x in first for y, _, t in second if int(x) == int(y)]
    both = torch.unique(torch.cat([facts, torch.tensor(joined)]), dim=0)
    both = both[both[:, 0] != both[:, 2]]
    both = both[torch.randperm(len(both), generator=generator)]
    cut = len(both) * 4 // 5
    names = Vocabulary([f"e{n}" for n in range(ENTITIES)])
    relations = Vocabulary(["r0", "r1", "r2"], "relation")
    return Graph(names, relations, {"train": both[:cut], "valid": both[cut:]}, name="woven")


def experiment(mixture: dict[str, Any] | None = None, **rules: object) -> mocme.Experiment:
    """An embedding and rules."""
    changes: dict[str, Any] = {
        "experts.embedding.embedding_dim": 8,
        "experts.embedding.training.epochs": 2,
        "experts.embedding.training.precision": "float32",
        "experts.rules": {"support": 2, "confidence": 0.01, **rules},
    }
    if mixture is not None:
        changes["mixture"] = mixture
    return mocme.Experiment.load("structure").changed(changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return mocme.train(graph(), experiment(), out=tmp_path_factory.mktemp("runs") / "run")


def task(name: str, data: Graph, features: Features | None = None) -> FitTask:
    return FitTask(name, data, features or Features(), 0, torch.device("cpu"), 0.5)


def embedding(data: Graph, name: str = "embedding", seed: int = 0) -> EmbeddingExpert:
    training = TrainingSettings(epochs=2, batch_size=64, precision="float32")
    settings = Embedding(embedding_dim=8, training=training, dropout={}, seed=seed)
    return settings.fit(task(name, data))[0]


def mrr(mixture: Sum, data: Graph) -> float:
    return metrics.rank_metrics(rank_split(mixture, data, "valid", 0.5).realistic)["mrr"]


def check_against_rankings(found: Search, part: Sum, expert: Expert, data: Graph) -> None:
    """The search's MRR of every weight is that of a ranking with this weight."""
    assert found.without == pytest.approx(mrr(part, data), abs=1e-9)
    experts = [*part.experts, expert]
    for weight, value in found.tried:
        mixture = Sum(experts, ENTITIES, {**part.weights, expert.name: weight})
        assert value == pytest.approx(mrr(mixture, data), abs=1e-9)


# -- the search of a sparse expert's weight --------------------------------------------------------


def test_every_weight_gives_the_mrr_of_a_ranking(run: Run) -> None:
    contents = run.contents("cpu")
    data, rules = contents.graph, contents.mixture.expert("rules")
    part = Sum([contents.mixture.expert("embedding")], ENTITIES, {"embedding": Weight(1.0)})
    found = search(part, rules, data, 0.5)
    assert [weight for weight, _ in found.tried] == [
        *(Weight(strength, sharpness) for strength in STRENGTHS for sharpness in SHARPNESSES),
        Weight(0.0, SHARPNESSES[0]),
    ]
    assert found.tried[-1][1] == pytest.approx(found.without, abs=1e-9)
    check_against_rankings(found, part, rules, data)


def test_ties_count_half_as_in_a_ranking() -> None:
    data = graph(1)
    expert = embedding(data)
    with torch.no_grad():  # every score is 0, and evidence ties many
        expert.model.structure.zero_()
    expert.model.thaw()
    assert not bool(expert.score(Queries(torch.arange(3), torch.arange(3))).any())
    rules, _ = Rules(support=2).fit(task("rules", data))
    part = Sum([expert], ENTITIES, {"embedding": Weight(1.0)})
    found = search(part, rules, data, 0.5)
    experts = [expert, rules]
    for weight, value in ((Weight(0.0, 1.0), found.without), *found.tried[:3]):
        mixture = Sum(experts, ENTITIES, {"embedding": Weight(1.0), "rules": weight})
        assert value == pytest.approx(mrr(mixture, data), abs=1e-9)


def test_a_search_tries_given_numbers_alone(run: Run) -> None:
    contents = run.contents("cpu")
    data, rules = contents.graph, contents.mixture.expert("rules")
    part = Sum([contents.mixture.expert("embedding")], ENTITIES, {"embedding": Weight(1.0)})
    found = search(part, rules, data, 0.5, strength=0.7)
    assert [weight for weight, _ in found.tried] == [Weight(0.7, c) for c in SHARPNESSES]
    check_against_rankings(found, part, rules, data)
    found = search(part, rules, data, 0.5, sharpness=5.0)
    assert [weight for weight, _ in found.tried] == [Weight(b, 5.0) for b in (*STRENGTHS, 0.0)]
    check_against_rankings(found, part, rules, data)


def test_rules_that_only_harm_get_no_weight() -> None:
    """A sum is never worse on the valid split than without a sparse expert."""
    data = random_graph(facts=150)
    index = data.answers("valid")
    shape = (2 * data.num_relations * data.num_entities, data.num_entities)
    right, wrong = torch.zeros(shape), torch.full(shape, torch.nan)
    rows = index.queries.relation * data.num_entities + index.queries.head
    for position in range(len(index)):
        answers = index.rows(torch.tensor([position]))[1]
        right[rows[position], answers] = 1.0
        others = torch.ones(data.num_entities, dtype=torch.bool)
        others[answers] = False
        wrong[rows[position], others] = 50.0
    experts = [DenseTable("right", right), SparseTable("wrong", wrong)]
    mixture, record = SumSettings().fit(experts, data, 0.5)
    assert mixture.weights["wrong"].strength == 0.0
    ranks = rank_split(mixture, data, "valid", 0.5)
    alone = rank_split(
        Sum(experts[:1], data.num_entities, {"right": Weight(1.0)}), data, "valid", 0.5
    )
    assert torch.equal(ranks.realistic, alone.realistic)
    assert record["experts"]["wrong"]["without"] == pytest.approx(1.0)


@pytest.mark.parametrize("memory", [1e-9, 1e-4])
def test_a_search_does_not_depend_on_the_batch(memory: float, run: Run) -> None:
    contents = run.contents("cpu")
    data, rules = contents.graph, contents.mixture.expert("rules")
    part = Sum([contents.mixture.expert("embedding")], ENTITIES, {"embedding": Weight(1.0)})
    found, small = search(part, rules, data, 0.5), search(part, rules, data, memory)
    assert small.without == pytest.approx(found.without, abs=1e-12)
    for (weight, value), (other, again) in zip(found.tried, small.tried, strict=True):
        assert weight == other
        assert value == pytest.approx(again, abs=1e-12)


# -- the search of a dense expert's strength -------------------------------------------------------


def naive_mrr(
    parts: Sequence[tuple[float, Expert]], data: Graph, sparse: Sequence[tuple[Weight, Expert]] = ()
) -> float:
    """MRR of the valid split, one answer and one competitor at a time."""
    index, known = AnswerIndex(data.directed("valid")), data.answers("train", "valid")
    scores = torch.zeros(len(index), ENTITIES)
    with torch.no_grad():
        for strength, expert in parts:
            scores = scores + strength * expert.score(index.queries)
    for weight, expert in sparse:
        row, column, odds = expert.odds(index.queries)
        scores[row, column] += weight.strength * torch.log1p(weight.sharpness * odds)
    reciprocals = []
    for number, values in enumerate(scores.tolist()):
        hidden = set(known.lookup(index.queries[number : number + 1])[1].tolist())
        competing = [values[n] for n in range(ENTITIES) if n not in hidden]
        for answer in index.answers[index.offsets[number] : index.offsets[number + 1]].tolist():
            above = sum(value > values[answer] for value in competing)
            ties = sum(value == values[answer] for value in competing)
            reciprocals.append(1 / (1 + above + ties / 2))
    return sum(reciprocals) / len(reciprocals)


def test_every_strength_gives_the_mrr_of_a_naive_ranking() -> None:
    data = graph(2)
    first, second = embedding(data), embedding(data, "second", seed=5)
    part = Sum([first], ENTITIES, {"embedding": Weight(1.0)})
    found = search(part, second, data, 0.5)
    assert [weight for weight, _ in found.tried] == [Weight(s) for s in DENSE_STRENGTHS]
    assert found.without == pytest.approx(naive_mrr([(1.0, first)], data), abs=1e-9)
    for weight, value in found.tried:
        naive = naive_mrr([(1.0, first), (weight.strength, second)], data)
        assert value == pytest.approx(naive, abs=1e-9)
    check_against_rankings(found, part, second, data)
    assert len({value for _, value in found.tried}) > 3
    assert found.tried[0] == (Weight(0.0), found.without)


def test_strengths_beside_rules_give_the_mrr_of_a_naive_ranking() -> None:
    data = graph(3)
    first, second = embedding(data), embedding(data, "second", seed=5)
    rules, _ = Rules(support=2).fit(task("rules", data))
    sparse = Weight(1.5, 30.0)
    part = Sum([first, rules], ENTITIES, {"embedding": Weight(1.0), "rules": sparse})
    found = search(part, second, data, 0.5)
    for weight, value in found.tried:
        parts = [(1.0, first), (weight.strength, second)]
        assert value == pytest.approx(naive_mrr(parts, data, [(sparse, rules)]), abs=1e-9)


def test_ties_of_a_dense_expert_count_half() -> None:
    """Whole numbers as scores, so that many are equal, before and after they are added."""
    data = graph(4)

    def coarse(step: int) -> Callable:
        def scores(heads: torch.Tensor, relations: torch.Tensor) -> torch.Tensor:
            cells = heads[:, None] * 7 + relations[:, None] * 3 + torch.arange(ENTITIES) * step
            return (cells % 5).float()

        return scores

    first, second = (ScoreExpert(name, coarse(n), ENTITIES) for name, n in (("a", 1), ("b", 3)))
    part = Sum([first], ENTITIES, {"a": Weight(1.0)})
    found = search(part, second, data, 0.5)
    for weight, value in found.tried:
        naive = naive_mrr([(1.0, first), (weight.strength, second)], data)
        assert value == pytest.approx(naive, abs=1e-9)


def test_a_strength_of_zero_is_chosen_for_an_expert_that_only_harms() -> None:
    """The second expert ranks the answers last, so no strength above 0 helps."""
    data = graph(5)
    known = data.answers("train", "valid")

    def opposed(heads: torch.Tensor, relations: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(len(heads), ENTITIES)
        scores[known.lookup(Queries(heads, relations))] = -100.0
        return scores

    first, second = embedding(data), ScoreExpert("opposed", opposed, ENTITIES)
    mixture, record = SumSettings().fit([first, second], data, 0.5)
    assert mixture.weights["opposed"] == Weight(0.0)
    assert record["experts"]["opposed"]["tried"][0] == [
        0.0,
        record["experts"]["opposed"]["without"],
    ]
    queries = Queries(torch.arange(12), torch.arange(12) % 6)
    with torch.no_grad():
        assert torch.equal(mixture.score(queries), first.score(queries))


# -- a sum in a run --------------------------------------------------------------------------------


def test_the_run_records_what_was_chosen_and_by_what(run: Run) -> None:
    record = run.folder.read_json("mixture.json")
    rules, weight = record["experts"]["rules"], record["weights"]["rules"]
    assert record["kind"] == "Sum"
    assert rules["chosen_by"] == "valid"
    best = max(row[2] for row in rules["tried"])
    assert [weight["strength"], weight["sharpness"], best] in rules["tried"]
    assert record["weights"]["embedding"]["strength"] == 1.0
    assert run.evaluate("valid")["mrr"] == pytest.approx(best, abs=1e-9)
    (line,) = mixture_lines(record)
    assert f"chosen on valid: MRR {best:.4f} ({rules['without']:.4f} without)" in line


def test_a_planted_rule_helps(run: Run) -> None:
    record = run.folder.read_json("mixture.json")["experts"]["rules"]
    assert max(row[2] for row in record["tried"]) > record["without"] + 0.1


def test_weights_are_chosen_one_after_the_other() -> None:
    """Each expert is weighed beside those before it; an earlier weight stays."""
    data = graph(6)
    experts = [
        embedding(data),
        Rules(support=2).fit(task("rules", data))[0],
        embedding(data, "second", seed=5),
    ]
    mixture, record = SumSettings().fit(experts, data, 0.5)
    two, earlier = SumSettings().fit(experts[:2], data, 0.5)
    assert mixture.weights["rules"] == two.weights["rules"]
    assert record["experts"]["rules"] == earlier["experts"]["rules"]
    found = search(two, experts[2], data, 0.5)
    assert mixture.weights["second"] == found.best
    assert record["experts"]["second"]["without"] == pytest.approx(mrr(two, data), abs=1e-9)
    assert mrr(mixture, data) == pytest.approx(max(v for _, v in found.tried), abs=1e-9)


def test_scores_of_chosen_candidates_are_those_of_all_entities(run: Run) -> None:
    mixture = run.contents("cpu").mixture
    queries = Queries(torch.arange(12), torch.arange(12) % 6)
    scores = mixture.score(queries)
    shared = torch.tensor([3, 1, 39])
    torch.testing.assert_close(mixture.score(queries, shared), scores[:, shared])
    own = torch.randint(ENTITIES, (12, 5), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixture.score(queries, own), scores.gather(1, own))
    assert not torch.equal(mixture.expert("embedding").score(queries), scores)


def test_given_weights_are_kept_without_a_search(tmp_path: Path) -> None:
    given = {"strength": {"rules": 0.5}, "sharpness": {"rules": 7.0}}
    run = mocme.train(graph(), experiment(given), out=tmp_path / "run")
    record = run.folder.read_json("mixture.json")
    weight, rules = record["weights"]["rules"], record["experts"]["rules"]
    assert (weight["strength"], weight["sharpness"]) == (0.5, 7.0)
    assert rules["chosen_by"] == "settings"
    assert "tried" not in rules


def test_without_a_valid_split_the_run_says_that_nothing_was_chosen(tmp_path: Path) -> None:
    data = graph()
    alone = Graph(data.entities, data.relations, {"train": data.facts("train")}, name="alone")
    run = mocme.train(alone, experiment(), out=tmp_path / "run")
    record = run.folder.read_json("mixture.json")
    weight = record["weights"]["rules"]
    assert record["experts"]["rules"]["chosen_by"].startswith("nothing")
    assert (weight["strength"], weight["sharpness"]) == DEFAULT_SPARSE


@pytest.mark.parametrize("valid", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_a_weight_that_is_given_in_part_keeps_that_part(valid: bool, alone: bool) -> None:
    data = graph()
    if not valid:
        data = Graph(data.entities, data.relations, {"train": data.facts("train")}, name="alone")
    rules, _ = Rules(support=2).fit(task("rules", data))
    experts = [rules] if alone else [embedding(data), rules]
    mixture, _ = SumSettings(strength={"rules": 0.7}).fit(experts, data, 0.5)
    assert mixture.weights["rules"].strength == 0.7
    if alone or not valid:
        assert mixture.weights["rules"].sharpness == DEFAULT_SPARSE.sharpness
    mixture, _ = SumSettings(sharpness={"rules": 7.0}).fit(experts, data, 0.5)
    assert mixture.weights["rules"].sharpness == 7.0
    if alone or not valid:
        assert mixture.weights["rules"].strength == DEFAULT_SPARSE.strength


def test_the_first_dense_expert_has_strength_one_unless_it_is_given() -> None:
    data = graph()
    experts = [embedding(data), embedding(data, "second", seed=5)]
    mixture, record = SumSettings().fit(experts, data, 0.5)
    assert mixture.weights["embedding"] == DEFAULT_DENSE == Weight(1.0)
    assert list(record["experts"]) == ["second"]
    given = SumSettings(strength={"embedding": 0.25, "second": 2.0})
    mixture, record = given.fit(experts, data, 0.5)
    assert mixture.weights == {"embedding": Weight(0.25), "second": Weight(2.0)}
    assert record["experts"]["second"] == {"chosen_by": "settings"}
    queries = Queries(torch.arange(12), torch.arange(12) % 6)
    with torch.no_grad():
        expected = 0.25 * experts[0].score(queries) + 2.0 * experts[1].score(queries)
        torch.testing.assert_close(mixture.score(queries), expected)


@pytest.mark.parametrize("setting", ["strength", "sharpness"])
def test_weights_of_unknown_experts_are_errors(setting: str) -> None:
    """They are refused when the experiment is read, and again by a fit."""
    message = f"mixture.{setting}.rulez: the experiment has no such expert; it has embedding, rules"
    with pytest.raises(mocme.ConfigError, match=message):
        experiment({setting: {"rulez": 1.0}})
    data = graph()
    rules, _ = Rules(support=2).fit(task("rules", data))
    with pytest.raises(ValueError, match=f"mixture.{setting}.rulez"):
        SumSettings(**{setting: {"rulez": 1.0}}).fit([rules], data, 0.5)


def test_a_sharpness_of_a_dense_expert_is_an_error() -> None:
    """It is refused when the experiment is read, and again by a fit."""
    message = r"mixture.sharpness.embedding: this expert is dense .* mixture.strength.embedding"
    with pytest.raises(mocme.ConfigError, match=message):
        experiment({"sharpness": {"embedding": 3.0}})
    data = graph()
    with pytest.raises(ValueError, match=message):
        SumSettings(sharpness={"embedding": 3.0}).fit([embedding(data)], data, 0.5)


@pytest.mark.parametrize("setting", ["strength", "sharpness"])
@pytest.mark.parametrize("value", [-0.1, float("inf")])
def test_weights_out_of_range_are_errors(setting: str, value: float) -> None:
    message = f"mixture: {setting}.rules must be a finite number, 0 or above"
    with pytest.raises(mocme.ConfigError, match=message):
        experiment({setting: {"rules": value}})


def test_rules_do_not_change_the_embedding(run: Run, tmp_path: Path) -> None:
    plain = experiment().table()
    plain["experts"] = [expert for expert in plain["experts"] if expert["kind"] != "rules"]
    other = mocme.train(graph(), mocme.Experiment.of("plain", plain), out=tmp_path / "run")
    with_rules = run.folder.read_tensors("experts/embedding.safetensors")
    for name, tensor in other.folder.read_tensors("experts/embedding.safetensors").items():
        assert torch.equal(tensor, with_rules[name])
    assert not other.folder.has("experts/rules.safetensors")


def test_the_predictor_gives_reasons(run: Run) -> None:
    predictor = run.predictor()
    data = run.graph()
    reasons = []
    for head, relation, tail in data.facts("train")[:60].tolist():
        names = data.entities[head], data.relations[relation], data.entities[tail]
        reasons += predictor.reasons(*names)
    assert any(reason.name == "r0, then r1" for reason in reasons)
    with pytest.raises(ValueError, match="nobody"):
        predictor.reasons("nobody", "r0", "e1")


def test_a_run_without_any_rule_says_so(tmp_path: Path) -> None:
    run = mocme.train(graph(), experiment(support=1000), out=tmp_path / "run")
    fit = run.folder.about["fits"]["rules"]
    assert fit["rules"] == 0
    assert "none was found" in rules_line("rules", fit)
    record = run.folder.read_json("mixture.json")["experts"]["rules"]
    assert {row[2] for row in record["tried"]} == {record["without"]}
    assert run.predictor().reasons("e1", "r0", "e2") == []


def test_pairs_without_rules_are_mentioned_in_the_notes(tmp_path: Path) -> None:
    names = [f"e{n}\tThing {n}\n" for n in range(12)]
    (tmp_path / "names.tsv").write_text("".join(names))
    (tmp_path / "texts.tsv").write_text("".join(f"e{n}\tnear Thing {n + 1}\n" for n in range(9)))
    (tmp_path / "train.tsv").write_text("".join(f"e{n}\tr\te{n + 1}\n" for n in range(11)))
    table = {"kind": "Mentions", "names": ["names.tsv"], "texts": ["texts.tsv"]}
    small = {
        "experts.embedding.embedding_dim": 4,
        "experts.embedding.training.epochs": 1,
        "experts.embedding.training.precision": "float32",
    }
    plain = mocme.Experiment.load("vectors", {**small, "modalities.named": table})
    notes = mocme.train(tmp_path, plain, out=tmp_path / "a").folder.about["notes"]
    assert any("named" in note and "experts.rules" in note for note in notes)
    with_rules = plain.changed({"experts.rules": {"support": 2}})
    notes = mocme.train(tmp_path, with_rules, out=tmp_path / "b").folder.about["notes"]
    assert not any("experts.rules" in note for note in notes)


def test_rules_lead_over_pairs() -> None:
    data = graph()
    facts = torch.cat([data.facts("train"), data.facts("valid")])
    facts = facts[facts[:, 1] == 0]
    order = torch.argsort(facts[:, 0] * ENTITIES + facts[:, 2])
    head, tail = facts[order, 0].contiguous(), facts[order, 2].contiguous()
    pairs = Pairs(("names",), torch.zeros_like(head), head, tail, ENTITIES)
    features = Features.of({"text": pairs})
    rules, _ = Rules(support=2).fit(task("rules", data, features))
    assert rules.reads == ("structure", "text")
    names = {reason.name for reason in rules.explain(int(head[0]), 0, int(tail[0]))}
    assert any("text: names" in name for name in names)
    _, record = SumSettings().fit([embedding(data), rules], data, 0.5)
    assert record["experts"]["rules"]["chosen_by"] == "valid"
