"""What rejecting does: 300 suggestions of a run on Atlas are rejected, and it is trained again.

    python benchmarks/rejecting.py

Prints, before and after, the median rank and the mean share (in the softmax of its question) of the
rejected facts and of 300 others like them, and the MRR of the valid split. Structure only, width
128, 20 passes, seed 0; two minutes on one thread.
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


def suggestions(run: mocme.Run, graph: mocme.Graph) -> list[mocme.Prediction]:
    """The surest new answer to each of 1,500 questions of train, surest first."""
    facts = graph.facts("train")
    order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(0))
    asked = [
        mocme.Question(graph.entities[h], graph.relations[r], None, 1)
        for h, r, _ in facts[order[:1500]].tolist()
    ]
    found = {
        (item.head, item.relation, item.tail): item
        for answers in run.predictor("cpu").ask(asked)
        for item in answers
    }
    return sorted(found.values(), key=lambda item: -(item.probability or 0.0))


def told(run: mocme.Run, graph: mocme.Graph, items: Sequence[mocme.Prediction]) -> dict[str, float]:
    """Rank and share of facts, by the model alone."""
    model = run.predictor("cpu").model
    ranks, shares = [], []
    for item in items:
        tail = graph.entities.id(item.tail)
        head, relation = graph.entities.id(item.head), graph.relations.id(item.relation)
        question = Queries(torch.tensor([head]), torch.tensor([relation]))
        scores = model.score(question)[0].detach()
        ranks.append(int((scores > scores[tail]).sum()) + 1)
        shares.append(scores.softmax(0)[tail].item())
    return {"median_rank": statistics.median(ranks), "mean_share": statistics.mean(shares)}


def main() -> None:
    graph = mocme.load("atlas")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        before = mocme.train(graph, "structure", out=home / "before", settings=SETTINGS, seed=0)
        surest = suggestions(before, graph)[: 2 * COUNT]
        rejected, others = surest[::2], surest[1::2]
        reviews = Reviews(home / "reviews.sqlite")
        for item in rejected:
            reviews.add((item.head, item.relation, item.tail), "reject", "benchmark")
        corrected = mocme.load("atlas", reviews=reviews.path)
        after = mocme.train(corrected, "structure", out=home / "after", settings=SETTINGS, seed=0)
        for what, run in (("before", before), ("after", after)):
            row = {
                "when": what,
                "rejected": told(run, graph, rejected),
                "others like them": told(run, graph, others),
                "valid_mrr": run.evaluate("valid", device="cpu")["mrr"],
            }
            print(json.dumps(row))


if __name__ == "__main__":
    main()
