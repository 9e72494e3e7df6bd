"""Whether a mixture is above each of its experts alone: MRR of valid and paired intervals.

    python benchmarks/mixture_against_experts.py RUN... [--json FILE]

The answers of valid that are not in train are ranked by the mixture, by parts of it that have not
seen the fact, and by each expert that joined it. The interval is of 10,000 bootstraps over answers
(seed 0); with few answers per fact, nearly over facts.
"""

from __future__ import annotations

import numpy as np
import torch

from common import append_row, opened, runs_parser
from mocme.benchmark.bootstrap import resampled_means
from mocme.data.graph import Graph
from mocme.evaluation.ranking import Rankable, rank_split
from mocme.mixture.selection import alone_weight
from mocme.mixture.sum import Sum


def main() -> None:
    """Print a table for each run."""
    arguments = runs_parser(__doc__).parse_args()
    for run, contents in opened(arguments.runs):
        graph, mixture = contents.graph.training_view(), contents.mixture

        own = reciprocal(mixture, graph)
        print(f"{run.path}: {type(mixture).__name__} MRR {own.mean():.4f}, {len(own):,} answers")
        for expert in mixture.experts:
            alone = Sum([expert], graph.num_entities, {expert.name: alone_weight(expert)})
            ranks = reciprocal(alone, graph)
            low, high = interval(own - ranks)
            print(
                f"  {expert.name:24} MRR {ranks.mean():.4f}  difference"
                f" {(own - ranks).mean():+.4f}  {low:+.4f} to {high:+.4f}",
                flush=True,
            )
            row: dict[str, object] = {"mixture": round(float(own.mean()), 6), "expert": expert.name}
            row |= {"alone": round(float(ranks.mean()), 6), "answers": len(own)}
            row |= {"low": round(low, 6), "high": round(high, 6)}
            append_row(arguments.json, run, row)


def reciprocal(model: Rankable, graph: Graph) -> torch.Tensor:
    """Reciprocal rank of each answer of valid."""
    return 1 / rank_split(model, graph, "valid", 0.5).realistic


def interval(difference: torch.Tensor) -> tuple[float, float]:
    """95 % of the means of resampled differences."""
    low, high = np.quantile(resampled_means(difference.numpy()), [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
