"""Compare import, training, prediction and serving of two checkouts, in turns.

    python benchmarks/two_checkouts.py OTHER_CHECKOUT [--rounds 7] [--steps serve open]

Each step runs in processes of its own, which take one or the other source tree through PYTHONPATH
and this environment for everything else. A round runs each step once with either tree; which goes
first alternates. Prints per step the median of seconds, the ratio of this tree to the other, and
the interval of that ratio's median by bootstrap. Run nothing else meanwhile.

- import: `mocme import` of a CSV file of 200,000 facts
- train: `mocme train atlas/structure`, 6 epochs of dimension 64
- open: opening a run and its predictor
- predict: 1,000 questions with k = 10
- serve: 2,000 requests to /v1/tails, one after the other on one connection
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

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

SERVE = """
import http.client, json, re, subprocess, sys, time, mocme
names = list(mocme.open(sys.argv[1]).graph.entities)
command = [sys.executable, "-m", "mocme.cli", "serve", sys.argv[1], "--port", "0", "--threads", "1"]
command += ["--logs", "json"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
port = None
while port is None:
    found = re.search(r"http://127.0.0.1:(\\d+)/", server.stdout.readline())
    port = int(found[1]) if found else None
connection = http.client.HTTPConnection("127.0.0.1", port)
def ask(name):
    body = json.dumps({"head": name, "relation": "borders", "k": 10})
    connection.request("POST", "/v1/tails", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
for name in names[:50]:
    ask(name)
t = time.perf_counter()
for name in names[:2000]:
    ask(name)
print(time.perf_counter() - t)
server.terminate()
server.wait()
"""

COMMAND = """
import subprocess, sys, time
t = time.perf_counter()
subprocess.run([sys.executable, "-m", "mocme.cli", *sys.argv[1:]], check=True, stdout=2)
print(time.perf_counter() - t)
"""


class Checkouts:
    """Steps to time, each with either source tree."""

    def __init__(self, trees: dict[str, Path], work: Path) -> None:
        self._trees, self._work = trees, work
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
        environment = {**os.environ, "PYTHONPATH": str(self._trees[tree] / "src")}
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment | {"OMP_NUM_THREADS": "1"},
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
        return self._run(tree, "serve", SERVE, str(self._work / tree))


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
            for number in range(arguments.rounds):
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


if __name__ == "__main__":
    main()
