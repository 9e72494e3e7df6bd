"""Every kind of mixture meets the contract of a mixture, over several choices of experts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mocme
import mocme.runs.config  # registers the kinds
from mocme.core.registry import build
from mocme.data.graph import AnswerIndex, Queries
from mocme.evaluation.ranking import Ranks, filtered_answers, rank, rank_split
from mocme.experts.base import DenseExpert, Expert, SparseExpert
from mocme.mixture.base import Mixture, MixtureSettings
from mocme.mixture.held_out import hold_out
from mocme.mixture.sum import Sum, SumSettings
from mocme.storage.tensor_tree import load_tensors, save_tensors
from small_experts import (
    EMBEDDING,
    ENTITIES,
    SCORES_FILE,
    Added,
    Case,
    World,
    all_queries,
    odds_matrix,
    signal,
)

ONE = Case("one", EMBEDDING)
TWO = Case("two", {**EMBEDDING, "seed": 5})
RULES = Case("rules", {"kind": "rules", "support": 1})
MORE_RULES = Case("more-rules", {"kind": "rules", "support": 2, "confidence": 0.1})
SCORES = Case("scores", {"kind": "scores", "path": SCORES_FILE})
CHOICES = {
    "embedding": (ONE,),
    "rules": (RULES,),
    "scores": (SCORES,),
    "embedding and rules": (ONE, RULES),
    "rules and embedding": (RULES, ONE),
    "two embeddings": (ONE, TWO),
    "two kinds of rules": (RULES, MORE_RULES),
    "embedding and scores": (ONE, SCORES),
    "all": (ONE, RULES, SCORES, TWO, MORE_RULES),
}
KINDS = MixtureSettings.kinds


@dataclass(frozen=True)
class Fitted:
    """A fitted mixture and what it was fitted with."""

    settings: MixtureSettings
    experts: Sequence[Expert]
    mixture: Mixture
    record: Mapping[str, Any]


@pytest.fixture(scope="module")
def world(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> World:
    return World.of(tiny_folder(tmp_path_factory.mktemp("data"), tiny_graph()))


@pytest.fixture(scope="module")
def experts_of(world: World) -> Callable[[str], list[Expert]]:
    """The fitted experts of a choice; each is fitted once."""
    fitted: dict[str, Expert] = {}

    def experts(choice: str) -> list[Expert]:
        for case in CHOICES[choice]:
            if case.name not in fitted:
                fitted[case.name] = world.fit(case)
        return [fitted[case.name] for case in CHOICES[choice]]

    return experts


@pytest.fixture(scope="module")
def fit(world: World, experts_of: Callable[[str], list[Expert]]) -> Callable[..., Fitted]:
    """A fitted mixture of a kind over a choice of experts; each is fitted once."""
    results: dict[tuple[str, str], Fitted] = {}

    def fitted(kind: type[MixtureSettings], choice: str) -> Fitted:
        key = kind.kind_name(), choice
        if key not in results:
            settings, experts = settings_of(kind), experts_of(choice)
            graph = world.graph.training_view()
            results[key] = Fitted(settings, experts, *settings.fit(experts, graph, 0.5))
        return results[key]

    return fitted


def settings_of(kind: type[MixtureSettings], **table: Any) -> MixtureSettings:
    return build(MixtureSettings, {"kind": kind.kind_name(), **table}, "mixture")


def score(mixture: Mixture, queries: Queries, candidates: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return mixture.score(queries, candidates)


def same_ranks(first: Ranks, second: Ranks) -> bool:
    columns = Ranks.__dataclass_fields__
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in columns)


every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name())
choices = pytest.mark.parametrize("choice", CHOICES)


# -- fitting ---------------------------------------------------------------------------------------


def test_kinds_have_distinct_names() -> None:
    names = [kind.kind_name() for kind in KINDS]
    assert len(set(names)) == len(names) > 0
    assert "Sum" in names


@every
@choices
def test_a_fit_returns_a_mixture_and_a_record(
    kind: type[MixtureSettings], choice: str, fit: Callable[..., Fitted]
) -> None:
    fitted = fit(kind, choice)
    if fitted.settings.selects:  # it may find that some experts, or trees, do not help
        assert set(fitted.mixture.experts) <= set(fitted.experts)
        assert fitted.record["kind"] in (kind.kind_name(), "Sum")
    else:
        assert fitted.mixture.experts == tuple(fitted.experts)
        assert fitted.record["kind"] == kind.kind_name()
    assert fitted.mixture.num_entities == ENTITIES
    assert json.loads(json.dumps(fitted.record)) == fitted.record
    for expert in fitted.mixture.experts:
        assert fitted.mixture.expert(expert.name) is expert
    with pytest.raises(ValueError, match="the run has no expert 'nobody'; it has "):
        fitted.mixture.expert("nobody")


@every
@choices
def test_a_fit_reports_its_progress(
    kind: type[MixtureSettings], choice: str, world: World, experts_of: Callable[[str], list]
) -> None:
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    settings_of(kind).fit(experts_of(choice), world.graph.training_view(), 0.5, progress)
    assert calls == sorted(calls)
    if calls:
        assert calls[-1][0] == calls[-1][1]


@every
@choices
def test_a_fit_is_reproducible_to_the_bit(
    kind: type[MixtureSettings], choice: str, world: World, fit: Callable[..., Fitted]
) -> None:
    fitted = fit(kind, choice)
    again, _ = fitted.settings.fit(fitted.experts, world.graph.training_view(), 0.5)
    tensors, metadata = again.packed()
    assert metadata == fitted.mixture.packed()[1]
    for name, tensor in fitted.mixture.packed()[0].items():
        assert torch.equal(tensors[name], tensor)


@every
@choices
def test_a_fit_does_not_depend_on_the_batch(
    kind: type[MixtureSettings], choice: str, world: World, fit: Callable[..., Fitted]
) -> None:
    """A memory that holds one query at a time gives the same mixture."""
    fitted = fit(kind, choice)
    small, _ = fitted.settings.fit(fitted.experts, world.graph.training_view(), 1e-9)
    for name, tensor in fitted.mixture.packed()[0].items():
        torch.testing.assert_close(small.packed()[0][name], tensor)


@every
@choices
def test_a_fit_needs_no_valid_split(
    kind: type[MixtureSettings], choice: str, world: World, experts_of: Callable[[str], list]
) -> None:
    experts = experts_of(choice)
    graph = replace(world.graph, splits={"train": world.graph.facts("train")})
    mixture, record = settings_of(kind).fit(experts, graph, 0.5)
    assert json.loads(json.dumps(record)) == record
    assert bool(score(mixture, all_queries(graph)).isfinite().all())


@choices
def test_a_sum_without_a_valid_split_says_so(
    choice: str, world: World, experts_of: Callable[[str], list]
) -> None:
    experts = experts_of(choice)
    graph = replace(world.graph, splits={"train": world.graph.facts("train")})
    _, record = settings_of(SumSettings).fit(experts, graph, 0.5)
    assert ("there is no valid split" in json.dumps(record)) == (len(experts) > 1)


@every
def test_names_of_experts_that_are_not_there_are_errors(kind: type[MixtureSettings]) -> None:
    """They are refused when the experiment is read, before anything is fitted."""
    table = {
        "experts": [EMBEDDING, {"kind": "rules"}],
        "mixture": {"kind": kind.kind_name(), "experts": ["embedding", "rulez"]},
    }
    message = "mixture.experts: there is no expert 'rulez'; there are embedding, rules"
    with pytest.raises(mocme.ConfigError, match=message):
        mocme.Experiment.load(table)
    table["mixture"]["experts"] = ["rules"]
    assert list(mocme.Experiment.load(table).components().experts) == ["rules"]


def test_an_expert_that_the_mixture_does_not_name_is_not_fitted(
    world: World, tmp_path: Path
) -> None:
    table = {
        "experts": [{"name": c.name, **c.table} for c in (ONE, TWO)],
        "mixture": {"experts": ["two"]},
    }
    run = mocme.train(world.graph, table, out=tmp_path / "run", device="cpu")
    assert not run.folder.has("experts/one.safetensors")
    assert [expert.name for expert in run.contents("cpu").mixture.experts] == ["two"]


# -- scores ----------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("choice", ["embedding", "scores", "rules"])
def test_one_expert_alone_ranks_as_the_expert(
    kind: type[MixtureSettings], choice: str, world: World, fit: Callable[..., Fitted]
) -> None:
    fitted = fit(kind, choice)
    (expert,) = fitted.experts
    graph = world.graph
    for split in ("valid", "test"):
        index, known = AnswerIndex(graph.directed(split)), filtered_answers(graph, split)
        expected = rank(lambda queries: signal(expert, queries), index, known)
        ranks = rank_split(fitted.mixture, graph, split, 0.5)
        assert same_ranks(ranks, expected)
        assert len(torch.unique(ranks.above)) > 1


@every
@choices
def test_scores_are_new_and_finite(
    kind: type[MixtureSettings], choice: str, world: World, fit: Callable[..., Fitted]
) -> None:
    mixture, queries = fit(kind, choice).mixture, all_queries(world.graph)
    scores = score(mixture, queries)
    assert scores.shape == (len(queries), ENTITIES)
    assert scores.dtype == torch.float32
    assert bool(scores.isfinite().all())
    before = scores.clone()
    scores.fill_(0)
    assert torch.equal(score(mixture, queries), before)
    assert score(mixture, queries[:0]).shape == (0, ENTITIES)
    assert score(mixture, queries[:0], torch.tensor([1, 2])).shape == (0, 2)


@every
@choices
def test_given_candidates_get_the_scores_of_the_full_ranking(
    kind: type[MixtureSettings], choice: str, world: World, fit: Callable[..., Fitted]
) -> None:
    mixture, queries = fit(kind, choice).mixture, all_queries(world.graph)
    scores = score(mixture, queries)
    shared = torch.tensor([3, 0, 11, 3])
    torch.testing.assert_close(score(mixture, queries, shared), scores[:, shared])
    generator = torch.Generator().manual_seed(0)
    own = torch.randint(ENTITIES, (len(queries), 5), generator=generator)
    torch.testing.assert_close(score(mixture, queries, own), scores.gather(1, own))


@every
@choices
def test_contributions_add_up_to_the_score(
    kind: type[MixtureSettings], choice: str, world: World, fit: Callable[..., Fitted]
) -> None:
    fitted, queries = fit(kind, choice), all_queries(world.graph)
    scores = score(fitted.mixture, queries)
    values = {
        expert.name: odds_matrix(expert, queries)
        if isinstance(expert, SparseExpert)
        else signal(expert, queries)
        for expert in fitted.experts
    }
    for row, column in ((0, 1), (17, 5), (40, 11), (71, 0)):
        total = sum(
            fitted.mixture.contribution(name, float(value[row, column]))
            for name, value in values.items()
        )
        assert total == pytest.approx(float(scores[row, column]), rel=1e-5, abs=1e-6)


# -- packing and other experts ---------------------------------------------------------------------


@every
@choices
def test_unpacked_gives_the_same_scores_to_the_bit(
    kind: type[MixtureSettings],
    choice: str,
    world: World,
    fit: Callable[..., Fitted],
    tmp_path: Path,
) -> None:
    fitted, queries = fit(kind, choice), all_queries(world.graph)
    tensors, metadata = fitted.mixture.packed()
    path = tmp_path / "mixture.safetensors"
    save_tensors(path, tensors, metadata)
    packed = load_tensors(path, "cpu"), metadata
    again = fitted.settings.unpacked(packed, fitted.experts, world.graph)
    assert type(again) is type(fitted.mixture)
    assert torch.equal(score(again, queries), score(fitted.mixture, queries))
    assert again.packed()[1] == metadata


@every
def test_unpacking_for_other_experts_is_refused(
    kind: type[MixtureSettings],
    world: World,
    fit: Callable[..., Fitted],
    experts_of: Callable[[str], list],
) -> None:
    fitted = fit(kind, "embedding and rules")
    packed = fitted.mixture.packed()
    with pytest.raises(ValueError, match="'two'"):
        fitted.settings.unpacked(packed, experts_of("two embeddings"), world.graph)
    with pytest.raises(ValueError, match="format"):
        fitted.settings.unpacked(
            (packed[0], {**packed[1], "format": "x"}), fitted.experts, world.graph
        )


@every
@choices
def test_with_other_forms_of_the_experts_the_mixture_is_the_same(
    kind: type[MixtureSettings], choice: str, world: World, fit: Callable[..., Fitted]
) -> None:
    """Over extended experts, training entities keep their scores and added ones get theirs."""
    fitted, queries = fit(kind, choice), all_queries(world.graph)
    before, total = score(fitted.mixture, queries), ENTITIES + Added().count
    added = Added()
    experts = [expert.extended(added.extension(world, expert)) for expert in fitted.experts]
    graph = added.extension(world, fitted.experts[0]).graph
    extended = fitted.mixture.extended(experts, graph)
    assert type(extended) is type(fitted.mixture)
    assert extended.experts == tuple(experts)
    after = score(extended, queries)
    assert after.shape == (len(queries), total)
    assert torch.equal(after[:, :ENTITIES], before)
    assert bool(after.isfinite().all())
    for name, tensor in fitted.mixture.packed()[0].items():
        assert torch.equal(extended.packed()[0][name], tensor)
    assert torch.equal(score(fitted.mixture, queries), before)


def test_a_mixture_needs_experts_of_distinct_names(
    experts_of: Callable[[str], list[Expert]],
) -> None:
    with pytest.raises(ValueError, match="a mixture needs an expert"):
        Sum([], ENTITIES, {})
    (one,) = experts_of("embedding")
    with pytest.raises(ValueError, match="two experts are named 'one'; give each its own name"):
        Sum([one, one], ENTITIES, {})


@every
@choices
def test_a_run_has_the_mixture_that_was_fitted(
    kind: type[MixtureSettings],
    choice: str,
    world: World,
    fit: Callable[..., Fitted],
    tmp_path: Path,
) -> None:
    """From an experiment to a run, opened again: the scores are those of its parts."""
    table = {
        "experts": [{"name": case.name, **case.table} for case in CHOICES[choice]],
        "mixture": {"kind": kind.kind_name()},
    }
    refittable = all(case.settings.refittable for case in CHOICES[choice])
    share = settings_of(kind).share(world.graph.training_view(), refittable)
    run = mocme.train(world.graph, table, out=tmp_path / "run", device="cpu")
    contents = mocme.Run.open(run.path).contents("cpu")
    mixture, queries = contents.mixture, all_queries(world.graph)
    assert [expert.name for expert in mixture.experts] == [c.name for c in CHOICES[choice]]
    experts = [
        case.settings.unpacked(
            (
                run.folder.read_tensors(f"experts/{case.name}.safetensors"),
                run.folder.tensors_metadata(f"experts/{case.name}.safetensors"),
            ),
            world.task(case, features=contents.features),
        )
        for case in CHOICES[choice]
    ]
    view = world.graph.training_view()
    if share:
        rest, held = hold_out(view, share, 0)
        unseen = [world.fit(case, graph=rest) for case in CHOICES[choice]]
        fitted, record = fit(kind, choice).settings.fit(unseen, held, 0.5, held_out=True)
        again = fit(kind, choice).settings.unpacked(fitted.packed(), experts, view)
        assert not (run.path / "held-out").exists() or not any((run.path / "held-out").iterdir())
    else:
        again, record = fit(kind, choice).settings.fit(experts, view, 0.5)
    assert torch.equal(score(mixture, queries), score(again, queries))
    seconds = ("seconds",)
    written = run.folder.read_json("mixture.json")
    assert {k: v for k, v in written.items() if k not in seconds} == {
        k: v for k, v in json.loads(json.dumps(record)).items() if k not in seconds
    }
    assert all(isinstance(expert, DenseExpert | SparseExpert) for expert in mixture.experts)
