"""The weights of evidence on validation: equal to ranking with each of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mocme
from mocme.core.console import patterns_line
from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Features, Pairs
from mocme.evaluation import metrics
from mocme.evaluation.ranking import rank_split
from mocme.experts.rules.adjacency import adjacency_of
from mocme.experts.rules.rule_model import RuleModel, RuleSettings
from mocme.mixture import fit as weighing
from mocme.runs.run import Run, make_model

ENTITIES = 40


def graph(seed: int = 0) -> Graph:
    """Facts of which a third follow from a pattern: r2 holds where r0 leads and r1 goes on."""
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


def experiment(**settings: object) -> mocme.Experiment:
    changes = {
        "experts.embedding.embedding_dim": 8,
        "experts.embedding.training.epochs": 2,
        "experts.embedding.training.precision": "float32",
    }
    patterns = {"support": 2, "confidence": 0.01, **settings}
    return mocme.Experiment.load("structure").changed({**changes, "experts.rules": patterns})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return mocme.train(graph(), experiment(), out=tmp_path_factory.mktemp("runs") / "run")


def test_every_weight_gives_the_mrr_of_a_ranking(run: Run) -> None:
    data = run.graph()
    model = run.model(data, Features(), torch.device("cpu"))
    evidence = model.evidence
    assert evidence is not None
    found = weighing.weigh(model, evidence, data, RuleSettings(), 0.5)
    model.evidence = None
    plain = metrics.rank_metrics(rank_split(model, data, "valid", 0.5).realistic)["mrr"]
    assert found.without == pytest.approx(plain, abs=1e-9)
    for strength, sharpness, mrr in found.tried:
        model.evidence = evidence.weighed(strength, sharpness)
        ranked = metrics.rank_metrics(rank_split(model, data, "valid", 0.5).realistic)["mrr"]
        assert mrr == pytest.approx(ranked, abs=1e-9)


def test_ties_count_half_as_in_a_ranking() -> None:
    data = graph(1)
    model = make_model(experiment(), data, Features())[0]
    with torch.no_grad():  # every score is 0, and evidence ties many
        model.structure.zero_()
    model.eval()
    evidence = RuleModel.fit(adjacency_of(data, Features()), RuleSettings(support=2))
    found = weighing.weigh(model, evidence, data, RuleSettings(), 0.5)
    for strength, sharpness, mrr in ((0.0, 1.0, found.without), *found.tried[:3]):
        model.evidence = evidence.weighed(strength, sharpness)
        ranked = metrics.rank_metrics(rank_split(model, data, "valid", 0.5).realistic)["mrr"]
        assert mrr == pytest.approx(ranked, abs=1e-9)


def test_run_says_what_was_chosen_and_by_what(run: Run) -> None:
    record = run.folder.read_json("mixture.json")
    assert record["chosen_by"] == "valid"
    best = max(row[2] for row in record["tried"])
    assert [record["strength"], record["sharpness"], best] in record["tried"]
    assert run.evaluate("valid")["mrr"] == pytest.approx(best, abs=1e-9)


def test_planted_pattern_helps(run: Run) -> None:
    record = run.folder.read_json("mixture.json")
    assert max(row[2] for row in record["tried"]) > record["without"] + 0.1


def test_scores_of_chosen_candidates_are_those_of_everyone(run: Run) -> None:
    data = run.graph()
    model = run.model(data, Features(), torch.device("cpu"))
    queries = mocme.data.graph.Queries(torch.arange(12), torch.arange(12) % 6)
    everyone = model.score(queries)
    shared = torch.tensor([3, 1, 39])
    torch.testing.assert_close(model.score(queries, shared), everyone[:, shared])
    own = torch.randint(ENTITIES, (12, 5), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.score(queries, own), everyone.gather(1, own))
    assert not torch.equal(model.embedding_score(queries), everyone)


def test_given_weights_are_kept_and_valid_not_looked_at(tmp_path: Path) -> None:
    run = mocme.train(graph(), experiment(strength=0.5, sharpness=7.0), out=tmp_path / "run")
    record = run.folder.read_json("mixture.json")
    assert (record["strength"], record["sharpness"]) == (0.5, 7.0)
    assert record["chosen_by"] == "settings"
    assert "tried" not in record


def test_without_a_valid_split_the_run_says_that_nothing_was_chosen(tmp_path: Path) -> None:
    data = graph()
    alone = Graph(data.entities, data.relations, {"train": data.facts("train")}, name="alone")
    run = mocme.train(alone, experiment(), out=tmp_path / "run")
    record = run.folder.read_json("mixture.json")
    assert record["chosen_by"].startswith("nothing")
    assert (record["strength"], record["sharpness"]) == weighing.UNCHOSEN


def test_patterns_leave_the_embedding_as_it_is(run: Run, tmp_path: Path) -> None:
    plain = experiment().table()
    del plain["model"]["patterns"]
    other = mocme.train(graph(), mocme.Experiment.of("plain", plain), out=tmp_path / "run")
    with_patterns = run.folder.read_tensors("experts/embedding.safetensors")
    for name, tensor in other.folder.read_tensors("experts/embedding.safetensors").items():
        assert torch.equal(tensor, with_patterns[name])
    assert not other.folder.has("experts/rules.safetensors")


def test_predictor_says_why(run: Run) -> None:
    predictor = run.predictor()
    data = run.graph()
    seen = []
    for head, relation, tail in data.facts("train")[:60].tolist():
        names = data.entities[head], data.relations[relation], data.entities[tail]
        seen += predictor.reasons(*names)
    assert any(reason.name == "r0, then r1" for reason in seen)
    with pytest.raises(ValueError, match="nobody"):
        predictor.reasons("nobody", "r0", "e1")


def test_no_pattern_at_all_is_said(tmp_path: Path) -> None:
    run = mocme.train(graph(), experiment(support=1000), out=tmp_path / "run")
    record = run.folder.read_json("mixture.json")
    assert record["patterns"] == 0
    assert "none was found" in patterns_line(record)
    assert run.predictor().reasons("e1", "r0", "e2") == []


def test_pairs_without_patterns_are_not_passed_over_in_silence(tmp_path: Path) -> None:
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
    asked = plain.changed({"experts.rules": {"support": 2}})
    notes = mocme.train(tmp_path, asked, out=tmp_path / "b").folder.about["notes"]
    assert not any("experts.rules" in note for note in notes)


def test_pairs_join_the_patterns(tmp_path: Path) -> None:
    data = graph()
    asked = torch.cat([data.facts("train"), data.facts("valid")])
    asked = asked[asked[:, 1] == 0]
    order = torch.argsort(asked[:, 0] * ENTITIES + asked[:, 2])
    head, tail = asked[order, 0].contiguous(), asked[order, 2].contiguous()
    pairs = Pairs(("names",), torch.zeros_like(head), head, tail, ENTITIES)
    features = Features.of({"text": pairs})
    model = make_model(experiment(), data, features)[0]
    evidence, record = weighing.fit(model, data, features, RuleSettings(support=2), 0.5)
    names = {reason.name for reason in evidence.reasons(int(head[0]), 0, int(tail[0]))}
    assert any("text: names" in name for name in names)
    assert record["chosen_by"] == "valid"
