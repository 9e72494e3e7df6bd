"""The demonstration: MoCME beside structure only on the embedded graph, and facts it predicts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from mocme import experiment, terminal
from mocme.graph.loading import load
from mocme.graph.triples import AnswerIndex, Queries
from mocme.inference.completer import Completer, Prediction

EXPERIMENTS = {"structure only": "atlas/structure", "MoCME": "atlas/mocme"}


def run(out: Path, seed: int, device: str) -> None:
    """Train both, print what they reach on test, and five facts that are not in the graph."""
    console = Console(highlight=False)
    graph = load("atlas")
    console.print(
        f"Atlas: {graph.num_entities:,} entities, {graph.num_relations} relations, "
        f"{len(graph.facts('train')):,} training facts.\n"
        f"{_unseen(graph):,} of the entities occur in none of these."
    )
    runs = {}
    for title, name in EXPERIMENTS.items():
        folder = out / name.rpartition("/")[2]
        # The demonstration owns its folder: it is there to be run again.
        if (folder / "run.json").is_file():
            shutil.rmtree(folder)
        with terminal.Live(title) as live:
            runs[title] = experiment.train(
                graph, name, out=folder, seed=seed, device=device, watch=live
            )
    rows = []
    for title, trained in runs.items():
        result = trained.evaluate("test", device)
        rows.append((title, result))
        parts = result["by"]["answer"]
        rows += [(f"  answer {part}", parts[part]) for part in sorted(parts)]
    terminal.show(
        terminal.metrics_table("Atlas, test: filtered, realistic ties, both directions", rows)
    )
    best = runs["MoCME"]
    completer = best.completer(device)
    terminal.show(predictions_table(new_facts(completer, 5), completer.model.modalities))
    console.print("Go on with:", markup=False)
    for command in (
        f"predict {best.path} --head Chad --relation borders",
        f"evaluate {best.path} --by relation",
        "train --data YOUR_FOLDER --out runs/mine",
    ):
        console.print(f"  .venv/bin/mocme {command}", markup=False, soft_wrap=True)


def new_facts(completer: Completer, count: int) -> list[tuple[Prediction, float]]:
    """The surest facts that the graph does not hold, at most one a relation.

    Sure means: a large share of the question's softmax over all entities. Only relations that give
    a head several tails now and then are asked: where one tail is all there can be, and it is
    known, a second one is wrong.
    """
    graph = completer.graph
    index = AnswerIndex(graph.directed(*graph.splits))
    relation = index.queries.relation
    counts = (index.offsets[1:] - index.offsets[:-1]).double()
    asked = torch.bincount(relation).clamp_min(1)
    several = torch.bincount(relation, weights=counts) / asked >= 1.1
    tails = ((relation < graph.num_relations) & several[relation]).nonzero().flatten()
    best: dict[int, tuple[float, int, int]] = {}
    for part in tails.split(512):
        queries = index.queries[part]
        with torch.no_grad():
            scores = completer.model.score(queries.to(completer.model.structure.device)).cpu()
        share = scores.softmax(1)
        place, answers = index.rows(part)
        share[place, answers] = 0.0
        share[torch.arange(len(part)), queries.head] = 0.0
        top = share.max(1)
        for chance, answer, head, relation in zip(
            top.values.tolist(),
            top.indices.tolist(),
            queries.head.tolist(),
            queries.relation.tolist(),
            strict=True,
        ):
            if chance > best.get(relation, (0.0, 0, 0))[0]:
                best[relation] = chance, head, answer
    chosen = sorted(best.items(), key=lambda item: -item[1][0])[:count]
    return [
        (_prediction(completer, head, relation, answer), chance)
        for relation, (chance, head, answer) in chosen
    ]


def predictions_table(found: list[tuple[Prediction, float]], modalities: list[str]) -> Table:
    """New facts with score, share of the softmax and the weight of each modality."""
    table = Table(
        title="Five facts that are not in the graph (at most one a relation)",
        caption="share: of the softmax over all entities; then each modality's weight in the tail",
    )
    for column in ("head", "relation", "tail"):
        table.add_column(column)
    for column in ("score", "share", *modalities):
        table.add_column(column, justify="right")
    for item, chance in found:
        weights = [f"{item.weights[m]:.2f}" if item.weights[m] else "-" for m in modalities]
        table.add_row(
            item.head, item.relation, item.tail, f"{item.score:.2f}", f"{chance:.2f}", *weights
        )
    return table


def _prediction(completer: Completer, head: int, relation: int, answer: int) -> Prediction:
    graph = completer.graph
    device = completer.model.structure.device
    queries = Queries(torch.tensor([head], device=device), torch.tensor([relation], device=device))
    with torch.no_grad():
        score = float(completer.model.score(queries, torch.tensor([answer], device=device)))
    tail = graph.entities[answer]
    weights = completer.weights(tail)
    return Prediction(graph.entities[head], graph.relations[relation], tail, score, False, weights)


def _unseen(graph: Any) -> int:
    return int((~graph.linked()).sum())
