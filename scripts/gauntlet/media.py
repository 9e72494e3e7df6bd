"""Disks that are full or read-only, and processes that write at once or are killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from gauntlet.common import PYTHON, SMALL, Result, mocme, served, train, trial, unfit, write_graph

QUESTION = ("--head", "e1", "--relation", "next")


@contextmanager
def mounted(target: Path, *options: str) -> Iterator[bool]:
    """Mount something on a new folder; gives False where this is not allowed."""
    target.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(target)], capture_output=True).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "-l", str(target)], check=False)


def new_run(work: Path) -> Path:
    """A finished run that has not been asked."""
    return train(write_graph(work / "data"), work / "run")


@trial("A run on a read-only medium answers every question")
def read_only(work: Path) -> Result:
    run, target = new_run(work), work / "read-only"
    with mounted(target, "--bind", str(run)) as bound:
        command = ["mount", "-o", "remount,ro,bind", str(target)]
        if not bound or subprocess.run(command, capture_output=True).returncode:
            return Result(None, "not run: mounting is not allowed here")
        outcomes = [
            mocme("predict", target, *QUESTION),
            mocme("explain", target, *QUESTION, "--tail", "e2"),
            mocme("complete", target, "--out", work / "completed.tsv", "--min-probability", "0.5"),
            mocme("evaluate", target),
            mocme("score", target, work / "data" / "valid.tsv"),
        ]
        with served(target) as server:
            body = {"head": "e1", "relation": "next", "tail": "e2"}
            statuses = [server.ask("/v1/tails", {"head": "e1", "relation": "next"})[0]]
            statuses.append(server.ask("/v1/explain", body)[0])
    good = sum(outcome.code == 0 for outcome in outcomes) + statuses.count(200)
    held = good == len(outcomes) + len(statuses)
    return Result(held, f"{good} of 7 questions answered {unfit(outcomes)}".strip())


@trial("Processes that ask a run for the first time at once do not disturb each other")
def first_questions(work: Path) -> Result:
    run, rounds, together = new_run(work), 5, 4
    outcomes, explain = [], ("explain", run, *QUESTION, "--tail", "e2")
    with ThreadPoolExecutor(together) as pool:
        for _ in range(rounds):
            for path in run.glob("calibration*"):
                path.unlink()
            (run / "faithfulness.json").unlink(missing_ok=True)
            outcomes += pool.map(lambda _: mocme("predict", run, *QUESTION), range(together))
            outcomes += pool.map(lambda _: mocme(*explain), range(together))
            outcomes += pool.map(lambda _: mocme("evaluate", run), range(together))
    good = sum(outcome.code == 0 for outcome in outcomes)
    figures = f"{good} of {len(outcomes)} commands succeeded {unfit(outcomes)}".strip()
    return Result(good == len(outcomes), figures)


@trial("Two imports into one folder at once never mix")
def two_imports(work: Path) -> Result:
    for name in ("a", "b"):
        lines = "".join(f"{name}{i},r,{name}{i + 1}\n" for i in range(20_000))
        (work / f"{name}.csv").write_text("head,relation,tail\n" + lines)
    won, mixed, bad, out = 0, 0, "", work / "out"
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            shutil.rmtree(out, ignore_errors=True)
            pair = list(pool.map(lambda n: mocme("import", work / f"{n}.csv", "--out", out), "ab"))
            won += sum(outcome.code == 0 for outcome in pair)
            bad += unfit(pair)
            mixed += len({line[0] for line in (out / "entities.txt").read_text().split()}) != 1
    figures = f"5 rounds: {won} imports succeeded, {mixed} folders held both graphs {bad}".strip()
    return Result(won == 5 and not mixed and not bad, figures)


@trial("A full disk ends a command with a message and leaves what was there")
def full_disk(work: Path) -> Result:
    data, outcomes, left = write_graph(work / "data"), [], []
    lines = "".join(f"entity {i},r,entity {i + 1}\n" for i in range(50_000))
    (work / "big.csv").write_text("head,relation,tail\n" + lines)
    small = work / "small"
    for command, size in (
        (["train", "default", "--data", str(data), *SMALL, "--out"], "40k"),
        (["import", str(work / "big.csv"), "--out"], "400k"),
    ):
        with mounted(small, "-t", "tmpfs", "-o", f"size={size}", "tmpfs") as done:
            if not done:
                return Result(None, "not run: mounting is not allowed here")
            outcomes.append(mocme(*command, small / "out"))
            # A run that was begun may stay; an import appears whole or not at all.
            left += [path.name for path in small.iterdir() if command[0] == "import"]
    refused = sum(outcome.refused for outcome in outcomes)
    figures = f"{refused} of {len(outcomes)} refused; left behind: {left or 'nothing'}"
    return Result(refused == len(outcomes) and not left, f"{figures} {unfit(outcomes)}".strip())


@trial("A training that is killed at any moment can be resumed or begun again")
def killed_training(work: Path) -> Result:
    data, draw, kills, bad = write_graph(work / "data"), random.Random(0), 12, []
    begin = ["train", "default", "--data", str(data), *SMALL]
    whole = mocme(*begin, "--out", work / "whole")
    for number in range(kills):
        out = work / f"run{number}"
        process = subprocess.Popen(
            [PYTHON, "-m", "mocme.cli", *begin, "--out", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not out.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.random() ** 2 * whole.seconds * 0.8)
        process.send_signal(signal.SIGKILL)
        process.wait()
        again = mocme("resume", out)
        if again.code:
            again = mocme(*begin, "--out", out)
        asked = mocme("predict", out, *QUESTION)
        if again.code or asked.code:
            bad.append(again.output.strip()[-150:])
    return Result(not bad, f"{kills - len(bad)} of {kills} finished {'; '.join(bad[:2])}".strip())


@trial("No acknowledged decision is lost when a server is killed")
def killed_server(work: Path) -> Result:
    run, acknowledged, draw = new_run(work), [], random.Random(1)
    for number in range(5):
        with served(run) as server:
            stop = time.monotonic() + 1 + draw.random()
            while time.monotonic() < stop:
                tail = f"e{len(acknowledged) % 60}"
                fact = {"head": f"e{number}", "relation": "third", "tail": tail}
                body = {**fact, "decision": "accept", "reviewer": "gauntlet"}
                status, answer = server.ask("/v1/reviews", body)
                if status not in (200, 201):
                    return Result(False, f"a decision was refused: {answer}")
                acknowledged.append(tail)
    with sqlite3.connect(run / "reviews.sqlite") as file:
        tables = [
            row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        kept = max(file.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)
    figures = f"5 kills: {len(acknowledged)} acknowledged, {kept} kept"
    return Result(kept >= len(acknowledged), figures)


@trial("A decision is refused once its file was deleted or replaced")
def lost_file(work: Path) -> Result:
    run = new_run(work)
    fact = {"head": "e1", "relation": "third", "tail": "e9"}
    with served(run) as server:
        body = {**fact, "decision": "accept", "reviewer": "gauntlet"}
        first, _ = server.ask("/v1/reviews", body)
        for path in run.glob("reviews.sqlite*"):
            path.unlink()
        second, _ = server.ask("/v1/reviews", {**body, "tail": "e10"})
        exists = (run / "reviews.sqlite").exists()
    held = first in (200, 201) and (second >= 400 or exists)
    return Result(held, f"before: {first}; after the deletion: {second}, file there: {exists}")


def orphans(parent: int) -> list[int]:
    """Processes whose parent is `parent`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


@trial("Workers end when their parent is killed")
def orphaned_workers(work: Path) -> Result:
    with served(new_run(work), "--workers", "2") as server:
        time.sleep(1)
        workers = orphans(server.process.pid)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        started = time.monotonic()
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            if time.monotonic() - started > 20:
                for pid in workers:
                    os.kill(pid, signal.SIGKILL)
                return Result(False, f"{len(workers)} workers still ran after 20 s")
            time.sleep(0.05)
        seconds = time.monotonic() - started
    return Result(bool(workers), f"{len(workers)} workers ended after {seconds:.1f} s")
