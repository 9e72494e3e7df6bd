"""The demonstration: MoCME beside structure only on the embedded graph, and facts it predicts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mocme.core import console as terminal
from mocme.data.graph import AnswerIndex, Graph
from mocme.data.load import load
from mocme.prediction.predictor import Predictor
from mocme.prediction.schema import Prediction
from mocme.runs import train as experiment
from mocme.runs.config import Experiment
from mocme.runs.run import Run

EXPERIMENTS = {"structure only": "atlas/structure", "MoCME": "default"}


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
    for number, (title, name) in enumerate(EXPERIMENTS.items(), 1):
        console.print(f"Training {number} of {len(EXPERIMENTS)}: {title}")
        folder = out / name.rpartition("/")[2]
        wanted = Experiment.load(name, {"seed": seed})
        with terminal.TrainingDisplay(title) as live:
            runs[title] = trained(graph, wanted, folder, device, live, console.print)
    rows = []
    for title, found in runs.items():
        result = found.evaluate("test", device)
        rows.append((title, result))
        parts = result["by"]["answer"]
        rows += [(f"  answer {part}", parts[part]) for part in sorted(parts)]
    terminal.show(
        terminal.metrics_table("Atlas, test: filtered, realistic ties, both directions", rows)
    )
    best = runs["MoCME"]
    predictor = best.predictor(device)
    guesses = new_facts(predictor, 5)
    terminal.show(
        terminal.predictions_table(
            "Five guesses: facts that are not in the graph (at most one a relation)", guesses
        )
    )
    console.print("Go on with:", markup=False)
    for command in (
        f"serve {best.path} {runs['structure only'].path}      (ask and review in a browser)",
        f"predict {best.path} --head Chad --relation borders",
        f"evaluate {best.path} --by relation",
        "train --data YOUR_FOLDER --out runs/mine",
    ):
        console.print(f"  .venv/bin/mocme {command}", markup=False, soft_wrap=True)


def trained(
    graph: Graph,
    wanted: Experiment,
    folder: Path,
    device: str,
    watch: experiment.TrainingObserver | None = None,
    tell: Callable[[str], object] = print,
) -> Run:
    """The run in a folder: as it is where it is finished, gone on with where it was stopped.

    Decisions of reviewers and additions lie in it, so that it is never deleted. A training of
    something else is kept under another name.
    """
    if (folder / "run.json").is_file():
        found = Run.open(folder)
        if found.experiment.as_asked(wanted).settings() == wanted.settings():
            if found.finished:
                tell(f"{folder} is trained already, and taken as it is; delete it to train it anew")
                return found
            if (folder / "checkpoints").is_dir():
                tell(f"{folder} was stopped before its end, and goes on")
                return experiment.resume(folder, device=device, observer=watch)
        aside = next(
            path
            for number in itertools.count(1)
            if not (path := folder.with_name(f"{folder.name}-{number}")).exists()
        )
        folder.rename(aside)
        tell(f"what {folder} held is another training, and kept as {aside}")
    return experiment.train(graph, wanted, out=folder, device=device, observer=watch)


def new_facts(predictor: Predictor, count: int) -> list[Prediction]:
    """The likeliest facts that the graph does not hold, at most one a relation.

    Of each relation the one with the largest share in its question's softmax over all entities.
    Only relations that give a head several tails now and then are asked: where one tail is all
    there can be, and it is known, a second one is wrong.
    """
    graph = predictor.graph
    index = AnswerIndex(graph.directed(*graph.splits))
    relation = index.queries.relation
    counts = (index.offsets[1:] - index.offsets[:-1]).double()
    asked = torch.bincount(relation).clamp_min(1)
    several = torch.bincount(relation, weights=counts) / asked >= 1.1
    tails = ((relation < graph.num_relations) & several[relation]).nonzero().flatten()
    best: dict[str, tuple[float, tuple[str, str, str]]] = {}
    for part in tails.split(512):
        queries = index.queries[part]
        with torch.no_grad():
            scores = predictor.model.score(queries.to(predictor.model.device)).cpu()
        share = scores.softmax(1)
        place, answers = index.rows(part)
        share[place, answers] = 0.0
        share[torch.arange(len(part)), queries.head] = 0.0
        top = share.max(1)
        for row, (chance, answer) in enumerate(
            zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ):
            name = graph.relations[int(queries.relation[row])]
            head, tail = graph.entities[int(queries.head[row])], graph.entities[answer]
            if name not in best or chance > best[name][0]:
                best[name] = chance, (head, name, tail)
    found = predictor.score_facts([fact for _, fact in best.values()])
    return sorted(found, key=lambda item: -(item.probability or 0.0))[:count]


def _unseen(graph: Any) -> int:
    return int((~graph.linked()).sum())
