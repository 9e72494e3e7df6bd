"""A training that is interrupted anywhere and resumed equals an uninterrupted one, to the bit."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mocme
from interrupts import Stop
from mocme.core.device import faster_precision
from mocme.core.interrupts import Interrupted
from mocme.data.features.sources import read_features
from mocme.data.graph import Graph, Queries, Vocabulary
from mocme.data.modality import Features, Modality
from mocme.experts.base import FitTask
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.optimizers import Optimizer, Schedule
from mocme.experts.embedding.trainer import Diverged, Progress, Trainer
from mocme.runs.run import Run
from mocme.storage import RunError
from mocme.storage.tensor_tree import pack, unpack

CPU = torch.device("cpu")
# Everything with a state: schedule, early stopping, tokens, dense modalities, dropout, sampling.
EVERYTHING: dict[str, Any] = {
    "experts": [
        {
            "kind": "embedding",
            "embedding_dim": 4,
            "init_std": 0.3,
            "dropout": {"default": 0.3},
            "views": {"count": 2},
            "training": {
                "epochs": 4,
                "batch_size": 20,
                "precision": "float32",
                "evaluate_every": 1,
                "patience": 2,
                "schedule": {"shape": "cosine", "warmup": 0.2},
                "optimizer": {"name": "Adam", "embedding_lr": 0.4, "dense_lr": 0.05, "clip": 1.0},
                "objective": {
                    "n3": 0.01,
                    "redundancy": 0.05,
                    "max_answers": 2,
                    "negatives": {"kind": "UniformSampling", "size": 8},
                    "loss": {
                        "weighting": {
                            "kind": "ImportanceSampling",
                            "draws": 4,
                            "by": {"kind": "EntropyWeighting"},
                        }
                    },
                },
            },
        }
    ]
}
PLAIN: dict[str, Any] = {
    "experts": [
        {
            "kind": "embedding",
            "embedding_dim": 4,
            "training": {
                "epochs": 2,
                "batch_size": 40,
                "precision": "float32",
                "objective": {"n3": 0.01, "loss": {"weighting": {"kind": "EntropyWeighting"}}},
            },
        }
    ]
}


def changed(table: Mapping[str, Any], **training: Any) -> mocme.Experiment:
    """An experiment with other settings of its training."""
    changes = {f"experts.embedding.training.{name}": value for name, value in training.items()}
    return mocme.Experiment.load(table, changes)


def make_trainer(experiment: mocme.Experiment, graph: Graph, features: Features) -> Trainer:
    """The trainer of the experiment's embedding."""
    settings = experiment.components()
    embedding, memory = settings.experts["embedding"], settings.evaluation.memory
    assert isinstance(embedding, Embedding)
    view = graph.training_view()
    return embedding.trainer(FitTask("embedding", view, features, settings.seed, CPU, memory))


def outcome(run: Run) -> dict[str, Any]:
    """What a training writes, except for durations."""
    checkpoint = run.folder.checkpoints.load()
    assert checkpoint is not None
    assert checkpoint.state["expert"] == "embedding"
    state = checkpoint.state["fit"]
    progress = {k: v for k, v in state["progress"].items() if k != "seconds"}
    log = [{k: v for k, v in record.items() if k != "seconds"} for record in run.log()]
    return {
        "parameters": run.folder.read_tensors("experts/embedding.safetensors"),
        "state": {**state, "progress": progress},
        "log": log,
        "finished": run.finished,
        "best_epoch": run.folder.about["fits"]["embedding"]["best_epoch"],
    }


def same(first: Any, second: Any) -> bool:
    """Equal to the bit."""
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


@pytest.fixture(scope="module")
def graph(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Graph:
    return mocme.load(tiny_folder(tmp_path_factory.mktemp("data"), tiny_graph()))


@pytest.fixture(scope="module")
def uninterrupted(
    graph: Graph, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[dict[str, Any], int]]:
    results = {}
    for name, table in {"everything": EVERYTHING, "plain": PLAIN}.items():
        out = tmp_path_factory.mktemp("run") / name
        watch = Stop()
        run = mocme.train(graph, table, out=out, device="cpu", observer=watch)
        results[name] = (outcome(run), watch.steps)
    return results


def train(graph: Graph, table: Mapping[str, Any], out: Path, **more: Any) -> dict[str, Any]:
    return outcome(mocme.train(graph, table, out=out, device="cpu", **more))


def test_interrupted_at_any_step_and_resumed_is_the_same_to_the_bit(
    graph: Graph, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    expected, steps = uninterrupted["everything"]
    assert expected["state"]["progress"]["bad"] > 0  # early stopping has a state
    assert expected["state"]["best"] is not None
    for after in range(1, steps + 1):
        out = tmp_path / str(after)
        message = f"stopped at step {after} of embedding; continue with: mocme resume"
        with pytest.raises(Interrupted, match=message):
            mocme.train(graph, EVERYTHING, out=out, device="cpu", observer=Stop(after))
        assert not Run.open(out).finished
        resumed = mocme.resume(out, device="cpu")
        assert same(outcome(resumed), expected)
    assert same(outcome(mocme.resume(out, device="cpu")), expected)  # returned as it is


def test_interrupted_after_every_step_is_the_same_to_the_bit(
    graph: Graph, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    expected, steps = uninterrupted["plain"]
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        mocme.train(graph, PLAIN, out=out, device="cpu", observer=Stop(1))
    for _ in range(steps - 1):
        with pytest.raises(Interrupted):
            mocme.resume(out, device="cpu", observer=Stop(1))
    assert same(outcome(mocme.resume(out, device="cpu")), expected)


def test_a_killed_training_resumes_from_its_checkpoint(
    graph: Graph, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    """Killed before its first checkpoint and after it; later steps are trained again."""

    class Killed(RuntimeError):
        pass

    class Kill(Stop):
        def step(self, progress: Progress) -> None:
            self.steps += 1
            if self.steps == self.after:
                raise Killed

    expected, steps = uninterrupted["plain"]
    first, second = tmp_path / "first", tmp_path / "second"
    with pytest.raises(Killed):
        mocme.train(graph, PLAIN, out=first, device="cpu", observer=Kill(steps - 1))
    assert Run.open(first).log()  # of an epoch that is trained again
    assert same(outcome(mocme.resume(first, device="cpu")), expected)
    with pytest.raises(Interrupted):
        mocme.train(graph, PLAIN, out=second, device="cpu", observer=Stop(1))
    with pytest.raises(Killed):
        mocme.resume(second, device="cpu", observer=Kill(steps - 2))
    assert same(outcome(mocme.resume(second, device="cpu")), expected)


@pytest.mark.parametrize("table", [EVERYTHING, PLAIN], ids=["everything", "plain"])
def test_the_state_survives_packing(table: dict[str, Any], graph: Graph) -> None:
    """After every step: state, pack, unpack and restore into a new trainer."""
    experiment = mocme.Experiment.load(table)
    features = read_features(graph, graph.modalities)

    def make() -> Trainer:
        return make_trainer(experiment, graph, features)

    saved = []

    def save(progress: Progress) -> None:
        tensors, skeleton = pack(uninterrupted.state())
        saved.append(({key: t.clone() for key, t in tensors.items()}, skeleton))

    uninterrupted = make()
    log = [without_seconds(record) for record in uninterrupted.run(save)]
    assert saved
    for tensors, skeleton in saved:
        resumed = make()
        resumed.restore(unpack(tensors, skeleton))
        records = [without_seconds(record) for record in resumed.run()]
        assert records == log[len(log) - len(records) :]
        assert records
        assert same(resumed.model.state_dict(), uninterrupted.model.state_dict())
        assert same(resumed.optimizer.state_dict(), uninterrupted.optimizer.state_dict())
        assert same(resumed.best_parameters, uninterrupted.best_parameters)


def without_seconds(record: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k != "seconds"}


def test_the_seed_decides_the_result_to_the_bit(
    graph: Graph, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    expected, _ = uninterrupted["everything"]
    torch.manual_seed(1234)  # the package does not use the global generator
    again = train(graph, EVERYTHING, tmp_path / "same")
    assert same(again, expected)
    other = train(graph, EVERYTHING, tmp_path / "other", seed=1)
    assert not same(other["parameters"], expected["parameters"])
    assert other["log"] != expected["log"]


def test_the_global_generator_is_not_used(graph: Graph, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(graph, EVERYTHING, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_the_test_split_changes_no_bit_of_a_training(
    graph: Graph, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    for number, facts in enumerate((graph.facts("test")[:1], graph.facts("train", "valid"))):
        splits = {**graph.splits, "test": facts}
        changed = Graph(
            graph.entities, graph.relations, splits, graph.name, graph.folder, graph.modalities
        )
        assert same(
            train(changed, EVERYTHING, tmp_path / str(number)), uninterrupted["everything"][0]
        )
    without = {s: facts for s, facts in graph.splits.items() if s != "test"}
    bare = Graph(
        graph.entities, graph.relations, without, graph.name, graph.folder, graph.modalities
    )
    assert same(train(bare, EVERYTHING, tmp_path / "bare"), uninterrupted["everything"][0])


def test_the_trainer_has_no_fact_of_test(graph: Graph, tmp_path: Path) -> None:
    """No graph that can be reached from the trainer of a run has the split."""
    assert "test" in graph.splits
    structure = {**EVERYTHING, "data": {"only": []}}
    watch = Stop()
    mocme.train(graph, structure, out=tmp_path / "run", device="cpu", observer=watch)
    trainer = watch.trainer
    trained = {tuple(row) for row in graph.directed("train").tolist()}
    assert {tuple(row) for row in trainer.objective.facts.facts.tolist()} == trained
    assert trainer.validate is not None
    cells = [cell.cell_contents for cell in inspect.unwrap(trainer.validate).__closure__ or ()]
    graphs = [value for value in cells if isinstance(value, Graph)]
    graphs += [value.graph for value in cells if isinstance(value, FitTask)]
    assert graphs
    assert all("test" not in value.splits for value in graphs)


def test_a_loss_that_is_not_finite_is_reported_with_a_remedy(graph: Graph, tmp_path: Path) -> None:
    remedy = r"lower training.optimizer.embedding_lr or .dense_lr, or set .clip"
    with pytest.raises(Diverged, match=remedy):
        train(
            graph,
            "structure",
            tmp_path / "run",
            settings={
                "experts.embedding.embedding_dim": 4,
                "experts.embedding.training.precision": "float32",
                "experts.embedding.training.optimizer": {
                    "name": "SGD",
                    "embedding_lr": 1e30,
                },
            },
        )


def test_a_small_graph_is_memorised(tiny_graph: Callable, tmp_path: Path) -> None:
    """Among the entities that are not answers, each training fact ranks first."""
    tiny = tiny_graph(dense={}, tokens={}, facts=20, valid=0, test=0)
    training = {
        "epochs": 40,
        "batch_size": 16,
        "precision": "float32",
        "optimizer": {"name": "Adagrad", "embedding_lr": 0.3},
    }
    table = {"experts": [{"kind": "embedding", "embedding_dim": 32, "training": training}]}
    train_as_valid = Graph(
        tiny.graph.entities,
        tiny.graph.relations,
        {**tiny.graph.splits, "valid": tiny.graph.facts("train")},
    )
    run = mocme.train(train_as_valid, table, out=tmp_path / "run", device="cpu")
    assert run.evaluate("valid", device="cpu")["mrr"] > 0.9
    losses = [record["loss"] for record in run.log()]
    assert losses[-1] < 0.5 * losses[0]


def test_features_alone_answer_queries_about_entities_without_links() -> None:
    """A relation that a feature decides is answered for an entity unseen in training."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(40) % 2
    facts = torch.stack([torch.arange(40), torch.zeros(40).long(), 40 + kind], 1)
    values = torch.randn(40, 6, generator=generator) * 0.3
    values[:, 0] += 2.0 * kind - 1
    graph = Graph(
        Vocabulary([f"e{n}" for n in range(42)]),
        Vocabulary(["is"], "relation"),
        {"train": facts[:32], "test": facts[32:]},
    )
    experiment = mocme.Experiment.load(
        "mocme",
        {
            "experts.embedding.embedding_dim": 8,
            "experts.embedding.training.epochs": 30,
            "experts.embedding.training.batch_size": 8,
            "experts.embedding.training.precision": "float32",
        },
    )
    features = Features({"shape": Modality(values, torch.arange(40), 42)})
    trainer = make_trainer(experiment, graph, features)
    for _ in trainer.run():
        pass
    queries = Queries(facts[32:, 0], facts[32:, 1])
    scores = trainer.model.score(queries, torch.tensor([40, 41]))
    assert torch.equal(scores.argmax(1), kind[32:])


# -- early stopping --------------------------------------------------------------------------------


def test_early_stopping_takes_the_best_parameters(graph: Graph) -> None:
    """Validations return a list of numbers; the best one is after the second epoch."""
    experiment = changed(PLAIN, epochs=9, evaluate_every=1, patience=3)
    trainer = make_trainer(experiment, graph, mocme.Features())
    numbers = iter([0.1, 0.5, 0.5, 0.2, 0.4, 0.9])
    states = []

    def validate(model: torch.nn.Module) -> dict[str, float]:
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"mrr": next(numbers)}

    trainer.validate = validate
    records = list(trainer.run())
    assert len(records) == 5  # three in succession are no better than 0.5
    assert trainer.progress.best == 0.5
    assert trainer.progress.best_epoch == 2
    assert same(dict(trainer.model.state_dict()), states[1])
    assert not same(states[1], states[-1])


def test_without_patience_all_epochs_are_trained(graph: Graph) -> None:
    experiment = changed(PLAIN, epochs=5, evaluate_every=2)
    trainer = make_trainer(experiment, graph, mocme.Features())
    records = list(trainer.run())
    assert [("valid" in record) for record in records] == [False, True, False, True, True]
    assert trainer.best_parameters is None


def test_patience_needs_validations(graph: Graph) -> None:
    with pytest.raises(mocme.ConfigError, match="patience needs evaluate_every"):
        changed({"experts": [{"kind": "embedding"}]}, patience=2)
    bare = Graph(graph.entities, graph.relations, {"train": graph.facts("train")})
    with pytest.raises(ValueError, match="patience needs a valid split"):
        make_trainer(mocme.Experiment.load(EVERYTHING), bare, mocme.Features())


# -- optimisers and schedules ----------------------------------------------------------------------


def test_schedules_rise_and_fall() -> None:
    assert [Schedule().factor(s, 10) for s in (0, 5, 9)] == [1, 1, 1]
    linear = Schedule(shape="linear", end=0.2)
    assert linear.factor(0, 10) == 1
    assert linear.factor(5, 10) == pytest.approx(0.6)
    assert linear.factor(10, 10) == pytest.approx(0.2)
    cosine = [Schedule(shape="cosine", warmup=0.3).factor(s, 100) for s in range(100)]
    assert cosine[:30] == sorted(cosine[:30])
    assert cosine[30:] == sorted(cosine[30:], reverse=True)
    assert max(cosine) == cosine[30] == 1
    assert cosine[0] > 0


@pytest.mark.parametrize("wrong", [{"shape": "square"}, {"warmup": 1.0}, {"end": 1.5}])
def test_wrong_schedules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|lies in"):
        Schedule(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "Gradient"}, "no optimiser 'Gradient'"),
        ({"name": "Optimizer.step"}, "no optimiser"),
        ({"settings": {"eta": 1}}, "settings.eta: Adagrad does not take it"),
        ({"embedding_lr": 0.0}, "rates must be above 0"),
    ],
)
def test_wrong_optimisers_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Optimizer(**wrong)


def test_tables_and_shared_parameters_have_rates_of_their_own(graph: Graph) -> None:
    experiment = mocme.Experiment.load(EVERYTHING)
    features = read_features(graph, graph.modalities)
    trainer = make_trainer(experiment, graph, features)
    tables, dense = trainer.optimizer.param_groups
    assert (tables["lr"], dense["lr"]) == (0.4, 0.05)
    assert len(tables["params"]) == 2
    assert {id(p) for p in tables["params"] + dense["params"]} == {
        id(p) for p in trainer.model.parameters()
    }


def test_a_run_is_written_by_one_process_at_a_time(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        mocme.train(graph, PLAIN, out=tmp_path / "run", device="cpu", observer=Stop(1))
    run = Run.open(tmp_path / "run")
    with run.folder.lock(), pytest.raises(RunError, match="another process is writing"):
        mocme.resume(run.path, device="cpu")


def test_the_handler_of_ctrl_c_is_restored_after_a_training(graph: Graph, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    train(graph, PLAIN, tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(Interrupted):
        mocme.train(graph, PLAIN, out=tmp_path / "other", device="cpu", observer=Stop(2))
    assert signal.getsignal(signal.SIGINT) is before


def test_the_faster_precision_is_one_of_the_two() -> None:
    assert faster_precision(CPU, 8) in ("float32", "bfloat16")
