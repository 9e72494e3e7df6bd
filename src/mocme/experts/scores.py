"""Scores that another program computed, as an expert: a file of scores, or a Python function."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, final

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mocme.core.digest import file_digest
from mocme.core.finite import all_finite
from mocme.core.registry import CodeName, import_name
from mocme.core.text_formats import parse_json
from mocme.data.graph import Graph, Queries, UnknownName
from mocme.data.modality import Form
from mocme.experts.base import (
    DenseExpert,
    ExpertSettings,
    Extension,
    FitTask,
    Packed,
    Reason,
)
from mocme.storage.tensor_schema import Field, check_tensors
from mocme.storage.tensor_tree import load_tensors, save_tensors

FORMAT = "mocme scores 1"
# Receives ids of B heads and B directed relations (r + R asks for the heads of r); returns (B, N).
ScoreFunction = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True, kw_only=True)
class ScoreSettings(ExpertSettings):
    """Scores of another program: one of `path` and `function`.

    Args:
        path: a file that `write_scores` wrote, from the graph's folder.
        function: ``package.module:name`` of a function (heads, relations) -> (B, N), imported only
            if `FitTask.trust_code` says that the code is trusted.
    """

    usable: ClassVar[tuple[Form, ...]] = ()
    refittable: ClassVar[bool] = False

    path: str = ""
    function: CodeName = CodeName("")

    def __post_init__(self) -> None:
        if bool(self.path) == bool(self.function):
            raise ValueError("scores need either a path or a function")
        if self.function and ":" not in self.function:
            raise ValueError(f"function must be package.module:name, not {self.function!r}")

    def fit(self, task: FitTask) -> tuple[ScoreExpert, dict[str, Any]]:
        if self.function:
            return self._imported(task), {"function": self.function}
        path = Path(task.graph.folder or ".") / self.path
        table = ScoreTable.read(path, task.graph)
        record = {"path": str(path), "sha256": file_digest(path), "queries": len(table.key)}
        return ScoreExpert(task.name, table, task.graph.num_entities), record

    def unpacked(self, packed: Packed, task: FitTask) -> ScoreExpert:
        if self.function:
            return self._imported(task)
        tensors, _ = packed
        count, relations = task.graph.num_entities, 2 * task.graph.num_relations
        ids = Field(torch.int64, ("queries",), low=0, high=count * relations - 1, order="distinct")
        table = Field(torch.float32, ("queries", count))
        try:
            check_tensors(tensors, {"key": ids, "scores": table})
        except ValueError as error:
            raise ValueError(
                f"{task.name}: the scores are not those of {count} entities: {error}"
            ) from error
        key, scores = tensors["key"], tensors["scores"]
        return ScoreExpert(task.name, ScoreTable(key, scores, relations), count)

    def _imported(self, task: FitTask) -> ScoreExpert:
        where = f"experts.{task.name}: function"
        function = import_name(self.function, where, trust_code=task.trust_code)
        if not callable(function):
            raise ValueError(f"function {self.function!r} is not a function")
        return ScoreExpert(task.name, function, task.graph.num_entities)


@final
@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of Q queries.

    Attributes:
        key: head * relations + relation of each query, ascending.
        scores: of each query, for all N entities.
        relations: number of directed relations.
    """

    key: Int[Tensor, " Q"]
    scores: Float[Tensor, "Q N"]
    relations: int

    def __call__(self, heads: Tensor, relations: Tensor) -> Tensor:
        """Scores of all entities.

        Raises:
            ValueError: there are no scores for a query.
        """
        key = heads * self.relations + relations
        if len(missing := (~torch.isin(key, self.key)).nonzero().flatten()):
            query = int(missing[0])
            raise ValueError(
                f"the score file has no scores for head {int(heads[query])} and relation "
                f"{int(relations[query])}; write scores of all queries that will be asked"
            )
        return self.scores[torch.searchsorted(self.key, key)]

    @staticmethod
    def read(path: Path, graph: Graph) -> ScoreTable:
        """The scores of a file, in the ids of a graph; entities that the graph lacks are left out.

        Raises:
            ValueError: the file is not one of scores, lacks an entity of the graph, names a
                relation that the graph lacks, or has a score that is not finite.
        """
        file = _ScoreFile.read(path)
        column = _ids(file.entities, list(graph.entities), f"{path}: an entity")
        try:
            directed = torch.tensor([graph.relations.id(name) for name in file.relations])
        except UnknownName as error:
            raise ValueError(f"{path}: {error}") from error
        directed = torch.cat([directed, directed + graph.num_relations])
        ids = [-1 if id is None else id for id in graph.entities.find(file.entities)]
        head = torch.tensor(ids, dtype=torch.int64)[file.head]
        kept = (head >= 0).nonzero().flatten()
        key = head[kept] * (2 * graph.num_relations) + directed[file.relation[kept]]
        order = torch.argsort(key)
        scores = file.scores[kept[order]][:, column]
        _check(str(path), key, scores)
        return ScoreTable(key[order], scores, 2 * graph.num_relations)


class _ScoreFile(NamedTuple):
    """A file of scores as it is: ids are positions in its own names."""

    entities: list[str]
    relations: list[str]
    head: Int[Tensor, " Q"]
    relation: Int[Tensor, " Q"]
    scores: Float[Tensor, "Q N"]

    @staticmethod
    def read(path: Path) -> _ScoreFile:
        """Read a file.

        Raises:
            ValueError: it is not there, is not one of scores, or is damaged.
        """
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file; write it with write_scores")
        try:
            with safe_open(path, "pt") as file:
                metadata = dict(file.metadata() or {})
            tensors = load_tensors(path, "cpu")
        except SafetensorError as error:
            raise ValueError(f"{path}: is not a safetensors file ({error})") from error
        names = ("head", "relation", "scores")
        if metadata.get("format") != FORMAT or not set(names) <= set(tensors):
            raise ValueError(f"{path}: is not a file of scores; write it with write_scores")
        head, relation, scores = (tensors[name] for name in names)
        try:
            entities, relations = (parse_json(metadata[name]) for name in ("entities", "relations"))
            sizes = len(entities), 2 * len(relations)
            fits = head.shape == relation.shape and scores.shape == (len(head), sizes[0])
            for ids, size in zip((head, relation), sizes, strict=True):
                fits = fits and ids.dtype == torch.int64
                fits = fits and bool(((ids >= 0) & (ids < size)).all())
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: is damaged; write it again with write_scores") from error
        if not fits:
            raise ValueError(f"{path}: is damaged; write it again with write_scores")
        return _ScoreFile(entities, relations, head, relation, scores.float())


def write_scores(path: str | Path, graph: Graph, queries: Queries, scores: Tensor) -> Path:
    """Write scores as a file that the expert ``scores`` reads.

    Args:
        path: to write, ``.safetensors``.
        graph: whose ids the queries use.
        queries: Q distinct queries; relations from R on are inverse ones.
        scores: (Q, N), finite.

    Raises:
        ValueError: the shapes do not fit, a query occurs twice, or a score is not finite.
    """
    if scores.shape != (len(queries), graph.num_entities):
        expected = (len(queries), graph.num_entities)
        raise ValueError(f"scores have the shape {tuple(scores.shape)}; needed is {expected}")
    _check("write_scores", queries.head * (2 * graph.num_relations) + queries.relation, scores)
    metadata = {
        "format": FORMAT,
        "entities": json.dumps(list(graph.entities), ensure_ascii=False),
        "relations": json.dumps(list(graph.relations), ensure_ascii=False),
    }
    tensors = {"head": queries.head, "relation": queries.relation, "scores": scores.float()}
    save_tensors(Path(path), tensors, metadata)
    return Path(path)


@final
class ScoreExpert(DenseExpert):
    """Scores of a table or a function. It cannot be fitted again on other facts.

    An added entity gets the mean score of a query as an answer, and a query about it gets equal
    scores: the expert knows nothing of it.

    Args:
        name: of the expert.
        function: (heads, directed relations) -> (B, N).
        num_entities: N, of the training entities.
        added: entities added after training.
    """

    def __init__(
        self, name: str, function: ScoreFunction, num_entities: int, added: int = 0
    ) -> None:
        self.name, self.reads = name, ()
        self.function, self.num_entities, self.added = function, num_entities, added

    def score(self, queries: Queries, candidates: Tensor | None = None) -> Float[Tensor, "B C"]:
        """Scores of candidates.

        Raises:
            ValueError: the function returns another shape, or the file lacks a query.
        """
        trained = queries.head < self.num_entities
        scores = torch.zeros(len(queries), self.num_entities + self.added)
        if bool(trained.any()):
            known = self.function(queries.head[trained], queries.relation[trained])
            expected = (int(trained.sum()), self.num_entities)
            if tuple(known.shape) != expected:
                raise ValueError(
                    f"{self.name}: scores have the shape {tuple(known.shape)}; needed is {expected}"
                )
            known = known.detach().float().cpu()
            mean = known.mean(1, keepdim=True).expand(-1, self.added)
            scores[trained] = torch.cat([known, mean], 1)
        if candidates is None:
            return scores
        return scores[:, candidates] if candidates.ndim == 1 else scores.gather(1, candidates)

    def explain(self, head: int, relation: int, answer: int) -> Sequence[Reason]:
        """No reasons: nothing is known of how the scores came about."""
        return ()

    def extended(self, extension: Extension) -> ScoreExpert:
        count = extension.graph.num_entities - self.num_entities
        return ScoreExpert(self.name, self.function, self.num_entities, count)

    def packed(self) -> Packed:
        if isinstance(self.function, ScoreTable):
            return {"key": self.function.key, "scores": self.function.scores}, {}
        return {"none": torch.zeros(0)}, {}


def _check(what: str, key: Int[Tensor, " Q"], scores: Tensor) -> None:
    """Refuse repeated queries and scores that are not finite."""
    if len(torch.unique(key)) < len(key):
        raise ValueError(f"{what}: a query occurs twice")
    if not all_finite(scores):
        raise ValueError(f"{what}: there is a score that is NaN or infinite")


def _ids(names: Sequence[str], wanted: Sequence[str], what: str) -> Tensor:
    ids = {name: index for index, name in enumerate(names)}
    if missing := [name for name in wanted if name not in ids]:
        raise ValueError(f"{what} of the graph is missing: {missing[0]!r}")
    return torch.tensor([ids[name] for name in wanted])
