"""How often the nearest neighbour of an encoded picture or text is of its own kind, and a picture.

    python scripts/encoder_quality.py --picture docs/neighbours.png

Pictures of known kinds are the emoji of the npm package emoji-datasource-twitter (each one's
category, such as "Food & Drink", and subcategory); texts of known kinds are the names in Atlas
(each entity's type). Chance is what a random neighbour would reach. Pictures with known ImageNet
labels come with scikit-image. Needs npm, and: pip install "mocme[text,image,pictures]" scikit-image
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
from mocme.encoders.image_io import ImageShape, read_picture
from mocme.encoders.inputs import escaped

PACKAGE = "emoji-datasource-twitter@16.0.0"
ATLAS = Path(mocme.__file__).parent / "data" / "atlas"
# ImageNet classes that name what a picture shows.
LABELS = {
    "cat": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee": {967, 968, 504},  # espresso, cup, coffee mug
    "rocket": {657, 744, 812},  # missile, projectile, space shuttle
    "camera": {872, 732, 759},  # tripod, Polaroid camera, reflex camera
}


def unpacked(given: Path | None, scratch: Path) -> Path:
    """The folder of the emoji package."""
    if given is not None:
        return given
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"npm is not installed: unpack {PACKAGE} by hand and name its folder")
    subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=scratch, check=True, stdout=sys.stderr)
    with tarfile.open(next(scratch.glob("*.tgz"))) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / "package"


def emoji(package: Path, folder: Path) -> dict[str, tuple[str, str]]:
    """A graph folder of emoji; category and subcategory by name."""
    (folder / "pictures").mkdir(parents=True)
    kinds = {}
    for entry in json.loads((package / "emoji.json").read_text(encoding="utf-8")):
        source = package / "img" / "twitter" / "64" / entry["image"]
        if source.is_file() and entry["category"] != "Component":
            name = str(entry["short_name"])
            shutil.copyfile(source, folder / "pictures" / f"{escaped(name)}.png")
            kinds[name] = (str(entry["category"]), str(entry["subcategory"]))
    first, second = list(kinds)[:2]
    (folder / "train.tsv").write_text(f"{first}\tis near\t{second}\n")
    (folder / "entities.txt").write_text("".join(f"{name}\n" for name in kinds))
    return kinds


def vectors(graph: mocme.Graph, name: str) -> tuple[list[str], torch.Tensor]:
    """Names and unit vectors of a dense modality."""
    found = read_features(graph, {name: graph.modalities[name]}).dense[name]
    units = torch.nn.functional.normalize(found.values.float(), dim=1)
    return [graph.entities[row] for row in found.rows.tolist()], units


def neighbours(units: torch.Tensor, count: int) -> torch.Tensor:
    """The nearest others of each row by cosine, best first."""
    cosines = units @ units.T
    cosines.fill_diagonal_(-2)
    # Equal pictures (flags of territories) are no test of anything.
    cosines[cosines > 0.99999] = -2
    return cosines.topk(count, dim=1).indices


def agreement(kinds: Sequence[str], nearest: torch.Tensor) -> dict[str, float]:
    """Share of nearest neighbours of the same kind, and that of a random neighbour."""
    counts = Counter(kinds)
    total = len(kinds)
    chance = sum(n * (n - 1) for n in counts.values()) / (total * (total - 1))
    same = [kinds[row] == kinds[int(places[0])] for row, places in enumerate(nearest)]
    return {"nearest": round(sum(same) / total, 3), "chance": round(chance, 3), "count": total}


def imagenet() -> dict[str, bool]:
    """Whether the network's best three classes hold the right one."""
    from PIL import Image
    from skimage import data

    network, result = lite0.load(), {}
    for name, classes in LABELS.items():
        held = io.BytesIO()
        Image.fromarray(getattr(data, name)()).save(held, "PNG")
        pixels = torch.from_numpy(read_picture(held.getvalue(), ImageShape()).copy())
        with torch.inference_mode():
            logits = network((pixels.permute(2, 0, 1)[None].float() - 127) / 128)
        result[name] = bool(classes & set(logits[0].topk(3).indices.tolist()))
    return result


def draw(path: Path, rows: Sequence[tuple[str, list[str], list[Path | None]]]) -> None:
    """A grid: each row a thing and its nearest neighbours, as pictures or as words."""
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
        for place, axis in enumerate(line):
            axis.set_xticks([])
            axis.set_yticks([])
            for side in axis.spines.values():
                side.set_color("#c03030" if not place else "#dddddd")
                side.set_linewidth(1.5 if not place else 0.8)
            name, file = names[place], files[place]
            if file is not None:
                axis.imshow(pyplot.imread(file), aspect="equal")
                axis.set_title(name[:24], fontsize=7, pad=2)
            else:
                wrapped = name if len(name) < 18 else name.replace(" ", "\n", 1)
                axis.text(0.5, 0.5, wrapped[:40], ha="center", va="center", fontsize=8)
        line[0].set_ylabel(title, fontsize=8)
    figure.suptitle("What is nearest in each modality (the first in red)", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def rows_of(
    title: str, names: list[str], units: torch.Tensor, asked: Sequence[str], files: dict[str, Path]
) -> list[tuple[str, list[str], list[Path | None]]]:
    """Rows of the picture: some things with their five nearest."""
    nearest = neighbours(units, 5)
    result = []
    for name in asked:
        found = [name, *(names[place] for place in nearest[names.index(name)].tolist())]
        result.append((title, found, [files.get(other) for other in found]))
    return result


def main() -> int:
    """Read the command line, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emoji", type=Path, help=f"unpacked {PACKAGE}; else npm gets it")
    parser.add_argument("--picture", type=Path, help="write the nearest neighbours here")
    options = parser.parse_args()
    result: dict[str, Any] = {"ImageNet label among the best three": imagenet()}
    atlas = mocme.load("atlas")
    table = (ATLAS / "types.tsv").read_text(encoding="utf-8").splitlines()
    types = dict(line.split("\t") for line in table)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "graph"
        kinds = emoji(unpacked(options.emoji, Path(scratch)), folder)
        mocme.encode(folder, {"emoji": {"kind": "image", "paths": ["pictures"], "fit": "whole"}})
        names, units = vectors(mocme.load(folder), "emoji")
        nearest = neighbours(units, 1)
        for place, what in enumerate(("category", "subcategory")):
            found = agreement([kinds[name][place] for name in names], nearest)
            result[f"emoji, {what}"] = found
        labels, texts = vectors(atlas, "text")
        found = agreement([types[label] for label in labels], neighbours(texts, 1))
        result["names in Atlas, type"] = found
        print(json.dumps(result, indent=1))
        if options.picture:
            flags = dict(
                line.split("\t")
                for line in (ATLAS / "pictures.tsv").read_text(encoding="utf-8").splitlines()
            )
            of_flags = {name: ATLAS / path for name, path in flags.items()}
            of_emoji = {n: folder / "pictures" / f"{escaped(n)}.png" for n in names}
            asked = ["Norway", "France", "Saudi Arabia"]
            rows = rows_of("flags", *vectors(atlas, "image"), asked, of_flags)
            rows += rows_of("emoji", names, units, ["apple", "dog", "car"], of_emoji)
            asked = ["Norway", "Swahili", "Japanese Yen"]
            rows += rows_of("names", labels, texts, asked, {})
            rows += rows_of("numbers", *vectors(atlas, "number"), ["Chad", "Cairo"], {})
            draw(options.picture, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
