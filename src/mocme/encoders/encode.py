"""Make encoded modalities: those that a graph declares, or one that is described."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from mocme.core.device import find_device, stop_signal
from mocme.core.registry import ConfigError
from mocme.data.formats.writers import written
from mocme.data.graph import Graph
from mocme.data.ingest.reader import declared, settings_of
from mocme.data.load import load
from mocme.data.modality import check_name
from mocme.encoders.base import Advance, Encoder, EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of

Tables = Mapping[str, Mapping[str, Any]]
# What tells how far a modality is: its name to a function of (items done, items in all).
Watch = Callable[[str], Advance]


class NotEncoded(ValueError):
    """Some modalities could not be made; all others were.

    Attributes:
        made: what became of those.
        faults: what is wrong, by the name of the modality.
    """

    def __init__(self, made: Sequence[EncodingReport], faults: Mapping[str, ValueError]) -> None:
        self.made, self.faults = list(made), dict(faults)
        if len(faults) == 1 and not made:
            super().__init__(str(next(iter(faults.values()))))
            return
        lines = [f"{name}: {error}" for name, error in faults.items()]
        count = f"{len(faults)} of {len(faults) + len(made)} modalities could not be made"
        super().__init__("\n".join([count, *lines]))


def encode(
    data: Graph | str | Path,
    tables: Tables | None = None,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    allow_download: bool = False,
    watch: Watch = lambda name: lambda done, total: None,
) -> list[EncodingReport]:
    """Make modalities of raw files, and tell what became of every text, picture and number.

    What was made before from the same content by the same encoder is not made again, and work that
    was stopped goes on where it was.

    Args:
        data: a graph, or what `mocme.load` takes.
        tables: settings by modality name (``{"photo": {"kind": "image", "paths": ["photos"]}}``),
            with paths from the graph's folder; by default ``[encode.NAME]`` of its graph.toml. In a
            folder of its own, tables that are new are added to graph.toml.
        out: a folder to use instead of the graph's; name it to `mocme.train` as `features`.
        allow_download: fetch pretrained models from a hub; nothing else is ever fetched.

    Raises:
        ConfigError: a setting is wrong. NotEncoded: some could not be made; the others were.
        Interrupted: stopped by Ctrl-C; the same call goes on.
    """
    graph = data if isinstance(data, Graph) else load(data)
    base, own = _base(data, graph, out)
    chosen = graph.encode if tables is None else tables
    if not chosen:
        raise ValueError(
            f"{graph.name}: declares nothing to encode; add [encode.NAME] tables to its "
            f"graph.toml, or say what to encode: mocme encode text DATA --from texts.tsv"
        )
    for name in chosen:
        check_name(name, f"encode.{name}")
    encoders = {name: encoder_of(table, f"encode.{name}") for name, table in chosen.items()}
    if own and tables is not None:
        _check_new(graph, tables, base)
    done: list[EncodingReport] = []
    faults: dict[str, ValueError] = {}
    with stop_signal() as stopped:
        for name in _in_order(encoders):
            job = EncodingJob(
                graph,
                name,
                Path(graph.folder or "."),
                base,
                settings_of(chosen[name]),
                find_device(device),
                allow_download,
                watch(name),
                stopped,
            )
            try:
                done.append(_one(encoders[name], job))
            except ValueError as error:
                # One that cannot be made is no reason to go without the others.
                faults[name] = error
                continue
            if own and tables is not None:
                declare(base, name, tables[name])
    if faults:
        raise NotEncoded(done, faults)
    return done


def _base(data: object, graph: Graph, out: str | Path | None) -> tuple[Path, bool]:
    """Where results go, and whether that is the graph's own folder."""
    if out is not None:
        return Path(out), False
    folder = graph.folder
    named = not isinstance(data, Graph) and not Path(str(data)).is_dir()
    shipped = folder is not None and Path(folder).is_relative_to(Path(__file__).parents[1])
    if folder is not None and not (named or shipped) and not os.access(folder, os.W_OK):
        raise ValueError(
            f"{folder}: cannot be written; name another folder with --out, and train with "
            f"--features and the same folder"
        )
    if folder is None or named or shipped:
        raise ValueError(
            f"{graph.name}: has no folder of its own to write into; name one with --out, and train "
            f"with --features and the same folder"
        )
    return Path(folder), True


def _one(encoder: Encoder, job: EncodingJob) -> EncodingReport:
    outcome = encoder.encode(job)
    with written(job.path.with_suffix(".json")) as file:
        text = json.dumps(outcome.as_dict(), indent=1, ensure_ascii=False)
        file.write(text.encode() + b"\n")
    if not outcome.present:
        raise ValueError(f"{job.name}: nothing could be encoded\n{outcome}")
    return outcome


def _in_order(encoders: Mapping[str, Encoder]) -> list[str]:
    """Names such that what an encoder needs comes before it."""
    order: list[str] = []
    waiting = dict(encoders)
    while waiting:
        ready = [n for n, e in waiting.items() if not set(e.needs()) & set(waiting)]
        if not ready:
            raise ConfigError(f"encode.{next(iter(waiting))}: needs what is made of it")
        for name in ready:
            order.append(name)
            del waiting[name]
    return order


# -- graph.toml --------------------------------------------------------------------------------


def _check_new(graph: Graph, tables: Tables, folder: Path) -> None:
    """Refuse names that graph.toml uses otherwise, before any work is done.

    Raises:
        ValueError: with the remedy.
    """
    there = declared(folder)
    for name, table in tables.items():
        known = graph.encode.get(name)
        if known is not None and dict(known) != dict(table):
            raise ValueError(
                f"{folder / 'graph.toml'}: [encode.{name}] is there with other settings; change it "
                f"there and run: mocme encode all {folder}, or choose another --name"
            )
        if known is None and name in _modalities(there):
            raise ValueError(
                f"{folder / 'graph.toml'}: [modalities.{name}] is there already; choose another "
                f"--name"
            )


def _modalities(table: Mapping[str, object]) -> Sequence[str]:
    found = table.get("modalities", {})
    return list(found) if isinstance(found, dict) else []


def declare(folder: Path, name: str, table: Mapping[str, Any]) -> None:
    """Add ``[encode.NAME]`` to a folder's graph.toml, where it is not there; the rest stays."""
    path = folder / "graph.toml"
    if name in (declared(folder).get("encode") or {}):  # type: ignore[operator]
        return
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    text = text.rstrip("\n") + "\n\n" if text.strip() else ""
    added = tomli_w.dumps({"encode": {name: dict(table)}})
    try:
        tomllib.loads(text + added)
    except tomllib.TOMLDecodeError as error:
        # An inline table, for instance, cannot be added to from below.
        raise ValueError(
            f"{path}: cannot be added to ({error}); {name} is encoded; add this by hand:\n{added}"
        ) from error
    with written(path) as file:
        file.write((text + added).encode())
