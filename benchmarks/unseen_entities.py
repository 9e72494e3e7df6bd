"""Entities without training facts: what a model knows about them, and what adding them gains.

Two parts, on the valid split only; filtered ranks, realistic ties, both directions, all entities as
candidates:

- `known`: valid questions about entities of no training fact, which a model ranks by content alone.
  The baseline lets the ten nearest seen entities vote with their facts.
- `folded`: seen entities are removed from graph and modalities, a model is trained without them,
  and they are added with content, with half of their facts, and with both. The other half is
  ranked. Compared are the baseline, and a model trained with the same half. Pairs of entities are
  recomputed for the entities that stay, and for the added ones as for any addition.

A line of results replaces the one of the same part, graph, experiment, way and seed.

    python benchmarks/unseen_entities.py atlas default --by text --seeds 0 1 2 --runs runs/unseen
    python benchmarks/unseen_entities.py MKG-Y rules/mkg-y --parts folded --features FOLDER
    python benchmarks/unseen_entities.py --render docs/additions.md
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import common
from entity_selection import new_ids, select_features, select_graph, select_vectors
from mocme import NewEntity, Run
from mocme.core.device import find_device
from mocme.data.features.sources import read_features
from mocme.data.graph import AnswerIndex, Graph
from mocme.data.ingest.reader import encoded_modality
from mocme.data.load import load
from mocme.data.modality import Features, Modality
from mocme.evaluation import metrics
from mocme.evaluation.ranking import Ranks, filtered_answers, rank
from mocme.inductive.add import Adder
from mocme.inductive.pairs import related
from mocme.inductive.store import Additions
from mocme.runs import train as training
from mocme.runs.config import Experiment
from mocme.runs.experiment_files import parse_override
from mocme.storage import RunFolder
from neighbour_votes import NEAREST, Neighbours

RESULTS = common.RESULTS / "unseen_entities.jsonl"
REMOVED, LEAST_FACTS = 100, 4  # entities that are removed, and the facts that each must have
KEY = ("part", "graph", "experiment", "way", "seed")


def trained(experiment: Experiment, graph: Graph, features: Features, out: Path) -> Run:
    """A run on modalities in memory; an existing one is resumed."""
    if (out / "run.json").exists():
        return training.resume(out)
    settled = training.settle(experiment, find_device("auto"))
    folder = RunFolder.create(out, training._about(settled, graph, features))
    training._save_inputs(folder, settled, graph, features)
    return training._fit(Run(folder), graph, features, find_device("auto"), None)


# -- measuring -------------------------------------------------------------------------------------


def ranked(score: Any, graph: Graph, facts: Tensor, is_new: Tensor) -> dict[str, Any]:
    """Metrics of facts of the valid split, overall and by the role of the new entities.

    Args:
        is_new: mask over entities; a question either gives a new entity or asks for one.
    """
    questions = AnswerIndex(both_directions(graph, facts))
    ranks = rank(score, questions, filtered_answers(graph, "valid"), batch=64)
    given = is_new[ranks.head]
    return {
        **part(ranks, torch.ones_like(given)),
        "given": part(ranks, given),
        "asked for": part(ranks, ~given),
    }


def both_directions(graph: Graph, facts: Tensor) -> Tensor:
    inverse = torch.stack([facts[:, 2], facts[:, 1] + graph.num_relations, facts[:, 0]], 1)
    return torch.cat([facts, inverse])


def part(ranks: Ranks, mask: Tensor) -> dict[str, Any]:
    selected = ranks.realistic[mask]
    return {"count": len(selected), **metrics.rank_metrics(selected)}


def baseline_vectors(
    graph: Graph, features: Features, name: str, folder: str | None
) -> Modality | None:
    """The vectors of the baseline: a modality of the run, or an encoded one of that name."""
    if name in features.dense or folder is None:
        return features.dense.get(name)
    return read_features(graph, {name: encoded_modality(name)}, Path(folder)).dense[name]


def known_lines(run: Run, vectors: Modality | None) -> list[dict[str, Any]]:
    """Valid questions about entities of no training fact."""
    world = run.contents("cpu", additions=False)
    graph = world.graph
    unseen = ~graph.linked()
    facts = graph.facts("valid")
    facts = facts[unseen[facts[:, 0]] | unseen[facts[:, 2]]]
    ways: dict[str, Any] = {"content": world.mixture.score}
    if vectors is not None:
        ways["neighbours"] = Neighbours(graph, vectors)
    return [
        {
            "part": "known",
            "way": way,
            "entities": int(unseen.sum()),
            **ranked(score, graph, facts, unseen),
        }
        for way, score in ways.items()
    ]


@dataclass(frozen=True)
class Removal:
    """Entities that are removed from a graph, and their facts with entities that stay.

    Attributes:
        removed, kept: old ids, ascending.
        given: facts that are added with the entities.
        asked: facts that are ranked.
        facts: training facts among entities that stay.
    """

    removed: Tensor
    kept: Tensor
    given: Tensor
    asked: Tensor
    facts: Tensor

    @property
    def order(self) -> Tensor:
        """Old ids of all entities; the removed ones come last."""
        return torch.cat([self.kept, self.removed])


def remove_entities(graph: Graph, seed: int) -> Removal:
    """Draw entities with enough facts, and halve their facts."""
    generator = torch.Generator().manual_seed(seed)
    train = graph.facts("train")
    degree = torch.bincount(train[:, [0, 2]].flatten(), minlength=graph.num_entities)
    eligible = (degree >= LEAST_FACTS).nonzero().flatten()
    order = torch.randperm(len(eligible), generator=generator)[:REMOVED]
    removed = eligible[order].sort().values
    is_removed = torch.zeros(graph.num_entities, dtype=torch.bool)
    is_removed[removed] = True
    removed_ends = is_removed[train[:, 0]].long() + is_removed[train[:, 2]].long()
    facts = train[removed_ends == 1]
    facts = facts[torch.randperm(len(facts), generator=generator)]
    # Every second fact of an entity is given; of an odd number, one more than is asked.
    owner = torch.where(is_removed[facts[:, 0]], facts[:, 0], facts[:, 2])
    turn = torch.zeros(len(facts), dtype=torch.int64)
    for entity in removed.tolist():
        of_entity = (owner == entity).nonzero().flatten()
        turn[of_entity] = torch.arange(len(of_entity)) % 2
    kept = (~is_removed).nonzero().flatten()
    return Removal(removed, kept, facts[turn == 0], facts[turn == 1], train[removed_ends == 0])


def folded_lines(
    graph: Graph,
    features: Features,
    experiment: Experiment,
    vectors: Modality | None,
    seed: int,
    runs: Path,
    selected_ways: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Train without some entities, add them, and rank the half of their facts that is unknown."""
    removal = remove_entities(graph, seed)
    count, num_kept = graph.num_entities, len(removal.kept)
    valid = graph.facts("valid")
    reduced = select_graph(graph, removal.kept, {"train": removal.facts, "valid": valid})
    run = trained(
        experiment,
        reduced,
        select_features(features, count, removal.kept),
        runs / f"without-{seed}",
    )
    # The given half is known, the asked half is what `ranked` takes as the valid split.
    known_facts = torch.cat([removal.facts, removal.given])
    splits = {"train": known_facts, "valid": removal.asked}
    full = select_graph(graph, removal.order, splits)
    is_new = torch.arange(count) >= num_kept
    lines = []

    def add_line(way: str, score: Any, **more: Any) -> None:
        result = ranked(score, full, full.facts("valid"), is_new)
        labels = {"part": "folded", "way": way, "entities": len(removal.removed)}
        lines.append({**labels, **result, **more})
        print(json.dumps(lines[-1]), flush=True)

    # How ranking of the kept entities' own valid questions changes.
    old_questions = reduced.facts("valid")
    world = run.contents("cpu", additions=False)
    nobody = torch.zeros(num_kept, dtype=torch.bool)
    before = ranked(world.mixture.score, reduced, old_questions, nobody)["mrr"]
    all_facts = torch.cat([full.facts("train"), full.facts("valid")])
    grown = replace(full, splits={"train": all_facts, "valid": old_questions})

    def mrr_of_old_questions(score: Any) -> float:
        mrr: float = ranked(score, grown, old_questions, torch.zeros_like(is_new))["mrr"]
        return mrr

    entities = new_entities(graph, features, removal.removed, removal.given)
    content_only = [replace(entity, facts=()) for entity in entities]
    facts_only = [replace(entity, content={}, names=()) for entity in entities]
    ways = (
        ("content", content_only, True),
        ("facts", facts_only, True),
        ("facts, own questions only", facts_only, False),
        ("content and facts", entities, True),
    )
    for way, added, as_negatives in ways:
        if selected_ways and way not in selected_ways:
            continue
        started = time.perf_counter()
        rows = Adder(world, (), as_negatives).add(added)
        seconds = time.perf_counter() - started
        settled = sum("had not settled" not in repr(row) for row in rows)
        variants = {way: Additions(rows)}
        if features.pairs and added is not facts_only:
            variants = {way: related(world, rows), f"{way} without pairs": Additions(rows)}
        for name, additions in variants.items():
            score = world.extended(additions).mixture.score
            add_line(
                name,
                score,
                valid_before=before,
                valid_after=mrr_of_old_questions(score),
                seconds=round(seconds, 1),
                settled=settled,
                pairs=sum(map(len, additions.pairs.values())),
            )
    if vectors is not None:
        reordered = select_vectors(vectors, new_ids(removal.order, count), count)
        add_line("neighbours", Neighbours(among_first(full, num_kept), reordered))
    control = trained(
        experiment,
        replace(full, splits={"train": full.facts("train"), "valid": old_questions}),
        select_features(features, count, removal.order),
        runs / f"with-{seed}",
    )
    score = control.contents("cpu").mixture.score
    add_line("trained with them", score, valid_after=mrr_of_old_questions(score))
    return lines


def among_first(graph: Graph, count: int) -> Graph:
    """The graph with the training facts among its first `count` entities alone."""
    train = graph.facts("train")
    kept = (train[:, [0, 2]] < count).all(1)
    return replace(graph, splits={**graph.splits, "train": train[kept]})


def new_entities(
    graph: Graph, features: Features, removed: Tensor, given: Tensor
) -> list[NewEntity]:
    """The removed entities with their content, names and given facts."""
    texts: dict[str, dict[str, dict[int, Any]]] = {}
    for name, pairs in features.pairs.items():
        assert pairs.basis is not None
        texts[name] = {what: text.by_entity() for what, text in pairs.basis.texts.items()}
    names: dict[int, Any] = {}
    for by_kind in texts.values():
        names |= by_kind.get("names", {})
    facts: dict[int, list[tuple[str, str, str]]] = defaultdict(list)
    for h, r, t in given.tolist():
        for entity in {h, t} & set(removed.tolist()):
            facts[entity].append((graph.entities[h], graph.relations[r], graph.entities[t]))
    return [
        NewEntity(
            graph.entities[entity],
            facts[entity],
            content=content_of(entity, features, texts),
            names=tuple(names.get(entity, ())),
        )
        for entity in removed.tolist()
    ]


def content_of(
    entity: int, features: Features, texts: Mapping[str, Mapping[str, Mapping[int, Any]]]
) -> dict[str, Any]:
    """Content of an entity by modality."""
    content: dict[str, Any] = {}
    for name, modality in features.dense.items():
        if (row := row_of(modality, entity)) is not None:
            content[name] = row
    for name, tokens in features.tokens.items():
        if len(ids := tokens.token[tokens.entity == entity]):
            content[name] = frozenset(tokens.vocabulary[n] for n in ids.tolist())
    for name, by_kind in texts.items():
        basis = features.pairs[name].basis
        assert basis is not None
        if entity in by_kind.get("texts", {}):
            content[name] = by_kind["texts"][entity]
        elif basis.vectors is not None and (row := row_of(basis.vectors, entity)) is not None:
            content[name] = row
    return content


def row_of(modality: Modality, entity: int) -> Tensor | None:
    """Vector of an entity in float32, if it has one."""
    rows = (modality.rows == entity).nonzero().flatten()
    return modality.values[rows[0]].float() if len(rows) else None


# -- the page --------------------------------------------------------------------------------------


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Means over seeds."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["part"], line["graph"], line["experiment"], line["way"]].append(line)
    rows = [
        "| graph, experiment | entities | ranked by | seeds | questions | MRR | entity given | "
        "entity asked for | Hits@10 | old questions |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (kind, graph, name, way), group in groups.items():
        entities = "of no training fact" if kind == "known" else "removed and added"
        values = [statistics.fmean(line["mrr"] for line in group)]
        for role in ("given", "asked for"):
            values.append(statistics.fmean(line[role].get("mrr", 0.0) for line in group))
        values.append(statistics.fmean(line["hits@10"] for line in group))
        cells = [f"{value:.3f}" for value in values]
        seeds = ", ".join(str(line["seed"]) for line in group)
        rows.append(
            f"| {graph}, `{name}` | {group[0]['entities']} {entities} | {way} | {seeds} | "
            f"{group[0]['count']:,} | {' | '.join(cells)} | {old_questions_cell(group)} |"
        )
    return "\n".join(rows)


def old_questions_cell(group: Sequence[Mapping[str, Any]]) -> str:
    if not all("valid_after" in line for line in group):
        return ""
    cell = f"{statistics.fmean(line['valid_after'] for line in group):.3f}"
    if all("valid_before" in line for line in group):
        cell += f" ({statistics.fmean(line['valid_before'] for line in group):.3f} before)"
    return cell


def replace_lines(lines: Sequence[Mapping[str, Any]]) -> None:
    """Store results; a line replaces the one with the same key."""
    by_key = {
        tuple(line[name] for name in KEY): line for line in [*common.read_lines(RESULTS), *lines]
    }
    common.write_lines(RESULTS, by_key.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?")
    parser.add_argument("experiment", nargs="?")
    parser.add_argument("--features")
    parser.add_argument("--by", default="text", help="modality of the baseline's vectors")
    parser.add_argument("--parts", nargs="+", default=["known", "folded"])
    parser.add_argument("--ways", nargs="+", default=[], help="ways of `folded`; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--runs", type=Path, default=Path("runs/unseen"))
    parser.add_argument("--render", type=Path, help="page that gets the table")
    options = parser.parse_args()
    if options.render:
        common.put_on_page(options.render, "unseen", table(common.read_lines(RESULTS)))
        return
    torch.set_num_threads(1)
    graph = load(options.data)
    for seed in options.seeds:
        changes = dict(parse_override(text) for text in options.set) | {"seed": seed}
        experiment = Experiment.load(options.experiment, changes)
        features = training.read_inputs(graph, experiment, options.features)
        home = options.runs / graph.name / experiment.name.replace("/", "-")
        vectors = baseline_vectors(graph, features, options.by, options.features)
        lines = []
        if "known" in options.parts:
            run = trained(experiment, graph, features, home / f"whole-{seed}")
            lines += known_lines(run, vectors)
        if "folded" in options.parts:
            lines += folded_lines(graph, features, experiment, vectors, seed, home, options.ways)
        labels = {"graph": graph.name, "experiment": experiment.name, "seed": seed}
        labels |= {"split": "valid", "nearest": NEAREST, "settings": options.set}
        replace_lines([{**labels, **line} for line in lines])


if __name__ == "__main__":
    main()
