"""Do what a bench still lacks, run by run: what is there is skipped, what was begun goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mocme.benchmark import results
from mocme.benchmark.plan import InputDigests, PlannedRun, State, conflict, identity, lacking, same
from mocme.benchmark.spec import BenchmarkSpec
from mocme.benchmark.worker import Answer, RunJob, attempt, earlier
from mocme.core.device import Interrupted
from mocme.data.graph import Graph
from mocme.data.load import load
from mocme.runs.train import read_inputs
from mocme.storage import RunError

Tell = Callable[[str], None]
Worker = Callable[[RunJob], Answer]
SAID: dict[State, str] = {
    "done": "done",
    "new": "to train",
    "training": "to go on",
    "trained": "to rank",
    "failed": "cannot be run",
    "conflict": "in conflict",
}


@dataclass(frozen=True)
class RunStatus:
    """How far a run has come.

    Attributes:
        wanted: its identity; empty if its inputs cannot be read.
        why: a sentence where there is trouble.
    """

    trial: PlannedRun
    state: State
    wanted: dict[str, Any] = field(default_factory=dict)
    why: str = ""

    def __str__(self) -> str:
        return f"{self.trial}: {SAID[self.state]}{f' ({self.why})' if self.why else ''}"


@dataclass
class BenchmarkReport:
    """What a call has done.

    Attributes:
        failures: a sentence each, by run.
    """

    skipped: int = 0
    done: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def survey(trials: Sequence[PlannedRun]) -> list[RunStatus]:
    """How far each run has come; reads the graphs, trains nothing and writes nothing."""
    read = _Reading()
    return [_surveyed(trial, read) for trial in trials]


def run(
    bench: BenchmarkSpec,
    trials: Sequence[PlannedRun],
    *,
    device: str = "auto",
    threads: int | None = None,
    keep: bool = False,
    tell: Tell = print,
    worker: Worker | None = None,
) -> BenchmarkReport:
    """Do what is lacking, in order; a run that fails is recorded, and the others go on.

    Args:
        keep: the folders of finished trainings, with their models.
        tell: told a line about each run.
        worker: what does a job; a process of its own for each by default.

    Raises:
        ResultError: a result or a training of another configuration is in the way; nothing has
            been trained then.
        Interrupted: stopped by Ctrl-C; the same call goes on.
    """
    found = survey(trials)
    if conflicts := [item.why for item in found if item.state == "conflict"]:
        raise results.ResultError("\n".join(conflicts))
    report = BenchmarkReport()
    for number, item in enumerate(found, start=1):
        head = f"[{number}/{len(found)}] {item.trial}"
        if item.state == "done":
            report.skipped += 1
            tell(f"{head}: there already")
            continue
        if item.state == "failed":
            answer: Answer = {"failed": {"kind": "InputDigests", "message": item.why}}
        else:
            tell(f"{head}: {SAID[item.state]}")
            answer = (worker or in_own_process)(_job(bench, item, device, threads, keep))
        if "stopped" in answer:
            raise Interrupted(f"stopped at run {number} of {len(found)}, {item.trial}")
        _record(bench, item.trial, answer, head, report, tell)
    return report


def here(job: RunJob) -> Answer:
    """Do a job in this process; its peak of memory is not known then."""
    return attempt(job)


def in_own_process(job: RunJob) -> Answer:
    """Do a job in a new process, whose peak of memory is the run's alone.

    Ctrl-C reaches it by the end of its standard input, as the death of this process does.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "mocme.benchmark.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child, _passed_on(child):
        child.stdin.write(json.dumps(asdict(job), default=str) + "\n")
        child.stdin.flush()
        lines = child.stdout.read().splitlines()
        code = child.wait()
    try:
        answer: Answer = json.loads(lines[-1])
        return answer
    except (IndexError, json.JSONDecodeError):
        if code in (-signal.SIGINT, 130):
            return {"stopped": True}
        how = f"signal {-code}" if code < 0 else f"status {code}"
        memory = "; perhaps memory ran out" if code == -signal.SIGKILL else ""
        message = f"its process ended with {how} and without an answer{memory}"
        return {"failed": {"kind": "Killed", "message": message}}


# -- inside ----------------------------------------------------------------------------------------


class _Reading:
    """Reads each graph, and each choice of its modalities, once."""

    def __init__(self) -> None:
        self.graphs: dict[Any, tuple[Graph, str]] = {}
        self.features: dict[Any, str] = {}

    def inputs(self, trial: PlannedRun) -> InputDigests:
        key = (trial.source, trial.version)
        if key not in self.graphs:
            graph = load(trial.source, version=trial.version)
            self.graphs[key] = graph, graph.digest()
        graph, digest = self.graphs[key]
        experiment = trial.experiment
        chosen = (*key, trial.features, repr((experiment.modalities, experiment.data)))
        if chosen not in self.features:
            if trial.features is not None and not trial.features.is_dir():
                raise ValueError(f"{trial.features}: there is no such folder of features")
            self.features[chosen] = read_inputs(graph, experiment, trial.features).digest()
        return InputDigests(digest, self.features[chosen])


def _surveyed(trial: PlannedRun, read: _Reading) -> RunStatus:
    try:
        wanted = identity(trial.experiment, read.inputs(trial))
    except (ValueError, OSError) as error:
        return RunStatus(trial, "failed", why=str(error))
    why = ""
    if (result := results.read(trial.place.result)) is not None:
        if not same(wanted, result):
            return RunStatus(trial, "conflict", wanted, str(conflict(trial, wanted, result)))
        if not (missing := lacking(trial, result)):
            return RunStatus(trial, "done", wanted)
        # What was ranked stays in the result, so that no table loses a figure.
        both = dict.fromkeys([*result["splits"], *trial.row.splits])
        trial = replace(trial, row=replace(trial.row, splits=tuple(both)))
        why = f"not yet ranked: {', '.join(missing)}"
    try:
        found = earlier(trial.folder, trial.experiment, wanted)
    except RunError as error:
        return RunStatus(trial, "conflict", wanted, str(error))
    state: State = "new" if found is None else "trained" if found.finished else "training"
    return RunStatus(trial, state, wanted, why)


def _job(
    bench: BenchmarkSpec, item: RunStatus, device: str, threads: int | None, keep: bool
) -> RunJob:
    trial = item.trial
    return RunJob(
        bench=bench.name,
        row=trial.row.name,
        graph=trial.graph,
        source=trial.source,
        version=trial.version,
        experiment=trial.experiment.name,
        config=trial.experiment.text(),
        features=None if trial.features is None else str(trial.features),
        splits=trial.row.splits,
        folder=str(trial.folder),
        results=str(bench.results),
        place=str(trial.place.folder),
        stem=trial.place.stem,
        wanted=item.wanted,
        device=device,
        threads=threads,
        keep=keep,
    )


def _record(
    bench: BenchmarkSpec,
    trial: PlannedRun,
    answer: Answer,
    head: str,
    report: BenchmarkReport,
    tell: Tell,
) -> None:
    if "done" in answer:
        trial.place.failure.unlink(missing_ok=True)
        report.done += 1
        tell(f"{head}: {_told(answer['done'])}")
        return
    failed = answer["failed"]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    about = {"bench": bench.name, "row": trial.row.name, "graph": trial.graph, "seed": trial.seed}
    results.write_json(trial.place.failure, {**about, "time": now, **failed})
    report.failures[str(trial)] = f"{failed['kind']}: {failed['message']}"
    tell(f"{head}: failed, {report.failures[str(trial)]}")


def _told(done: Answer) -> str:
    """A finished run in a line."""
    parts = []
    for split, found in done["splits"].items():
        hits = ", ".join(f"Hits@{k} {found[f'hits@{k}']:.4f}" for k in (1, 3, 10))
        parts.append(f"{split} MRR {found['mrr']:.4f}, {hits}")
    parts.append(f"trained in {done['seconds']:.0f} s")
    if done["peak_bytes"]:
        parts.append(f"peak {max(done['peak_bytes'].values()) / 2**30:.2f} GiB")
    return "; ".join(parts)


@contextmanager
def _passed_on(child: subprocess.Popen[str]) -> Iterator[None]:
    """The first Ctrl-C ends the child's input, which it obeys however far it is; more reach it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = threading.Event()

    def stop(number: int, frame: Any) -> None:
        if told.is_set():
            child.send_signal(signal.SIGINT)
        elif child.stdin is not None:
            told.set()
            child.stdin.close()

    old = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)
