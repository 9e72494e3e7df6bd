"""Run what a benchmark lacks: finished runs are skipped, interrupted ones are resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mocme.benchmark.archive import ResultError
from mocme.benchmark.plan import (
    InputDigests,
    PlannedRun,
    State,
    conflict,
    identity,
    matches,
    missing_splits,
)
from mocme.benchmark.spec import BenchmarkSpec
from mocme.benchmark.worker import Answer, RunJob, attempt, earlier_run, utc_now
from mocme.core.interrupts import Interrupted
from mocme.data.graph import Graph
from mocme.data.load import load
from mocme.runs.train import read_inputs
from mocme.storage import RunError

Tell = Callable[[str], None]
Worker = Callable[[RunJob], Answer]
STATE_TEXT: dict[State, str] = {
    "done": "done",
    "new": "to train",
    "training": "to resume",
    "trained": "to rank",
    "failed": "cannot run",
    "conflict": "conflict",
}


@dataclass(frozen=True)
class RunStatus:
    """The progress of a run.

    Attributes:
        identity: identity that its result will have; empty if its inputs cannot be read.
        why: a sentence on what is wrong or missing.
    """

    run: PlannedRun
    state: State
    identity: dict[str, Any] = field(default_factory=dict)
    why: str = ""

    def __str__(self) -> str:
        return f"{self.run}: {STATE_TEXT[self.state]}{f' ({self.why})' if self.why else ''}"


@dataclass
class BenchmarkReport:
    """What a call of `run` did.

    Attributes:
        failures: a sentence by run.
    """

    skipped: int = 0
    done: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def survey(runs: Sequence[PlannedRun]) -> list[RunStatus]:
    """The progress of each run; reads the graphs, trains nothing and writes nothing."""
    inputs = _InputReader()
    return [_status(run, inputs) for run in runs]


def run(
    spec: BenchmarkSpec,
    runs: Sequence[PlannedRun],
    *,
    device: str = "auto",
    threads: int | None = None,
    keep: bool = False,
    tell: Tell = print,
    worker: Worker | None = None,
) -> BenchmarkReport:
    """Train and rank what is missing, in order; a failed run is recorded, and the next one starts.

    Args:
        keep: keep the folders of finished trainings, with their models.
        tell: receives a line about each run.
        worker: does a job; by default each job has a process of its own.

    Raises:
        ResultError: a result or a training of another configuration exists; nothing has been
            trained then.
        Interrupted: stopped by Ctrl-C; the same call resumes.
    """
    statuses = survey(runs)
    if conflicts := [status.why for status in statuses if status.state == "conflict"]:
        raise ResultError("\n".join(conflicts))
    report = BenchmarkReport()
    for number, status in enumerate(statuses, start=1):
        head = f"[{number}/{len(statuses)}] {status.run}"
        if status.state == "done":
            report.skipped += 1
            tell(f"{head}: done before")
            continue
        if status.state == "failed":
            answer: Answer = {"failed": {"kind": "InputError", "message": status.why}}
        else:
            tell(f"{head}: {STATE_TEXT[status.state]}")
            answer = (worker or in_own_process)(_job(spec, status, device, threads, keep))
        if "stopped" in answer:
            raise Interrupted(f"stopped at run {number} of {len(statuses)}, {status.run}")
        _record(spec, status.run, answer, head, report, tell)
    return report


def in_this_process(job: RunJob) -> Answer:
    """Do a job in this process; its peak memory is unknown then."""
    return attempt(job)


def in_own_process(job: RunJob) -> Answer:
    """Do a job in a new process, whose peak memory is that of the run alone.

    Ctrl-C and the death of this process reach it as the end of its standard input.
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
    with child, _forwarded_interrupts(child):
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
        hint = "; it may have run out of memory" if code == -signal.SIGKILL else ""
        message = f"its process ended with {how} and without an answer{hint}"
        return {"failed": {"kind": "Killed", "message": message}}


# -- inside ----------------------------------------------------------------------------------------


class _InputReader:
    """Reads each graph, and each selection of its modalities, once."""

    def __init__(self) -> None:
        self.graphs: dict[Any, tuple[Graph, str]] = {}
        self.features: dict[Any, str] = {}

    def digests(self, run: PlannedRun) -> InputDigests:
        graph_key = (run.source, run.version)
        if graph_key not in self.graphs:
            graph = load(run.source, version=run.version)
            self.graphs[graph_key] = graph, graph.digest()
        graph, digest = self.graphs[graph_key]
        experiment = run.experiment
        key = (*graph_key, run.features, repr((experiment.modalities, experiment.data)))
        if key not in self.features:
            if run.features is not None and not run.features.is_dir():
                raise ValueError(
                    f"{run.features}: no such folder of features; make it with mocme encode --out"
                )
            features = read_inputs(graph, experiment, run.features, trust_code=run.trust_code)
            self.features[key] = features.digest()
        return InputDigests(digest, self.features[key])


def _status(run: PlannedRun, inputs: _InputReader) -> RunStatus:
    try:
        wanted = identity(run.experiment, inputs.digests(run))
    except (ValueError, OSError) as error:
        return RunStatus(run, "failed", why=str(error))
    why = ""
    if (result := run.files.read_result()) is not None:
        if not matches(wanted, result, trust_code=run.trust_code):
            return RunStatus(run, "conflict", wanted, str(conflict(run, wanted, result)))
        if not (missing := missing_splits(run, result)):
            return RunStatus(run, "done", wanted)
        # Splits that were ranked before stay in the result, so no table loses a figure.
        splits = dict.fromkeys([*result["splits"], *run.row.splits])
        run = replace(run, row=replace(run.row, splits=tuple(splits)))
        why = f"not yet ranked: {', '.join(missing)}"
    try:
        earlier = earlier_run(run.folder, run.experiment, wanted)
    except RunError as error:
        return RunStatus(run, "conflict", wanted, str(error))
    state: State = "new" if earlier is None else "trained" if earlier.finished else "training"
    return RunStatus(run, state, wanted, why)


def _job(
    spec: BenchmarkSpec, status: RunStatus, device: str, threads: int | None, keep: bool
) -> RunJob:
    run = status.run
    return RunJob(
        benchmark=spec.name,
        row=run.row.name,
        graph=run.graph,
        source=run.source,
        version=run.version,
        experiment=run.experiment.name,
        config=run.experiment.text(),
        features=None if run.features is None else str(run.features),
        splits=run.row.splits,
        folder=str(run.folder),
        archive=str(run.files.archive.path),
        stem=run.files.stem,
        identity=status.identity,
        device=device,
        threads=threads,
        keep=keep,
        trust_code=run.trust_code,
    )


def _record(
    spec: BenchmarkSpec,
    run: PlannedRun,
    answer: Answer,
    head: str,
    report: BenchmarkReport,
    tell: Tell,
) -> None:
    if "done" in answer:
        report.done += 1
        tell(f"{head}: {_summary(answer['done'])}")
        return
    failure = answer["failed"]
    labels = {"benchmark": spec.name, "row": run.row.name, "graph": run.graph, "seed": run.seed}
    run.files.write_failure({**labels, "time": utc_now(), **failure})
    report.failures[str(run)] = f"{failure['kind']}: {failure['message']}"
    tell(f"{head}: failed, {report.failures[str(run)]}")


def _summary(done: Answer) -> str:
    """A finished run in a line."""
    parts = []
    for split, metrics in done["splits"].items():
        hits = ", ".join(f"Hits@{k} {metrics[f'hits@{k}']:.4f}" for k in (1, 3, 10))
        parts.append(f"{split} MRR {metrics['mrr']:.4f}, {hits}")
    parts.append(f"trained in {done['seconds']:.0f} s")
    if done["peak_bytes"]:
        parts.append(f"peak memory {max(done['peak_bytes'].values()) / 2**30:.2f} GiB")
    return "; ".join(parts)


@contextmanager
def _forwarded_interrupts(child: subprocess.Popen[str]) -> Iterator[None]:
    """Ctrl-C closes the child's input, which stops it at any stage; a second one signals it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    closed = threading.Event()

    def stop(number: int, frame: Any) -> None:
        if closed.is_set():
            child.send_signal(signal.SIGINT)
        elif child.stdin is not None:
            closed.set()
            child.stdin.close()

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
