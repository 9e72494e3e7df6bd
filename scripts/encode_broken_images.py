"""Encode many images of which one in a hundred is broken, kill the run half-way, and resume it.

    python scripts/encode_broken_images.py --count 10000

Writes images of many kinds to a temporary folder, one in a hundred broken in one of eight ways,
runs ``mocme encode image`` on them, kills it when half of them are encoded, and runs it again. Then
it checks that the report lists exactly the broken images and that none was encoded twice, and
prints the peak memory and the rate.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mocme.core.device import peak_memory

KILL_SIGNAL = signal.SIGKILL


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file in some format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def make_image(number: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """An image that differs from those of all other numbers."""
    generator = np.random.default_rng(number)
    small = generator.integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def sixteen_bits(number: int) -> bytes:
    """A grey PNG of 16 bits."""
    grey = np.asarray(make_image(number).convert("L")).astype(np.uint16) * 257
    return saved(Image.fromarray(grey), "PNG")


def animation(number: int) -> bytes:
    """A GIF of three frames."""
    frames = [make_image(number * 3 + frame, (120, 90)) for frame in range(3)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


# Ending and content of good images, some of which need care when they are read.
GOOD: tuple[tuple[str, Callable[[int], bytes]], ...] = (
    (".jpg", lambda n: saved(make_image(n), "JPEG")),
    (".png", lambda n: saved(make_image(n, (200, 200)), "PNG")),
    (".jpg", lambda n: saved(make_image(n, (640, 480)), "JPEG", progressive=True)),
    (".webp", lambda n: saved(make_image(n), "WEBP")),
    (".gif", animation),
    (".jpg", lambda n: saved(make_image(n).convert("CMYK"), "JPEG")),
    (".png", sixteen_bits),
    (".png", lambda n: saved(make_image(n).convert("P"), "PNG")),
    (".jpg", lambda n: saved(make_image(n), "PNG")),  # a wrong ending; the content decides
    (".png", lambda n: saved(make_image(n).convert("RGBA"), "PNG")),
    (".bmp", lambda n: saved(make_image(n, (100, 75)), "BMP")),
    (".tif", lambda n: saved(make_image(n, (100, 75)), "TIFF")),
)


def garbled(number: int) -> bytes:
    """A PNG with overwritten pixels."""
    data = bytearray(saved(make_image(number), "PNG"))
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    return bytes(data)


def huge(number: int) -> bytes:
    """A small file of 56 megapixels."""
    return saved(Image.new("1", (8000, 7000 + number % 50)), "PNG")


BROKEN: tuple[tuple[str, Callable[[int], bytes]], ...] = (
    (".jpg", lambda n: saved(make_image(n), "JPEG")[:700]),
    (".png", lambda n: saved(make_image(n), "PNG")[:-200]),
    (".jpg", lambda n: b"<html>not found</html> %d" % n),
    (".png", lambda n: b""),
    (".bmp", lambda n: b"BM" + bytes(20_000_001) + b"%d" % n),
    (".png", huge),
    (".png", garbled),
    (".gif", lambda n: b"GIF89a\xff\xff\xff\xff\x00\x00\x00" + b"%d" % n),
)


def write_graph(folder: Path, count: int, every: int) -> set[str]:
    """Write a graph with `count` images, one in `every` broken; returns the entities of those."""
    (folder / "images").mkdir(parents=True)
    broken = set()
    for number in range(count):
        bad = number % every == every // 2
        kinds = BROKEN if bad else GOOD
        ending, make = kinds[(number // every if bad else number) % len(kinds)]
        name = f"image {number:06d}"
        (folder / "images" / f"{name}{ending}").write_bytes(make(number))
        if bad:
            broken.add(name)
    names = [f"image {number:06d}" for number in range(count)]
    (folder / "entities.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "train.tsv").write_text(f"{names[0]}\tnext to\t{names[1]}\n")
    return broken


def command(folder: Path, threads: int | None) -> list[str]:
    """The command that encodes the images."""
    encode = [sys.executable, "-m", "mocme.cli", "encode", "image", str(folder)]
    options = ["--from", str(folder / "images"), "--json"]
    return [*encode, *options, *(["--threads", str(threads)] if threads else [])]


def stored(folder: Path) -> int:
    """The number of stored vectors, from the size of the store's file."""
    values = folder / "encoded" / "cache" / "image.values"
    return values.stat().st_size // (1280 * 2) if values.exists() else 0


def kill_half_way(folder: Path, half: int, threads: int | None) -> int:
    """Start, and kill once `half` vectors are stored; returns how many the store has kept."""
    process = subprocess.Popen(
        command(folder, threads), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while stored(folder) < half and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(KILL_SIGNAL)
    process.wait()
    store = folder / "encoded" / "cache" / "image.sqlite"
    with contextlib.closing(sqlite3.connect(store)) as db:
        (kept,) = db.execute("select count(*) from vectors").fetchone()
    return int(kept)


def measure(arguments: list[str]) -> tuple[dict[str, Any], float, float]:
    """Run a command; returns its report, its duration in seconds and its peak memory in MiB."""
    started = time.perf_counter()
    peak = 0
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, peak_memory(process.pid))
            time.sleep(0.02)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"exit status {process.returncode}: {text.decode()}")
    return json.loads(text)[0], time.perf_counter() - started, peak / 2**20


def check(folder: Path, count: int, every: int = 100, threads: int | None = None) -> dict[str, Any]:
    """Write, kill, resume and check.

    Raises:
        SystemExit: the report is wrong, or an image was encoded twice.
    """
    broken = write_graph(folder, count, every)
    kept = kill_half_way(folder, count // 2, threads)
    report, seconds, peak = measure(command(folder, threads))
    listed = {failure["entity"] for failure in report["failures"]}
    good = count - len(broken)
    errors = []
    if listed != broken:
        errors.append(f"listed but not broken: {sorted(listed - broken)[:5]}; broken but not "
                      f"listed: {sorted(broken - listed)[:5]}")  # fmt: skip
    if report["reused"] != kept or report["encoded"] != good - kept:
        errors.append(f"{kept} were stored, {report['reused']} reused, {report['encoded']} encoded")
    if report["present"] != good:
        errors.append(f"{report['present']} of {good} entities have a vector")
    if errors:
        raise SystemExit("; ".join(errors))
    return {
        "images": count,
        "broken": len(broken),
        "kept when killed": kept,
        "encoded after resuming": report["encoded"],
        "images a second": round(report["encoded"] / seconds, 1),
        "peak memory, MiB": round(peak),
        "reasons": sorted({failure["reason"] for failure in report["failures"]}),
    }


def main() -> int:
    """Read the command line and check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = check(Path(name) / "graph", options.count, threads=options.threads)
        print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
