"""Choices of a learned mixture, compared on runs: model, pool, parts, each expert left out.

    python benchmarks/mixture_choices.py RUN... [--only models pool parts experts] [--json FILE]

RUN is a finished run with all its experts. They are read, the facts of valid become groups as in a
fit of a learned mixture, and each model is fitted on all parts of the facts but one and ranks that
one. MRR is that of the answers that have a group, at most 64 of one question; an answer outside the
pool has the rank that the sum gives it. Seconds are of the processor and of all fits. The model is
a `Ranker` with default settings, 50 candidates of each expert and five parts where nothing else is
said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from common import append_row, opened, runs_parser
from mocme.data.graph import Graph
from mocme.experts.base import Expert
from mocme.mixture import sum as sums
from mocme.mixture.gate import GateSettings
from mocme.mixture.held_out import Groups, make_groups
from mocme.mixture.ranker import RankerSettings
from mocme.mixture.selection import Selection
from mocme.mixture.weight_search import Weight

Scores = Callable[[Float[np.ndarray, "n F"], Int[np.ndarray, " n"]], Float[np.ndarray, " n"]]
Fit = Callable[[Groups, np.ndarray, Sequence[Expert], int], Scores]
NEGATIVES, PARTS, POOL = 64, 5, 50


def main() -> None:
    """Compare the choices on runs, and print a table."""
    parser = runs_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    arguments = parser.parse_args()
    for run, contents in opened(arguments.runs):
        experts, graph = contents.mixture.experts, contents.graph.training_view()
        print(f"{run.path}: {len(experts)} experts", flush=True)
        for what in arguments.only:
            for name, groups, taken, fit in CHOICES[what](experts, graph):
                started = time.process_time()
                mrr = float(cross_fitted(groups, taken, fit).mean())
                seconds = time.process_time() - started
                print(
                    f"  {what:8} {name:30} MRR {mrr:.4f}  {len(groups.features):9,} candidates"
                    f"  {seconds:6.1f} s",
                    flush=True,
                )
                row: dict[str, object] = {"choice": what, "value": name, "mrr": round(mrr, 6)}
                row |= {"candidates": len(groups.features), "seconds": round(seconds, 1)}
                append_row(arguments.json, run, row)


Choice = tuple[str, Groups, Sequence[Expert], "Fit"]


def models(experts: Sequence[Expert], graph: Graph) -> Iterator[Choice]:
    """What ranks a pool."""
    groups = groups_of(experts, graph)
    for name, fit in MODELS.items():
        yield name, groups, experts, fit


def pools(experts: Sequence[Expert], graph: Graph) -> Iterator[Choice]:
    """Candidates that each expert brings."""
    for size in (10, 25, 50, 100):
        yield str(size), groups_of(experts, graph, pool=size), experts, ranker


def parts(experts: Sequence[Expert], graph: Graph) -> Iterator[Choice]:
    """How many parts the facts are cut in; the model sees all but one."""
    for count in (2, 5, 10):
        yield str(count), groups_of(experts, graph, parts=count), experts, ranker


def left_out(experts: Sequence[Expert], graph: Graph) -> Iterator[Choice]:
    """Each expert left out, and each alone."""
    groups = groups_of(experts, graph)
    selection = Selection(experts, groups, graph.num_entities)
    weights = weights_of(experts)
    yield "none", groups, experts, ranker
    for expert in experts:
        rest = [other for other in experts if other is not expert]
        for title, taken in ((f"without {expert.name}", rest), (f"{expert.name} alone", [expert])):
            names = [other.name for other in taken]
            yield title, selection.view(names, weights), taken, ranker


def weights_of(experts: Sequence[Expert]) -> dict[str, Weight]:
    """The default weight of each expert."""
    return {expert.name: sums.default_weight(expert) for expert in experts}


def groups_of(
    experts: Sequence[Expert], graph: Graph, pool: int = POOL, parts: int = PARTS
) -> Groups:
    """The groups of the facts of valid."""
    return make_groups(experts, weights_of(experts), graph, pool, parts, 0, 0.5)


def cross_fitted(groups: Groups, experts: Sequence[Expert], fit: Fit) -> Float[np.ndarray, " G"]:
    """Reciprocal rank of the answers, each by a model that was fitted without its part."""
    ranks = np.zeros(len(groups))
    for part in np.unique(groups.part).tolist():
        inside = groups.part == part
        model, rows = fit(groups, ~inside, experts, 0), groups.rows(inside)
        scores = np.zeros(len(groups.features))
        scores[rows] = model(groups.features[rows], groups.relation[rows])
        ranks[inside] = groups.reciprocal_ranks(scores)[inside]
    return ranks


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


MODELS: dict[str, Fit] = {
    "Ranker": ranker,
    "Gate": gate,
    "HistGradientBoosting": boosting,
    "network": network,
}
CHOICES: dict[str, Callable[[Sequence[Expert], Graph], Iterator[Choice]]] = {
    "models": models,
    "pool": pools,
    "parts": parts,
    "experts": left_out,
}


if __name__ == "__main__":
    main()
