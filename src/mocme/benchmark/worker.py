"""One run of a benchmark: train or resume, rank, store the result.

As a program (``python -m mocme.benchmark.worker``) it reads a job from standard input, a line of
JSON, and writes an answer to standard output, again a line of JSON. When its input ends, because
the benchmark was stopped or killed, it stops as by Ctrl-C: with a checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
import tomllib
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mocme.benchmark.archive import ResultArchive
from mocme.benchmark.plan import InputDigests, differences, identity, json_settings
from mocme.benchmark.results import ResultFiles, canonical, log_test_evaluation
from mocme.core.console import ProgressBar, TrainingDisplay, progress_callback
from mocme.core.device import (
    checkout,
    environment,
    find_device,
    peak_memory,
    use_threads,
)
from mocme.core.interrupts import Interrupted
from mocme.data.load import load
from mocme.evaluation.ranking import Ranks
from mocme.runs.config import Experiment
from mocme.runs.monitor import TrainingObserver
from mocme.runs.run import Run
from mocme.runs.train import resume, train
from mocme.storage import RunError

Answer = dict[str, Any]
# Keys of an evaluation that the result has elsewhere, or that hold for the run's folder only.
LEFT_OUT = ("split", "experiment", "graph", "seed", "evaluations_of_this_split")


@dataclass(frozen=True)
class RunJob:
    """What one run needs, in values that JSON holds.

    Attributes:
        config: the full configuration as TOML.
        folder: folder of the training.
        archive, stem: where the result is stored; see `ResultFiles`.
        identity: identity that the result will have.
        keep: keep the folder of the training.
        trust_code: whether code that the configuration and the graph name may be imported.
    """

    benchmark: str
    row: str
    graph: str
    source: str
    version: Literal["repaired", "as-published"] | None
    experiment: str
    config: str
    features: str | None
    splits: tuple[str, ...]
    folder: str
    archive: str
    stem: str
    identity: Mapping[str, Any]
    device: str = "auto"
    threads: int | None = None
    keep: bool = False
    trust_code: bool = False

    def parsed(self) -> Experiment:
        """The experiment."""
        table = tomllib.loads(self.config)
        return Experiment.of(self.experiment, table, trust_code=self.trust_code)

    def files(self) -> ResultFiles:
        """Where the result is stored."""
        return ResultFiles(ResultArchive(Path(self.archive)), self.stem)


def earlier_run(folder: Path, experiment: Experiment, wanted: Mapping[str, Any]) -> Run | None:
    """The training that an earlier call left in a folder, or None.

    Args:
        wanted: identity of the result to make.

    Raises:
        RunError: it is damaged, or of another configuration, with the remedy.
    """
    if not (folder / "run.json").exists() or not (folder / "checkpoints").is_dir():
        return None
    run = Run.open(folder, trust_code=experiment.trust_code)
    stored = run.experiment.with_machine_choices_of(experiment)
    digest = run.about["digest"]
    stored_identity = identity(stored, InputDigests(digest["graph"], digest["features"]))
    if stored_identity["digest"] != wanted["digest"]:
        config = {"config": json_settings(stored), "identity": stored_identity}
        raise RunError(
            f"{folder}: contains a training of another configuration "
            f"({differences(experiment, wanted, config)}); delete that folder, or choose another "
            f"one with --runs"
        )
    return run


def work(job: RunJob, watch: TrainingObserver | None = None, own_process: bool = False) -> Answer:
    """Do a job; returns the result that was stored.

    Args:
        own_process: this process does nothing else, so its peak memory is that of the run.

    Raises:
        Interrupted: the training was stopped, with a checkpoint.
    """
    use_threads(job.threads)
    run, resumed = _trained(job, watch)
    peak = {"trained": peak_memory()}
    splits, double_ranks, questions = {}, {}, {}
    for split in job.splits:
        splits[split], double_ranks[split], questions[split] = _ranked(job, run, split)
    peak["ranked"] = peak_memory()
    about, machine = run.about, run.experiment.machine_settings()
    result = {
        **_labels(job),
        "identity": dict(job.identity),
        "config": json_settings(job.parsed()),
        "precision": ", ".join(sorted(set(map(str, machine.values())))),
        "machine": machine,
        "package": {"version": environment()["mocme"], "checkout": checkout()},
        "environment": environment(),
        "facts": about["facts"],
        "entities": about["entities"],
        "training": {
            "seconds": about["seconds"],
            "resumed": resumed,
            "best_epoch": about["best_epoch"],
            "epochs": run.log(),
        },
        # The peak of a process that did other things before says nothing about this run.
        "peak_bytes": peak if own_process else None,
        "device_peak_bytes": _device_peak(job.device),
        "splits": splits,
    }
    stored = job.files().write_result(result, double_ranks, questions)
    if not job.keep:
        shutil.rmtree(run.path)
    return stored


def attempt(
    job: RunJob, watch: TrainingObserver | None = None, own_process: bool = False
) -> Answer:
    """Do a job and answer ``done``, ``stopped`` or ``failed``; never raises an Exception."""
    try:
        return {"done": _short(work(job, watch, own_process))}
    except (Interrupted, KeyboardInterrupt):
        return {"stopped": True}
    except Exception as error:
        if not isinstance(error, ValueError | OSError):
            traceback.print_exc()  # a bug, not a mistake of the user
        return {"failed": {"kind": type(error).__name__, "message": str(error)}}


def main() -> None:
    """Read a job, do it, print the answer."""
    job = RunJob(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    with TrainingDisplay(notes=False) as display:
        answer = attempt(job, display, own_process=True)
    with suppress(BrokenPipeError):  # the parent may have ended
        print(json.dumps(answer), flush=True)


def utc_now() -> str:
    """Time in ISO 8601, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# -- inside ----------------------------------------------------------------------------------------


def _trained(job: RunJob, watch: TrainingObserver | None) -> tuple[Run, bool]:
    """The finished training, and whether it was resumed."""
    folder, experiment = Path(job.folder), job.parsed()
    if earlier_run(folder, experiment, job.identity) is not None:
        trust = job.trust_code
        return resume(folder, device=job.device, observer=watch, trust_code=trust), True
    if (folder / "run.json").exists():
        shutil.rmtree(folder)  # killed before the first checkpoint: nothing to resume
    run = train(
        load(job.source, version=job.version),
        experiment,
        out=folder,
        device=job.device,
        features=job.features,
        observer=watch,
        trust_code=job.trust_code,
    )
    return run, False


def _ranked(job: RunJob, run: Run, split: str) -> tuple[Answer, torch.Tensor, str]:
    """Metrics of a split, 2 x its realistic ranks, and the digest of its questions."""
    if split == "test":
        record = {
            "time": utc_now(),
            "row": job.row,
            "graph": job.graph,
            "seed": job.identity["seed"],
            "identity": job.identity["digest"],
        }
        log_test_evaluation(ResultArchive(Path(job.archive)), record)
    with ProgressBar(f"ranking {split}") as (progress, task):
        evaluation = run.evaluate(split, job.device, progress_callback(progress, task))
    columns = run.folder.read_tensors(f"ranks-{split}.safetensors")
    double_ranks, questions = canonical(Ranks(**columns), run.graph())
    metrics = {key: value for key, value in evaluation.items() if key not in LEFT_OUT}
    return metrics, double_ranks, questions


def _labels(job: RunJob) -> Answer:
    return {
        "benchmark": job.benchmark,
        "row": job.row,
        "experiment": job.experiment,
        "graph": job.graph,
        "version": job.version,
        "seed": job.identity["seed"],
        "finished": utc_now(),
    }


def _short(result: Answer) -> Answer:
    """What the terminal shows of a result."""
    splits = {
        split: {key: value for key, value in metrics.items() if not isinstance(value, dict)}
        for split, metrics in result["splits"].items()
    }
    return {
        "splits": splits,
        "seconds": result["training"]["seconds"],
        "peak_bytes": result["peak_bytes"],
    }


def _device_peak(name: str) -> int | None:
    device = find_device(name)
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _stop_at_end_of_input() -> None:
    """Wait for the end of standard input, then stop this process as Ctrl-C does."""
    # Not through sys.stdin: a thread that waits in it cannot be ended with the process.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
