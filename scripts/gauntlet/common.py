"""What all trials share: a small graph, a run of it, commands as processes, results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PYTHON = sys.executable
SMALL = [
    "--set=experts.embedding.embedding_dim=16",
    "--set=experts.embedding.training.epochs=8",
    "--threads=1",
]


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        seconds: from start to end.
        peak: largest resident memory of the process and its children, in MiB.
        code: exit status; negative is a signal.
    """

    code: int
    output: str
    seconds: float
    peak: float

    @property
    def refused(self) -> bool:
        """Whether it ended with a message for the user, without a traceback."""
        return self.code == 1 and "Error: " in self.output and "Traceback" not in self.output


def mocme(*arguments: str | Path, limit: float = 300, cwd: Path | None = None) -> Outcome:
    """Run a command to its end; the process is killed after `limit` seconds."""
    command = [PYTHON, "-m", "mocme.cli", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=cwd,
    )
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    seconds = time.perf_counter() - started
    watcher.join(timeout=1)
    return Outcome(process.returncode, output.decode(errors="replace"), seconds, peak[0])


def memory(pid: int) -> float:
    """Peak resident memory of a process, in MiB; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0


def _watch(pid: int, peak: list[float]) -> None:
    while (now := memory(pid)) > 0:
        peak[0] = max(peak[0], now)
        time.sleep(0.02)


def write_graph(folder: Path, entities: int = 60) -> Path:
    """A graph with a valid and a test split, texts and numbers."""
    folder.mkdir(parents=True)
    facts = [
        f"e{i}\t{relation}\te{(i + step) % entities}\n"
        for i in range(entities)
        for step, relation in ((1, "next"), (2, "second"), (3, "third"))
    ]
    order = sorted(range(len(facts)), key=lambda i: (i * 7919) % 1009)
    cut = len(facts) * 8 // 10
    splits = {"train": order[:cut], "valid": order[cut : cut + 18], "test": order[cut + 18 :]}
    for name, part in splits.items():
        (folder / f"{name}.tsv").write_text("".join(facts[i] for i in part))
    texts = "".join(f"e{i}\tword{i % 5} item{i % 7}\n" for i in range(entities))
    (folder / "texts.tsv").write_text(texts)
    numbers = "".join(f"e{i}\tsize\t{i}.5\n" for i in range(entities))
    (folder / "numbers.tsv").write_text(numbers)
    (folder / "graph.toml").write_text(
        '[modalities.t]\nkind = "words"\npaths = ["texts.tsv"]\n'
        '[modalities.n]\nkind = "numbers"\npath = "numbers.tsv"\n'
    )
    return folder


def train(data: Path, out: Path) -> Path:
    """A finished run of the default experiment, small."""
    outcome = mocme("train", "default", "--data", data, "--out", out, *SMALL)
    if outcome.code:
        sys.exit(f"the training of the gauntlet failed:\n{outcome.output}")
    return out


class Server:
    """A served run."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def ask(
        self, path: str, body: object | None = None, timeout: float = 60, method: str | None = None
    ) -> tuple[int, object]:
        """Send JSON; returns the status and the answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data,
            {"content-type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")


@contextmanager
def served(run: Path, *options: str | Path) -> Iterator[Server]:
    """Serve a run on a free port; the server is killed at the end."""
    command = [PYTHON, "-m", "mocme.cli", "serve", str(run), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(
        [*command, *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield Server(process, int(found[1]))
                return
        raise RuntimeError("the server did not start")
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Result:
    """The result of a trial.

    Attributes:
        held: None where the trial could not be run here.
        figures: what was measured, as one sentence.
    """

    held: bool | None
    figures: str


Trial = Callable[[Path], Result]
TRIALS: dict[str, Trial] = {}


def trial(promise: str) -> Callable[[Trial], Trial]:
    """Register a trial under the promise that it tests."""

    def register(function: Trial) -> Trial:
        TRIALS[promise] = function
        return function

    return register


def unfit(outcomes: Sequence[Outcome]) -> str:
    """The last lines of commands that did neither succeed nor refuse, for the report."""
    bad = [outcome for outcome in outcomes if outcome.code and not outcome.refused]
    return "; ".join(outcome.output.strip()[-200:] for outcome in bad[:2])
