"""Encode modalities: those that a graph declares, or those of given tables."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from mocme.core.device import find_device
from mocme.core.interrupts import stop_signal
from mocme.core.registry import ConfigError
from mocme.data.formats.writers import atomic_file
from mocme.data.graph import Graph
from mocme.data.ingest.reader import read_graph_toml, settings_json
from mocme.data.load import load
from mocme.data.modality import EmptyModality, check_name
from mocme.encoders.base import Encoder, EncodingJob, EncodingReport, ProgressCallback
from mocme.encoders.catalog import encoder_of
from mocme.encoders.store import CACHE
from mocme.storage.atomic_io import directory_lock

Tables = Mapping[str, Mapping[str, Any]]
# Receives the name of a modality, and returns the callback for its progress.
Watch = Callable[[str], ProgressCallback]


class EncodingError(ValueError):
    """Some modalities could not be encoded; all others were.

    Attributes:
        made: the reports of the others.
        faults: the errors, by the name of the modality.
    """

    def __init__(self, reports: Sequence[EncodingReport], errors: Mapping[str, ValueError]) -> None:
        self.reports, self.errors = list(reports), dict(errors)
        if len(errors) == 1 and not reports:
            super().__init__(str(next(iter(errors.values()))))
            return
        lines = [f"{name}: {error}" for name, error in errors.items()]
        count = f"{len(errors)} of {len(errors) + len(reports)} modalities could not be made"
        super().__init__("\n".join([count, *lines]))


def encode(
    data: Graph | str | Path,
    tables: Tables | None = None,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    allow_download: bool = False,
    watch: Watch = lambda name: lambda done, total: None,
    trust_code: bool = False,
) -> list[EncodingReport]:
    """Make modalities from raw files, and report on every text, image and number.

    Content that the same encoder encoded before is not encoded again, and work that was stopped is
    resumed.

    Args:
        data: a graph, or what `mocme.load` takes.
        tables: settings by modality name (``{"photo": {"kind": "image", "paths": ["photos"]}}``),
            with paths relative to the graph's folder; by default the ``[encode.NAME]`` tables of
            its graph.toml. If the results go to the graph's folder, new tables are added to its
            graph.toml.
        out: a folder for the results instead of the graph's; pass it to `mocme.train` as
            `features`.
        allow_download: download pretrained models from a hub; nothing else is ever downloaded.
        watch: receives the name of a modality, and returns a callback that receives (items done,
            items in total).
        trust_code: import the code that the tables name (``kind = "package.module:Class"``); by
            default, they are refused.

    Returns:
        A report for each modality.

    Raises:
        ConfigError: a setting is wrong.
        NotEncoded: some modalities could not be encoded; the others were.
        Interrupted: stopped by Ctrl-C; the same call resumes.
    """
    graph = data if isinstance(data, Graph) else load(data)
    base, in_graph = _base_folder(data, graph, out)
    chosen = graph.encode if tables is None else tables
    encoders = _encoders_of(graph, chosen, trust_code)
    if in_graph and tables is not None:
        _check_names(graph, tables, base)
    reports: list[EncodingReport] = []
    errors: dict[str, ValueError] = {}
    with stop_signal() as stopped:
        for name in _in_order(encoders):
            job = EncodingJob(
                graph,
                name,
                Path(graph.folder or "."),
                base,
                settings_json(chosen[name]),
                find_device(device),
                allow_download,
                watch(name),
                stopped,
                trust_code,
            )
            try:
                _check_results(job)
                reports.append(_encode_one(encoders[name], job))
            except ValueError as error:
                # Continue with the other modalities.
                errors[name] = error
                continue
            if in_graph and tables is not None:
                declare(base, name, tables[name])
    if errors:
        raise EncodingError(reports, errors)
    return reports


def _encoders_of(graph: Graph, tables: Tables, trust_code: bool) -> dict[str, Encoder]:
    """The encoders that tables describe, by the name of the modality.

    Raises:
        ConfigError: a name or a setting is wrong.
        ValueError: there are no tables.
    """
    if not tables:
        raise ValueError(
            f"{graph.name}: declares nothing to encode; add [encode.NAME] tables to its "
            f"graph.toml, or name what to encode: mocme encode text DATA --from texts.tsv"
        )
    for name in tables:
        check_name(name, f"encode.{name}")
    return {
        name: encoder_of(table, f"encode.{name}", trust_code=trust_code)
        for name, table in tables.items()
    }


def _base_folder(data: object, graph: Graph, out: str | Path | None) -> tuple[Path, bool]:
    """The folder for the results, and whether it is the graph's own folder."""
    if out is not None:
        return Path(out), False
    folder = graph.folder
    # A benchmark's name or a file of facts has no folder that belongs to it alone.
    named = not isinstance(data, Graph) and not Path(str(data)).is_dir()
    shipped = folder is not None and Path(folder).is_relative_to(Path(__file__).parents[1])
    if folder is not None and not (named or shipped) and not os.access(folder, os.W_OK):
        raise ValueError(
            f"{folder}: is not writable; name another folder with --out, and train with "
            f"--features and the same folder"
        )
    if folder is None or named or shipped:
        raise ValueError(
            f"{graph.name}: has no folder of its own to write into; name one with --out, and train "
            f"with --features and the same folder"
        )
    return Path(folder), True


def _check_results(job: EncodingJob) -> None:
    """Refuse results, or a cache of earlier ones, that are links, pipes or devices.

    A graph may come from elsewhere, and what a link in it leads to would be overwritten.

    Raises:
        ValueError: with the path.
    """
    results = job.path.parent
    for folder in (results, results / CACHE):
        if folder.is_symlink():
            raise ValueError(
                f"{folder}: is a link, and results are written only into a folder itself; remove "
                f"it, or name another folder with --out, and train with --features"
            )
        for file in folder.glob("*") if folder.is_dir() else ():
            if file.name.startswith(f"{job.name}.") and not stat.S_ISREG(file.lstat().st_mode):
                raise ValueError(
                    f"{file}: is no regular file, and would be overwritten by results; remove it"
                )


def _encode_one(encoder: Encoder, job: EncodingJob) -> EncodingReport:
    """Encode a modality and write its report.

    Raises:
        EmptyModality: no entity has it; with the report. The file of the report says so too, so
            that a training leaves the modality out.
    """
    try:
        report = encoder.encode(job)
        if not report.present:
            raise EmptyModality(f"{job.name}: nothing could be encoded\n{report}")
    except EmptyModality as error:
        bound = {"settings": job.settings, "entities_digest": job.graph.entities.digest()}
        _write_report(job, {"name": job.name, "empty": str(error), **bound})
        raise
    _write_report(job, report.as_dict())
    return report


def _write_report(job: EncodingJob, report: Mapping[str, Any]) -> None:
    path = job.path.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n")


def _in_order(encoders: Mapping[str, Encoder]) -> list[str]:
    """Names of the modalities in an order in which each follows those that it needs.

    Raises:
        ConfigError: modalities need each other.
    """
    order: list[str] = []
    remaining = dict(encoders)
    while remaining:
        ready = [n for n, encoder in remaining.items() if not set(encoder.needs()) & set(remaining)]
        if not ready:
            raise ConfigError(
                f"encode.{next(iter(remaining))}: needs a modality that is made from it; change of"
            )
        for name in ready:
            order.append(name)
            del remaining[name]
    return order


# -- graph.toml --------------------------------------------------------------------------------


def _check_names(graph: Graph, tables: Tables, folder: Path) -> None:
    """Refuse names that graph.toml declares otherwise, before any work is done.

    Raises:
        ValueError: with the remedy.
    """
    graph_toml = read_graph_toml(folder)
    for name, table in tables.items():
        known = graph.encode.get(name)
        if known is not None and dict(known) != dict(table):
            raise ValueError(
                f"{folder / 'graph.toml'}: [encode.{name}] is there with other settings; change it "
                f"there and run: mocme encode all {folder}, or choose another --name"
            )
        if known is None and name in _modalities(graph_toml):
            raise ValueError(
                f"{folder / 'graph.toml'}: [modalities.{name}] is there already; choose another "
                f"--name"
            )


def _modalities(graph_toml: Mapping[str, object]) -> Sequence[str]:
    tables = graph_toml.get("modalities", {})
    return list(tables) if isinstance(tables, dict) else []


def declare(folder: Path, name: str, table: Mapping[str, Any]) -> None:
    """Append ``[encode.NAME]`` to a folder's graph.toml, unless it is declared already.

    Raises:
        ValueError: the result would not be valid TOML; with the lines to add by hand.
    """
    # Of two processes that encode at the same time, neither must lose the other's declaration.
    with directory_lock(folder):
        _declare(folder, name, table)


def _declare(folder: Path, name: str, table: Mapping[str, Any]) -> None:
    path = folder / "graph.toml"
    if name in (read_graph_toml(folder).get("encode") or {}):  # type: ignore[operator]
        return
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    text = text.rstrip("\n") + "\n\n" if text.strip() else ""
    added = tomli_w.dumps({"encode": {name: dict(table)}})
    try:
        tomllib.loads(text + added)
    except tomllib.TOMLDecodeError as error:
        # An inline table `encode = {...}`, for instance, cannot be extended.
        raise ValueError(
            f"{path}: cannot be extended ({error}); {name} is encoded; add this by hand:\n{added}"
        ) from error
    with atomic_file(path) as file:
        file.write((text + added).encode())
