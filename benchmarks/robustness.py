"""What a trained fusion does when modalities are missing or noisy at the time of asking.

Takes runs that `mocme benchmark` trained and kept, hides a modality of a share of entities (drawn
by the run's seed; a larger share holds a smaller one), ranks the valid split again, and writes one
line a measurement. Nothing is trained. With --render it puts tables and a picture on a page.

    mocme benchmark benchmarks/accuracy/fusing.toml --runs runs --keep
    python benchmarks/robustness.py runs/fusing
    python benchmarks/robustness.py --render docs/robustness.md
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

from mocme.data.features.ablations import Ablation
from mocme.data.graph import AnswerIndex, Graph
from mocme.data.modality import Features, Modality
from mocme.evaluation import metrics
from mocme.evaluation.ranking import batch_for, hidden, rank
from mocme.experts.embedding.model import STRUCTURE, Model
from mocme.explanation import faithfulness
from mocme.runs.run import Run

HERE = Path(__file__).parent
RESULTS = HERE / "accuracy/results/robustness.jsonl"
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)
BEGIN, END = "<!-- robustness -->", "<!-- end of robustness -->"


def conditions(model: Model) -> Iterator[tuple[str, list[str], float]]:
    """What is done to which modalities, and to which share of their entities."""
    content = [m for m in model.modalities if m != STRUCTURE]
    yield "nothing", [], 0.0
    for share in SHARES[1:]:
        for name in model.modalities if content else []:
            yield "hidden", [name], share
        if len(content) > 1:
            yield "hidden", content, share
        for name in content:
            yield "noise", [name], share


def measured(run: Run) -> Iterator[dict[str, object]]:
    """A line for each condition."""
    graph = run.graph()
    features = run.features(graph)
    model = run.model(graph, features, torch.device("cpu"))
    seed = int(run.folder.about["seed"])
    for what, names, share in conditions(model):
        found = ranked(model, graph, features, what, names, share, seed)
        yield {
            "row": run.path.parent.parent.name,
            "graph": graph.name,
            "seed": seed,
            "split": "valid",
            "what": what,
            "modalities": names,
            "share": share,
            **found,
        }


def weighed(run: Run) -> Iterator[dict[str, object]]:
    """Do weights tell what matters? A line for each modality.

    See `mocme.explanation.faithfulness`.
    """
    graph = run.graph()
    model = run.model(graph, run.features(graph), torch.device("cpu"))
    weights, several = model.frozen().weights, model.present.sum(1) > 1
    for place, own in enumerate(faithfulness.falls(model, graph)):
        entities = weights[several & model.present[:, place], place].detach()
        yield {
            "row": run.path.parent.parent.name,
            "graph": graph.name,
            "seed": int(run.folder.about["seed"]),
            "what": "weights",
            "modalities": [own.modality],
            "mean_weight": float(entities.mean()),
            "deviation_of_weight": float(entities.std()),
            "mean_fall": float(own.fall.mean()),
            "rank_correlation": faithfulness.spearman(own.weight, own.fall),
            **learned(model),
        }


def learned(model: Model) -> dict[str, float]:
    """Lambda and tau of the fusion across modalities, where it has them."""
    across = model.across
    if not hasattr(across, "log_strength"):
        return {}
    return {
        "lambda": float(across.log_strength.detach().exp()),
        "tau": float(across.log_temperature.detach().exp()),
    }


def ranked(
    model: Model,
    graph: Graph,
    features: Features,
    what: str,
    names: list[str],
    share: float,
    seed: int,
) -> dict[str, float]:
    kept = {}
    hide = {}
    for place, name in enumerate(names):
        if what == "hidden":
            hide[name] = chosen(model.present[:, model.modalities.index(name)], share, seed + place)
        elif what == "noise":
            kept[name] = model.get_buffer(f"values_{name}").clone()
            rows = features.dense[name].rows
            clean = Modality(kept[name], rows, graph.num_entities)
            noisy = Ablation("random", share, seed + place)(clean)
            assert isinstance(noisy, Modality)
            model.get_buffer(f"values_{name}").copy_(noisy.values)
    with torch.no_grad():
        table = model.table(hide=hide)
    asked = AnswerIndex(graph.directed("valid"))
    score = functools.partial(model.score, table=table)
    ranks = rank(score, asked, hidden(graph, "valid"), batch=batch_for(graph.num_entities, 1.0))
    for name, values in kept.items():
        model.get_buffer(f"values_{name}").copy_(values)
    seen = graph.linked()[ranks.answer]
    unseen = metrics.of_ranks(ranks.realistic[~seen])["mrr"] if bool((~seen).any()) else None
    whole = metrics.of_ranks(ranks.realistic)
    return {"mrr": whole["mrr"], "hits@10": whole["hits@10"], "mrr_answer_unseen": unseen}


def chosen(has: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """A mask of a share of the entities that have something."""
    ids = has.nonzero().flatten()
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros_like(has)
    mask[ids[order[: round(share * len(ids))]]] = True
    return mask


# -- the page --------------------------------------------------------------------------------------

Lines = dict[tuple[str, str], dict[str, dict[float, list[float]]]]


def read() -> Lines:
    """MRR over seeds, by (what, modalities), row and share."""
    found: Lines = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    clean: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        if line["what"] == "nothing":
            clean[line["row"]].append(line["mrr"])
    for line in lines:
        if line["what"] in ("hidden", "noise"):
            key = (line["what"], " and ".join(line["modalities"]))
            found[key][line["row"]][0.0] = clean[line["row"]]
            found[key][line["row"]][line["share"]].append(line["mrr"])
    return found


def title(what: str, modalities: str) -> str:
    return f"{modalities} hidden" if what == "hidden" else f"{modalities} replaced by noise"


def tables(found: Lines) -> str:
    blocks = []
    for (what, modalities), rows in sorted(found.items()):
        head = "| | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |"
        body = [f"**{title(what, modalities)}**", "", head, "|---" * (1 + len(SHARES)) + "|"]
        for row, shares in sorted(rows.items()):
            cells = []
            for share in SHARES:
                values = shares.get(share, [])
                spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.4f}{spread}" if values else "-")
            body.append(f"| {row} | " + " | ".join(cells) + " |")
        blocks.append("\n".join(body))
    return "\n\n".join(blocks)


def weights_table() -> str:
    """Weights, and whether they tell what a withheld modality costs; means over seeds."""
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for line in lines:
        if line["what"] == "weights":
            found[line["row"], line["modalities"][0]].append(line)
    body = [
        "**Weights of answers, and what they tell**",
        "",
        "| | modality | weight | fall of the score without it | rank correlation | lambda |",
        "|---|---|---|---|---|---|",
    ]
    for (row, name), own in sorted(found.items()):

        def mean(key: str, own: list[dict[str, float]] = own) -> float | None:
            values = [line[key] for line in own if line.get(key) is not None]
            return statistics.mean(values) if values else None

        shown = [f"{mean('mean_weight'):.2f} ± {mean('deviation_of_weight'):.2f}"]
        for key in ("mean_fall", "rank_correlation", "lambda"):
            value = mean(key)
            shown.append("-" if value is None else f"{value:.2f}")
        body.append(f"| {row} | {name} | " + " | ".join(shown) + " |")
    return "\n".join(body)


def picture(found: Lines, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    keys = sorted(found)
    columns = 4
    height = -(-len(keys) // columns)
    figure, axes = pyplot.subplots(
        height, columns, figsize=(4 * columns, 3.4 * height), layout="constrained", squeeze=False
    )
    rows = sorted({row for shown in found.values() for row in shown})
    for place, key in enumerate(keys):
        axis = axes[place // columns][place % columns]
        for row in rows:
            shares = sorted(found[key].get(row, {}))
            if not shares:
                continue
            means = [statistics.mean(found[key][row][s]) for s in shares]
            spread = [
                statistics.stdev(found[key][row][s]) if len(found[key][row][s]) > 1 else 0.0
                for s in shares
            ]
            color = f"C{rows.index(row)}"
            axis.plot(shares, means, marker="o", markersize=3, label=row, color=color)
            low = [m - d for m, d in zip(means, spread, strict=True)]
            high = [m + d for m, d in zip(means, spread, strict=True)]
            axis.fill_between(shares, low, high, alpha=0.15, color=color)
        axis.set_title(title(*key), fontsize=10)
        axis.set_xlabel("share of entities")
        axis.set_ylabel("MRR, valid")
        axis.grid(alpha=0.3)
    for place in range(len(keys), height * columns):
        axes[place // columns][place % columns].axis("off")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    figure.savefig(path, dpi=110)


def render(page: Path) -> None:
    found = read()
    text = page.read_text()
    for mark in (BEGIN, END):
        if mark not in text:
            raise SystemExit(f"{page}: needs a line {mark}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    image = page.parent / "robustness.png"
    picture(found, image)
    body = f"{BEGIN}\n\n![Curves of the tables below]({image.name})\n\n{tables(found)}\n\n"
    body += f"{weights_table()}\n\n{END}"
    page.write_text(before + body + after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="of kept runs: RUNS/BENCH")
    parser.add_argument("--rows", nargs="*", help="names of rows' folders; all by default")
    parser.add_argument("--render", type=Path, help="the page that gets tables and a picture")
    asked = parser.parse_args()
    done = set()
    if RESULTS.exists():
        lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
        done = {(line["row"], line["graph"], line["seed"]) for line in lines}
    for folder in asked.folders:
        for path in sorted(folder.glob("*/*/seed-*")):
            run = Run.open(path)
            if not run.finished or (asked.rows and path.parent.parent.name not in asked.rows):
                continue
            if (path.parent.parent.name, run.graph().name, run.folder.about["seed"]) in done:
                continue
            found = [*measured(run), *weighed(run)]
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            with RESULTS.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in found)
            print(f"{path}: {len(found)} rankings")
    if asked.render:
        render(asked.render)


if __name__ == "__main__":
    main()
