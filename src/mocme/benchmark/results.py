"""What a benchmark's archive holds: a JSON file and ranks for each run, failures, test log.

| member                               | content                                              |
|--------------------------------------|------------------------------------------------------|
| `ROW/GRAPH/seed-N.json`              | the result, with the configuration under `config`    |
| `ROW/GRAPH/seed-N.ranks.safetensors` | 2 x realistic rank by split, smallest unsigned type  |
| `ROW/GRAPH/seed-N.failure.json`      | why the run has no result                            |
| `test-evaluations.jsonl`             | one line for each ranking of a test split            |
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from safetensors import numpy as safetensors_numpy

from mocme.benchmark.archive import ResultArchive, ResultError
from mocme.data.graph import Graph
from mocme.evaluation.ranking import Ranks

FORMAT = 2
TEST_LOG = "test-evaluations.jsonl"


@dataclass(frozen=True)
class ResultFiles:
    """Members of a benchmark's archive that belong to one run.

    Attributes:
        stem: ``ROW/GRAPH/seed-N``.
    """

    archive: ResultArchive
    stem: str

    @property
    def result_name(self) -> str:
        return f"{self.stem}.json"

    @property
    def ranks_name(self) -> str:
        return f"{self.stem}.ranks.safetensors"

    @property
    def failure_name(self) -> str:
        return f"{self.stem}.failure.json"

    def __str__(self) -> str:
        return f"{self.archive.path}: {self.result_name}"

    @property
    def remedy(self) -> str:
        """How to delete the result, so that the run is made again."""
        pattern = shlex.quote(f"{self.stem}.*")
        return f"delete it (zip -d {shlex.quote(str(self.archive.path))} {pattern})"

    def read_result(self) -> dict[str, Any] | None:
        """The result, or None if there is none.

        Raises:
            ResultError: it is damaged, or of a newer format.
        """
        return self._read_json(self.result_name)

    def read_failure(self) -> dict[str, Any] | None:
        """The failure, or None if there is none.

        Raises:
            ResultError: it is damaged, or of a newer format.
        """
        return self._read_json(self.failure_name)

    def write_result(
        self,
        result: Mapping[str, Any],
        double_ranks: Mapping[str, Int[torch.Tensor, " n"]],
        questions: Mapping[str, str],
    ) -> dict[str, Any]:
        """Store a result with its ranks, in the place of an earlier one or of a failure.

        Args:
            double_ranks: 2 x realistic ranks by split.
            questions: digests of the questions by split.

        Returns:
            The result as it is stored.
        """
        packed = pack_ranks(double_ranks)
        ranks = {"sha256": hashlib.sha256(packed).hexdigest(), "questions": dict(questions)}
        stored = {"format": FORMAT, **result, "ranks": ranks}

        def edit(members: dict[str, bytes]) -> None:
            members.pop(self.failure_name, None)
            members[self.result_name] = json_bytes(stored)
            members[self.ranks_name] = packed

        self.archive.update(edit)
        return stored

    def write_failure(self, failure: Mapping[str, Any]) -> None:
        """Store why a run failed."""
        content = json_bytes({"format": FORMAT, **failure})
        self.archive.update(lambda members: members.update({self.failure_name: content}))

    def read_ranks(self, result: Mapping[str, Any], split: str) -> Int[np.ndarray, " n"]:
        """2 x realistic ranks (int32) that belong to a result, in the order of `canonical`.

        Raises:
            ResultError: they are missing, or not those that were written with the result.
        """
        packed = self.archive.read(self.ranks_name)
        if packed is None or hashlib.sha256(packed).hexdigest() != result["ranks"]["sha256"]:
            raise ResultError(
                f"{self.archive.path}: {self.ranks_name} is missing or was changed; restore the "
                f"archive from a copy, or delete the result ({self.remedy}) and run the benchmark "
                f"again"
            )
        return safetensors_numpy.load(packed)[split].astype(np.int32)

    def _read_json(self, name: str) -> dict[str, Any] | None:
        content = self.archive.read(name)
        if content is None:
            return None
        where = f"{self.archive.path}: {name}"
        try:
            table: dict[str, Any] = json.loads(content)
            newer = table["format"] > FORMAT
        except (json.JSONDecodeError, UnicodeDecodeError, LookupError, TypeError) as error:
            raise ResultError(
                f"{where} is damaged; {self.remedy} and run the benchmark again"
            ) from error
        if newer:
            raise ResultError(f"{where} has the format {table['format']}; upgrade mocme to read it")
        return table


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """JSON as the archive holds it."""
    return f"{json.dumps(value, ensure_ascii=False, indent=1)}\n".encode()


# -- ranks -----------------------------------------------------------------------------------------


def canonical(ranks: Ranks, graph: Graph) -> tuple[Int[torch.Tensor, " n"], str]:
    """Ranks in an order that is the same for all rows, and a digest of the questions.

    Returns:
        2 x realistic ranks (int32), in ascending order of head, relation and answer, and the
        SHA-256 of these questions and of the names that their ids stand for.
    """
    order = np.lexsort((ranks.answer.numpy(), ranks.relation.numpy(), ranks.head.numpy()))
    questions = torch.stack([ranks.head, ranks.relation, ranks.answer], 1).numpy()[order]
    digest = hashlib.sha256((graph.entities.digest() + graph.relations.digest()).encode())
    digest.update(np.ascontiguousarray(questions, dtype="<i8").tobytes())
    # The realistic rank is 1 + above + ties / 2: doubled, it is an integer.
    double_ranks = 2 + 2 * ranks.above + ranks.ties
    return double_ranks[torch.from_numpy(order)].to(torch.int32), digest.hexdigest()


def pack_ranks(double_ranks: Mapping[str, Int[torch.Tensor, " n"]]) -> bytes:
    """2 x realistic ranks by split as safetensors, in the smallest unsigned types that fit."""
    arrays = {split: values.numpy() for split, values in double_ranks.items()}
    small = {
        split: values.astype(np.min_scalar_type(values.max(initial=0)))
        for split, values in arrays.items()
    }
    packed: bytes = safetensors_numpy.save(small, {"holds": "2 x realistic rank"})
    return packed


# -- evaluations of test ---------------------------------------------------------------------------


def log_test_evaluation(archive: ResultArchive, record: Mapping[str, Any]) -> None:
    """Append a line to the log of test evaluations; it is on the disk when this returns.

    It is called before the ranking, so that no test split is ranked without a line.
    """
    line = f"{json.dumps(record, ensure_ascii=False)}\n".encode()

    def edit(members: dict[str, bytes]) -> None:
        earlier = members.get(TEST_LOG, b"")
        # A log that was edited by hand may lack the last line feed.
        separator = b"" if earlier.endswith(b"\n") or not earlier else b"\n"
        members[TEST_LOG] = earlier + separator + line

    archive.update(edit)


def count_test_evaluations(archive: ResultArchive) -> Counter[tuple[str, str]]:
    """Number of test evaluations by row and graph.

    Raises:
        ResultError: a line is unreadable; the message gives its number.
    """
    return Counter(_logged(archive))


def _logged(archive: ResultArchive) -> Iterator[tuple[str, str]]:
    for number, line in enumerate((archive.read(TEST_LOG) or b"").splitlines(), start=1):
        try:
            record = json.loads(line)
            yield record["row"], record["graph"]
        except (ValueError, LookupError, TypeError) as error:
            raise ResultError(
                f"{archive.path}: {TEST_LOG}: line {number} is unreadable; repair it by hand, for "
                f"each line stands for an evaluation of test"
            ) from error
