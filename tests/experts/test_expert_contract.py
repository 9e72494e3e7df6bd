"""Every kind of expert meets the protocol of an expert."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mocme
from interrupts import Stop
from mocme.core.interrupts import Interrupted
from mocme.data.graph import Queries
from mocme.experts.base import (
    DenseExpert,
    Expert,
    ExpertSettings,
    Reason,
    SparseExpert,
)
from mocme.runs.config import custom_code
from mocme.runs.run import Run
from mocme.storage import RunError
from mocme.storage.tensor_tree import load_tensors, save_tensors
from small_experts import CASES, ENTITIES, Added, Case, World, all_queries, odds_matrix, signal

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def world(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> World:
    return World.of(tiny_folder(tmp_path_factory.mktemp("data"), tiny_graph()))


@pytest.fixture(scope="module")
def fitted(world: World) -> Callable[[Case], Expert]:
    """The fitted expert of a case; each is fitted once."""
    experts: dict[str, Expert] = {}

    def fit(case: Case) -> Expert:
        if case.name not in experts:
            experts[case.name] = world.fit(case)
        return experts[case.name]

    return fit


def dense_cases(fitted: Callable[[Case], Expert]) -> list[tuple[Case, DenseExpert]]:
    return [(c, e) for c in CASES if isinstance(e := fitted(c), DenseExpert)]


def sparse_cases(fitted: Callable[[Case], Expert]) -> list[tuple[Case, SparseExpert]]:
    return [(c, e) for c in CASES if isinstance(e := fitted(c), SparseExpert)]


# -- kinds and fitting -----------------------------------------------------------------------------


def test_every_kind_has_a_case() -> None:
    assert {type(case.settings) for case in CASES} == set(ExpertSettings.kinds)


def test_settings_say_whether_the_expert_is_sparse(fitted: Callable[[Case], Expert]) -> None:
    for case in CASES:
        assert isinstance(fitted(case), SparseExpert) == case.settings.sparse, case.name


def test_every_kind_is_named_after_its_module() -> None:
    names = [kind.kind_name() for kind in ExpertSettings.kinds]
    assert len(set(names)) == len(names)
    for kind in ExpertSettings.kinds:
        assert kind.__module__.startswith(f"mocme.experts.{kind.kind_name()}")


@every
def test_a_fit_returns_an_expert_and_a_record(case: Case, world: World) -> None:
    expert, record = case.settings.fit(world.task(case, name="another-name"))
    assert expert.name == "another-name"
    assert isinstance(expert, DenseExpert) != isinstance(expert, SparseExpert)
    assert json.loads(json.dumps(record)) == record
    assert expert.device == torch.device("cpu")


@every
def test_a_fit_is_reproducible_to_the_bit(
    case: Case, world: World, fitted: Callable[[Case], Expert]
) -> None:
    queries = all_queries(world.graph)
    torch.manual_seed(77)  # the global generator does not matter
    assert torch.equal(signal(world.fit(case), queries), signal(fitted(case), queries))


@every
def test_a_fit_does_not_depend_on_the_test_split(
    case: Case, world: World, fitted: Callable[[Case], Expert]
) -> None:
    assert "test" in world.graph.splits
    queries = all_queries(world.graph)
    splits = {"test": world.graph.facts("train")[:3]}
    changed = replace(world.graph, splits={**world.graph.splits, **splits}).training_view()
    assert torch.equal(
        signal(world.fit(case, graph=changed), queries), signal(fitted(case), queries)
    )


@every
def test_a_refittable_expert_can_be_fitted_on_fewer_facts(
    case: Case, world: World, fitted: Callable[[Case], Expert]
) -> None:
    expert = fitted(case)
    train = world.graph.facts("train")
    fewer = replace(world.graph, splits={"train": train[: len(train) // 2]})
    again = world.fit(case, graph=fewer)
    assert type(again) is type(expert)
    queries = all_queries(world.graph)
    changed = not torch.equal(signal(again, queries), signal(expert, queries))
    assert changed == case.settings.refittable


@every
def test_names_of_modalities_that_an_expert_reads_exist(
    case: Case, world: World, fitted: Callable[[Case], Expert]
) -> None:
    reads = fitted(case).reads
    features = world.task(case).features
    assert set(reads) <= {"structure", *features.names}
    assert len(set(reads)) == len(reads)
    # What it gets is what it reads, so that a run can say that nothing reads a modality.
    assert set(reads) - {"structure"} == set(features.names)
    assert set(features.forms().values()) <= set(case.settings.usable)


# -- scores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7])
def test_dense_experts_score_all_entities(
    count: int, world: World, fitted: Callable[[Case], Expert]
) -> None:
    queries = all_queries(world.graph)[:count]
    for case, expert in dense_cases(fitted):
        scores = expert.score(queries)
        assert scores.shape == (count, ENTITIES), case.name
        assert scores.dtype == torch.float32
        assert bool(scores.isfinite().all())


def test_candidates_of_dense_experts_agree_with_all_entities(
    world: World, fitted: Callable[[Case], Expert]
) -> None:
    queries = all_queries(world.graph)
    shared = torch.tensor([3, 0, 11, 3])
    generator = torch.Generator().manual_seed(0)
    own = torch.randint(ENTITIES, (len(queries), 5), generator=generator)
    for _, expert in dense_cases(fitted):
        scores = expert.score(queries)
        torch.testing.assert_close(expert.score(queries, shared), scores[:, shared])
        torch.testing.assert_close(expert.score(queries, own), scores.gather(1, own))


def test_callers_may_change_the_scores_of_dense_experts(
    world: World, fitted: Callable[[Case], Expert]
) -> None:
    queries = all_queries(world.graph)
    for _, expert in dense_cases(fitted):
        for candidates in (None, torch.arange(ENTITIES)):
            with torch.no_grad():
                scores = expert.score(queries, candidates)
                before = scores.clone()
                scores.fill_(float("nan"))
                assert torch.equal(expert.score(queries, candidates), before)


def test_a_score_does_not_depend_on_the_other_queries(
    world: World, fitted: Callable[[Case], Expert]
) -> None:
    queries = all_queries(world.graph)
    order = torch.randperm(len(queries), generator=torch.Generator().manual_seed(0))
    for case in CASES:
        expert = fitted(case)
        torch.testing.assert_close(signal(expert, queries[order]), signal(expert, queries)[order])


def test_sparse_experts_give_odds_of_distinct_candidates(
    world: World, fitted: Callable[[Case], Expert]
) -> None:
    queries = all_queries(world.graph)
    repeated = Queries(queries.head.repeat(2), queries.relation.repeat(2))
    for case, expert in sparse_cases(fitted):
        for asked in (queries, queries[:1], queries[:0], repeated):
            row, column, odds = expert.odds(asked)
            assert row.shape == column.shape == odds.shape
            assert bool(((row >= 0) & (row < len(asked))).all())
            assert bool(((column >= 0) & (column < ENTITIES)).all())
            assert bool((odds.isfinite() & (odds >= 0)).all())
            cells = row * ENTITIES + column
            assert len(torch.unique(cells)) == len(cells)
        assert 0 < len(odds) < len(repeated) * ENTITIES, case.name


def test_sparse_experts_have_reasons_for_these_candidates_alone(
    world: World, fitted: Callable[[Case], Expert]
) -> None:
    queries = all_queries(world.graph)
    for _, expert in sparse_cases(fitted):
        row, column, _ = expert.odds(queries)
        evidence = set(zip(row.tolist(), column.tolist(), strict=True))
        for position in range(0, len(queries), 5):
            head, relation = int(queries.head[position]), int(queries.relation[position])
            for answer in range(ENTITIES):
                has_reasons = bool(expert.explain(head, relation, answer))
                assert has_reasons == ((position, answer) in evidence)


@every
def test_reasons_have_a_name_and_a_finite_share(
    case: Case, world: World, fitted: Callable[[Case], Expert]
) -> None:
    expert = fitted(case)
    for head, relation, answer in world.graph.directed("train")[::7].tolist():
        reasons = expert.explain(head, relation, answer)
        assert all(isinstance(reason, Reason) for reason in reasons)
        assert all(isinstance(reason.name, str) and reason.name for reason in reasons)
        shares = [reason.share for reason in reasons]
        assert all(math.isfinite(share) for share in shares)
        assert shares == sorted(shares, reverse=True)


# -- packing ---------------------------------------------------------------------------------------


def stored(expert: Expert, folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `packed` returns, by way of a file as a run writes it."""
    tensors, metadata = expert.packed()
    assert all(isinstance(value, str) for pair in metadata.items() for value in pair)
    path = folder / "expert.safetensors"
    save_tensors(path, tensors, metadata)
    return load_tensors(path, "cpu"), metadata


@every
def test_unpacked_gives_the_same_scores_to_the_bit(
    case: Case, world: World, fitted: Callable[[Case], Expert], tmp_path: Path
) -> None:
    expert, queries = fitted(case), all_queries(world.graph)
    again = case.settings.unpacked(stored(expert, tmp_path), world.task(case))
    assert type(again) is type(expert)
    assert (again.name, again.reads) == (expert.name, expert.reads)
    assert torch.equal(signal(again, queries), signal(expert, queries))
    for head, relation, answer in world.graph.directed("train")[::11].tolist():
        first, second = (e.explain(head, relation, answer) for e in (expert, again))
        assert [(r.name, r.share) for r in first] == [(r.name, r.share) for r in second]
    assert stored(again, tmp_path)[0].keys() == stored(expert, tmp_path)[0].keys()


@every
def test_unpacking_for_another_graph_is_refused(
    case: Case, world: World, fitted: Callable[[Case], Expert], tiny_graph: Callable, tmp_path: Path
) -> None:
    packed = stored(fitted(case), tmp_path)
    if case.table.get("function"):  # nothing is packed: the function scores whatever graph it is
        return
    other = tiny_graph(entities=9, facts=20)
    task = world.task(case, graph=other.graph.training_view(), features=other.features)
    with pytest.raises(
        ValueError, match=r"do not fit this graph|fitted on other facts|not those of"
    ):
        case.settings.unpacked(packed, task)


# -- added entities --------------------------------------------------------------------------------


@every
def test_an_extended_expert_leaves_training_entities_as_they_were(
    case: Case, world: World, fitted: Callable[[Case], Expert]
) -> None:
    """With one fact for an added entity, no path between training entities leads over it."""
    expert, queries = fitted(case), all_queries(world.graph)
    before = signal(expert, queries)
    extended = expert.extended(Added().extension(world, expert))
    assert (extended.name, extended.reads) == (expert.name, expert.reads)
    total = ENTITIES + Added().count
    if isinstance(extended, DenseExpert):
        with torch.no_grad():
            after = extended.score(queries)
            few = extended.score(queries[:3])
        assert torch.equal(few[:, :ENTITIES], expert.score(queries[:3]))
    else:
        after = odds_matrix(extended, queries, total).log1p()
    assert after.shape == (len(queries), total)
    assert torch.equal(after[:, :ENTITIES], before)
    assert torch.equal(signal(expert, queries), before)
    for name, tensor in expert.packed()[0].items():
        assert torch.equal(extended.packed()[0][name], tensor)


@every
def test_an_extended_expert_scores_added_entities(
    case: Case, world: World, fitted: Callable[[Case], Expert]
) -> None:
    expert = fitted(case)
    extended = expert.extended(Added().extension(world, expert))
    total = ENTITIES + Added().count
    relations = 2 * world.graph.num_relations
    new = Queries(
        torch.arange(ENTITIES, total).repeat_interleave(relations),
        torch.arange(relations).repeat(Added().count),
    )
    if isinstance(extended, DenseExpert):
        for queries in (new, all_queries(world.graph)):
            scores = extended.score(queries)
            assert scores.shape == (len(queries), total)
            assert bool(scores.isfinite().all())
            candidates = torch.tensor([0, ENTITIES, total - 1])
            torch.testing.assert_close(extended.score(queries, candidates), scores[:, candidates])
    else:
        odds = odds_matrix(extended, new, total)
        assert bool(odds.isfinite().all())
        linked, seen, empty = odds.split(relations)
        assert bool(linked.any())
        # Without a fact or a pair there is no path; without content there is no neighbour.
        assert bool(seen.any()) == (case.evidence in ("content", "nothing"))
        assert bool(empty.any()) == (case.evidence == "nothing")
        of_training = odds_matrix(extended, all_queries(world.graph), total)
        # What needs nothing of an entity does not read the facts of an added one either.
        assert bool(of_training[:, ENTITIES].any()) == (case.evidence != "nothing")
        assert not bool(of_training[:, ENTITIES + 1 :].any())
    for answer in (1, ENTITIES):
        for reason in extended.explain(ENTITIES, 0, answer):
            assert reason.name
            assert math.isfinite(reason.share)


def test_rules_change_only_where_a_path_leads_over_an_added_entity(
    world: World, fitted: Callable[[Case], Expert]
) -> None:
    facts = (("new", "r0", "e1"), ("new", "r1", "e2"))
    queries = all_queries(world.graph)
    by_paths = [expert for case, expert in sparse_cases(fitted) if case.evidence == "path"]
    assert len(by_paths) > 1
    for expert in by_paths:
        extended = expert.extended(Added(facts).extension(world, expert))
        before = odds_matrix(expert, queries)
        after = odds_matrix(extended, queries, ENTITIES + Added().count)[:, :ENTITIES]
        row, column = (after != before).nonzero(as_tuple=True)
        ends = set(zip(queries.head[row].tolist(), column.tolist(), strict=True))
        assert ends == {(1, 2), (2, 1)}


# -- in a run --------------------------------------------------------------------------------------


@every
def test_two_experts_of_one_kind_in_a_run(case: Case, world: World, tmp_path: Path) -> None:
    table = case.experiment()
    (first,) = table["experts"]
    experiment = {**table, "experts": [first, {**first, "name": "second"}]}
    code = custom_code(experiment)
    run = mocme.train(
        world.graph, experiment, out=tmp_path / "run", device="cpu", trust_code=bool(code)
    )
    if code:
        with pytest.raises(RunError, match=f"custom code .*{code[0]}"):
            Run.open(run.path)
    opened = Run.open(run.path, trust_code=bool(code)).contents("cpu")
    experts = opened.mixture.experts
    assert [expert.name for expert in experts] == [case.name, "second"]
    queries = all_queries(world.graph)
    assert torch.equal(signal(experts[0], queries), signal(experts[1], queries))
    assert all(run.folder.has(f"experts/{expert.name}.safetensors") for expert in experts)
    assert list(run.folder.about["fits"]) == [case.name, "second"]
    record = run.folder.read_json("mixture.json")
    assert 0 < run.evaluate("valid", device="cpu")["mrr"] <= 1
    assert set(record["weights"]) == {case.name, "second"}


def two_embeddings() -> dict[str, object]:
    """Two embeddings with different seeds and numbers of epochs."""
    (embedding,) = CASES[0].experiment()["experts"]
    embedding["training"] = {**embedding["training"], "batch_size": 32}
    training = {**embedding["training"], "epochs": 2}
    return {
        "experts": [
            {**embedding, "name": "one", "training": training},
            {**embedding, "name": "two", "seed": 5},
        ]
    }


def test_experts_of_one_kind_have_their_own_settings(world: World, tmp_path: Path) -> None:
    run = mocme.train(world.graph, two_embeddings(), out=tmp_path / "run", device="cpu")
    one, two = (run.folder.read_tensors(f"experts/{name}.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert not torch.equal(one["structure"], two["structure"])
    assert [(record["expert"], record["epoch"]) for record in run.log()] == [
        *(("one", 1), ("one", 2)),
        ("two", 1),
    ]
    alone = mocme.train(
        world.graph,
        {"seed": 5, "experts": [{**two_embeddings()["experts"][1], "seed": None}]},
        out=tmp_path / "alone",
        device="cpu",
    )
    for name, tensor in alone.folder.read_tensors("experts/two.safetensors").items():
        assert torch.equal(tensor, two[name])


def test_a_run_interrupted_in_any_expert_resumes_to_the_bit(world: World, tmp_path: Path) -> None:
    watch = Stop()
    uninterrupted = mocme.train(
        world.graph, two_embeddings(), out=tmp_path / "run", device="cpu", observer=watch
    )

    def outcome(run: Run) -> list[object]:
        files = ("experts/one.safetensors", "experts/two.safetensors", "mixture.safetensors")
        log = [{k: v for k, v in r.items() if k != "seconds"} for r in run.log()]
        return [*(run.folder.read_tensors(file) for file in files), log]

    expected = outcome(uninterrupted)
    assert watch.steps > 4
    for after in range(1, watch.steps + 1):
        out = tmp_path / str(after)
        with pytest.raises(Interrupted, match="continue with: mocme resume"):
            mocme.train(world.graph, two_embeddings(), out=out, device="cpu", observer=Stop(after))
        assert not Run.open(out).finished
        resumed = outcome(mocme.resume(out, device="cpu"))
        for actual, wanted in zip(resumed[:-1], expected[:-1], strict=True):
            assert all(torch.equal(actual[name], wanted[name]) for name in wanted)
        assert resumed[-1] == expected[-1]
