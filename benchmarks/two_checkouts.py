"""Compare import, training, prediction and serving of two checkouts, in turns.

    python benchmarks/two_checkouts.py OTHER_CHECKOUT [--rounds 7] [--steps serve open]

Each step runs in processes of its own, which take one or the other source tree through PYTHONPATH
and this environment for everything else. A round runs each step once with either tree; which goes
first alternates. Both servers run at once and are asked in turns, because that changes far less
from moment to moment than a process does. Prints per step the median of seconds, the ratio of this
tree to the other, and the interval of that ratio's median by bootstrap. Run nothing else meanwhile.

- import: `mocme import` of a CSV file of 200,000 facts
- train: `mocme train atlas/structure`, 6 epochs of dimension 64
- open: opening a run and its predictor
- predict: 1,000 questions with k = 10
- serve: 200 requests to /v1/tails, one after the other on one connection; ten times the rounds
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import mocme

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/")

OPEN = """
import time, sys, mocme
import torch, mocme.runs.run, mocme.prediction.predictor
t = time.perf_counter()
predictor = mocme.open(sys.argv[1])
print(time.perf_counter() - t)
"""

PREDICT = """
import time, sys, mocme
predictor = mocme.open(sys.argv[1])
entities = list(predictor.graph.entities)
predictor.tails(entities[0], "borders", k=10)
t = time.perf_counter()
for n in range(1000):
    predictor.tails(entities[n], "borders", k=10)
print(time.perf_counter() - t)
"""

COMMAND = """
import subprocess, sys, time
t = time.perf_counter()
subprocess.run([sys.executable, "-m", "mocme.cli", *sys.argv[1:]], check=True, stdout=2)
print(time.perf_counter() - t)
"""


def environment(tree: Path) -> dict[str, str]:
    """The environment of a process that runs a source tree on one thread."""
    return {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}


class Server:
    """A server of a run by one source tree, and one connection to it."""

    def __init__(self, tree: Path, run: Path) -> None:
        command = [sys.executable, "-m", "mocme.cli", "serve", str(run), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--threads", "1", "--logs", "json"],
            env=environment(tree),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        address = next(filter(None, map(ADDRESS.search, self.process.stdout)))
        self._connection = http.client.HTTPConnection("127.0.0.1", int(address[1]))
        self._names = [str(name) for name in mocme.open(run).graph.entities]
        self._next = 0

    def ask(self, count: int) -> float:
        """Seconds of this many requests."""
        names = [self._names[(self._next + n) % len(self._names)] for n in range(count)]
        self._next += count
        start = time.perf_counter()
        for name in names:
            body = json.dumps({"head": name, "relation": "borders", "k": 10})
            headers = {"content-type": "application/json"}
            self._connection.request("POST", "/v1/tails", body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
        return time.perf_counter() - start


class Checkouts:
    """Steps to time, each with either source tree."""

    def __init__(self, trees: dict[str, Path], work: Path) -> None:
        self._trees, self._work = trees, work
        self._servers: dict[str, Server] = {}
        self._facts = work / "facts.csv"
        draw = random.Random(0)
        lines = (
            f"entity {draw.randrange(20_000)},relation {draw.randrange(40)},"
            f"entity {draw.randrange(20_000)}"
            for _ in range(200_000)
        )
        self._facts.write_text("head,relation,tail\n" + "\n".join(lines) + "\n")
        for name in trees:
            self.train(name)
            self._run(name, "predict", PREDICT, str(self._work / name))  # calibrates the run once

    def _run(self, tree: str, step: str, code: str, *arguments: str) -> float:
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment(self._trees[tree]),
            capture_output=True,
            text=True,
        )
        if process.returncode:
            sys.exit(f"{step} with {self._trees[tree]} failed:\n{process.stderr[-3000:]}")
        return float(process.stdout.split()[-1])

    def importing(self, tree: str) -> float:
        out = self._work / "imported"
        shutil.rmtree(out, ignore_errors=True)
        arguments = ("import", str(self._facts), "--out", str(out))
        return self._run(tree, "import", COMMAND, *arguments)

    def train(self, tree: str) -> float:
        out = self._work / tree
        keep = self._work / f"{tree}.new"
        shutil.rmtree(keep, ignore_errors=True)
        settings = ("training.epochs=6", "embedding_dim=64")
        options = [x for s in settings for x in ("--set", f"experts.embedding.{s}")]
        arguments = ("train", "atlas/structure", "--out", str(keep), "--threads", "1", *options)
        seconds = self._run(tree, "train", COMMAND, *arguments)
        if not out.exists():
            keep.rename(out)
        return seconds

    def opening(self, tree: str) -> float:
        return self._run(tree, "open", OPEN, str(self._work / tree))

    def predict(self, tree: str) -> float:
        return self._run(tree, "predict", PREDICT, str(self._work / tree))

    def serve(self, tree: str) -> float:
        """Seconds of 200 requests to the server of a tree, which the first call starts."""
        if tree not in self._servers:
            self._servers[tree] = Server(self._trees[tree], self._work / tree)
            self._servers[tree].ask(200)
        return self._servers[tree].ask(200)

    def close(self) -> None:
        """Stop the servers."""
        for server in self._servers.values():
            server.process.terminate()
            server.process.wait()


def interval(ratios: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median of the ratios, by 2,000 bootstrap samples."""
    samples = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(samples, axis=1), [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", nargs="+", help="of the five; by default all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        checkouts = Checkouts({"this": ROOT, "other": arguments.other.resolve()}, Path(work))
        steps = {
            "import": checkouts.importing,
            "train": checkouts.train,
            "open": checkouts.opening,
            "predict": checkouts.predict,
            "serve": checkouts.serve,
        }
        for name in arguments.steps or steps:
            step = steps[name]
            seconds: dict[str, list[float]] = {"this": [], "other": []}
            for number in range(arguments.rounds * (10 if name == "serve" else 1)):
                for tree in ("this", "other") if number % 2 else ("other", "this"):
                    seconds[tree].append(step(tree))
            ratios = [a / b for a, b in zip(seconds["this"], seconds["other"], strict=True)]
            low, high = interval(ratios)
            this, other = (statistics.median(seconds[tree]) for tree in ("this", "other"))
            print(
                f"{name:8} {other:8.3f} s -> {this:8.3f} s   "
                f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})",
                flush=True,
            )
        checkouts.close()


if __name__ == "__main__":
    main()
