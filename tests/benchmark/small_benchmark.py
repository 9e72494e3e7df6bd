"""The benchmark `small.toml`, and how tests run it and read its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from mocme import cli
from mocme.benchmark import runner
from mocme.benchmark.archive import ResultArchive
from mocme.benchmark.plan import PlannedRun, plan
from mocme.benchmark.results import ResultFiles, json_bytes
from mocme.benchmark.spec import BenchmarkSpec

COMMAND = "benchmark"
TEXT = """
title = "Small"
[defaults]
graphs = ["tiny"]
seeds = [0, 1]
[defaults.set]
"experts.embedding.embedding_dim" = 8
"experts.embedding.training.epochs" = 3
"experts.embedding.training.checkpoint_seconds" = 0
[[rows]]
name = "structure only"
experiment = "structure"
[[rows]]
name = "tokens"
experiment = "vectors"
control = "structure only"
"""


def planned(home: Path) -> list[PlannedRun]:
    return plan(BenchmarkSpec.read(home / "small.toml"), home / "runs")


def run_benchmark(
    home: Path, worker: runner.Worker = runner.in_this_process, **options: Any
) -> runner.BenchmarkReport:
    spec = BenchmarkSpec.read(home / "small.toml")
    runs = plan(spec, home / "runs")
    return runner.run(spec, runs, threads=1, worker=worker, tell=lambda _: None, **options)


def archive_of(home: Path) -> ResultArchive:
    return ResultArchive(home / "results" / "small.zip")


def files_of(home: Path, stem: str) -> ResultFiles:
    return ResultFiles(archive_of(home), stem)


def members(home: Path) -> dict[str, bytes]:
    """Content of every member of the archive."""
    archive = archive_of(home)
    return {name: archive.read(name) or b"" for name in archive.names()}


def results(home: Path) -> dict[str, dict[str, Any]]:
    """Every result by its stem."""
    return {
        name.removesuffix(".json"): json.loads(content)
        for name, content in members(home).items()
        if name.endswith(".json") and not name.endswith(".failure.json")
    }


def figures(home: Path) -> dict[str, Any]:
    """Metrics of each result without seconds, and the digests of its ranks."""
    return {
        stem: ({s: {**m, "seconds": 0} for s, m in result["splits"].items()}, result["ranks"])
        for stem, result in results(home).items()
    }


def replace_member(home: Path, name: str, content: bytes | Mapping[str, Any]) -> None:
    new = content if isinstance(content, bytes) else json_bytes(content)
    archive_of(home).update(lambda all_members: all_members.update({name: new}))


def remove_members(home: Path, *names: str) -> None:
    archive_of(home).update(lambda all_members: [all_members.pop(name) for name in names])


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [COMMAND, *map(str, words)])


def page_of(home: Path) -> Path:
    page = home / "page.md"
    markers = "<!-- benchmark: small -->\n<!-- end of benchmark: small -->"
    page.write_text(f"# Before\n\n{markers}\n\nafter\n")
    return page
