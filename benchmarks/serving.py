"""How many questions a second `mocme serve` answers, and how it bears more than it can.

Starts a server over a run, and loads it from a second process with wrk (Debian's package `wrk`):
tails with k = 10 of heads and relations drawn from the graph's facts, each question asked once in
a while only, so that nothing could be kept from the last time.

    python benchmarks/serving.py RUN                        # 8 connections, 30 s
    python benchmarks/serving.py RUN --overload 600         # three times what it bears, 10 minutes

Prints JSON: requests a second, times in ms, answers by status, of the overload also the times of
/healthz (asked ten times a second) and the memory of the server in MiB, at its start and its end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mocme.runs.run import Run

LUA = """
local questions = {}
for line in io.lines("%(questions)s") do questions[#questions + 1] = line end
local counter = 0
function setup(thread) thread:set("id", counter); counter = counter + 1 end
function init(args) place = id * 7919; math.randomseed(id + 1) end
function request()
  place = place + 1
  local body = questions[place %% #questions + 1]
  return wrk.format("POST", "/v1/tails", {["content-type"] = "application/json"}, body)
end
%(delay)s
local codes = {}
function response(status, headers, body)
  codes[status] = (codes[status] or 0) + 1
end
function done(summary, latency, requests)
  local p = function(q) return latency:percentile(q) / 1000 end
  io.write(string.format(
    'RESULT {"requests": %%d, "seconds": %%f, "p50": %%f, "p90": %%f, "p99": %%f, "max": %%f, ' ..
    '"wrong": %%d, "broken": %%d}\\n', summary.requests, summary.duration / 1e6,
    p(50), p(90), p(99), latency.max / 1000, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


def questions(run: Path, count: int) -> list[str]:
    """Questions of the graph's facts, in a fixed random order."""
    graph = Run.open(run).graph()
    facts = graph.facts()[:, :2].unique(dim=0).tolist()
    random.Random(0).shuffle(facts)
    return [
        json.dumps({"head": graph.entities[h], "relation": graph.relations[r], "k": 10})
        for h, r in facts[:count]
    ]


@contextmanager
def server(run: Path, more: list[str]) -> Iterator[tuple[str, int]]:
    """A server over a run: its address and its process."""
    command = [sys.executable, "-m", "mocme.cli", "serve", str(run), "--port", "0"]
    with tempfile.TemporaryDirectory() as folder:
        reviews = ["--reviews", str(Path(folder) / "reviews.sqlite"), "--logs", "none"]
        process = subprocess.Popen([*command, *reviews, *more], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            if found is None:
                raise SystemExit(f"the server did not start: {line}")
            yield found[0].rstrip("/"), process.pid
        finally:
            process.terminate()
            process.wait(timeout=15)


def load(
    url: str, asked: list[str], connections: int, seconds: int, delay: float | None
) -> dict[str, float]:
    """What wrk measures; `delay`: ms that a connection waits between its questions."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "questions.jsonl"
        file.write_text("\n".join(asked) + "\n", encoding="utf-8")
        script = Path(folder) / "load.lua"
        waits = "" if delay is None else f"function delay() return math.random() * {2 * delay} end"
        script.write_text(LUA % {"questions": file, "delay": waits}, encoding="utf-8")
        command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout"]
        done = subprocess.run(
            [*command, "30s", "-s", str(script), url], capture_output=True, text=True, check=True
        )
    found: dict[str, float] = json.loads(done.stdout.split("RESULT ")[1].splitlines()[0])
    found["per_second"] = found["requests"] / found["seconds"]
    return {name: round(value, 3) for name, value in found.items()}


def memory(pid: int) -> float:
    """MiB of a process and those it has started; what they share counts once."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if pid in (parent, int(stat.parent.name)):
                text = (stat.parent / "smaps_rollup").read_text()
                total += int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0])
        except OSError:  # it has just ended
            continue
    return total / 1024


def overload(url: str, pid: int, asked: list[str], bears: float, seconds: int) -> dict[str, object]:
    """Three times what it bears: what becomes of health and memory."""
    connections = 256
    times: list[float] = []
    sizes: list[float] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            began = time.perf_counter()
            with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
                answer.read()
            times.append((time.perf_counter() - began) * 1000)

    def weigh() -> None:
        # The kernel walks all pages to answer, and holds the server up meanwhile: seldom.
        while not stop.wait(2):
            sizes.append(memory(pid))

    watchers = [threading.Thread(target=watch), threading.Thread(target=weigh)]
    for watcher in watchers:
        watcher.start()
    try:
        found = load(url, asked, connections, seconds, connections / (3 * bears) * 1000)
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    tenth = max(1, len(sizes) // 10)
    return {
        "asked_for_per_second": round(3 * bears, 1),
        **found,
        "health_p50": round(statistics.median(times), 2),
        "health_p99": round(sorted(times)[int(len(times) * 0.99)], 2),
        "health_max": round(max(times), 2),
        "memory_first_tenth": round(statistics.mean(sizes[:tenth]), 1),
        "memory_last_tenth": round(statistics.mean(sizes[-tenth:]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--overload", type=int, default=0, metavar="SECONDS")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    settings = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed, which is a program of its own: apt-get install wrk")
    asked = questions(settings.run, 20_000)
    more = ["--workers", str(settings.workers), "--threads", str(settings.threads)]
    with server(settings.run, more) as (url, pid):
        load(url, asked, 8, 3, None)
        found: dict[str, object] = {"run": settings.run.name, "cores": os.cpu_count()}
        found |= {"workers": settings.workers, "threads": settings.threads}
        usual = load(url, asked, 8, settings.seconds, None)
        found["usual"] = usual
        if settings.overload:
            bears = usual["per_second"]
            found["overload"] = overload(url, pid, asked, bears, settings.overload)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
