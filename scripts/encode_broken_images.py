"""Encode many pictures of which one in a hundred is broken, kill the run half-way, and go on.

    python scripts/encode_broken_pictures.py --count 10000

Writes pictures of many kinds into a temporary folder, one in a hundred broken in one of eight ways,
runs ``mocme encode image`` on them, kills it when half of them are done, and runs it again. Then it
checks that the report lists exactly the broken ones, that nothing was encoded twice, and prints the
peak memory and the rate.
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


def saved(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    """A picture as a file of some format."""
    held = io.BytesIO()
    picture.save(held, kind, **settings)
    return held.getvalue()


def picture(number: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture that differs from all others."""
    generator = np.random.default_rng(number)
    small = generator.integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def sixteen_bits(number: int) -> bytes:
    """A grey PNG of 16 bits."""
    grey = np.asarray(picture(number).convert("L")).astype(np.uint16) * 257
    return saved(Image.fromarray(grey), "PNG")


def animation(number: int) -> bytes:
    """A GIF of three frames."""
    frames = [picture(number * 3 + place, (120, 90)) for place in range(3)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


# File ending and content of good pictures; among them some that a careless reader trips over.
GOOD: tuple[tuple[str, Callable[[int], bytes]], ...] = (
    (".jpg", lambda n: saved(picture(n), "JPEG")),
    (".png", lambda n: saved(picture(n, (200, 200)), "PNG")),
    (".jpg", lambda n: saved(picture(n, (640, 480)), "JPEG", progressive=True)),
    (".webp", lambda n: saved(picture(n), "WEBP")),
    (".gif", animation),
    (".jpg", lambda n: saved(picture(n).convert("CMYK"), "JPEG")),
    (".png", sixteen_bits),
    (".png", lambda n: saved(picture(n).convert("P"), "PNG")),
    (".jpg", lambda n: saved(picture(n), "PNG")),  # the name is wrong, the content counts
    (".png", lambda n: saved(picture(n).convert("RGBA"), "PNG")),
    (".bmp", lambda n: saved(picture(n, (100, 75)), "BMP")),
    (".tif", lambda n: saved(picture(n, (100, 75)), "TIFF")),
)


def garbled(number: int) -> bytes:
    """A PNG whose pixels were overwritten."""
    data = bytearray(saved(picture(number), "PNG"))
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    return bytes(data)


def huge(number: int) -> bytes:
    """A small file that says it has 56 megapixels."""
    return saved(Image.new("1", (8000, 7000 + number % 50)), "PNG")


BROKEN: tuple[tuple[str, Callable[[int], bytes]], ...] = (
    (".jpg", lambda n: saved(picture(n), "JPEG")[:700]),
    (".png", lambda n: saved(picture(n), "PNG")[:-200]),
    (".jpg", lambda n: b"<html>not found</html> %d" % n),
    (".png", lambda n: b""),
    (".bmp", lambda n: b"BM" + bytes(20_000_001) + b"%d" % n),
    (".png", huge),
    (".png", garbled),
    (".gif", lambda n: b"GIF89a\xff\xff\xff\xff\x00\x00\x00" + b"%d" % n),
)


def write_graph(folder: Path, count: int, every: int) -> set[str]:
    """A graph with `count` pictures, one in `every` broken; returns whose those are."""
    (folder / "pictures").mkdir(parents=True)
    broken = set()
    for number in range(count):
        bad = number % every == every // 2
        kinds = BROKEN if bad else GOOD
        place = number // every if bad else number
        ending, make = kinds[place % len(kinds)]
        name = f"picture {number:06d}"
        (folder / "pictures" / f"{name}{ending}").write_bytes(make(number))
        if bad:
            broken.add(name)
    names = [f"picture {number:06d}" for number in range(count)]
    (folder / "entities.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "train.tsv").write_text(f"{names[0]}\tnext to\t{names[1]}\n")
    return broken


def command(folder: Path, threads: int | None) -> list[str]:
    """What encodes the pictures."""
    begin = [sys.executable, "-m", "mocme.cli", "encode", "image", str(folder)]
    pictures = ["--from", str(folder / "pictures"), "--json"]
    return [*begin, *pictures, *(["--threads", str(threads)] if threads else [])]


def stored(folder: Path) -> int:
    """How many vectors are there, as far as the store's file tells from outside."""
    values = folder / "encoded" / "cache" / "image.values"
    return values.stat().st_size // (1280 * 2) if values.exists() else 0


def kill_half_way(folder: Path, half: int, threads: int | None) -> int:
    """Begin, and kill without warning once `half` vectors are there; returns how many are kept."""
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


def measured(arguments: list[str]) -> tuple[dict[str, Any], float, float]:
    """The report of a command, its seconds, and its peak memory in MiB."""
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
        raise SystemExit(f"ended with {process.returncode}: {text.decode()}")
    return json.loads(text)[0], time.perf_counter() - started, peak / 2**20


def check(folder: Path, count: int, every: int = 100, threads: int | None = None) -> dict[str, Any]:
    """Do all of it; raises SystemExit where something is not as it should be."""
    broken = write_graph(folder, count, every)
    kept = kill_half_way(folder, count // 2, threads)
    report, seconds, peak = measured(command(folder, threads))
    listed = {failure["entity"] for failure in report["failures"]}
    good = count - len(broken)
    faults = []
    if listed != broken:
        faults.append(f"listed but not broken {sorted(listed - broken)[:5]}, or the reverse "
                      f"{sorted(broken - listed)[:5]}")  # fmt: skip
    if report["reused"] != kept or report["encoded"] != good - kept:
        faults.append(f"{kept} were there, {report['reused']} reused, {report['encoded']} encoded")
    if report["present"] != good:
        faults.append(f"{report['present']} of {good} entities have a vector")
    if faults:
        raise SystemExit("; ".join(faults))
    return {
        "pictures": count,
        "broken": len(broken),
        "kept when killed": kept,
        "encoded after it": report["encoded"],
        "pictures a second": round(report["encoded"] / seconds, 1),
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
        found = check(Path(name) / "graph", options.count, threads=options.threads)
        print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
