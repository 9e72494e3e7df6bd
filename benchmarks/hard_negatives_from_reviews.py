"""Effect of rejected suggestions that become hard negatives of the next training.

    python benchmarks/hard_negatives_from_reviews.py

Rejects 300 suggestions of a run on Atlas and trains again. Prints, before and after, the median
rank and the mean share (softmax over the candidates of its question) of the rejected facts and of
300 similar ones, and the MRR on the valid split. Structure only, dimension 128, 20 epochs, seed 0;
two minutes on one thread.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

import mocme
from mocme.data.graph import Queries
from mocme.data.reviews import Reviews

SETTINGS = {"experts.embedding.training.epochs": 20, "experts.embedding.embedding_dim": 128}
COUNT = 300
QUESTIONS = 1500


def suggestions(run: mocme.Run, graph: mocme.Graph) -> list[mocme.Prediction]:
    """The best new answer to each of `QUESTIONS` training questions, most probable first."""
    facts = graph.facts("train")
    order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(0))
    questions = [
        mocme.Question(graph.entities[h], graph.relations[r], None, 1)
        for h, r, _ in facts[order[:QUESTIONS]].tolist()
    ]
    by_fact = {
        (item.head, item.relation, item.tail): item
        for answers in run.predictor("cpu").ask(questions)
        for item in answers
    }
    return sorted(by_fact.values(), key=lambda item: -(item.probability or 0.0))


def ranks_and_shares(
    run: mocme.Run, graph: mocme.Graph, items: Sequence[mocme.Prediction]
) -> dict[str, float]:
    """Median unfiltered rank and mean softmax share of facts."""
    mixture = run.predictor("cpu").mixture
    ranks, shares = [], []
    for item in items:
        tail = graph.entities.id(item.tail)
        head, relation = graph.entities.id(item.head), graph.relations.id(item.relation)
        question = Queries(torch.tensor([head]), torch.tensor([relation]))
        scores = mixture.score(question)[0].detach()
        ranks.append(int((scores > scores[tail]).sum()) + 1)
        shares.append(scores.softmax(0)[tail].item())
    return {"median_rank": statistics.median(ranks), "mean_share": statistics.mean(shares)}


def main() -> None:
    graph = mocme.load("atlas")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        before = mocme.train(graph, "structure", out=home / "before", settings=SETTINGS, seed=0)
        top = suggestions(before, graph)[: 2 * COUNT]
        rejected, similar = top[::2], top[1::2]
        reviews = Reviews(home / "reviews.sqlite")
        for item in rejected:
            reviews.add((item.head, item.relation, item.tail), "reject", "benchmark")
        corrected = mocme.load("atlas", reviews=reviews.path)
        after = mocme.train(corrected, "structure", out=home / "after", settings=SETTINGS, seed=0)
        for when, run in (("before", before), ("after", after)):
            row = {
                "when": when,
                "rejected": ranks_and_shares(run, graph, rejected),
                "similar": ranks_and_shares(run, graph, similar),
                "valid_mrr": run.evaluate("valid", device="cpu")["mrr"],
            }
            print(json.dumps(row))


if __name__ == "__main__":
    main()
