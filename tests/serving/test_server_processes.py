"""The server process and its workers: start, stop, failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from http_helpers import CHAD

from mocme import cli


def start(path: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "mocme.cli", "serve", str(path), "--port", "0", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert " on http://127.0.0.1:" in line, line
    return process, line.split(" on ")[1].split()[0]


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, answer.read()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_server_runs_until_a_stop_signal(workers: str, run_path: Path, tmp_path: Path) -> None:
    reviews = ["--reviews", str(tmp_path / "reviews.sqlite")]
    process, url = start(run_path, "--workers", workers, "--logs", "json", *reviews)
    try:
        assert get(f"{url}readyz") == (200, b'{"status":"ready"}')
        for _ in range(4):
            body = json.dumps(CHAD).encode()
            headers = {"content-type": "application/json"}
            request = urllib.request.Request(f"{url}v1/tails", data=body, headers=headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert len(json.load(answer)["predictions"]) == 10
        assert b'route="/v1/tails",status="200"} 4.0' in get(f"{url}metrics")[1]
    finally:
        process.send_signal(signal.SIGTERM)
        stopped = time.monotonic()
        _, errors = process.communicate(timeout=15)
    assert time.monotonic() - stopped < 10
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    requests = [line for line in lines if line.get("path") == "/v1/tails"]
    assert len(requests) == 4
    assert all(line["status"] == 200 and line["ms"] > 0 for line in requests)
    with pytest.raises(urllib.error.URLError):
        get(f"{url}healthz")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_during_startup_stops_at_once(
    workers: str, run_path: Path, tmp_path: Path
) -> None:
    reviews = ["--reviews", str(tmp_path / "reviews.sqlite")]
    process, _ = start(run_path, "--workers", workers, "--logs", "none", *reviews)
    process.send_signal(signal.SIGTERM)
    stopped = time.monotonic()
    process.communicate(timeout=15)
    assert time.monotonic() - stopped < 5
    assert process.returncode == 0


def children(parent: int, until: Callable[[list[int]], bool]) -> list[int]:
    """Return the child processes of a process once they satisfy a condition."""
    deadline = time.monotonic() + 20
    pids: list[int] = []
    while time.monotonic() < deadline:
        pids = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                pids.append(int(stat.parent.name))
        if until(pids):
            return pids
        time.sleep(0.05)
    raise AssertionError(f"the processes are {pids}")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs a system with /proc")
def test_a_worker_that_dies_is_replaced(run_path: Path, tmp_path: Path) -> None:
    reviews = ["--reviews", str(tmp_path / "reviews.sqlite")]
    process, url = start(run_path, "--workers", "2", "--logs", "text", *reviews)
    try:
        before = children(process.pid, lambda pids: len(pids) == 2)
        os.kill(before[0], signal.SIGKILL)
        after = children(process.pid, lambda pids: len(pids) == 2 and before[0] not in pids)
        assert before[1] in after
        assert get(f"{url}healthz")[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=15)


def test_a_server_that_cannot_start_says_why(run_path: Path) -> None:
    for arguments, reason in (
        ([run_path, "--host", "0.0.0.0"], "MOCME_TOKEN"),
        ([run_path / "absent", "--port", 0], "there is no run"),
        ([run_path, "--port", 0, "--workers", 0], "workers must be at least 1"),
    ):
        result = CliRunner().invoke(cli.main, ["serve", *map(str, arguments)])
        assert result.exit_code == 1
        assert reason in result.output
