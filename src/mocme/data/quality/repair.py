"""The `repaired` splits of a graph: distinct rows, and no row of valid or test in another split.

1. Of rows that repeat a fact within a split, the first is kept.
2. Rows of valid and of test that are in train are removed.
3. Rows of valid that are in test are removed.
4. If valid then has less than `ENOUGH` of the rows of a hold-out of the fraction `HOLDOUT` of
   train, it is replaced by that hold-out: distinct training facts drawn without replacement with
   seed 0, regardless of the seed of a training.
5. A published fact that is then in no other split is added to `known`: it is true, so it must not
   count as a wrong answer.

Repair is idempotent: a repaired graph is not changed by another repair.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from jaxtyping import Bool
from safetensors.torch import save_file

from mocme.data.formats.kinds import tsv
from mocme.data.formats.streams import BOM
from mocme.data.formats.writers import write_names
from mocme.data.ingest.reader import LISTS, read_graph_toml, settings_json
from mocme.data.modality import encoded_path
from mocme.data.modality_files import read_safetensors
from mocme.data.quality.raw_rows import Keys, RawGraph, Rows
from mocme.storage.workspace import new_folder

HOLDOUT = 0.05
ENOUGH = 0.1
SEED = 0
CHANGES = "changes.json"


@dataclass(frozen=True)
class Change:
    """One change of a split.

    Attributes:
        what: was changed, and why.
        rows: removed from the split or added to it.
        left: rows of the split after the change.
    """

    split: str
    what: str
    rows: int
    left: int

    def __str__(self) -> str:
        return f"{self.split}: {self.what}: {self.rows:,} rows ({self.left:,} left)"


def repair(data: str | Path | RawGraph, out: str | Path) -> list[Change]:
    """Write the repaired splits of a graph as a folder that `load` reads.

    Ids are unchanged. Modalities are not copied: a `graph.toml` in `out` refers to their files,
    relative to `out`. The changes are also written to ``changes.json``.

    Args:
        data: what `load` takes, or rows that were already read.
        out: a new or empty folder.

    Returns:
        Every change; none if there is nothing to repair (the folder is written anyway).

    Raises:
        ValueError: `out` exists or cannot be written, a TSV file cannot hold a name, or an input
            is invalid.
    """
    target = Path(out)
    if target.is_symlink() or target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ValueError(f"{target}: already exists; name a new or empty folder")
    raw = data if isinstance(data, RawGraph) else RawGraph.read(data)
    for vocabulary in (raw.graph.entities, raw.graph.relations):
        _check_names(vocabulary.names, vocabulary.what)
    rows, changes = repair_rows(raw)
    with new_folder(target) as folder:
        _write(folder, target, raw, rows, changes)
    return changes


def repair_rows(raw: RawGraph) -> tuple[dict[str, Rows], list[Change]]:
    """Repaired rows by split, in their published order, and every change."""
    table = _SplitTable(raw)
    for split in raw.rows:
        table.keep(split, table.is_first(split), "removed because they repeat a row of the split")
    for split in ("valid", "test"):
        table.keep(split, ~table.is_in(split, "train"), "removed because they are in train")
    table.keep("valid", ~table.is_in("valid", "test"), "removed because they are in test")
    _hold_out(table)
    for split in ("train", "valid", "test"):
        table.keep("known", ~table.is_in("known", split), f"removed because they are in {split}")
    table.add_known()
    return {split: rows for split, rows in table.rows.items() if len(rows)}, table.changes


class _SplitTable:
    """Rows and keys by split, with a record of every change."""

    def __init__(self, raw: RawGraph) -> None:
        self.raw = raw
        self.rows, self.keys = dict(raw.rows), dict(raw.keys)
        self.changes: list[Change] = []

    def is_first(self, split: str) -> Bool[np.ndarray, " n"]:
        """Which rows of a split are the first of their fact."""
        _, indices = np.unique(self.keys[split], return_index=True)
        mask = np.zeros(len(self.keys[split]), bool)
        mask[indices] = True
        return mask

    def is_in(self, split: str, other: str) -> Bool[np.ndarray, " n"]:
        """Which rows of a split are in another one."""
        nothing = np.empty(0, np.int64)
        return np.isin(self.keys.get(split, nothing), self.keys.get(other, nothing))

    def keep(self, split: str, kept: Bool[np.ndarray, " n"], what: str) -> None:
        """Remove the other rows of a split and record the change, if there are any."""
        if kept.all():
            return
        self.rows[split], self.keys[split] = self.rows[split][kept], self.keys[split][kept]
        self._record(split, what, int((~kept).sum()))

    def add(self, split: str, rows: Rows, keys: Keys, what: str) -> None:
        """Add rows at the end of a split and record the change."""
        added = len(rows)
        if split in self.rows:
            rows = np.concatenate([self.rows[split], rows])
            keys = np.concatenate([self.keys[split], keys])
        self.rows[split], self.keys[split] = rows, keys
        self._record(split, what, added)

    def add_known(self) -> None:
        """Add every published fact that is in no split anymore to known."""
        present = np.concatenate(list(self.keys.values()))
        for split in self.raw.rows:
            rows, keys = self.raw.rows[split], self.raw.keys[split]
            lost = np.flatnonzero(~np.isin(keys, present))
            if len(lost):
                _, first = np.unique(keys[lost], return_index=True)
                lost = lost[np.sort(first)]
                what = f"added because they are no longer in {split}"
                self.add("known", rows[lost], keys[lost], what)
                present = np.concatenate([present, keys[lost]])

    def _record(self, split: str, what: str, rows: int) -> None:
        self.changes.append(Change(split, what, rows, len(self.rows[split])))


def _hold_out(table: _SplitTable) -> None:
    """Replace valid by a part of train if too few of its rows are left."""
    train = table.rows["train"]
    size = max(1, round(HOLDOUT * len(train)))
    if "valid" not in table.rows or len(table.rows["valid"]) >= ENOUGH * size or len(train) < 2:
        return
    generator = torch.Generator().manual_seed(SEED)
    drawn = np.zeros(len(train), bool)
    drawn[torch.randperm(len(train), generator=generator)[:size].numpy()] = True
    rows, keys = train[drawn], table.keys["train"][drawn]
    none = np.zeros(len(table.rows["valid"]), bool)
    holdout = f"a hold-out of {HOLDOUT:.0%}"
    table.keep(
        "valid", none, f"removed because they are fewer than {ENOUGH:.0%} of {holdout} of train"
    )
    table.keep("train", ~drawn, f"moved to valid, {holdout} with seed {SEED}")
    table.add("valid", rows, keys, f"moved from train, {holdout} with seed {SEED}")


def _write(
    folder: Path,
    target: Path,
    raw: RawGraph,
    rows: Mapping[str, Rows],
    changes: Sequence[Change],
) -> None:
    """Write all files to a folder that will be moved to `target`."""
    graph = raw.graph
    entities, relations = np.array(graph.entities, object), np.array(graph.relations, object)
    for split in rows:
        heads, relation_ids, tails = rows[split].T
        columns = (entities[heads], relations[relation_ids], entities[tails])
        tsv.write(folder / f"{split}.tsv", zip(*columns, strict=True))
    for file_name, vocabulary in zip(LISTS, (graph.entities, graph.relations), strict=True):
        write_names(folder / file_name, vocabulary)
    name = f"{graph.name} (repaired)" if changes else graph.name
    content = {**_graph_toml(raw, target), "name": name}
    (folder / "graph.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
    # Encoded features are bound to the list of entities, which is unchanged.
    for modality in graph.encode:
        source = Path(graph.folder or ".") / str(graph.modalities[modality]["path"])
        if source.is_file():
            copy = folder / encoded_path(modality)
            copy.parent.mkdir(exist_ok=True)
            tensors, metadata = read_safetensors(source)
            if metadata.get("settings") == settings_json(graph.encode[modality]):
                # The same settings, except for paths that now lead to the original folder.
                metadata["settings"] = settings_json(content["encode"][modality])
            save_file(tensors, copy, metadata)
    record = {
        "graph": graph.name,
        "inputs": {Path(path).name: digest for path, digest in graph.inputs.items()},
        "holdout": {"share": HOLDOUT, "seed": SEED, "where valid has less than": ENOUGH},
        "rows before": {split: len(before) for split, before in raw.rows.items()},
        "rows after": {split: len(after) for split, after in rows.items()},
        "changes": [{**asdict(change), "text": str(change)} for change in changes],
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    (folder / CHANGES).write_text(text, encoding="utf-8")


def _graph_toml(raw: RawGraph, target: Path) -> dict[str, Any]:
    """The content of `graph.toml`, with paths from the new folder to the original files."""
    graph = raw.graph
    home = Path(graph.folder or ".").resolve()
    content: dict[str, Any] = {} if raw.folder is None else read_graph_toml(raw.folder)
    if not content and graph.modalities:
        content = {"modalities": dict(graph.modalities)}

    def relocated(value: Any, key: str = "") -> Any:
        if isinstance(value, Mapping):
            return {inner: relocated(item, inner) for inner, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [relocated(item, key) for item in value]
        path = (home / value) if isinstance(value, str) and value and key != "kind" else None
        # A list of paths may also name a folder of files.
        if path is not None and (path.is_file() or (key == "paths" and path.is_dir())):
            return Path(os.path.relpath(path, target.resolve())).as_posix()
        return value

    return {key: relocated(v) if isinstance(v, Mapping) else v for key, v in content.items()}


def _check_names(names: Sequence[str], what: str) -> None:
    """Refuse names that a TSV file cannot hold.

    Args:
        what: the vocabulary, for the error.

    Raises:
        ValueError: with the first such name.
    """
    problems: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("is empty", lambda name: not name),
        ("contains a tab", lambda name: "\t" in name),
        ("contains a line feed", lambda name: "\n" in name),
        ("ends with a carriage return", lambda name: name.endswith("\r")),
        ("starts with a byte order mark", lambda name: name.encode().startswith(BOM)),
    )
    for problem, has_problem in problems:
        name = next(filter(has_problem, names), None)
        if name is not None:
            raise ValueError(
                f"the {what} name {name!r} {problem}, which a TSV file cannot hold; rename it, or "
                f"repair the graph in memory with mocme.data.quality.repair.repair_rows"
            )
