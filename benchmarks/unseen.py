"""Entities that a training has not seen: what a model knows of them, and what adding them gives.

Two parts, valid split only, filtered, realistic ties, both directions, everyone competes:

- `known`: valid questions about entities of no training fact, which a model ranks by content alone,
  and a baseline that lets the ten nearest seen entities vote with their facts.
- `folded`: seen entities are taken out of graph and modalities, a model is trained without them,
  and they are added with content, with half of their facts, and with both; what is ranked is the
  other half. Beside it the baseline, and a model that was trained with the same half. Pairs of
  entities are made anew for those that stay, and for the added ones as any addition's are.

A line of results replaces the one of the same part, graph, experiment, way and seed.

    python benchmarks/unseen.py atlas default --by text --seeds 0 1 2 --runs runs/unseen
    python benchmarks/unseen.py MKG-Y patterns/mkg-y --parts folded --features FOLDER
    python benchmarks/unseen.py --render docs/additions.md
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mocme import NewEntity, Run
from mocme.core.device import find_device
from mocme.data.features.sources import read_features
from mocme.data.graph import AnswerIndex, Graph, Queries, Vocabulary
from mocme.data.ingest.reader import encoded_table
from mocme.data.load import load
from mocme.data.modality import Features, Modality, Pairs, Tokens
from mocme.data.pairs.build import make
from mocme.data.strings import EntityTexts
from mocme.evaluation import metrics
from mocme.evaluation.ranking import Ranks, hidden, rank
from mocme.inductive.add import Adder
from mocme.inductive.pairs import related
from mocme.inductive.store import Additions
from mocme.runs import train as experiment
from mocme.runs.config import Experiment, parse_override
from mocme.storage import RunFolder

RESULTS = Path(__file__).parent / "accuracy/results/unseen.jsonl"
BEGIN, END = "<!-- unseen -->", "<!-- end of unseen -->"
NEAREST, TAKEN, LEAST = 10, 100, 4
KEY = ("part", "graph", "experiment", "way", "seed")


# -- graphs and modalities of other entities ---------------------------------------------------


def of_entities(graph: Graph, order: Tensor, splits: Mapping[str, Tensor]) -> Graph:
    """The graph of the entities `order` (old ids), in this order, with facts in old ids."""
    place = torch.full((graph.num_entities,), -1)
    place[order] = torch.arange(len(order))
    found = {}
    for name, facts in splits.items():
        ids = torch.stack([place[facts[:, 0]], facts[:, 1], place[facts[:, 2]]], 1)
        found[name] = ids[(ids >= 0).all(1)]
    names = Vocabulary([graph.entities[n] for n in order.tolist()])
    return replace(graph, entities=names, splits=found)


def features_of(features: Features, number: int, order: Tensor) -> Features:
    """The modalities of the entities `order`; tokens that none of them has are left out."""
    place = torch.full((number,), -1)
    place[order] = torch.arange(len(order))
    size = len(order)
    dense: dict[str, Modality] = {}
    tokens, pairs = {}, {}
    dense |= {name: vectors_of(own, place, size) for name, own in features.dense.items()}
    for name, own in features.tokens.items():
        entity = place[own.entity]
        kept = entity >= 0
        used, token = torch.unique(own.token[kept], return_inverse=True)
        entity = entity[kept]
        by = (entity * max(1, len(used)) + token).argsort()
        told = dict(own.provenance)
        if "frequency" in told:
            counts = json.loads(told["frequency"])
            told["frequency"] = json.dumps([counts[n] for n in used.tolist()])
        words = tuple(own.vocabulary[n] for n in used.tolist())
        tokens[name] = Tokens(words, entity[by], token[by], size, told)
    for name, own in features.pairs.items():
        pairs[name] = pairs_of(own, dense, place, size)
    return Features(dense, tokens, pairs)


def vectors_of(own: Modality, place: Tensor, size: int) -> Modality:
    """Vectors of the entities that have a place, by it."""
    rows = place[own.rows]
    by = rows.argsort()[int((rows < 0).sum()) :]
    return Modality(own.values[by].float(), rows[by], size, own.provenance)


def pairs_of(own: Pairs, dense: Mapping[str, Modality], place: Tensor, size: int) -> Pairs:
    """Pairs of the entities that have a place: made of what those have, as if others never were."""
    if own.basis is None:
        raise ValueError("the pairs do not say what they are made of; is it a control?")
    texts = {what: held.by_entity() for what, held in own.basis.texts.items()}
    texts = {
        what: EntityTexts.of({int(place[e]): own for e, own in held.items() if place[e] >= 0})
        for what, held in texts.items()
    }
    vectors = own.basis.vectors
    vectors = None if vectors is None else vectors_of(vectors, place, size)
    return make(replace(own.basis, texts=texts, vectors=vectors), size, own.provenance, dense)


def trained(chosen: Experiment, graph: Graph, features: Features, out: Path) -> Run:
    """A run on modalities that are at hand; one that is there already is taken."""
    if (out / "run.json").exists():
        return experiment.resume(out)
    settled = experiment.settle(chosen, find_device("auto"))
    folder = RunFolder.create(out, experiment._about(settled, graph, features))
    experiment._store_inputs(folder, settled, graph, features)
    return experiment._go(Run(folder), graph, features, find_device("auto"), None)


# -- the baseline ------------------------------------------------------------------------------


class Neighbours:
    """Votes of the seen entities whose vectors are nearest, by cosine.

    A candidate gets the cosine of each neighbour of the asked entity that it answers, and of each
    of its own neighbours that answers the question.
    """

    def __init__(self, graph: Graph, modality: Modality) -> None:
        values = torch.zeros(graph.num_entities, modality.width)
        values[modality.rows] = torch.nn.functional.normalize(modality.values.float())
        seen = graph.linked()
        size, pairs, weights = graph.num_entities, [], []
        for block in torch.arange(size).split(2048):
            cosine = values[block] @ values.T
            cosine[:, ~seen] = -1.0
            cosine[torch.arange(len(block)), block] = -1.0
            top = cosine.topk(NEAREST, 1)
            pairs.append(torch.stack([block.repeat_interleave(NEAREST), top.indices.flatten()]))
            weights.append(top.values.flatten().clamp_min(0))
        self.near = torch.sparse_coo_tensor(
            torch.cat(pairs, 1), torch.cat(weights), (size, size), check_invariants=False
        ).coalesce()
        facts = graph.directed("train")
        self.size, self.by = size, {}
        for relation in range(2 * graph.num_relations):
            own = facts[facts[:, 1] == relation]
            ones = torch.ones(len(own))
            ids = torch.stack([own[:, 0], own[:, 2]])
            self.by[relation] = torch.sparse_coo_tensor(
                ids, ones, (size, size), check_invariants=False
            ).coalesce()

    def __call__(self, queries: Queries) -> Tensor:
        rows = []
        for head, relation in zip(queries.head.tolist(), queries.relation.tolist(), strict=True):
            links = self.by[relation]
            own = torch.zeros(self.size)
            mine = self.near.indices()[0] == head
            own[self.near.indices()[1][mine]] = self.near.values()[mine]
            answers = torch.zeros(self.size)
            answers[links.indices()[1][links.indices()[0] == head]] = 1.0
            first = torch.sparse.mm(links.T, own.unsqueeze(1))
            second = torch.sparse.mm(self.near, answers.unsqueeze(1))
            rows.append((first + second).flatten())
        return torch.stack(rows)


# -- measuring ---------------------------------------------------------------------------------


def ranked(score: Any, graph: Graph, wanted: Tensor, about: Tensor) -> dict[str, Any]:
    """Metrics of the wanted facts of a graph whose valid split they are, by what is asked for."""
    asked = AnswerIndex(of_facts(graph, wanted))
    ranks = rank(score, asked, hidden(graph, "valid"), batch=64)
    given = about[ranks.head]
    return {
        **part(ranks, torch.ones_like(given)),
        "given": part(ranks, given),
        "asked for": part(ranks, ~given),
    }


def of_facts(graph: Graph, facts: Tensor) -> Tensor:
    """Facts in both directions."""
    back = torch.stack([facts[:, 2], facts[:, 1] + graph.num_relations, facts[:, 0]], 1)
    return torch.cat([facts, back])


def part(ranks: Ranks, mask: Tensor) -> dict[str, Any]:
    found = ranks.realistic[mask]
    return {"count": len(found), **metrics.of_ranks(found)}


def compared(graph: Graph, features: Features, by: str, folder: str | None) -> Modality | None:
    """The vectors of the baseline: a modality, or what `mocme encode` made of that name."""
    if by in features.dense or folder is None:
        return features.dense.get(by)
    return read_features(graph, {by: encoded_table(by)}, Path(folder)).dense[by]


def known(run: Run, vectors: Modality | None) -> list[dict[str, Any]]:
    """Valid questions about entities of no training fact."""
    world = run.contents("cpu", additions=False)
    graph = world.graph
    unseen = ~graph.linked()
    facts = graph.facts("valid")
    facts = facts[unseen[facts[:, 0]] | unseen[facts[:, 2]]]
    ways = {"content": world.model.score}
    if vectors is not None:
        ways["neighbours"] = Neighbours(graph, vectors)
    return [
        {"part": "known", "way": way, "entities": int(unseen.sum()), **found}
        for way, found in (
            (way, ranked(score, graph, facts, unseen)) for way, score in ways.items()
        )
    ]


def folded(
    graph: Graph,
    features: Features,
    chosen: Experiment,
    vectors: Modality | None,
    seed: int,
    runs: Path,
    wanted_ways: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Train without some entities, add them, and rank the half of their facts that nobody knew."""
    generator = torch.Generator().manual_seed(seed)
    train = graph.facts("train")
    degree = torch.bincount(train[:, [0, 2]].flatten(), minlength=graph.num_entities)
    some = (degree >= LEAST).nonzero().flatten()
    gone = some[torch.randperm(len(some), generator=generator)[:TAKEN]].sort().values
    is_gone = torch.zeros(graph.num_entities, dtype=torch.bool)
    is_gone[gone] = True
    stay = (~is_gone).nonzero().flatten()
    ends = is_gone[train[:, 0]].long() + is_gone[train[:, 2]].long()
    own = train[ends == 1]
    own = own[torch.randperm(len(own), generator=generator)]
    # Of each entity every second fact is given; an odd one too.
    owner = torch.where(is_gone[own[:, 0]], own[:, 0], own[:, 2])
    turn = torch.zeros(len(own), dtype=torch.int64)
    for entity in gone.tolist():
        mine = (owner == entity).nonzero().flatten()
        turn[mine] = torch.arange(len(mine)) % 2
    given, asked = own[turn == 0], own[turn == 1]
    everyone = torch.cat([stay, gone])
    count = graph.num_entities
    rest = {"train": train[ends == 0], "valid": graph.facts("valid")}
    less, fewer = of_entities(graph, stay, rest), features_of(features, count, stay)
    whole = of_entities(
        graph, everyone, {"train": torch.cat([train[ends == 0], given]), "valid": asked}
    )
    all_features = features_of(features, count, everyone)
    new = torch.arange(len(everyone)) >= len(stay)
    run = trained(chosen, less, fewer, runs / f"without-{seed}")
    found = []

    def line(way: str, score: Any, **more: Any) -> None:
        result = ranked(score, whole, whole.facts("valid"), new)
        found.append({"part": "folded", "way": way, "entities": len(gone), **result, **more})
        print(json.dumps(found[-1]), flush=True)

    old = less.facts("valid")
    plain = run.contents("cpu", additions=False)
    before = ranked(plain.model.score, less, old, torch.zeros(len(stay)).bool())["mrr"]
    entities = asked_for(graph, features, gone, given)
    without_facts = [replace(one, facts=()) for one in entities]
    facts_alone = [replace(one, content={}, names=()) for one in entities]
    objective = run.experiment.parts()[2].objective
    true = torch.cat([whole.facts("train"), whole.facts("valid")])
    grown = replace(whole, splits={"train": true, "valid": old})
    ways = (
        ("content", without_facts, True),
        ("facts", facts_alone, True),
        ("facts, own questions only", facts_alone, False),
        ("content and facts", entities, True),
    )
    for way, wanted, as_negatives in ways:
        if wanted_ways and way not in wanted_ways:
            continue
        started = time.perf_counter()
        made = Adder(plain, (), objective, as_negatives).add(wanted)
        seconds = time.perf_counter() - started
        settled = sum("had not settled" not in repr(item) for item in made)
        added = {way: Additions(made)}
        if features.pairs and wanted is not facts_alone:
            added = {way: related(plain, made), f"{way} without pairs": Additions(made)}
        for name, own in added.items():
            score = plain.extended(own).model.score
            after = ranked(score, grown, old, torch.zeros(len(everyone)).bool())["mrr"]
            more = {"valid_before": before, "valid_after": after, "seconds": round(seconds, 1)}
            more |= {"settled": settled, "pairs": sum(map(len, own.pairs.values()))}
            line(name, score, **more)
    if vectors is not None:
        place = torch.full((count,), -1)
        place[everyone] = torch.arange(count)
        line("neighbours", Neighbours(of_seen(whole, len(stay)), vectors_of(vectors, place, count)))
    beside = trained(chosen, replace(whole, splits={"train": whole.facts("train"), "valid": old}),
                     all_features, runs / f"with-{seed}")  # fmt: skip
    score = beside.contents("cpu").model.score
    nobody = torch.zeros(len(everyone)).bool()
    line("trained with them", score, valid_after=ranked(score, grown, old, nobody)["mrr"])
    return found


def of_seen(graph: Graph, number: int) -> Graph:
    """The facts among the first entities alone."""
    train = graph.facts("train")
    kept = (train[:, [0, 2]] < number).all(1)
    return replace(graph, splits={**graph.splits, "train": train[kept]})


def asked_for(graph: Graph, features: Features, gone: Tensor, given: Tensor) -> list[NewEntity]:
    """The entities with what they have."""
    names = graph.entities
    read: dict[str, dict[str, dict[int, list[str]]]] = {}
    for name, own in features.pairs.items():
        assert own.basis is not None
        read[name] = {what: held.by_entity() for what, held in own.basis.texts.items()}
    called = {e: own for held in read.values() for e, own in held.get("names", {}).items()}
    facts = defaultdict(list)
    for h, r, t in given.tolist():
        for entity in {h, t} & set(gone.tolist()):
            facts[entity].append((names[h], graph.relations[r], names[t]))
    found = []
    for entity in gone.tolist():
        content: dict[str, Any] = {}
        for name, own in features.dense.items():
            if len(row := (own.rows == entity).nonzero().flatten()):
                content[name] = own.values[row[0]].float()
        for name, own in features.tokens.items():
            if len(mine := own.token[own.entity == entity]):
                content[name] = frozenset(own.vocabulary[n] for n in mine.tolist())
        for name, held in read.items():
            vectors = features.pairs[name].basis.vectors
            if entity in held.get("texts", {}):
                content[name] = held["texts"][entity]
            elif vectors is not None and len(row := (vectors.rows == entity).nonzero().flatten()):
                content[name] = vectors.values[row[0]].float()
        own_names = tuple(called.get(entity, ()))
        found.append(NewEntity(names[entity], facts[entity], content=content, names=own_names))
    return found


# -- the page ----------------------------------------------------------------------------------


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Means over seeds."""
    groups = defaultdict(list)
    for line in lines:
        groups[line["part"], line["graph"], line["experiment"], line["way"]].append(line)
    rows = [
        "| graph, experiment | entities | ranked by | seeds | questions | MRR | it is given | "
        "it is asked for | Hits@10 | old questions |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (what, graph, name, way), own in groups.items():
        kind = "of no training fact" if what == "known" else "taken out and added"
        values = [statistics.fmean(one["mrr"] for one in own)]
        values += [statistics.fmean(one[k].get("mrr", 0.0) for one in own)
                   for k in ("given", "asked for")]  # fmt: skip
        values.append(statistics.fmean(one["hits@10"] for one in own))
        shown = " | ".join(f"{value:.3f}" for value in values)
        if all("valid_after" in one for one in own):
            shown += f" | {statistics.fmean(one['valid_after'] for one in own):.3f}"
            if all("valid_before" in one for one in own):
                before = statistics.fmean(one["valid_before"] for one in own)
                shown += f" ({before:.3f} before)"
        else:
            shown += " | "
        seeds = ", ".join(str(one["seed"]) for one in own)
        rows.append(
            f"| {graph}, `{name}` | {own[0]['entities']} {kind} | {way} | {seeds} | "
            f"{own[0]['count']:,} | {shown} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?")
    parser.add_argument("experiment", nargs="?")
    parser.add_argument("--features")
    parser.add_argument("--by", default="text", help="modality of the baseline's vectors")
    parser.add_argument("--parts", nargs="+", default=["known", "folded"])
    parser.add_argument("--ways", nargs="+", default=[], help="of `folded`; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--runs", type=Path, default=Path("runs/unseen"))
    parser.add_argument("--render", type=Path)
    options = parser.parse_args()
    if options.render:
        lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
        text = options.render.read_text(encoding="utf-8")
        head, _, rest = text.partition(BEGIN)
        _, _, tail = rest.partition(END)
        options.render.write_text(f"{head}{BEGIN}\n{table(lines)}\n{END}{tail}", encoding="utf-8")
        return
    torch.set_num_threads(1)
    graph = load(options.data)
    for seed in options.seeds:
        changes = dict(parse_override(text) for text in options.set) | {"seed": seed}
        chosen = Experiment.load(options.experiment, changes)
        features = experiment.read_inputs(graph, chosen, options.features)
        home = options.runs / graph.name / chosen.name.replace("/", "-")
        vectors = compared(graph, features, options.by, options.features)
        found = []
        if "known" in options.parts:
            run = trained(chosen, graph, features, home / f"whole-{seed}")
            found += known(run, vectors)
        if "folded" in options.parts:
            found += folded(graph, features, chosen, vectors, seed, home, options.ways)
        about = {"graph": graph.name, "experiment": chosen.name, "seed": seed}
        about |= {"split": "valid", "nearest": NEAREST, "settings": options.set}
        record([{**about, **line} for line in found])


def record(lines: Sequence[Mapping[str, Any]]) -> None:
    """Keep results; a line takes the place of the one with the same key."""
    kept = {}
    earlier = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    for line in [*map(json.loads, earlier), *lines]:
        kept[tuple(line[name] for name in KEY)] = line
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in kept.values()))


if __name__ == "__main__":
    main()
