"""Kill a process that writes a run, again and again, and check that the run stays readable.

A child saves checkpoints, replaces JSON and tensors and appends to a log in a tight loop, and
tells through a pipe which steps were saved. It is killed (SIGKILL) a random delay after it told a
random number of steps, none included, so that kills fall everywhere on slow machines too. Then the
run must open, its newest checkpoint be intact, consistent and no older than the last one told, and
its log, once rewound, hold each step exactly once. The next child goes on from there.

    python scripts/kill_savers.py --kills 300
    python scripts/kill_savers.py --kills 20 --careless   # writes badly: must find it out
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

from mocme.storage import RunFolder


def state_at(step: int) -> dict[str, Any]:
    """Everything in it follows from the step, so that a mixture of two steps is noticed."""
    generator = torch.Generator().manual_seed(step)
    return {
        "model": {"weight": torch.randn(64, 16, generator=generator), "step": torch.tensor(step)},
        "random": generator.get_state(),
        "history": [(step, float(step) / 3), None, "é" * (step % 7)],
    }


def agrees(state: Any, step: int) -> bool:
    """Whether a state that was read is the one of that step."""
    expected = state_at(step)
    return (
        torch.equal(state["model"]["weight"], expected["model"]["weight"])
        and torch.equal(state["random"], expected["random"])
        and state["model"]["step"].item() == step
        and state["history"] == expected["history"]
    )


def resume(run: RunFolder) -> int:
    """The last step that is saved; the run is as it was then."""
    checkpoint = run.checkpoints.load()
    if checkpoint is None:  # saved before the first line of the log, which is else there for good
        run.checkpoints.save(0, state_at(0), logs=["log.jsonl"])
        return 0
    run.checkpoints.rewind(checkpoint)
    return checkpoint.step


def save_for_ever(path: Path, told: int) -> None:
    """Write the run, telling each saved step, until killed."""
    run = RunFolder.open(path)
    with run.lock():
        step = resume(run)
        while True:
            step += 1
            run.append("log.jsonl", {"step": step})
            run.write_json("progress.json", {"step": step, "square": step * step})
            run.write_tensors("best.safetensors", {"best": torch.full((8,), step)})
            run.checkpoints.save(step, state_at(step), logs=["log.jsonl"])
            os.write(told, step.to_bytes(8, "little"))


def replace_carelessly(source: Any, target: Any) -> None:
    """What `os.replace` must not be: the old content is gone before the new one is there."""
    content = Path(source).read_bytes()
    with Path(target).open("wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        time.sleep(0.05)
        file.write(content[len(content) // 2 :])


def kill_one(path: Path, steps: int, delay: float, careless: bool) -> int:
    """Let a child write so many steps and a while, kill it; the last step it told, 0 if none."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            if careless:
                os.replace = replace_carelessly  # type: ignore[assignment]
            save_for_ever(path, writing)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read(8 * steps)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        told += pipe.read()
    if not os.WIFSIGNALED(status):
        raise RuntimeError("the child ended by itself; its error stands above")
    return int.from_bytes(told[-8:], "little")


def check(path: Path, told: int) -> int:
    """Raise unless the run is as a killed writer may leave it; the step it resumes from."""
    run = RunFolder.open(path)
    with run.lock():  # the dead child must not hold it
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no checkpoint may be damaged
            checkpoint = run.checkpoints.load()
        if checkpoint is None:
            assert not told, f"step {told} was told to be saved, no checkpoint is there"
            assert not run.has("log.jsonl"), "the log has lines of before the first checkpoint"
            return 0
        step = checkpoint.step
        assert step >= told, f"step {told} was told to be saved, the newest is {step}"
        assert agrees(checkpoint.state, step), f"the tensors are not those of step {step}"
        if run.has("progress.json"):
            progress = run.read_json("progress.json")
            assert progress["step"] in (step, step + 1), f"{progress} at step {step}"
            assert progress["square"] == progress["step"] ** 2, f"{progress}"
        if run.has("best.safetensors"):
            best = run.read_tensors("best.safetensors")["best"]
            assert best.unique().tolist() in ([step], [step + 1]), f"{best} at step {step}"
        run.checkpoints.rewind(checkpoint)
        lines = run.records("log.jsonl") if run.has("log.jsonl") else []
        steps = [record["step"] for record in lines]
        assert steps == list(range(1, step + 1)), f"the log has the steps {steps}, not 1 to {step}"
    return step


def main() -> int:
    """Return 1 if any run could not be read as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--careless", action="store_true", help="write non-atomically: must fail")
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads do not outlive a fork
    chance = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="kill_savers_"))
    unreadable = saved = 0
    try:
        path = folder / "run"
        RunFolder.create(path, {"by": "kill_savers"})
        for number in range(options.kills):
            steps, delay = chance.randrange(4), chance.uniform(0, 0.05)
            told = kill_one(path, steps, delay, options.careless)
            try:
                saved = max(saved, check(path, told))
            except Exception as error:
                unreadable += 1
                print(f"kill {number + 1}: {type(error).__name__}: {error}", file=sys.stderr)
                path = folder / f"run{number}"
                RunFolder.create(path, {"by": "kill_savers"})
    finally:
        shutil.rmtree(folder)
    print(f"up to {saved} steps were saved")
    print(f"{options.kills} kills, {unreadable} unreadable")
    return 1 if unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
