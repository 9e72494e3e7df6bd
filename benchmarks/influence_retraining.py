r"""Do the facts that an explanation names support a prediction? Measured by training without them.

Draws confident predictions of a run: best answers to questions of the valid split that are in no
training fact, with a probability of at least one half, whose head and tail together have ten
training facts or more. Each names its five supporting facts. All these facts are left out at once,
the experiment is trained again on the rest, and the scores of the predictions are compared with
those of the run of the same seed on all facts. Controls: equally many facts drawn from all, and
five per prediction drawn from the facts of its head and tail.

    python benchmarks/influence_retraining.py --runs runs/support --seeds 0 1 2
    python benchmarks/influence_retraining.py --runs runs/support --seeds 0 \
        --estimates gradient outer vectors
    python benchmarks/influence_retraining.py --render docs/explaining.md

The run of seed 0 names the facts. Finished trainings are kept and not repeated; after Ctrl-C the
same command resumes.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import common
import mocme
from mocme.core.device import use_threads
from mocme.data.graph import Graph, Queries
from mocme.explanation.embedding_influence import EmbeddingInfluence
from mocme.explanation.faithfulness import first_embedding, spearman
from mocme.explanation.influence import InfluenceFinder
from mocme.explanation.schema import ExplanationContext, Support
from mocme.prediction.predictor import Predictor
from mocme.runs.run import Run
from mocme.runs.train import resume, train

RESULTS = common.RESULTS / "influence_retraining.jsonl"
PREDICTIONS, SUPPORTS = 20, 5
LEAST_PROBABILITY, LEAST_FACTS = 0.5, 10
BLOCK = 256

Fact = tuple[int, int, int]
Naming = Callable[[Fact], list[Fact]]


def draw_predictions(predictor: Predictor, seed: int = 0) -> list[Fact]:
    """Predictions to explain."""
    graph = predictor.graph
    questions, train_answers = graph.answers("valid").queries, graph.answers("train")
    confident: set[Fact] = set()
    for first in range(0, len(questions), BLOCK):
        block = questions[slice(first, first + BLOCK)]
        scores, probabilities = predictor.scorer.scored(
            block.head.tolist(), block.relation.tolist()
        )[:2]
        scores[train_answers.lookup(block)] = -torch.inf
        for row, answer in enumerate(scores.argmax(1).tolist()):
            if float(probabilities[row, answer]) >= LEAST_PROBABILITY:
                h, r = int(block.head[row]), int(block.relation[row])
                is_inverse = r >= graph.num_relations
                confident.add(
                    (answer, r - graph.num_relations, h) if is_inverse else (h, r, answer)
                )
    facts = [fact for fact in sorted(confident) if len(adjacent(graph, fact)) >= LEAST_FACTS]
    order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(seed))
    return [facts[index] for index in order[:PREDICTIONS]]


def adjacent(graph: Graph, fact: Fact) -> list[Fact]:
    """Training facts of the head or the tail of a fact."""
    facts = graph.facts("train")
    ends = torch.tensor([fact[0], fact[2]])
    mask = torch.isin(facts[:, 0], ends) | torch.isin(facts[:, 2], ends)
    return [(h, r, t) for h, r, t in facts[mask].tolist()]


def namings(run: Run, predictor: Predictor) -> dict[str, Naming]:
    """Ways to name a prediction's five facts: that of explanations, and its alternatives."""
    graph, features = predictor.graph, run.features(predictor.graph)
    influence = InfluenceFinder(predictor.mixture, graph.training_view(), features)
    context = explanation_context(predictor)

    def named(fact: Fact) -> list[Fact]:
        return [
            (graph.entities.id(s.head), graph.relations.id(s.relation), graph.entities.id(s.tail))
            for s in supports_of(context, fact)
        ]

    def ranked(estimate: Callable[[Fact], dict[Fact, float]], rules: bool) -> Naming:
        def naming(fact: Fact) -> list[Fact]:
            change = dict(influence.by_rules(*fact)) if rules else {}
            for key, value in estimate(fact).items():
                change[key] = change.get(key, 0.0) + value
            links = [f for f in change if f[1] < graph.num_relations and f != fact]
            return sorted(links, key=lambda f: (change[f], f))[:SUPPORTS]

        return naming

    def by_gradients(curved: bool) -> Callable[[Fact], dict[Fact, float]]:
        return lambda fact: gradient_estimate(influence, fact, curved)

    def by_vectors(fact: Fact) -> dict[Fact, float]:
        return influence.by_vectors(*fact, set())[0]

    return {
        "named": named,
        "gradient": ranked(by_gradients(False), True),
        "outer": ranked(by_gradients(True), True),
        "vectors": ranked(by_vectors, False),
        "gradient, vectors": ranked(by_gradients(False), False),
        "rules": ranked(lambda fact: {}, True),
    }


def explanation_context(predictor: Predictor) -> ExplanationContext:
    context = predictor.explainer.context
    assert context is not None
    return context


def supports_of(context: ExplanationContext, fact: Fact) -> list[Support]:
    """The five facts that an explanation names; tokens are skipped."""
    supports, _ = context.supports(*fact, 1 << 30)
    return [support for support in supports if support.kind == "fact"][:SUPPORTS]


def gradient_estimate(influence: InfluenceFinder, fact: Fact, curved: bool) -> dict[Fact, float]:
    """Change of a prediction's score by training fact, from gradients of the losses.

    Args:
        curved: use the outer products of the gradients as the Hessian, damped by their mean.
    """
    total: dict[Fact, float] = {}
    for embedding in influence.embeddings:
        for key, value in embedding_gradients(embedding, fact, curved).items():
            change = influence.mixture.contribution(embedding.expert.name, value)
            total[key] = total.get(key, 0.0) + change
    return total


def embedding_gradients(
    influence: EmbeddingInfluence, fact: Fact, curved: bool
) -> dict[Fact, float]:
    """The same for the score of one embedding."""
    estimator = influence.estimator
    total: dict[Fact, float] = {}
    frozen, num_relations = influence.model.frozen(), influence.graph.num_relations
    for entity, slope in influence.slopes(*fact).items():
        facts = estimator.facts_of(entity)
        if not len(facts):
            continue
        rows = frozen.vectors[entity].expand(len(facts), -1).clone().requires_grad_()
        (gradients,) = torch.autograd.grad(estimator.losses(facts, rows).sum(), rows)
        change = gradients @ slope * frozen.weights[entity, 0] ** 2
        if curved:
            # (G'G + damping I)^-1 by the Woodbury identity: a system of facts, not of dimensions.
            damping = gradients.square().sum() / len(slope)
            inner = gradients @ gradients.T + damping * torch.eye(len(gradients))
            direction = slope - gradients.T @ torch.linalg.solve(inner, gradients @ slope)
            change = gradients @ direction / damping
        for (h, r, t), value in zip(facts.tolist(), change.tolist(), strict=True):
            is_inverse = num_relations <= r < 2 * num_relations
            key = (t, r - num_relations, h) if is_inverse else (h, r, t)
            total[key] = total.get(key, 0.0) + value
    return total


def conditions(
    run: Run, predictor: Predictor, predictions: Sequence[Fact], estimates: Sequence[str]
) -> Iterator[tuple[str, list[Fact]]]:
    """Name of each condition, and the facts that it leaves out."""
    graph = predictor.graph
    facts = [(h, r, t) for h, r, t in graph.facts("train").tolist()]
    ways = namings(run, predictor)
    count = 0
    for name in ["named", *estimates]:
        left_out = sorted({fact for prediction in predictions for fact in ways[name](prediction)})
        count = count or len(left_out)
        yield name, left_out
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(facts), generator=generator)[:count].tolist()
    yield "any", [facts[index] for index in order]
    of_ends: list[Fact] = []
    for prediction in predictions:
        near = adjacent(graph, prediction)
        order = torch.randperm(len(near), generator=generator).tolist()
        of_ends += [near[index] for index in order if near[index] not in of_ends][:SUPPORTS]
    yield "of the same head and tail", of_ends


def trained(home: Path, name: str, seed: int, graph: Graph, left_out: Sequence[Fact]) -> Run:
    """A run without some facts; an existing one is resumed."""
    path = home / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    excluded = set(left_out)
    facts = graph.splits["train"]
    keep = torch.tensor([tuple(fact) not in excluded for fact in facts.tolist()])
    reduced = replace(graph, splits={**graph.splits, "train": facts[keep]})
    if (path / "run.json").exists():
        run = resume(path, device="cpu")
        if run.graph().digest() != reduced.digest():
            raise SystemExit(f"{path}: was trained on other facts; remove it")
        return run
    return train(reduced, "vectors-and-rules", out=path, seed=seed, device="cpu")


def scores(run: Run, full_graph: Graph, predictions: Sequence[Fact]) -> list[dict[str, float]]:
    """Score, log share of the softmax and log rank of each prediction, averaged over directions.

    Candidates are all entities but the answers that the full graph knows.
    """
    graph = run.graph()
    mixture = run.mixture(graph, run.features(graph), torch.device("cpu"))
    embedding = first_embedding(mixture)
    assert embedding is not None
    known, rows = full_graph.answers(*full_graph.splits), []
    for h, r, t in predictions:
        queries = Queries(torch.tensor([h, t]), torch.tensor([r, r + full_graph.num_relations]))
        with torch.no_grad():
            candidates = mixture.score(queries)
            vectors = embedding.score(queries)
        answers = (torch.arange(2), torch.tensor([t, h]))
        answer_scores = candidates[answers]
        candidates[known.lookup(queries)] = -torch.inf
        candidates[answers] = answer_scores
        ranks = 1 + (candidates > answer_scores[:, None]).sum(1)
        rows.append(
            {
                "score": float(answer_scores.mean()),
                "vectors": float(vectors[answers].mean()),
                "log share": float((answer_scores - candidates.logsumexp(1)).mean()),
                "log10 rank": float(ranks.log10().mean()),
            }
        )
    return rows


def measure(home: Path, seeds: Sequence[int], estimates: Sequence[str]) -> None:
    """Train every condition that has no line yet, and append its line."""
    graph = mocme.load("atlas")
    base = {0: trained(home, "whole", 0, graph, [])}
    predictor = base[0].predictor("cpu")
    predictions = draw_predictions(predictor)
    plan = list(conditions(base[0], predictor, predictions, estimates))
    context = explanation_context(predictor)
    estimated = [sum(s.change for s in supports_of(context, fact)) for fact in predictions]
    done = {(line["condition"], line["seed"]) for line in common.read_lines(RESULTS)}
    for seed in seeds:
        for name, left_out in plan:
            if (name, seed) in done or (seed and name in estimates):
                continue
            base[seed] = base.get(seed) or trained(home, "whole", seed, graph, [])
            before = scores(base[seed], graph, predictions)
            after = scores(trained(home, name, seed, graph, left_out), graph, predictions)
            line = {
                "graph": graph.name,
                "experiment": "vectors-and-rules",
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
            common.append_lines(RESULTS, [line])
            drops = falls(line, "score")
            print(
                f"seed {seed}: {name}: {statistics.mean(drops):.2f} (deviation "
                f"{statistics.stdev(drops):.2f})",
                flush=True,
            )


def names(graph: Graph, fact: Fact) -> list[str]:
    h, r, t = fact
    return [graph.entities[h], graph.relations[r], graph.entities[t]]


# -- the page --------------------------------------------------------------------------------------


def falls(line: Mapping[str, Any], what: str) -> list[float]:
    """Fall of a quantity for each prediction when the facts are left out."""
    return [b[what] - a[what] for b, a in zip(line["before"], line["after"], strict=True)]


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Mean falls over predictions, with the deviation over seeds, and how many predictions fell."""
    by_condition: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        by_condition[line["condition"]].append(line)
    body = [
        "| facts left out | seeds | fall of the score | by vectors alone | fall of the log share | "
        "rank times | scores that fell |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in by_condition.items():
        cells = [f"{name} ({group[0]['left_out']})", str(len(group))]
        for what in ("score", "vectors", "log share"):
            means = [statistics.mean(falls(line, what)) for line in group]
            spread = f" ± {statistics.stdev(means):.2f}" if len(means) > 1 else ""
            cells.append(f"{statistics.mean(means):.2f}{spread}")
        # Ranks rise where scores fall.
        rises = [-statistics.mean(falls(line, "log10 rank")) for line in group]
        cells.append(f"{10 ** statistics.mean(rises):.1f}")
        score_falls = [fall for line in group for fall in falls(line, "score")]
        cells.append(f"{sum(fall > 0 for fall in score_falls)} of {len(score_falls)}")
        body.append(f"| {' | '.join(cells)} |")
    return "\n".join(body)


def agreement(lines: Sequence[Mapping[str, Any]]) -> str:
    """How well the estimate predicts the measured falls."""
    named = [line for line in lines if line["condition"] == "named"]
    correlations, ratios = [], []
    for line in named:
        measured = falls(line, "score")
        estimated = [-value for value in line["estimated"]]
        correlations.append(spearman(torch.tensor(estimated), torch.tensor(measured)) or 0.0)
        ratios.append(statistics.mean(estimated) / statistics.mean(measured))
    by_seed = ", ".join(f"{value:.2f}" for value in correlations)
    return (
        f"The sum of the five estimated changes of a prediction and its measured fall have the "
        f"rank correlation {by_seed} (by seed, over {len(named[0]['predictions'])} predictions); "
        f"on average the estimate is {statistics.mean(ratios):.2f} times the fall."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, help="folder of the trainings")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--estimates", nargs="*", default=[], help="other ways to name facts, at seed 0"
    )
    parser.add_argument("--render", type=Path, help="page that gets the table")
    options = parser.parse_args()
    use_threads(1)
    if options.runs:
        measure(options.runs, options.seeds, options.estimates)
    if options.render:
        lines = common.read_lines(RESULTS)
        common.put_on_page(options.render, "support", f"{table(lines)}\n\n{agreement(lines)}")


if __name__ == "__main__":
    main()
