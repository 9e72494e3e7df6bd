"""Measure the throughput and latency of `mocme serve`, and its behaviour under overload.

Starts a server for a run and loads it from a second process with wrk (Debian package `wrk`). The
requests ask for tails with k = 10, for heads and relations drawn from the graph's facts. There are
so many different questions that caching answers would not help.

    python benchmarks/serving.py RUN                        # 8 connections, 30 s
    python benchmarks/serving.py RUN --overload 600         # three times its capacity, 10 minutes

Prints JSON: requests per second, times in ms, and the number of errors. Under overload also the
response times of /healthz (requested ten times a second) and the memory of the server in MiB, at
the start and at the end.
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
function init(args) position = id * 7919; math.randomseed(id + 1) end
function request()
  position = position + 1
  local body = questions[position %% #questions + 1]
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
    """Return JSON bodies that ask for the tails of the graph's facts, in a fixed random order."""
    graph = Run.open(run).graph()
    facts = graph.facts()[:, :2].unique(dim=0).tolist()
    random.Random(0).shuffle(facts)
    return [
        json.dumps({"head": graph.entities[h], "relation": graph.relations[r], "k": 10})
        for h, r in facts[:count]
    ]


@contextmanager
def server(run: Path, options: list[str]) -> Iterator[tuple[str, int]]:
    """Start a server for a run; gives its URL and process id."""
    command = [sys.executable, "-m", "mocme.cli", "serve", str(run), "--port", "0"]
    with tempfile.TemporaryDirectory() as folder:
        reviews = ["--reviews", str(Path(folder) / "reviews.sqlite"), "--logs", "none"]
        process = subprocess.Popen(
            [*command, *reviews, *options], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = re.search(r"http://\S+", line)
            if url is None:
                raise SystemExit(f"the server did not start: {line}")
            yield url[0].rstrip("/"), process.pid
        finally:
            process.terminate()
            process.wait(timeout=15)


def load(
    url: str, bodies: list[str], connections: int, seconds: int, delay: float | None
) -> dict[str, float]:
    """Run wrk and return its measurements.

    Args:
        delay: mean time in ms that a connection waits between its requests; None for no wait.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "questions.jsonl"
        file.write_text("\n".join(bodies) + "\n", encoding="utf-8")
        script = Path(folder) / "load.lua"
        delay_lua = ""
        if delay is not None:
            delay_lua = f"function delay() return math.random() * {2 * delay} end"
        script.write_text(LUA % {"questions": file, "delay": delay_lua}, encoding="utf-8")
        command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout"]
        process = subprocess.run(
            [*command, "30s", "-s", str(script), url], capture_output=True, text=True, check=True
        )
    results: dict[str, float] = json.loads(process.stdout.split("RESULT ")[1].splitlines()[0])
    results["per_second"] = results["requests"] / results["seconds"]
    return {name: round(value, 3) for name, value in results.items()}


def memory(pid: int) -> float:
    """Return the memory in MiB of a process and its children; shared pages count once."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if pid in (parent, int(stat.parent.name)):
                text = (stat.parent / "smaps_rollup").read_text()
                total += int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0])
        except OSError:  # the process has just ended
            continue
    return total / 1024


def overload(
    url: str, pid: int, bodies: list[str], capacity: float, seconds: int
) -> dict[str, object]:
    """Request three times the capacity, and measure health checks and memory meanwhile."""
    connections = 256
    times: list[float] = []
    sizes: list[float] = []
    stop = threading.Event()

    def check_health() -> None:
        while not stop.wait(0.1):
            started = time.perf_counter()
            with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
                answer.read()
            times.append((time.perf_counter() - started) * 1000)

    def measure_memory() -> None:
        # Rarely, because the kernel walks all pages to answer and delays the server meanwhile.
        while not stop.wait(2):
            sizes.append(memory(pid))

    watchers = [threading.Thread(target=check_health), threading.Thread(target=measure_memory)]
    for watcher in watchers:
        watcher.start()
    try:
        results = load(url, bodies, connections, seconds, connections / (3 * capacity) * 1000)
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    tenth = max(1, len(sizes) // 10)
    return {
        "asked_for_per_second": round(3 * capacity, 1),
        **results,
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
        raise SystemExit("wrk is not installed; install it with: apt-get install wrk")
    bodies = questions(settings.run, 20_000)
    options = ["--workers", str(settings.workers), "--threads", str(settings.threads)]
    with server(settings.run, options) as (url, pid):
        load(url, bodies, 8, 3, None)  # warm up
        report: dict[str, object] = {"run": settings.run.name, "cores": os.cpu_count()}
        report |= {"workers": settings.workers, "threads": settings.threads}
        usual = load(url, bodies, 8, settings.seconds, None)
        report["usual"] = usual
        if settings.overload:
            capacity = usual["per_second"]
            report["overload"] = overload(url, pid, bodies, capacity, settings.overload)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
