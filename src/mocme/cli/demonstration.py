"""The demonstration: MoCME against structure only on the embedded graph, and facts it predicts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from mocme.cli.predict import show_predictions
from mocme.cli.tables import metrics_table
from mocme.core.console import TrainingDisplay, show
from mocme.core.text import visible
from mocme.data.graph import AnswerIndex, Graph
from mocme.data.load import load
from mocme.prediction.predictor import Predictor
from mocme.prediction.schema import Prediction, Predictions
from mocme.runs import train as training
from mocme.runs.config import Experiment
from mocme.runs.monitor import TrainingObserver
from mocme.runs.run import STARTED, Run
from mocme.storage import RunFolder

EXPERIMENTS = {"structure only": "atlas/structure", "MoCME": "default"}
# Answers per question, on average, from which a relation is taken to have several tails.
SEVERAL = 1.1
# Questions scored at once.
BLOCK = 512


def run(out: Path, seed: int, device: str) -> None:
    """Train both, print their test metrics, and five facts that are not in the graph."""
    console = Console(highlight=False)
    graph = load("atlas")
    console.print(
        f"Atlas: {graph.num_entities:,} entities, {graph.num_relations} relations, "
        f"{len(graph.facts('train')):,} training facts.\n"
        f"{int((~graph.linked()).sum()):,} of the entities are in none of these."
    )
    runs = {}
    for number, (title, name) in enumerate(EXPERIMENTS.items(), 1):
        console.print(f"Training {number} of {len(EXPERIMENTS)}: {title}")
        folder = out / name.rpartition("/")[2]
        experiment = Experiment.load(name, {"seed": seed})
        with TrainingDisplay(title) as display:
            runs[title] = trained(graph, experiment, folder, device, display, console.print)
    rows = []
    for title, finished in runs.items():
        result = finished.evaluate("test", device)
        rows.append((title, result))
        parts = result["by"]["answer"]
        rows += [(f"  answer {part}", parts[part]) for part in sorted(parts)]
    show(metrics_table("Atlas, test: filtered, realistic ties, both directions", rows))
    best = runs["MoCME"]
    title = "Five predictions: facts that are not in the graph (at most one per relation)"
    show_predictions(Predictions(title, new_facts(best.predictor(device), 5), "fact"))
    console.print("Next:", markup=False)
    for command in (
        f"serve {best.path} {runs['structure only'].path}      (ask and review in a browser)",
        f"predict {best.path} --head Chad --relation borders",
        f"evaluate {best.path} --by relation",
        "train --data YOUR_FOLDER --out runs/mine",
    ):
        console.print(visible(f"  .venv/bin/mocme {command}"), markup=False, soft_wrap=True)


def trained(
    graph: Graph,
    experiment: Experiment,
    folder: Path,
    device: str,
    watch: TrainingObserver | None = None,
    report: Callable[[str], object] = print,
) -> Run:
    """Return the run in a folder, trained, resumed or as it is if it is finished.

    A run holds decisions of reviewers and added entities, so it is never deleted: a run of another
    experiment is renamed.

    Args:
        report: receives a line on a run that was found.
    """
    if (folder / "run.json").is_file() and not RunFolder(folder).abandoned(STARTED):
        existing = Run.open(folder)
        if (
            existing.experiment.with_machine_choices_of(experiment).settings()
            == experiment.settings()
        ):
            if existing.finished:
                report(f"{folder} is trained already, and is used as it is; delete it to retrain")
                return existing
            if (folder / "checkpoints").is_dir():
                report(f"{folder} was stopped before its end, and is resumed")
                return training.resume(folder, device=device, observer=watch)
        renamed = next(
            path
            for number in itertools.count(1)
            if not (path := folder.with_name(f"{folder.name}-{number}")).exists()
        )
        folder.rename(renamed)
        report(f"{folder} held another training, which is kept as {renamed}")
    return training.train(graph, experiment, out=folder, device=device, observer=watch)


def new_facts(predictor: Predictor, count: int) -> list[Prediction]:
    """The most probable facts that the graph does not have, at most one per relation.

    Of each relation it is the answer with the largest share in its question's softmax over all
    entities. Only relations with several tails for some heads are asked: where a head has one tail
    at most, and it is known, every other answer is wrong.
    """
    graph = predictor.graph
    index = AnswerIndex(graph.directed(*graph.splits))
    relation = index.queries.relation
    answer_counts = (index.offsets[1:] - index.offsets[:-1]).double()
    questions = torch.bincount(relation).clamp_min(1)
    several = torch.bincount(relation, weights=answer_counts) / questions >= SEVERAL
    tail_questions = ((relation < graph.num_relations) & several[relation]).nonzero().flatten()
    best: dict[str, tuple[float, tuple[str, str, str]]] = {}
    for block in tail_questions.split(BLOCK):
        queries = index.queries[block]
        with torch.no_grad():
            scores = predictor.mixture.score(queries.to(predictor.mixture.device)).cpu()
        shares_BN = scores.softmax(1)
        # Known answers, and the head itself, do not compete.
        rows, known = index.rows(block)
        shares_BN[rows, known] = 0.0
        shares_BN[torch.arange(len(block)), queries.head] = 0.0
        largest = shares_BN.max(1)
        for row, (share, answer) in enumerate(
            zip(largest.values.tolist(), largest.indices.tolist(), strict=True)
        ):
            name = graph.relations[int(queries.relation[row])]
            head, tail = graph.entities[int(queries.head[row])], graph.entities[answer]
            if name not in best or share > best[name][0]:
                best[name] = share, (head, name, tail)
    predictions = predictor.score_facts([fact for _, fact in best.values()])
    return sorted(predictions, key=lambda item: -(item.probability or 0.0))[:count]
