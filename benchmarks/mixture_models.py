"""What ranks a pool best: trees, a gate, gradient boosting of single candidates, or a network.

    python benchmarks/mixture_models.py RUN... [--seeds 0 1 2] [--json FILE]

RUN is a finished run. Its experts are read, the facts of valid become groups as in a fit of a
learned mixture, and each model is fitted on four fifths of the facts and ranks the last fifth. MRR
is that of the answers that have a group, at most 64 of one question. Seconds are of the processor
and of five fits.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from mocme.experts.base import Expert
from mocme.mixture import sum as sums
from mocme.mixture.gate import GateSettings
from mocme.mixture.held_out import Groups, make_groups
from mocme.mixture.ranker import RankerSettings
from mocme.runs.run import Run

Scores = Callable[[Float[np.ndarray, "n F"], Int[np.ndarray, " n"]], Float[np.ndarray, " n"]]
Fit = Callable[[Groups, np.ndarray, Sequence[Expert], int], Scores]
NEGATIVES, PARTS, POOL = 64, 5, 50


def main() -> None:
    """Compare the models on runs, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--json", type=Path, help="append a line for each fit to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models: dict[str, Fit] = {
        "Ranker": ranker,
        "Gate": gate,
        "HistGradientBoosting": boosting,
        "network": network,
    }
    for path in arguments.runs:
        contents = Run.open(path).contents("cpu", additions=False)
        experts, graph = contents.mixture.experts, contents.graph.training_view()
        weights = {expert.name: sums.default_weight(expert) for expert in experts}
        weights |= getattr(contents.mixture, "weights", {})
        groups = make_groups(experts, weights, graph, POOL, PARTS, 0, 0.5)
        print(f"{path}: {len(experts)} experts, {len(groups):,} answers", flush=True)
        for name, fit in models.items():
            for seed in arguments.seeds:
                started = time.process_time()
                mrr = cross_fitted(groups, experts, fit, seed)
                seconds = time.process_time() - started
                print(f"  {name:22} seed {seed}  MRR {mrr:.4f}  {seconds:6.1f} s", flush=True)
                if arguments.json:
                    row = {"run": path.name, "graph": graph.name, "model": name, "seed": seed}
                    row |= {"mrr": round(mrr, 6), "seconds": round(seconds, 1)}
                    with arguments.json.open("a") as file:
                        file.write(json.dumps(row) + "\n")


def cross_fitted(groups: Groups, experts: Sequence[Expert], fit: Fit, seed: int) -> float:
    """MRR of the answers, each ranked by a model that was fitted without its part."""
    ranks = np.zeros(len(groups))
    for part in range(PARTS):
        inside = groups.part == part
        model, rows = fit(groups, ~inside, experts, seed), groups.rows(inside)
        scores = np.zeros(len(groups.features))
        scores[rows] = model(groups.features[rows], groups.relation[rows])
        ranks[inside] = groups.reciprocal_ranks(scores)[inside]
    return float(ranks.mean())


def ranker(groups: Groups, chosen: np.ndarray, experts: Sequence[Expert], seed: int) -> Scores:
    """The trees of a `Ranker` with default settings."""
    return RankerSettings(seed=seed).fitted_model(groups, chosen, experts, trial=False)


def gate(groups: Groups, chosen: np.ndarray, experts: Sequence[Expert], seed: int) -> Scores:
    """A `Gate` with default settings."""
    return GateSettings(seed=seed).fitted_model(groups, chosen, experts, trial=False)


def boosting(groups: Groups, chosen: np.ndarray, experts: Sequence[Expert], seed: int) -> Scores:
    """Boosted trees that tell answers from single candidates, with the Ranker's sizes."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    kept = groups.learnable(chosen, NEGATIVES, seed)
    label = np.zeros(len(kept.cell), np.int8)
    label[kept.answer] = 1
    model = HistGradientBoostingClassifier(
        max_iter=100,
        max_leaf_nodes=15,
        min_samples_leaf=50,
        max_bins=63,
        max_features=0.5,
        early_stopping=False,
        random_state=seed,
    ).fit(kept.features[kept.cell], label)
    return lambda features, _: np.asarray(model.decision_function(features))


def network(groups: Groups, chosen: np.ndarray, experts: Sequence[Expert], seed: int) -> Scores:
    """Two layers of 64, a softmax over each group; features are standardised."""
    kept = groups.learnable(chosen, NEGATIVES, seed)
    rows = np.unique(kept.cell)
    mean, deviation = groups.features[rows].mean(0), groups.features[rows].std(0) + 1e-6

    def told(features: Float[np.ndarray, "n F"]) -> torch.Tensor:
        return torch.from_numpy(((features - mean) / deviation).clip(-5, 5)).float()

    torch.manual_seed(seed)
    layers = torch.nn.Sequential(
        torch.nn.Linear(len(mean), 64),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 1),
    )
    optimizer = torch.optim.AdamW(layers.parameters(), lr=2e-3, weight_decay=1e-2)
    size, rng = np.diff(kept.start), np.random.default_rng(seed)
    for _ in range(15):
        for batch in np.array_split(rng.permutation(len(kept)), max(1, len(kept) // 128)):
            places = [np.arange(kept.start[g], kept.start[g + 1]) for g in batch]
            group = torch.from_numpy(np.repeat(np.arange(len(batch)), size[batch]))
            scores = layers(told(groups.features[kept.cell[np.concatenate(places)]]))[:, 0]
            mass = torch.zeros(len(batch)).index_add_(0, group, scores.clamp(max=40).exp())
            first = np.concatenate([[0], np.cumsum(size[batch])[:-1]])
            own = scores[torch.from_numpy(first + kept.answer[batch] - kept.start[batch])]
            loss = (mass.log() - own).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    layers.eval()

    def score(features: Float[np.ndarray, "n F"], _: object) -> Float[np.ndarray, " n"]:
        with torch.no_grad():
            return np.asarray(layers(told(features))[:, 0].double().numpy())

    return score


if __name__ == "__main__":
    main()
