"""One run of a bench from beginning to end: train or go on, rank, write the result.

As a program (``python -m mocme.benchmark.worker``) it reads a job from standard input, a line of
JSON, and answers with one on standard output. When that input ends, because the bench was stopped
or killed, it stops as by Ctrl-C: with a checkpoint.
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

from mocme.benchmark import results
from mocme.benchmark.plan import InputDigests, differences, identity, settings
from mocme.benchmark.results import ResultFiles
from mocme.core.console import TrainingDisplay, bar, moving
from mocme.core.device import (
    Interrupted,
    checkout,
    environment,
    find_device,
    peak_memory,
    use_threads,
)
from mocme.data.load import load
from mocme.evaluation.ranking import Ranks
from mocme.runs.config import Experiment
from mocme.runs.run import Run
from mocme.runs.train import TrainingObserver, resume, train
from mocme.storage import RunError

Answer = dict[str, Any]


@dataclass(frozen=True)
class RunJob:
    """All that one run needs, as JSON holds it.

    Attributes:
        config: of the experiment in full, as TOML.
        folder: of the training.
        results: of the bench, for the list of looks at test.
        place, stem: of the result.
        wanted: the identity that the result will have.
    """

    bench: str
    row: str
    graph: str
    source: str
    version: Literal["repaired", "as-published"] | None
    experiment: str
    config: str
    features: str | None
    splits: tuple[str, ...]
    folder: str
    results: str
    place: str
    stem: str
    wanted: Mapping[str, Any]
    device: str = "auto"
    threads: int | None = None
    keep: bool = False

    def parsed(self) -> Experiment:
        """The experiment."""
        return Experiment.of(self.experiment, tomllib.loads(self.config))


def earlier(folder: Path, experiment: Experiment, wanted: Mapping[str, Any]) -> Run | None:
    """What an earlier call trained in a folder, or None if nothing was.

    Raises:
        RunError: it is damaged, or a training of another configuration, with a remedy.
    """
    if not (folder / "run.json").exists() or not (folder / "checkpoints").is_dir():
        return None
    run = Run.open(folder, trust_code=bool(experiment.custom_code()))
    own = run.experiment.as_asked(experiment)
    digest = run.folder.about["digest"]
    found = identity(own, InputDigests(digest["graph"], digest["features"]))
    if found["digest"] != wanted["digest"]:
        told = differences(experiment, wanted, {"config": settings(own), "identity": found})
        raise RunError(
            f"{folder}: holds a training of another configuration ({told}); delete that folder, or "
            f"give another one with --runs"
        )
    return run


def work(job: RunJob, watch: TrainingObserver | None = None, apart: bool = False) -> Answer:
    """Do a job; returns the result that was written.

    Args:
        apart: this process does nothing else, so that its peak of memory is the run's.

    Raises:
        Interrupted: the training was stopped, with a checkpoint.
    """
    use_threads(job.threads)
    run, resumed = _trained(job, watch)
    peak = {"trained": peak_memory()}
    place = ResultFiles(Path(job.place), job.stem)
    splits, twice, questions = {}, {}, {}
    for split in job.splits:
        splits[split], twice[split], questions[split] = _ranked(job, run, split)
    peak["ranked"] = peak_memory()
    about = run.folder.about
    result = {
        **_labels(job),
        "identity": dict(job.wanted),
        "config": settings(job.parsed()),
        "precision": run.experiment.training["precision"],
        "package": {"version": environment()["mocme"], "checkout": checkout()},
        "environment": environment(),
        "facts": about["facts"],
        "entities": about["entities"],
        "training": {
            "seconds": about["seconds"],
            "resumed": resumed,
            "best_pass": about["best_epoch"],
            "passes": run.log(),
        },
        # Of a process that did other things before, it would say nothing of this run.
        "peak_bytes": peak if apart else None,
        "device_peak_bytes": _device_peak(job.device),
        "splits": splits,
        "ranks": {"sha256": results.write_ranks(place.ranks, twice), "questions": questions},
    }
    results.write_json(place.result, result)
    if not job.keep:
        shutil.rmtree(run.path)
    return result


def attempt(job: RunJob, watch: TrainingObserver | None = None, apart: bool = False) -> Answer:
    """Do a job and say how it went: ``done``, ``stopped`` or ``failed``, whatever happens."""
    try:
        return {"done": _short(work(job, watch, apart))}
    except (Interrupted, KeyboardInterrupt):
        return {"stopped": True}
    except Exception as error:
        if not isinstance(error, ValueError | OSError):
            traceback.print_exc()  # no mistake of a user's: whoever mends it needs to see where
        return {"failed": {"kind": type(error).__name__, "message": str(error)}}


def main() -> None:
    """Read a job, do it, print the answer."""
    job = RunJob(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_stop_at_end, daemon=True).start()
    with TrainingDisplay(notes=False) as live:
        answer = attempt(job, live, apart=True)
    with suppress(BrokenPipeError):  # whoever asked may be gone
        print(json.dumps(answer), flush=True)


# -- inside ----------------------------------------------------------------------------------------


def _trained(job: RunJob, watch: TrainingObserver | None) -> tuple[Run, bool]:
    """The finished training, and whether it is one that was begun before."""
    folder, experiment = Path(job.folder), job.parsed()
    found = earlier(folder, experiment, job.wanted)
    if found is not None:
        trust = bool(experiment.custom_code())
        return resume(folder, device=job.device, observer=watch, trust_code=trust), True
    if (folder / "run.json").exists():
        shutil.rmtree(folder)  # killed before its training began: there is nothing in it
    run = train(
        load(job.source, version=job.version),
        experiment,
        out=folder,
        device=job.device,
        features=job.features,
        observer=watch,
    )
    return run, False


def _ranked(job: RunJob, run: Run, split: str) -> tuple[Answer, torch.Tensor, str]:
    """Metrics of a split, twice its ranks, and the digest of its questions."""
    if split == "test":
        look = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "row": job.row,
            "graph": job.graph,
            "seed": job.wanted["seed"],
            "identity": job.wanted["digest"],
        }
        results.record_look(Path(job.results), look)
    with bar(f"ranking {split}") as (progress, task):
        found = run.evaluate(split, job.device, moving(progress, task))
    columns = run.folder.read_tensors(f"ranks-{split}.safetensors")
    twice, questions = results.canonical(Ranks(**columns), run.graph())
    told = ("split", "experiment", "graph", "seed", "evaluations_of_this_split")
    return {k: v for k, v in found.items() if k not in told}, twice, questions


def _labels(job: RunJob) -> Answer:
    return {
        "bench": job.bench,
        "row": job.row,
        "experiment": job.experiment,
        "graph": job.graph,
        "version": job.version,
        "seed": job.wanted["seed"],
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _short(result: Answer) -> Answer:
    """What the terminal shows of a result."""
    metrics = {
        split: {k: v for k, v in found.items() if not isinstance(v, dict)}
        for split, found in result["splits"].items()
    }
    return {
        "splits": metrics,
        "seconds": result["training"]["seconds"],
        "peak_bytes": result["peak_bytes"],
    }


def _device_peak(device: str) -> int | None:
    place = find_device(device)
    return torch.cuda.max_memory_allocated(place) if place.type == "cuda" else None


def _stop_at_end() -> None:
    """Wait for the end of standard input, then stop this process as Ctrl-C does."""
    # Not by way of sys.stdin: a thread that waits in it cannot be ended with the process.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
