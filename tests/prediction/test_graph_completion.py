"""Mining: exactly the best facts of a brute-force search, stopped and resumed, written whole."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import mocme
from learned_runs import TABLE, trees_taken
from mocme.cli import main
from mocme.core.deadline import Stopped
from mocme.data.graph import Graph, Vocabulary
from mocme.mixture.learned import Learned
from mocme.prediction.export import COLUMNS, write_facts
from mocme.prediction.graph_completion import CompletedFacts, GraphCompletion
from mocme.prediction.predictor import Predictor
from mocme.prediction.relation_prior import RelationPrior
from table_experts import random_graph

SETTINGS = {
    "experts.embedding.embedding_dim": 8,
    "experts.embedding.init_std": 0.5,
    "experts.embedding.training.epochs": 4,
    "experts.embedding.training.batch_size": 64,
    "experts.embedding.training.precision": "float32",
}


@pytest.fixture(scope="module")
def run(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    tiny = tiny_graph(entities=25, relations=3, facts=120, valid=40)
    graph = mocme.load(tiny_folder(tmp_path_factory.mktemp("data"), tiny))
    out = tmp_path_factory.mktemp("runs") / "run"
    return mocme.train(graph, "mocme", out=out, settings=SETTINGS, device="cpu").path


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return mocme.open(run, device="cpu")


@pytest.fixture(scope="module")
def learned_predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Of a run with trees; its scores have two ranges, and no zero common to all questions."""
    out = tmp_path_factory.mktemp("learned") / "run"
    graph = random_graph(entities=16, relations=2, facts=120)
    with trees_taken():
        run = mocme.train(
            graph, TABLE, out=out, device="cpu", settings={"mixture.fitted_on": "valid"}
        )
    run.calibrate("cpu")
    predictor = run.predictor("cpu")
    assert isinstance(predictor.mixture, Learned)
    return predictor


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def brute_force(predictor: Predictor) -> list[tuple[float, tuple[int, int, int]]]:
    """Every fact that is not known, with its chance, one question at a time."""
    graph, applying = predictor.graph, RelationPrior(predictor.graph)
    size, number = graph.num_entities, graph.num_relations
    terms = {}
    for directed in range(2 * number):
        for entity in range(size):
            _, chances = predictor.scorer.unknown([entity], [directed])
            applies = float(applying.of(entity)[directed])
            terms[directed, entity] = (chances[0] * applies).tolist()
    known = {tuple(fact) for fact in graph.facts().tolist()}
    found = []
    for relation in range(number):
        for head in range(size):
            for tail in range(size):
                if (head, relation, tail) not in known:
                    forward = terms[relation, head][tail]
                    back = terms[relation + number, tail][head]
                    found.append(((forward + back) / 2, (head, relation, tail)))
    return sorted(found, key=lambda row: (-row[0], row[1]))


def mined(miner: GraphCompletion) -> list[tuple[float, tuple[int, ...]]]:
    while miner.done < len(miner.relations):
        miner.step()
    pairs = zip(miner.facts.chance.tolist(), miner.facts.facts.tolist(), strict=True)
    return [(chance, tuple(fact)) for chance, fact in pairs]


@pytest.mark.parametrize(
    ("limit", "least"), [(10_000, 0.001), (7, 0.001), (10_000, 0.03), (1, 0.02)]
)
def test_mined_facts_are_the_best_of_all(predictor: Predictor, limit: int, least: float) -> None:
    everything = [row for row in brute_force(predictor) if row[0] >= least][:limit]
    found = mined(GraphCompletion(predictor, limit=limit, least=least))
    assert len(found) == len(everything) > 0
    # A batch of questions is scored with other roundings in float32 than one alone.
    assert [c for c, _ in found] == pytest.approx([c for c, _ in everything], rel=1e-4)
    # Facts of equal chance may stand in either order where sums differ in the last bit.
    certain = {fact for chance, fact in everything if chance > everything[-1][0] * (1 + 1e-4)}
    assert certain <= {fact for _, fact in found}


@pytest.mark.parametrize("limit", [10_000, 7, 1])
def test_mined_facts_are_the_best_of_all_with_a_learned_mixture(
    learned_predictor: Predictor, limit: int
) -> None:
    everything = brute_force(learned_predictor)
    some = [row for row in everything if row[0] >= 0.001][:limit]
    found = mined(GraphCompletion(learned_predictor, limit=limit, least=0.001))
    assert len(found) == len(some) > 0
    assert [c for c, _ in found] == pytest.approx([c for c, _ in some], rel=1e-4)
    certain = {fact for chance, fact in some if chance > some[-1][0] * (1 + 1e-4)}
    assert certain <= {fact for _, fact in found}


def test_numbers_are_those_of_a_check(predictor: Predictor) -> None:
    miner = GraphCompletion(predictor, limit=20, least=0.001)
    mined(miner)
    graph = predictor.graph
    facts = [
        (graph.entities[h], graph.relations[r], graph.entities[t])
        for h, r, t in miner.facts.facts.tolist()
    ]
    checked = predictor.score_facts(facts)
    assert not any(item.known for item in checked)
    assert miner.facts.probability.tolist() == pytest.approx(
        [p.probability for p in checked], rel=1e-4
    )
    assert miner.facts.score.tolist() == pytest.approx([p.score for p in checked], abs=1e-4)


def test_some_relations_only(predictor: Predictor) -> None:
    found = mined(GraphCompletion(predictor, relations=[2], limit=50, least=0.001))
    assert {fact[1] for _, fact in found} == {2}
    everything = [row for row in brute_force(predictor) if row[1][1] == 2 and row[0] >= 0.001]
    assert [c for c, _ in found] == pytest.approx([c for c, _ in everything[:50]], rel=1e-4)


def test_blocks_change_nothing(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mined(GraphCompletion(predictor, limit=50, least=0.001))
    monkeypatch.setattr("mocme.prediction.answer_scorer.CELLS", 60)
    assert predictor.scorer.block() == 2
    parts = mined(GraphCompletion(predictor, limit=50, least=0.001))
    assert [c for c, _ in parts] == pytest.approx([c for c, _ in whole], rel=1e-4)


def test_a_higher_bar_asks_fewer_questions(predictor: Predictor) -> None:
    low, high = GraphCompletion(predictor, least=0.001), GraphCompletion(predictor, least=0.3)
    assert sum(map(high.questions, high.relations)) < sum(map(low.questions, low.relations))
    impossible = GraphCompletion(predictor, least=1.0)
    assert sum(map(impossible.questions, impossible.relations)) == 0
    assert mined(impossible) == []


def test_wrong_limits_are_refused(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match=r"between 0\.001 and 1, not 0\.0"):
        GraphCompletion(predictor, least=0.0)
    with pytest.raises(ValueError, match="limit must be 1 or more"):
        GraphCompletion(predictor, limit=0)
    with pytest.raises(ValueError, match="this run has none"):
        GraphCompletion(Predictor(predictor.mixture, predictor.graph))


def test_what_was_mined_is_kept_and_gone_on_with(
    run: Path, predictor: Predictor, tmp_path: Path
) -> None:
    from mocme.cli.complete import _State

    out = tmp_path / "new.tsv"
    miner = GraphCompletion(predictor, limit=30, least=0.001)
    state = _State(out, miner, run)
    miner.step()
    state.keep()
    again = GraphCompletion(predictor, limit=30, least=0.001)
    _State(out, again, run).resume()
    assert again.done == 1
    whole = GraphCompletion(predictor, limit=30, least=0.001)
    assert mined(again) == mined(whole)
    other = GraphCompletion(predictor, limit=31, least=0.001)
    _State(out, other, run).resume()
    assert other.done == 0
    state.path.write_bytes(state.path.read_bytes()[:40])
    cut = GraphCompletion(predictor, limit=30, least=0.001)
    _State(out, cut, run).resume()
    assert cut.done == 0


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".parquet", ".csv.gz"])
def test_files_hold_the_mined_facts(run: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"new{ending}"
    done = call("complete", run, "-o", out, "--min-probability", 0.01, "--limit", 12, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["facts"] == 12
    rows = read(out)
    assert len(rows) == 12
    assert list(rows[0]) == list(COLUMNS)
    chances = [float(row["chance"]) for row in rows]
    assert chances == sorted(chances, reverse=True)
    assert not list(tmp_path.glob(".*"))
    refused = call("complete", run, "-o", out)
    assert "exists already" in refused.stderr
    assert call("complete", run, "-o", out, "--force", "--min-probability", 0.01).exit_code == 0


def read(path: Path) -> list[dict[str, str]]:
    import gzip

    if path.suffix == ".parquet":
        from pyarrow import parquet

        return [{k: str(v) for k, v in r.items()} for r in parquet.read_table(path).to_pylist()]
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            return [{k: str(v) for k, v in json.loads(line).items()} for line in file]
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("ending", [".nt", ".cypher"])
def test_formats_without_columns_hold_the_facts(run: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"new{ending}"
    assert call("complete", run, "-o", out, "--min-probability", 0.01, "--limit", 5).exit_code == 0
    text = out.read_text()
    assert text.count("\n") >= 5
    assert "chance" not in text


def hostile() -> tuple[CompletedFacts, Graph]:
    names = ["=1+1", "-x", "plain", 'a,"b"', "tab\there"]
    graph = Graph(
        Vocabulary(names), Vocabulary(["@r"], "relation"), {"train": torch.tensor([[2, 0, 3]])}
    )
    number = torch.tensor([0.5, 0.25], dtype=torch.float64)
    return CompletedFacts(torch.tensor([[0, 0, 1], [2, 0, 3]]), number, number, number), graph


def test_names_that_a_spreadsheet_would_run_are_guarded_if_asked(tmp_path: Path) -> None:
    found, graph = hostile()
    write_facts(tmp_path / "plain.csv", found, graph)
    write_facts(tmp_path / "guarded.csv", found, graph, guard=True)
    first, second = read(tmp_path / "plain.csv"), read(tmp_path / "guarded.csv")
    assert (first[0]["head"], first[0]["relation"], first[1]["tail"]) == ("=1+1", "@r", 'a,"b"')
    assert (second[0]["head"], second[0]["tail"], second[0]["relation"]) == ("'=1+1", "'-x", "'@r")
    assert second[1]["head"] == "plain"
    with pytest.raises(ValueError, match="only CSV and TSV"):
        write_facts(tmp_path / "x.parquet", found, graph, guard=True)


def test_a_name_that_tsv_cannot_hold_is_refused_and_nothing_written(tmp_path: Path) -> None:
    _, graph = hostile()
    number = torch.tensor([0.5], dtype=torch.float64)
    found = CompletedFacts(torch.tensor([[4, 0, 1]]), number, number, number)
    with pytest.raises(ValueError, match=r"new\.tsv: the name .* write CSV or Parquet"):
        write_facts(tmp_path / "new.tsv", found, graph)
    assert not list(tmp_path.iterdir())


def test_judging_counts_facts_of_the_valid_split(run: Path, predictor: Predictor) -> None:
    found = json.loads(call("complete", run, "--judge", "--min-probability", 0.01, "--json").stdout)
    valid = len(predictor.graph.facts("valid"))
    assert found["recall"] == pytest.approx(found["of valid"] / valid)
    assert sum(row["facts"] for row in found["by chance"]) == found["facts"]
    assert 0 < found["of valid"] <= valid
    table = call("complete", run, "--judge", "--min-probability", 0.01).stdout
    assert "new facts with the valid split unknown" in " ".join(table.split())


def test_the_cost_is_told_first(run: Path) -> None:
    told = json.loads(call("complete", run, "--estimate", "--json").stdout)
    assert told["questions"] >= 0
    assert "questions, about" in call("complete", run, "--estimate").stdout
    assert call("complete", run).exit_code == 2


def test_ctrl_c_keeps_what_was_mined(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "run")
    words = ("complete", tmp_path / "run", "-o", tmp_path / "new.csv", "--min-probability", 0.01)
    step = GraphCompletion.step

    def stopping(miner: GraphCompletion, advance: object = None) -> None:
        if miner.done == 1:
            import signal

            signal.raise_signal(signal.SIGINT)
        step(miner, advance)

    monkeypatch.setattr(GraphCompletion, "step", stopping)
    stopped = call(*words)
    assert stopped.exit_code == 130, stopped.output
    assert "the same command resumes" in stopped.stderr
    assert (tmp_path / ".new.csv.mining").is_file()
    monkeypatch.setattr(GraphCompletion, "step", step)
    assert call(*words).exit_code == 0
    assert call(*words[:2], "-o", tmp_path / "whole.csv", *words[4:]).exit_code == 0
    assert (tmp_path / "new.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_stopped_step_leaves_the_relation_undone(predictor: Predictor) -> None:
    def check() -> None:
        raise Stopped

    completion = GraphCompletion(predictor, least=0.01)
    with pytest.raises(Stopped):
        completion.step(check=check)
    assert (completion.done, len(completion.facts)) == (0, 0)
    completion.step()
    other = GraphCompletion(predictor, least=0.01)
    other.step()
    assert torch.equal(completion.facts.facts, other.facts.facts)
