"""Do the facts that an explanation names support a prediction? Measured by training without them.

Confident predictions of a run (the best answers of questions of the valid split that are in no
training fact, at a probability of at least a half, of a head and a tail that have ten training
facts or more together) are drawn by a seed, and each names its five supporting facts. All these
facts are then left out at once, the experiment is trained again on the rest, and the scores of the
predictions are compared with those of the run of the same seed that had all facts. Controls: as
many facts drawn from all, and five for each prediction drawn from the facts of its head and tail.

    python benchmarks/support.py --runs runs/support --seeds 0 1 2
    python benchmarks/support.py --runs runs/support --seeds 0 --estimates gradient outer vectors
    python benchmarks/support.py --render docs/explaining.md

Facts are named by the run of seed 0. Finished trainings are kept and not made again; Ctrl-C and the
same command go together.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import mocme
from mocme.core.device import use_threads
from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import Graph, Queries
from mocme.explanation.faithfulness import spearman
from mocme.explanation.influence import InfluenceFinder
from mocme.explanation.schema import ExplanationContext, Support
from mocme.prediction.predictor import Predictor
from mocme.runs.run import Run
from mocme.runs.train import resume, train

HERE = Path(__file__).parent
RESULTS = HERE / "accuracy/results/support.jsonl"
BEGIN, END = "<!-- support -->", "<!-- end of support -->"
NUMBER, NAMED, LEAST, ENOUGH = 20, 5, 0.5, 10
BLOCK = 256

Fact = tuple[int, int, int]
Naming = Callable[[Fact], list[Fact]]


def chosen(predictor: Predictor, seed: int = 0) -> list[Fact]:
    """Predictions to explain."""
    graph = predictor.graph
    asked, train_answers = graph.answers("valid").queries, graph.answers("train")
    found: set[Fact] = set()
    for first in range(0, len(asked), BLOCK):
        part = asked[slice(first, first + BLOCK)]
        own = predictor.marked(part.head.tolist(), part.relation.tolist())
        scores, chances = own[0], own[1]
        scores[train_answers.lookup(part)] = -torch.inf
        for row, answer in enumerate(scores.argmax(1).tolist()):
            if float(chances[row, answer]) >= LEAST:
                h, r = int(part.head[row]), int(part.relation[row])
                back = r >= graph.num_relations
                found.add((answer, r - graph.num_relations, h) if back else (h, r, answer))
    whole = [fact for fact in sorted(found) if len(near(graph, fact)) >= ENOUGH]
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    return [whole[place] for place in order[:NUMBER]]


def near(graph: Graph, fact: Fact) -> list[Fact]:
    """Training facts of the head or the tail of a fact."""
    facts = graph.facts("train")
    ends = torch.tensor([fact[0], fact[2]])
    own = torch.isin(facts[:, 0], ends) | torch.isin(facts[:, 2], ends)
    return [(h, r, t) for h, r, t in facts[own].tolist()]


def namings(run: Run, predictor: Predictor) -> dict[str, Naming]:
    """Ways of naming a prediction's five facts: the explanation's, and those it was chosen from."""
    graph, features = predictor.graph, run.features(predictor.graph)
    objective = run.experiment.parts()[2].objective
    facts = TrainingFacts.of(graph.training_view(), features.tokens, objective.candidates)
    supporting = InfluenceFinder(objective, predictor.model, facts, graph, features)
    grounds = predictor.explainer.grounds
    assert grounds is not None

    def named(fact: Fact) -> list[Fact]:
        return [
            (graph.entities.id(s.head), graph.relations.id(s.relation), graph.entities.id(s.tail))
            for s in supports_of(grounds, fact)
        ]

    def ranked(estimate: Callable[[Fact], dict[Fact, float]], patterns: bool) -> Naming:
        def naming(fact: Fact) -> list[Fact]:
            change = dict(supporting.by_patterns(*fact)) if patterns else {}
            for key, value in estimate(fact).items():
                change[key] = change.get(key, 0.0) + value
            links = [f for f in change if f[1] < graph.num_relations and f != fact]
            return sorted(links, key=lambda f: (change[f], f))[:NAMED]

        return naming

    def simple(curved: bool) -> Callable[[Fact], dict[Fact, float]]:
        return lambda fact: simpler(supporting, predictor, fact, curved)

    def vectors(fact: Fact) -> dict[Fact, float]:
        return supporting.by_vectors(*fact, set())[0]

    return {
        "named": named,
        "gradient": ranked(simple(False), True),
        "outer": ranked(simple(True), True),
        "vectors": ranked(vectors, False),
        "gradient, vectors": ranked(simple(False), False),
        "patterns": ranked(lambda fact: {}, True),
    }


def supports_of(grounds: ExplanationContext, fact: Fact) -> list[Support]:
    """The five facts that an explanation names; tokens are passed over."""
    found, _ = grounds.supports(*fact, 1 << 30)
    return [support for support in found if support.kind == "fact"][:NAMED]


def simpler(
    supporting: InfluenceFinder, predictor: Predictor, fact: Fact, curved: bool
) -> dict[Fact, float]:
    """Estimates by gradients alone, or with H of their outer products (damping: their mean)."""
    pull, total = supporting.pull, {}
    for entity, slope in supporting.slopes(*fact).items():
        own = pull.facts_of(entity)
        if not len(own):
            continue
        vector = predictor.model.frozen().vectors[entity]
        each = vector.expand(len(own), -1).clone().requires_grad_()
        (pulls,) = torch.autograd.grad(pull.losses(own, each).sum(), each)
        change = pulls @ slope * predictor.model.frozen().weights[entity, 0] ** 2
        if curved:
            damping = pulls.square().sum() / len(slope)
            inner = pulls @ pulls.T + damping * torch.eye(len(pulls))
            turned = slope - pulls.T @ torch.linalg.solve(inner, pulls @ slope)
            change = pulls @ turned / damping
        for (h, r, t), value in zip(own.tolist(), change.tolist(), strict=True):
            number = predictor.graph.num_relations
            key = (t, r - number, h) if number <= r < 2 * number else (h, r, t)
            total[key] = total.get(key, 0.0) + value
    return total


def conditions(
    run: Run, predictor: Predictor, predictions: Sequence[Fact], estimates: Sequence[str]
) -> Iterator[tuple[str, list[Fact]]]:
    """Name of each condition, and the facts that are left out."""
    graph = predictor.graph
    facts = [(h, r, t) for h, r, t in graph.facts("train").tolist()]
    ways = namings(run, predictor)
    number = 0
    for name in ["named", *estimates]:
        left_out = sorted({fact for one in predictions for fact in ways[name](one)})
        number = number or len(left_out)
        yield name, left_out
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(facts), generator=generator)[:number].tolist()
    yield "any", [facts[place] for place in order]
    same: list[Fact] = []
    for fact in predictions:
        own = near(graph, fact)
        order = torch.randperm(len(own), generator=generator).tolist()
        same += [own[place] for place in order if own[place] not in same][:NAMED]
    yield "of the same head and tail", same


def trained(home: Path, name: str, seed: int, graph: Graph, left_out: Sequence[Fact]) -> Run:
    """A run without some facts, trained if it is not there."""
    path = home / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    gone = set(left_out)
    facts = graph.splits["train"]
    keep = torch.tensor([tuple(fact) not in gone for fact in facts.tolist()])
    rest = replace(graph, splits={**graph.splits, "train": facts[keep]})
    if (path / "run.json").exists():
        run = resume(path, device="cpu")
        if run.graph().digest() != rest.digest():
            raise SystemExit(f"{path}: was trained on other facts; remove it")
        return run
    return train(rest, "default", out=path, seed=seed, device="cpu")


def scores(run: Run, whole: Graph, predictions: Sequence[Fact]) -> list[dict[str, float]]:
    """Mean score, log share of the softmax and log rank of each prediction.

    Both directions, among answers that the whole graph does not know.
    """
    graph = run.graph()
    model = run.model(graph, run.features(graph), torch.device("cpu"))
    known, found = whole.answers(*whole.splits), []
    for h, r, t in predictions:
        queries = Queries(torch.tensor([h, t]), torch.tensor([r, r + whole.num_relations]))
        with torch.no_grad():
            row = model.score(queries)
            vectors = model.embedding_score(queries)
        answers = (torch.arange(2), torch.tensor([t, h]))
        own = row[answers]
        row[known.lookup(queries)] = -torch.inf
        row[answers] = own
        found.append(
            {
                "score": float(own.mean()),
                "vectors": float(vectors[answers].mean()),
                "log share": float((own - row.logsumexp(1)).mean()),
                "log10 rank": float((1 + (row > own[:, None]).sum(1)).log10().mean()),
            }
        )
    return found


def measure(home: Path, seeds: Sequence[int], estimates: Sequence[str]) -> None:
    graph = mocme.load("atlas")
    base = {0: trained(home, "whole", 0, graph, [])}
    predictor = base[0].predictor("cpu")
    predictions = chosen(predictor)
    plan = list(conditions(base[0], predictor, predictions, estimates))
    grounds = predictor.explainer.grounds
    assert grounds is not None
    estimated = [sum(s.change for s in supports_of(grounds, fact)) for fact in predictions]
    done = {(line["condition"], line["seed"]) for line in read()}
    for seed in seeds:
        for name, left_out in plan:
            if (name, seed) in done or (seed and name in estimates):
                continue
            base[seed] = base.get(seed) or trained(home, "whole", seed, graph, [])
            before = scores(base[seed], graph, predictions)
            after = scores(trained(home, name, seed, graph, left_out), graph, predictions)
            line = {
                "graph": graph.name,
                "experiment": "default",
                "condition": name,
                "seed": seed,
                "left_out": len(left_out),
                "predictions": [names(graph, fact) for fact in predictions],
                "facts": [names(graph, fact) for fact in left_out],
                "before": before,
                "after": after,
            }
            if name == "named":
                line["estimated"] = estimated
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            print(f"seed {seed}: {name}: {falls(line, 'score')}", flush=True)


def names(graph: Graph, fact: Fact) -> list[str]:
    h, r, t = fact
    return [graph.entities[h], graph.relations[r], graph.entities[t]]


def read() -> list[dict[str, Any]]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def falls(line: dict[str, Any], what: str) -> str:
    values = [b[what] - a[what] for b, a in zip(line["before"], line["after"], strict=True)]
    return f"{statistics.mean(values):.2f} (deviation {statistics.stdev(values):.2f})"


COLUMNS = {"score": 1, "vectors": 1, "log share": 1, "log10 rank": -1}


def table() -> str:
    """Mean falls over predictions, with the deviation over seeds, and how many predictions fell."""
    by: dict[str, list[dict[str, Any]]] = {}
    for line in read():
        by.setdefault(line["condition"], []).append(line)
    body = [
        "| facts left out | seeds | fall of the score | by vectors alone | fall of the log share | "
        "rank times | scores that fell |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, lines in by.items():
        cells = [f"{name} ({lines[0]['left_out']})", str(len(lines))]
        fell = total = 0
        for what, sign in COLUMNS.items():
            means = []
            for line in lines:
                pairs = zip(line["before"], line["after"], strict=True)
                own = [sign * (before[what] - after[what]) for before, after in pairs]
                means.append(statistics.mean(own))
                if what == "score":
                    fell, total = fell + sum(value > 0 for value in own), total + len(own)
            if what == "log10 rank":
                cells.append(f"{10 ** statistics.mean(means):.1f}")
                continue
            spread = f" ± {statistics.stdev(means):.2f}" if len(means) > 1 else ""
            cells.append(f"{statistics.mean(means):.2f}{spread}")
        body.append(f"| {' | '.join(cells)} | {fell} of {total} |")
    return "\n".join(body)


def agreement() -> str:
    """How far the estimate tells the falls that were measured."""
    lines = [line for line in read() if line["condition"] == "named"]
    found, ratios = [], []
    for line in lines:
        real = [b["score"] - a["score"] for b, a in zip(line["before"], line["after"], strict=True)]
        own = [-value for value in line["estimated"]]
        found.append(spearman(torch.tensor(own), torch.tensor(real)) or 0.0)
        ratios.append(statistics.mean(own) / statistics.mean(real))
    each = ", ".join(f"{value:.2f}" for value in found)
    return (
        f"The five estimated changes of a prediction, added, and the fall that was measured have "
        f"the rank correlation {each} (by seed, over {len(lines[0]['predictions'])} predictions); "
        f"on average the estimate is {statistics.mean(ratios):.2f} times the fall."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, help="folder of the trainings")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--estimates", nargs="*", default=[], help="other ways of naming, at seed 0"
    )
    parser.add_argument("--render", type=Path, help="the page that gets the table")
    asked = parser.parse_args()
    use_threads(1)
    if asked.runs:
        measure(asked.runs, asked.seeds, asked.estimates)
    if asked.render:
        text = asked.render.read_text()
        if BEGIN not in text or END not in text:
            raise SystemExit(f"{asked.render}: needs the lines {BEGIN} and {END}")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        asked.render.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{agreement()}\n\n{END}{after}")


if __name__ == "__main__":
    main()
