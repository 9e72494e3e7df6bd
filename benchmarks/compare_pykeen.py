"""Speed of training and ranking compared with PyKEEN, on the same graph, machine and threads.

    python benchmarks/compare_pykeen.py --ours PYTHON --theirs PYTHON --data FOLDER

Each library runs in a process (and an environment) of its own, which is idle until it receives a
command; measurements alternate between the two. See README.md for what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worker_protocol import Record

HERE = Path(__file__).resolve().parent


class Worker:
    """One side, in a process of its own."""

    def __init__(self, name: str, python: str, script: str, threads: int, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "CUDA_VISIBLE_DEVICES": "",
            # PyKEEN creates folders for checkpoints and data sets there.
            "PYSTOW_HOME": str(folder / "pystow"),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [python, str(HERE / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=environment,
            )

    def ask(self, do: str, **arguments: Any) -> Record:
        """Send a command and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": "the process has ended"}
        if "error" in answer:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
            raise SystemExit(f"{self.name}: {do}: {answer['error']}\n{tail}")
        return {"side": self.name, "do": do, "asked": arguments, **answer}

    def stop(self) -> None:
        """Stop the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def small_graph(folder: Path) -> Path:
    """Write a random graph on which the two sides are compared in a moment."""
    source = random.Random(0)
    entities, relations = [f"e{i}" for i in range(300)], [f"r{i}" for i in range(9)]
    facts = {
        (int(300 * source.random() ** 2), source.randrange(9), int(300 * source.random() ** 2))
        for _ in range(4000)
    }
    order = sorted(facts)
    source.shuffle(order)
    splits = {"test": order[:400], "valid": order[400:700], "train": order[700:]}
    splits["train"] += splits["train"][:50]  # repeated facts count once on both sides
    folder.mkdir()
    for split, rows in splits.items():
        lines = [f"{entities[h]}\t{relations[r]}\t{entities[t]}\n" for h, r, t in rows]
        (folder / f"{split}.tsv").write_text("".join(lines))
    (folder / "entities.txt").write_text("".join(f"{e}\n" for e in entities))
    (folder / "relations.txt").write_text("".join(f"{r}\n" for r in relations))
    return folder


COUNTS = ("entities", "relations", "train_facts", "questions", "known_facts", "test_pairs")


def open_both(ours: Worker, theirs: Worker, data: Path, width: int, threads: int) -> Record:
    """Let both sides read a graph.

    Raises:
        SystemExit: one of the counts differs.
    """
    arguments = {"data": str(data), "width": width, "threads": threads}
    answers = [side.ask("open", **arguments) for side in (ours, theirs)]
    for key in COUNTS:
        if answers[0][key] != answers[1][key]:
            raise SystemExit(f"{key}: ours {answers[0][key]}, theirs {answers[1][key]}: not equal")
    return {"ours": answers[0], "theirs": answers[1]}


def check(ours: Worker, theirs: Worker, path: Path, facts: int, loss: bool, ties: bool) -> Record:
    """Give both sides our current parameters, and compare metrics and losses.

    Raises:
        SystemExit: a metric or the loss differs by more than 1e-4.
    """
    ours.ask("save", path=str(path), ties=ties)
    theirs.ask("load", path=str(path))
    first = ours.ask("evaluate", facts=facts, warm=False)["metrics"]
    second = theirs.ask("evaluate", facts=facts, batch=128, warm=False)["metrics"]
    if loss:
        first["loss"], second["loss"] = (side.ask("loss")["loss"] for side in (ours, theirs))
    for key, value in first.items():
        # The tolerance is relative for mean ranks and losses, absolute for metrics in [0, 1].
        if abs(value - second[key]) > 1e-4 * max(1.0, abs(value)):
            raise SystemExit(f"{key}: ours {value}, theirs {second[key]}: not the same work")
    return {"ours": first, "theirs": second}


class Comparison:
    """Alternating measurements, all of which are kept."""

    def __init__(self, ours: Worker, theirs: Worker) -> None:
        self.ours, self.theirs = ours, theirs
        self.records: list[Record] = []

    def measure(self, side: Worker, what: str, **command: Any) -> Record:
        record = {"what": what, **side.ask(**command)}
        self.records.append(record)
        note = f"{record['items']} of {record['items_per_pass']} items"
        say(f"  {side.name:7} {record['seconds_per_pass']:9.2f} s  batch {record['batch']}, {note}")
        return record

    def pair(self, what: str, ours: Record, theirs: Record) -> tuple[float, float]:
        first = self.measure(self.ours, what, **ours)["seconds_per_pass"]
        second = self.measure(self.theirs, what, **theirs)["seconds_per_pass"]
        return first, second


def summary(pairs: Sequence[tuple[float, float]]) -> Record:
    """Medians over pairs, and the ratio theirs / ours of each pair."""
    ratios = [theirs / ours for ours, theirs in pairs]
    return {
        "ours": statistics.median(o for o, _ in pairs),
        "theirs": statistics.median(t for _, t in pairs),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "seconds": [list(pair) for pair in pairs],
    }


def best_batch(by_batch: dict[int, list[tuple[float, float]]]) -> Record:
    """PyKEEN at its best batch size, the one with the lowest median."""
    summaries = {size: summary(pairs) for size, pairs in by_batch.items()}
    best = min(summaries, key=lambda size: summaries[size]["theirs"])
    return {"batch": best, **summaries[best], "by_batch": summaries}


def compare(compared: Comparison, options: argparse.Namespace, path: Path) -> Record:
    """All measurements of a run."""
    ours, theirs = compared.ours, compared.theirs
    common = {"do": "train", "items": options.items, "warm": options.warm}
    same = {**common, "mode": "same"}
    results: Record = {}

    say("fastest training options of PyKEEN on this machine")
    middle = sorted(options.train_batches)[len(options.train_batches) // 2]
    choices = [
        {"fused": False, "workers": 0},
        {"fused": True, "workers": 0},
        {"fused": True, "workers": 1},
    ]
    tried = []
    for choice in choices:
        say(f"  {choice}")
        record = compared.measure(theirs, "options", **same, batch=middle, **choice)
        tried.append({**choice, "seconds_per_pass": record["seconds_per_pass"]})
    best = min(range(len(choices)), key=lambda i: tried[i]["seconds_per_pass"])
    results["options"] = {"tried": tried, "taken": choices[best]}

    by_batch: dict[int, list[tuple[float, float]]] = {b: [] for b in options.train_batches}
    for turn in range(options.rounds):
        for size in options.train_batches:
            say(f"training, same work: round {turn + 1} of {options.rounds}, PyKEEN batch {size}")
            mine = {**same, "batch": options.batch}
            pair = compared.pair("train", mine, {**same, "batch": size, **choices[best]})
            by_batch[size].append(pair)
    results["train"] = best_batch(by_batch)

    say("comparing metrics at equal parameters")
    results["check"] = check(ours, theirs, path, options.facts, loss=False, ties=False)
    say(f"  ours {results['check']['ours']}\n  theirs {results['check']['theirs']}")

    rank = {"do": "evaluate", "facts": options.facts}
    by_batch = {b: [] for b in options.rank_batches}
    for turn in range(options.rounds):
        for size in options.rank_batches:
            say(f"ranking, same work: round {turn + 1} of {options.rounds}, PyKEEN batch {size}")
            by_batch[size].append(compared.pair("rank", rank, {**rank, "batch": size}))
    results["rank"] = best_batch(by_batch)

    default = {**common, "mode": "defaults"}
    trained, ranked = [], []
    for turn in range(options.rounds):
        say(f"training, defaults: round {turn + 1} of {options.rounds}")
        trained.append(compared.pair("train, defaults", default, default))
        say(f"ranking, defaults: round {turn + 1} of {options.rounds}")
        theirs_rank = {**rank, "mode": "defaults"}
        ranked.append(compared.pair("rank, defaults", rank, theirs_rank))
    results["train_defaults"], results["rank_defaults"] = summary(trained), summary(ranked)
    return results


def table(results: Record) -> str:
    """The results as text."""
    lines = [
        f"{'seconds':34}{'ours':>10}{'PyKEEN':>10}{'ratio':>8}   ratios of the pairs",
    ]

    def add(name: str, row: Record) -> None:
        ratios = " ".join(f"{r:.2f}" for r in row["ratios"])
        lines.append(
            f"{name:34}{row['ours']:10.2f}{row['theirs']:10.2f}{row['ratio']:8.2f}   {ratios}"
        )

    for key, name in (("train", "training epoch"), ("rank", "test ranking")):
        best = results[key]
        add(f"{name}, best batch ({best['batch']})", best)
        for size, row in best["by_batch"].items():
            add(f"  PyKEEN batch {size}", row)
    add("training epoch, defaults (*)", results["train_defaults"])
    add("test ranking, defaults", results["rank_defaults"])
    lines.append("ratio: PyKEEN's seconds / ours, median of the pairs; above 1: ours is faster")
    lines.append("(*) not the same work: see README.md")
    return "\n".join(lines)


def machine() -> Record:
    """Hardware and system."""
    model, flags = platform.processor(), set()
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
    return {
        "cpu": model,
        "cpu_flags": [flag for flag in known if flag in flags],
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def say(text: str) -> None:
    print(text, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--ours", default=sys.executable, help="interpreter that has mocme")
    add("--theirs", required=True, help="interpreter that has pykeen")
    add("--data", required=True, type=Path, help="folder with train.tsv, entities.txt and so on")
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=2)
    add("--width", type=int, default=1000, help="real numbers per entity")
    add("--batch", type=int, default=1024, help="our batch size in training (same work)")
    add("--train-batches", type=int, nargs="+", default=[256, 1024, 4096], help="PyKEEN's")
    add("--rank-batches", type=int, nargs="+", default=[32, 128, 512], help="PyKEEN's")
    add(
        "--items",
        type=int,
        default=12288,
        help="items (questions, facts) timed per training measurement; 0 for an epoch",
    )
    add("--warm", type=int, default=2, help="warm-up batches that are not timed")
    add("--facts", type=int, default=0, help="test facts to rank; 0 for all")
    add("--quick", action="store_true", help="smoke test, too small for conclusions")
    add("--out", type=Path, help="write all measurements as JSON")
    options = parser.parse_args()
    options.data = options.data.resolve()
    if options.quick:
        options.width, options.rounds, options.items, options.facts = 32, 2, 256, 64
        options.batch, options.train_batches, options.rank_batches = 64, [32, 64, 128], [8, 16, 32]
    return options


def main() -> None:
    options = arguments()
    started = time.perf_counter()
    load = [os.getloadavg()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = Worker("ours", options.ours, "mocme_worker.py", options.threads, folder)
        theirs = Worker("PyKEEN", options.theirs, "pykeen_worker.py", options.threads, folder)
        try:
            say("comparing both sides on a small graph")
            graph, path = small_graph(folder / "graph"), folder / "parameters.npz"
            open_both(ours, theirs, graph, 32, options.threads)
            checks = []
            for ties in (False, True):
                ours.ask("train", mode="same", batch=128, items=4096, warm=1)
                checks.append(check(ours, theirs, path, 0, loss=True, ties=ties))
                for side, values in checks[-1].items():
                    text = ", ".join(f"{k} {v:.6f}" for k, v in values.items())
                    say(f"  {side:7}{'ties, ' if ties else ''}{text}")
            opened = open_both(ours, theirs, options.data, options.width, options.threads)
            say("both sides: " + ", ".join(f"{k} {opened['ours'][k]}" for k in COUNTS))
            compared = Comparison(ours, theirs)
            results = compare(compared, options, path)
        finally:
            ours.stop()
            theirs.stop()
    load.append(os.getloadavg())
    idle = {r["side"]: r["idle_cpu_seconds"] for r in compared.records}
    report = {
        "machine": machine(),
        "threads": options.threads,
        "sides": {k: {n: v for n, v in o.items() if n != "asked"} for k, o in opened.items()},
        "options": {
            k: str(v) if isinstance(v, Path) else v
            for k, v in vars(options).items()
            if k not in ("ours", "theirs", "data", "out")
        },
        "graph": options.data.name,
        "load_average": {"before": load[0], "after": load[1]},
        "idle_cpu_seconds": idle,
        "minutes": (time.perf_counter() - started) / 60,
        "small_graph": checks,
        "results": results,
        "measurements": compared.records,
    }
    say("")
    say(table(results))
    say(f"{report['machine']['cpu']}, {options.threads} threads, {report['minutes']:.1f} minutes")
    for side in opened.values():
        say(f"{side['package']} {side['version']}, torch {side['torch']}, Python {side['python']}")
    say(f"processor time of idle workers: {idle}; load average: {load}")
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
        say(f"wrote {options.out}")


if __name__ == "__main__":
    main()
