"""Accuracy of a trained fusion when modalities are missing or noisy at inference time.

Takes runs that `mocme benchmark` trained and kept. Hides a modality of a share of the entities, or
replaces it by noise, ranks the valid split again, and writes one line per measurement. Entities are
drawn by the run's seed, and a larger share contains the smaller ones. Nothing is trained. With
--render it puts tables and a plot on a page.

    mocme benchmark benchmarks/accuracy/fusion.toml --runs runs --keep
    python benchmarks/robustness.py runs/fusion
    python benchmarks/robustness.py --render docs/robustness.md
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import common
from mocme.data.features.ablations import Ablation
from mocme.data.graph import AnswerIndex, Graph
from mocme.data.modality import Features, Modality
from mocme.evaluation import metrics
from mocme.evaluation.ranking import batch_size_for, filtered_answers, rank
from mocme.experts.embedding.model import STRUCTURE, EmbeddingModel
from mocme.explanation import faithfulness
from mocme.runs.run import Run

RESULTS = common.RESULTS / "robustness.jsonl"
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)
PLOT_COLUMNS = 4


class Subject:
    """A run with its graph, its features and its first embedding, and the keys of its lines."""

    def __init__(self, run: Run) -> None:
        self.graph: Graph = run.graph()
        self.features: Features = run.features(self.graph)
        mixture = run.mixture(self.graph, self.features, torch.device("cpu"))
        expert = faithfulness.first_embedding(mixture)
        if expert is None:
            raise SystemExit(f"{run.path}: the run has no embedding")
        self.model: EmbeddingModel = expert.base
        self.seed = int(run.folder.about["seed"])
        self.labels = {
            "row": run.path.parent.parent.name,
            "graph": self.graph.name,
            "seed": self.seed,
        }


def conditions(model: EmbeddingModel) -> Iterator[tuple[str, list[str], float]]:
    """What is done (nothing, hidden, noise), to which modalities, for which share of entities."""
    content = [m for m in model.modalities if m != STRUCTURE]
    yield "nothing", [], 0.0
    for share in SHARES[1:]:
        for name in model.modalities if content else []:
            yield "hidden", [name], share
        if len(content) > 1:
            yield "hidden", content, share
        for name in content:
            yield "noise", [name], share


def accuracy_lines(subject: Subject) -> Iterator[dict[str, Any]]:
    """One line per condition."""
    for what, names, share in conditions(subject.model):
        yield {
            **subject.labels,
            "split": "valid",
            "what": what,
            "modalities": names,
            "share": share,
            **ranked(subject, what, names, share),
        }


def weight_lines(subject: Subject) -> Iterator[dict[str, Any]]:
    """One line per modality: how its weight relates to the drop of the score without it.

    See `mocme.explanation.faithfulness`.
    """
    model = subject.model
    weights, has_several = model.frozen().weights, model.present.sum(1) > 1
    for index, falls in enumerate(faithfulness.score_drops(model, subject.graph)):
        entities = weights[has_several & model.present[:, index], index].detach()
        yield {
            **subject.labels,
            "what": "weights",
            "modalities": [falls.modality],
            "mean_weight": float(entities.mean()),
            "deviation_of_weight": float(entities.std()),
            "mean_fall": float(falls.drop.mean()),
            "rank_correlation": faithfulness.spearman(falls.weight, falls.drop),
            **fusion_parameters(model),
        }


def fusion_parameters(model: EmbeddingModel) -> dict[str, float]:
    """Lambda and tau of the fusion across modalities, where it has them."""
    across = model.across
    if not hasattr(across, "log_strength"):
        return {}
    return {
        "lambda": float(across.log_strength.detach().exp()),
        "tau": float(across.log_temperature.detach().exp()),
    }


def ranked(subject: Subject, what: str, names: Sequence[str], share: float) -> dict[str, Any]:
    """Metrics of the valid split under a condition."""
    model, graph = subject.model, subject.graph
    originals = {}
    hide = {}
    for index, name in enumerate(names):
        seed = subject.seed + index
        if what == "hidden":
            hide[name] = drawn(model.present[:, model.modalities.index(name)], share, seed)
        elif what == "noise":
            values = model.get_buffer(f"values_{name}")
            originals[name] = values.clone()
            clean = Modality(originals[name], subject.features.dense[name].rows, graph.num_entities)
            noisy = Ablation("random", share, seed)(clean)
            assert isinstance(noisy, Modality)
            values.copy_(noisy.values)
    with torch.no_grad():
        table = model.table(hide=hide)
    questions = AnswerIndex(graph.directed("valid"))
    score = functools.partial(model.score, table=table)
    ranks = rank(
        score,
        questions,
        filtered_answers(graph, "valid"),
        batch=batch_size_for(graph.num_entities, 1.0),
    )
    for name, values in originals.items():
        model.get_buffer(f"values_{name}").copy_(values)
    seen = graph.linked()[ranks.answer]
    unseen = metrics.rank_metrics(ranks.realistic[~seen])["mrr"] if bool((~seen).any()) else None
    overall = metrics.rank_metrics(ranks.realistic)
    return {"mrr": overall["mrr"], "hits@10": overall["hits@10"], "mrr_answer_unseen": unseen}


def drawn(has: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """A mask of a share of the entities that have a modality."""
    ids = has.nonzero().flatten()
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros_like(has)
    mask[ids[order[: round(share * len(ids))]]] = True
    return mask


# -- the page --------------------------------------------------------------------------------------

# (what, modalities) -> row -> share -> MRR of each seed
Curves = dict[tuple[str, str], dict[str, dict[float, list[float]]]]


def curves(lines: Sequence[Mapping[str, Any]]) -> Curves:
    """MRR of each seed by condition, row and share."""
    by_condition: Curves = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    clean: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        if line["what"] == "nothing":
            clean[line["row"]].append(line["mrr"])
    for line in lines:
        if line["what"] in ("hidden", "noise"):
            key = (line["what"], " and ".join(line["modalities"]))
            by_condition[key][line["row"]][0.0] = clean[line["row"]]
            by_condition[key][line["row"]][line["share"]].append(line["mrr"])
    return by_condition


def title(what: str, modalities: str) -> str:
    return f"{modalities} hidden" if what == "hidden" else f"{modalities} replaced by noise"


def deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def accuracy_tables(by_condition: Curves) -> str:
    blocks = []
    for (what, modalities), rows in sorted(by_condition.items()):
        head = "| | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |"
        body = [f"**{title(what, modalities)}**", "", head, "|---" * (1 + len(SHARES)) + "|"]
        for row, shares in sorted(rows.items()):
            cells = []
            for share in SHARES:
                values = shares.get(share, [])
                spread = f" ± {deviation(values):.4f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.4f}{spread}" if values else "-")
            body.append(f"| {row} | " + " | ".join(cells) + " |")
        blocks.append("\n".join(body))
    return "\n\n".join(blocks)


def mean_of(lines: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [line[key] for line in lines if line.get(key) is not None]
    return statistics.mean(values) if values else None


def weights_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Weights, and the drop of the score without the modality; means over seeds."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        if line["what"] == "weights":
            groups[line["row"], line["modalities"][0]].append(line)
    body = [
        "**Weights of modalities in the answers, and the drop of the score without them**",
        "",
        "| | modality | weight | drop of the score | rank correlation | lambda |",
        "|---|---|---|---|---|---|",
    ]
    for (row, name), group in sorted(groups.items()):
        weight, spread = mean_of(group, "mean_weight"), mean_of(group, "deviation_of_weight")
        cells = [f"{weight:.2f} ± {spread:.2f}"]
        for key in ("mean_fall", "rank_correlation", "lambda"):
            value = mean_of(group, key)
            cells.append("-" if value is None else f"{value:.2f}")
        body.append(f"| {row} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(body)


def plot(by_condition: Curves, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    keys = sorted(by_condition)
    height = -(-len(keys) // PLOT_COLUMNS)
    figure, axes = pyplot.subplots(
        height,
        PLOT_COLUMNS,
        figsize=(4 * PLOT_COLUMNS, 3.4 * height),
        layout="constrained",
        squeeze=False,
    )
    rows = sorted({row for rows in by_condition.values() for row in rows})
    for panel, key in zip(axes.flat, keys, strict=False):
        for row in rows:
            values = by_condition[key].get(row, {})
            if not values:
                continue
            shares = sorted(values)
            means = [statistics.mean(values[share]) for share in shares]
            deviations = [deviation(values[share]) for share in shares]
            color = f"C{rows.index(row)}"
            panel.plot(shares, means, marker="o", markersize=3, label=row, color=color)
            low = [m - d for m, d in zip(means, deviations, strict=True)]
            high = [m + d for m, d in zip(means, deviations, strict=True)]
            panel.fill_between(shares, low, high, alpha=0.15, color=color)
        panel.set_title(title(*key), fontsize=10)
        panel.set_xlabel("share of entities")
        panel.set_ylabel("MRR, valid")
        panel.grid(alpha=0.3)
    for panel in axes.flat[len(keys) :]:
        panel.axis("off")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    figure.savefig(path, dpi=110)


def render(page: Path) -> None:
    lines = common.read_lines(RESULTS)
    by_condition = curves(lines)
    path = page.parent / "robustness.png"
    plot(by_condition, path)
    blocks = [f"![Curves of the tables below]({path.name})"]
    blocks += [accuracy_tables(by_condition), weights_table(lines)]
    common.put_on_page(page, "robustness", "\n\n".join(blocks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="kept runs: RUNS/BENCHMARK")
    parser.add_argument("--rows", nargs="*", help="folder names of rows; all by default")
    parser.add_argument("--render", type=Path, help="page that gets tables and a plot")
    options = parser.parse_args()
    lines = common.read_lines(RESULTS)
    measured = {(line["row"], line["graph"], line["seed"]) for line in lines}
    for folder in options.folders:
        for path in sorted(folder.glob("*/*/seed-*")):
            run, row = Run.open(path), path.parent.parent.name
            if not run.finished or (options.rows and row not in options.rows):
                continue
            if (row, run.graph().name, run.folder.about["seed"]) in measured:
                continue
            subject = Subject(run)
            lines = [*accuracy_lines(subject), *weight_lines(subject)]
            common.append_lines(RESULTS, lines)
            print(f"{path}: {len(lines)} lines")
    if options.render:
        render(options.render)


if __name__ == "__main__":
    main()
