"""The `repaired` splits of a graph: distinct rows, and no row asked for that another split holds.

1. Of rows that repeat a fact within a split, the first stays.
2. Rows of valid and of test that are in train are removed.
3. Rows of valid that are in test are removed.
4. Where validation is then left with less than `ENOUGH` of the rows that a hold-out of the share
   `HOLDOUT` of train would have, it is replaced by that hold-out: distinct training facts drawn
   without replacement with seed 0, whatever the seed of a training.
5. A released fact that is then in no other split goes to `known`: it is true, so it must never
   count as a wrong answer.

A repaired graph is repaired already: doing it again changes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from jaxtyping import Bool
from safetensors.torch import save_file

from mocme.data.formats.streams import BOM
from mocme.data.formats.writers import write_tsv
from mocme.data.ingest.reader import settings_of
from mocme.data.modality import encoded_path, read_safetensors
from mocme.data.quality.raw_rows import RawGraph, Rows

HOLDOUT = 0.05
ENOUGH = 0.1
SEED = 0
CHANGES = "changes.json"


@dataclass(frozen=True)
class Change:
    """One change of a split.

    Attributes:
        rows: how many rows were removed from the split, or added to it.
        left: how many rows the split has after it.
    """

    split: str
    what: str
    rows: int
    left: int

    def __str__(self) -> str:
        return f"{self.split}: {self.what}: {self.rows:,} rows ({self.left:,} left)"


def repair(data: str | Path | RawGraph, out: str | Path) -> list[Change]:
    """Write the repaired splits of a graph as a folder that `load` reads.

    Ids stay as they are. Modalities are not copied: a `graph.toml` in `out` points at the files
    where they lie, relative to `out`. What was changed also stands in ``changes.json``.

    Args:
        data: what `load` takes, or rows that were read already.
        out: a folder that is not there yet, or empty.

    Returns:
        Every change; none where there is nothing to repair (the folder is written anyway).

    Raises:
        ValueError: `out` is not free, a name cannot stand in a TSV file, or an input is wrong.
    """
    target = Path(out)
    if target.is_symlink() or target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ValueError(f"{target}: is there already; name a folder that is not there, or empty")
    released = data if isinstance(data, RawGraph) else RawGraph.read(data)
    for vocabulary in (released.graph.entities, released.graph.relations):
        _check_names(vocabulary.names, vocabulary.what)
    rows, changes = repaired(released)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        reason = f"cannot be written ({error.strerror}); name another folder"
        raise ValueError(f"{target}: {reason}") from error
    try:
        _write(made, target, released, rows, changes)
        # The folder of a temporary file is its owner's alone.
        made.chmod(0o777 & ~_umask())
        if target.is_dir():
            target.rmdir()
        made.rename(target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return changes


def repaired(released: RawGraph) -> tuple[dict[str, Rows], list[Change]]:
    """Repaired rows by split, in the order in which they were released, and every change."""
    table = _Table(released)
    for split in released.rows:
        table.keep(split, table.first(split), "removed, for they repeat a row of the split")
    for split in ("valid", "test"):
        table.keep(split, ~table.within(split, "train"), "removed, for they are in train")
    table.keep("valid", ~table.within("valid", "test"), "removed, for they are in test")
    _hold_out(table)
    for split in ("train", "valid", "test"):
        table.keep("known", ~table.within("known", split), f"removed, for they are in {split}")
    table.add_known()
    return {split: rows for split, rows in table.rows.items() if len(rows)}, table.changes


class _Table:
    """Rows by split while they change."""

    def __init__(self, released: RawGraph) -> None:
        self.released = released
        self.rows, self.keys = dict(released.rows), dict(released.keys)
        self.changes: list[Change] = []

    def first(self, split: str) -> Bool[np.ndarray, " n"]:
        """Which rows are the first of their fact."""
        _, place = np.unique(self.keys[split], return_index=True)
        found = np.zeros(len(self.keys[split]), bool)
        found[place] = True
        return found

    def within(self, split: str, other: str) -> Bool[np.ndarray, " n"]:
        """Which rows of a split are in another one."""
        nothing = np.empty(0, np.int64)
        return np.isin(self.keys.get(split, nothing), self.keys.get(other, nothing))

    def keep(self, split: str, chosen: Bool[np.ndarray, " n"], why: str) -> None:
        """Keep some rows of a split and note how many go."""
        if chosen.all():
            return
        self.rows[split], self.keys[split] = self.rows[split][chosen], self.keys[split][chosen]
        self._note(split, why, int((~chosen).sum()))

    def add(self, split: str, rows: Rows, keys: np.ndarray, why: str) -> None:
        """Add rows at the end of a split and note how many come."""
        if split in self.rows:
            rows = np.concatenate([self.rows[split], rows])
            keys = np.concatenate([self.keys[split], keys])
        before = len(self.rows.get(split, ()))
        self.rows[split], self.keys[split] = rows, keys
        self._note(split, why, len(rows) - before)

    def add_known(self) -> None:
        """Add every released fact that no split holds any more."""
        held = np.concatenate(list(self.keys.values()))
        for split in self.released.rows:
            rows, keys = self.released.rows[split], self.released.keys[split]
            lost = np.flatnonzero(~np.isin(keys, held))
            if len(lost):
                _, first = np.unique(keys[lost], return_index=True)
                lost = lost[np.sort(first)]
                self.add("known", rows[lost], keys[lost], f"added, for {split} holds them no more")
                held = np.concatenate([held, keys[lost]])

    def _note(self, split: str, why: str, rows: int) -> None:
        self.changes.append(Change(split, why, rows, len(self.rows[split])))


def _hold_out(table: _Table) -> None:
    """Replace validation by a part of train where too little is left of it."""
    train = table.rows["train"]
    size = max(1, round(HOLDOUT * len(train)))
    if "valid" not in table.rows or len(table.rows["valid"]) >= ENOUGH * size or len(train) < 2:
        return
    generator = torch.Generator().manual_seed(SEED)
    drawn = np.zeros(len(train), bool)
    drawn[torch.randperm(len(train), generator=generator)[:size].numpy()] = True
    rows, keys = train[drawn], table.keys["train"][drawn]
    nothing = np.zeros(len(table.rows["valid"]), bool)
    why = f"removed, for they are fewer than {ENOUGH:.0%} of a hold-out of {HOLDOUT:.0%} of train"
    table.keep("valid", nothing, why)
    table.keep("train", ~drawn, f"moved to valid, a hold-out of {HOLDOUT:.0%} with seed {SEED}")
    table.add(
        "valid", rows, keys, f"moved from train, a hold-out of {HOLDOUT:.0%} with seed {SEED}"
    )


def _write(
    folder: Path,
    target: Path,
    released: RawGraph,
    rows: Mapping[str, Rows],
    changes: Sequence[Change],
) -> None:
    graph = released.graph
    entities, relations = np.array(graph.entities, object), np.array(graph.relations, object)
    for split in rows:
        heads, asked, tails = rows[split].T
        columns = (entities[heads], relations[asked], entities[tails])
        write_tsv(folder / f"{split}.tsv", zip(*columns, strict=True))
    _put(folder / "entities.txt", graph.entities)
    _put(folder / "relations.txt", graph.relations)
    name = f"{graph.name} (repaired)" if changes else graph.name
    declared = {**_declared(released, target), "name": name}
    (folder / "graph.toml").write_text(tomli_w.dumps(declared), encoding="utf-8")
    # Repair keeps the list of entities, which what is encoded is bound to.
    for encoded in graph.encode:
        source = Path(graph.folder or ".") / str(graph.modalities[encoded]["path"])
        if source.is_file():
            target_file = folder / encoded_path(encoded)
            target_file.parent.mkdir(exist_ok=True)
            tensors, metadata = read_safetensors(source)
            if metadata.get("settings") == settings_of(graph.encode[encoded]):
                # The same, but for paths that lead back to the old folder.
                metadata["settings"] = settings_of(declared["encode"][encoded])
            save_file(tensors, target_file, metadata)
    record = {
        "graph": graph.name,
        "inputs": {Path(path).name: digest for path, digest in graph.inputs.items()},
        "holdout": {"share": HOLDOUT, "seed": SEED, "where valid has less than": ENOUGH},
        "rows before": {split: len(found) for split, found in released.rows.items()},
        "rows after": {split: len(found) for split, found in rows.items()},
        "changes": [{**asdict(change), "text": str(change)} for change in changes],
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    (folder / CHANGES).write_text(text, encoding="utf-8")


def _put(path: Path, names: Iterable[str]) -> None:
    path.write_bytes("".join(f"{name}\n" for name in names).encode())


def _declared(released: RawGraph, target: Path) -> dict[str, Any]:
    """What `graph.toml` says, with paths that lead from the new folder to the old files."""
    graph = released.graph
    home = Path(graph.folder or ".").resolve()
    declared: dict[str, Any] = {"modalities": dict(graph.modalities)} if graph.modalities else {}
    if released.folder is not None and (path := released.folder / "graph.toml").is_file():
        declared = tomllib.loads(path.read_text(encoding="utf-8"))

    def moved(value: Any, key: str = "") -> Any:
        if isinstance(value, Mapping):
            return {inner: moved(item, inner) for inner, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [moved(item, key) for item in value]
        there = (home / value) if isinstance(value, str) and value and key != "kind" else None
        # A folder of files too, where a list of paths names one.
        if there is not None and (there.is_file() or (key == "paths" and there.is_dir())):
            return Path(os.path.relpath(home / value, target.resolve())).as_posix()
        return value

    return {key: moved(v) if isinstance(v, Mapping) else v for key, v in declared.items()}


def _check_names(names: Sequence[str], what: str) -> None:
    """Refuse names that a TSV file would not give back."""
    problems: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("is empty", lambda name: not name),
        ("holds a tab", lambda name: "\t" in name),
        ("holds a line feed", lambda name: "\n" in name),
        ("ends with a carriage return", lambda name: name.endswith("\r")),
        ("starts with a byte order mark", lambda name: name.encode().startswith(BOM)),
    )
    for problem, wrong in problems:
        bad = next(filter(wrong, names), None)
        if bad is not None:
            raise ValueError(
                f"the {what} name {bad!r} {problem}, which a TSV file cannot hold; rename it, or "
                f"repair the graph in memory with mocme.data.quality.repair.repaired"
            )


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
