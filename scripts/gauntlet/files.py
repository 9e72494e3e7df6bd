"""Files that cost far more to read than to make, and files that are no files."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from gauntlet.common import Outcome, Result, mocme, trial, unfit, write_graph

SECONDS, MEMORY = 20.0, 1500.0  # what a command may take that ends in a refusal


def bounded(outcomes: dict[str, Outcome]) -> Result:
    """Held if every command ended by itself, without a traceback, within the bounds."""
    held = all(
        "Traceback" not in outcome.output
        and outcome.code in (0, 1)
        and outcome.seconds < SECONDS
        and outcome.peak < MEMORY
        for outcome in outcomes.values()
    )
    figures = "; ".join(
        f"{name}: exit {o.code}, {o.seconds:.1f} s, {o.peak:,.0f} MiB"
        for name, o in outcomes.items()
    )
    return Result(held, f"{figures} {unfit([*outcomes.values()])}".strip())


@trial("A quote that is never closed ends the import soon")
def unclosed_quote(work: Path) -> Result:
    path = work / "quote.csv"
    lines = "".join(f"entity {i},r,entity {i + 1}\n" for i in range(330_000))
    path.write_text('head,relation,tail\na,r,"b\n' + lines)
    size = path.stat().st_size / 1e6
    return bounded({f"{size:.0f} MB": mocme("import", path, "--out", work / "out")})


@trial("Rejected lines are counted, not kept")
def bad_lines(work: Path) -> Result:
    path = work / "bad.tsv"
    path.write_text("a\tr\tb\n" + "x\ty\n" * 4_500_000)
    outcome = mocme("import", path, "--out", work / "out")
    report = sum(p.stat().st_size for p in (work / "out").rglob("*")) / 1e6
    result = bounded({"18 MB of bad lines": outcome})
    held = bool(result.held) and report < 5
    return Result(held, f"{result.figures}; the folder holds {report:.2f} MB")


@trial("A small archive cannot fill the memory")
def bomb(work: Path) -> Result:
    path = work / "line.tsv.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(3000):
            file.write(b"a" * 1_000_000)
    size = path.stat().st_size / 1e6
    name = f"one line of 3 GB in {size:.0f} MB"
    return bounded(
        {
            name: mocme("import", path, "--out", work / "out"),
            "the same, trained": mocme("train", "--data", path, "--out", work / "run"),
        }
    )


@trial("Devices, pipes and folders are refused as inputs")
def no_files(work: Path) -> Result:
    (work / "zero.tsv").symlink_to("/dev/zero")
    os.mkfifo(work / "pipe.tsv")
    (work / "folder.tsv").mkdir()
    names = ("zero", "pipe", "folder")
    outcomes = {}
    for name in names:
        path = work / f"{name}.tsv"
        outcomes[f"import {name}"] = mocme("import", path, "--out", work / "out", limit=30)
        outcomes[f"train {name}"] = mocme("train", "--data", path, "--out", work / "run", limit=30)
    return bounded(outcomes)


@trial("A declared size is not believed")
def declared_size(work: Path) -> Result:
    import h5py

    data = write_graph(work / "data")
    with h5py.File(data / "image.h5", "w") as file:
        file.create_dataset("x", (60, 40_000_000), "f4", chunks=(1, 1_000_000))
    table = '[modalities.image]\nkind = "vectors"\npath = "image.h5"\n'
    (data / "graph.toml").write_text(table)
    size = (data / "image.h5").stat().st_size / 1e3
    out = work / "run"
    return bounded({f"9.6 GB in {size:.0f} kB": mocme("train", "--data", data, "--out", out)})


@trial("UTF-16 is read or refused")
def utf16(work: Path) -> Result:
    lines = "".join(f"entity {i}\tr\tentity {i + 1}\n" for i in range(50))
    counted = []
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        path = work / f"{encoding}.tsv"
        path.write_bytes(lines.encode(encoding))
        out = work / encoding
        outcome = mocme("import", path, "--out", out)
        names = (out / "entities.txt").read_text() if outcome.code == 0 else ""
        right = outcome.refused or ("\0" not in names and "entity 7\n" in names)
        counted.append((encoding, "read" if outcome.code == 0 else "refused", right))
    figures = ", ".join(f"{name} {what}" for name, what, _ in counted)
    return Result(all(right for *_, right in counted), figures)


@trial("Nesting without end is refused")
def nesting(work: Path) -> Result:
    data = write_graph(work / "data")
    (data / "graph.toml").write_text("x = " + "[" * 50_000 + "]" * 50_000 + "\n")
    (work / "deep.toml").write_text("x = " + "{a=" * 5_000 + "1" + "}" * 5_000 + "\n")
    (work / "deep.jsonl").write_text("[" * 100_000 + "]" * 100_000 + "\n")
    return bounded(
        {
            "graph.toml": mocme("train", "--data", data, "--out", work / "run"),
            "recipe": mocme("import", work / "deep.toml", "--out", work / "out"),
            "JSON lines": mocme("import", work / "deep.jsonl", "--out", work / "out2"),
        }
    )
