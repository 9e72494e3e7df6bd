"""Results as files: a JSON of each run, its ranks, its failure, and the list of looks at test."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from mocme.data.graph import Graph
from mocme.evaluation.ranking import Ranks
from mocme.storage.tensor_tree import load_tensors, save_tensors

FORMAT = 1
LOOKS = "test-evaluations.jsonl"


class ResultError(ValueError):
    """A result cannot be read or does not fit; the message names the file and a remedy."""


@dataclass(frozen=True)
class ResultFiles:
    """Where the files of one run's result lie."""

    folder: Path
    stem: str

    @property
    def result(self) -> Path:
        return self.folder / f"{self.stem}.json"

    @property
    def ranks(self) -> Path:
        return self.folder / f"{self.stem}.ranks.safetensors"

    @property
    def failure(self) -> Path:
        return self.folder / f"{self.stem}.failure.json"


def read(path: Path) -> dict[str, Any] | None:
    """A result or a failure, or None if there is none.

    Raises:
        ResultError: it is damaged, or of a newer format.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        if found["format"] > FORMAT:
            raise ResultError(f"{path} has the format {found['format']}; upgrade mocme to read it")
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError, LookupError, TypeError) as error:
        raise ResultError(f"{path} is damaged; delete it and run the bench again") from error
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Put a JSON in its place at once: after a crash there is the old file or the new one."""
    text = json.dumps({"format": FORMAT, **value}, ensure_ascii=False, indent=1)
    _put(path, lambda fresh: fresh.write_bytes(f"{text}\n".encode()))


# -- ranks -----------------------------------------------------------------------------------------


def canonical(ranks: Ranks, graph: Graph) -> tuple[torch.Tensor, str]:
    """Ranks in one order for all rows, and a digest of what was asked.

    Returns:
        Twice the realistic ranks (int32) in ascending order of head, relation and answer, and a
        SHA-256 of these questions and of the names that their numbers stand for.
    """
    order = np.lexsort((ranks.answer.numpy(), ranks.relation.numpy(), ranks.head.numpy()))
    asked = torch.stack([ranks.head, ranks.relation, ranks.answer], 1).numpy()[order]
    total = hashlib.sha256((graph.entities.digest() + graph.relations.digest()).encode())
    total.update(np.ascontiguousarray(asked, dtype="<i8").tobytes())
    twice = 2 + 2 * ranks.above + ranks.ties
    return twice[torch.from_numpy(order)].to(torch.int32), total.hexdigest()


def write_ranks(path: Path, twice: Mapping[str, torch.Tensor]) -> str:
    """Write twice the realistic ranks of each split; returns the file's SHA-256."""
    _put(path, lambda fresh: save_tensors(fresh, twice, {"holds": "2 x realistic rank"}))
    return _digest(path)


def read_ranks(path: Path, result: Mapping[str, Any], split: str) -> Int[np.ndarray, " n"]:
    """Twice the realistic ranks that belong to a result.

    Raises:
        ResultError: the file is missing, or not the one that was written with the result.
    """
    if not path.is_file() or _digest(path) != result["ranks"]["sha256"]:
        raise ResultError(
            f"{path} is missing or was changed; restore it, or delete the .json beside it and run "
            f"the bench again"
        )
    return load_tensors(path, "cpu")[split].numpy()


# -- looks at test ---------------------------------------------------------------------------------


def record_look(folder: Path, record: Mapping[str, Any]) -> None:
    """Add a line to the list of test evaluations; it is on the disk when this returns.

    It is called before the ranking, so that no evaluation can be made without a line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOOKS
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    line = json.dumps(record, ensure_ascii=False) + "\n"
    with path.open("ab") as file:
        file.write(("" if whole else "\n").encode() + line.encode())
        file.flush()
        os.fsync(file.fileno())


def looks(folder: Path) -> Counter[tuple[str, str]]:
    """How often test was evaluated, by row and graph.

    Raises:
        ResultError: naming the line that cannot be read.
    """
    path = folder / LOOKS
    if not path.exists():
        return Counter()
    return Counter(_looked(path, path.read_bytes().splitlines()))


def _looked(path: Path, lines: Iterable[bytes]) -> Iterable[tuple[str, str]]:
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            yield record["row"], record["graph"]
        except (ValueError, LookupError, TypeError) as error:
            raise ResultError(
                f"{path}: line {number} cannot be read; mend it by hand, for each line is a look "
                f"at test"
            ) from error


# -- inside ----------------------------------------------------------------------------------------


def _put(path: Path, fill: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fill(fresh)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
