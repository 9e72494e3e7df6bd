"""How often the nearest neighbour of an encoded image or text belongs to the same class; a plot.

    python scripts/encoder_quality.py --plot docs/neighbours.png

Images of known classes are the emoji of the npm package emoji-datasource-twitter (category, such as
"Food & Drink", and subcategory); texts of known classes are the names in Atlas (type of the
entity). The baseline is a random neighbour. Images with known ImageNet labels come with
scikit-image. Needs npm, and: pip install -e ".[text,image,pictures]" scikit-image
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import mocme
from mocme.data.features.sources import read_features
from mocme.encoders import efficientnet_lite0 as lite0
from mocme.encoders.image_io import ImageShape, read_image
from mocme.encoders.inputs import escaped

PACKAGE = "emoji-datasource-twitter@16.0.0"
ATLAS = Path(mocme.__file__).parent / "data" / "atlas"
# ImageNet classes that describe an image.
LABELS = {
    "cat": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee": {967, 968, 504},  # espresso, cup, coffee mug
    "rocket": {657, 744, 812},  # missile, projectile, space shuttle
    "camera": {872, 732, 759},  # tripod, Polaroid camera, reflex camera
}


def emoji_package(folder: Path | None, scratch: Path) -> Path:
    """The folder of the emoji package, which npm downloads unless `folder` is given."""
    if folder is not None:
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"npm is not installed; unpack {PACKAGE} and name its folder with --emoji")
    subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=scratch, check=True, stdout=sys.stderr)
    with tarfile.open(next(scratch.glob("*.tgz"))) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / "package"


def write_emoji(package: Path, folder: Path) -> dict[str, tuple[str, str]]:
    """Write a graph of emoji; returns category and subcategory by name."""
    (folder / "images").mkdir(parents=True)
    classes = {}
    for entry in json.loads((package / "emoji.json").read_text(encoding="utf-8")):
        source = package / "img" / "twitter" / "64" / entry["image"]
        if source.is_file() and entry["category"] != "Component":
            name = str(entry["short_name"])
            shutil.copyfile(source, folder / "images" / f"{escaped(name)}.png")
            classes[name] = (str(entry["category"]), str(entry["subcategory"]))
    first, second = list(classes)[:2]
    (folder / "train.tsv").write_text(f"{first}\tis near\t{second}\n")
    (folder / "entities.txt").write_text("".join(f"{name}\n" for name in classes))
    return classes


def vectors(graph: mocme.Graph, name: str) -> tuple[list[str], torch.Tensor]:
    """Names and unit vectors of a dense modality."""
    modality = read_features(graph, {name: graph.modalities[name]}).dense[name]
    units = torch.nn.functional.normalize(modality.values.float(), dim=1)
    return [graph.entities[row] for row in modality.rows.tolist()], units


def neighbours(units: torch.Tensor, count: int) -> torch.Tensor:
    """The nearest other rows of each row by cosine, the nearest first."""
    cosines = units @ units.T
    cosines.fill_diagonal_(-2)
    # Equal images (flags of territories) test nothing.
    cosines[cosines > 0.99999] = -2
    return cosines.topk(count, dim=1).indices


def agreement(classes: Sequence[str], nearest: torch.Tensor) -> dict[str, float]:
    """The share of nearest neighbours of the same class, and that of random neighbours."""
    counts = Counter(classes)
    total = len(classes)
    chance = sum(n * (n - 1) for n in counts.values()) / (total * (total - 1))
    same = [classes[row] == classes[int(others[0])] for row, others in enumerate(nearest)]
    return {"nearest": round(sum(same) / total, 3), "chance": round(chance, 3), "count": total}


def imagenet() -> dict[str, bool]:
    """Whether the right class is among the network's best three, by image."""
    from PIL import Image
    from skimage import data

    network, result = lite0.load(), {}
    for name, classes in LABELS.items():
        file = io.BytesIO()
        Image.fromarray(getattr(data, name)()).save(file, "PNG")
        pixels = torch.from_numpy(read_image(file.getvalue(), ImageShape()).copy())
        with torch.inference_mode():
            logits = network((pixels.permute(2, 0, 1)[None].float() - 127) / 128)
        result[name] = bool(classes & set(logits[0].topk(3).indices.tolist()))
    return result


def draw(path: Path, rows: Sequence[tuple[str, list[str], list[Path | None]]]) -> None:
    """Draw a grid: in each row an entity and its nearest neighbours, as images or as names."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    width = max(len(names) for _, names, _ in rows)
    heights = [1.2 if any(files) else 0.45 for _, _, files in rows]
    figure, axes = pyplot.subplots(
        len(rows),
        width,
        figsize=(1.75 * width, sum(heights) + 0.4),
        gridspec_kw={"height_ratios": heights},
    )
    for line, (title, names, files) in zip(axes, rows, strict=True):
        for column, axis in enumerate(line):
            axis.set_xticks([])
            axis.set_yticks([])
            for side in axis.spines.values():
                side.set_color("#c03030" if not column else "#dddddd")
                side.set_linewidth(1.5 if not column else 0.8)
            name, file = names[column], files[column]
            if file is not None:
                axis.imshow(pyplot.imread(file), aspect="equal")
                axis.set_title(name[:24], fontsize=7, pad=2)
            else:
                wrapped = name if len(name) < 18 else name.replace(" ", "\n", 1)
                axis.text(0.5, 0.5, wrapped[:40], ha="center", va="center", fontsize=8)
        line[0].set_ylabel(title, fontsize=8)
    figure.suptitle("Nearest neighbours in each modality (the entity in red)", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def rows_of(
    title: str,
    names: list[str],
    units: torch.Tensor,
    examples: Sequence[str],
    files: dict[str, Path],
) -> list[tuple[str, list[str], list[Path | None]]]:
    """Rows of the plot: some entities with their five nearest neighbours."""
    nearest = neighbours(units, 5)
    result = []
    for example in examples:
        row = [example, *(names[index] for index in nearest[names.index(example)].tolist())]
        result.append((title, row, [files.get(name) for name in row]))
    return result


def main() -> int:
    """Read the command line, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emoji", type=Path, help=f"unpacked {PACKAGE}; default: npm downloads it")
    parser.add_argument("--plot", type=Path, help="draw the nearest neighbours to this file")
    options = parser.parse_args()
    result: dict[str, Any] = {"ImageNet label among the best three": imagenet()}
    atlas = mocme.load("atlas")
    table = (ATLAS / "types.tsv").read_text(encoding="utf-8").splitlines()
    types = dict(line.split("\t") for line in table)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "graph"
        classes = write_emoji(emoji_package(options.emoji, Path(scratch)), folder)
        mocme.encode(folder, {"emoji": {"kind": "image", "paths": ["images"], "fit": "whole"}})
        names, units = vectors(mocme.load(folder), "emoji")
        nearest = neighbours(units, 1)
        for level, what in enumerate(("category", "subcategory")):
            of_level = [classes[name][level] for name in names]
            result[f"emoji, {what}"] = agreement(of_level, nearest)
        labels, texts = vectors(atlas, "text")
        of_labels = [types[label] for label in labels]
        result["names in Atlas, type"] = agreement(of_labels, neighbours(texts, 1))
        print(json.dumps(result, indent=1))
        if options.plot:
            flags = dict(
                line.split("\t")
                for line in (ATLAS / "pictures.tsv").read_text(encoding="utf-8").splitlines()
            )
            of_flags = {name: ATLAS / path for name, path in flags.items()}
            of_emoji = {n: folder / "images" / f"{escaped(n)}.png" for n in names}
            examples = ["Norway", "France", "Saudi Arabia"]
            rows = rows_of("flags", *vectors(atlas, "image"), examples, of_flags)
            rows += rows_of("emoji", names, units, ["apple", "dog", "car"], of_emoji)
            examples = ["Norway", "Swahili", "Japanese Yen"]
            rows += rows_of("names", labels, texts, examples, {})
            rows += rows_of("numbers", *vectors(atlas, "number"), ["Chad", "Cairo"], {})
            draw(options.plot, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
