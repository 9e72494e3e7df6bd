"""A served run with a fixed set of additions; its methods return the JSON of the endpoints."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import torch

from mocme.core.deadline import Check, unlimited
from mocme.data.modality import Pairs
from mocme.experts.embedding.model import STRUCTURE
from mocme.inductive.content import attributes, takes
from mocme.inductive.pairs import accepted_modalities
from mocme.inductive.store import FILE
from mocme.prediction.predictor import Predictor
from mocme.prediction.schema import Question
from mocme.runs.inputs import LoadedRun
from mocme.runs.run import Run
from mocme.serving.entity_content import EntityContent
from mocme.serving.media_files import MediaFile, describe
from mocme.serving.name_search import NameSearch
from mocme.serving.schema.answers import Answer
from mocme.serving.schema.requests import ExplainRequest, MissingRequest, ScoreRequest
from mocme.storage import Stamp


class RunView:
    """A loaded run, ready to answer requests.

    A view does not change: when entities are added to the run or removed, `reloaded` returns a new
    view.

    Args:
        name: name of the run in requests.
        advance: receives (questions done, questions in total) if the run must be calibrated first.
        previous: the previous view of the same run; everything that does not depend on additions
            is taken from it instead of being read again.
        files_from: folders besides the graph's from which texts, numbers and media files of
            entities may be shown.

    Attributes:
        stamp: stamp of the file of additions when it was read.
        additions: the additions by name.
        present: by modality, whether each entity has it, (N,).
        degree: number of distinct facts of each entity.
        info: the body of `RunInfo`.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        device: str = "cpu",
        advance: Callable[[int, int], None] | None = None,
        *,
        previous: RunView | None = None,
        files_from: Sequence[str | Path] = (),
    ) -> None:
        self.name, self.run = name, run
        # Taken before reading: a change during the read makes the view stale, not wrong.
        self.stamp = self.read_stamp()
        self.loaded: LoadedRun = previous.loaded if previous else run.loaded(device, advance)
        added = self.loaded.trained.usable(self.loaded.additions(), str(run.path))
        self.additions = {item.name: item for item in added}
        self.content: EntityContent = (
            previous.content
            if previous
            else EntityContent.read(run, self.loaded.trained.graph, files_from)
        )
        self.predictor: Predictor = self.loaded.predictor(added)
        self.graph = self.predictor.graph
        self.present = {STRUCTURE: self.graph.linked(), **self.predictor.features.present()}
        self.pairs = self.predictor.features.pairs
        self._facts, self._split = self._all_facts()
        self._rows, self._offsets = self._index_facts()
        self.degree: list[int] = self._offsets.diff().tolist()
        self.search = NameSearch(list(self.graph.entities), self.degree)
        # Fill the caches now, so that the first request does not have to wait for them.
        self.predictor.warm_up()
        self.info = self._run_info()

    def read_stamp(self) -> Stamp:
        """Return the stamp of the file of additions now; it is not opened."""
        return self.run.folder.stamp(FILE)

    def reloaded(self) -> RunView:
        """Return a new view of the run with its current additions.

        Raises:
            RunError: the file of additions is damaged.
        """
        return RunView(self.name, self.run, previous=self)

    def _all_facts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the distinct facts of all splits, (F, 3), and the first split of each, (F,)."""
        splits = list(self.graph.splits.values())
        sizes = torch.tensor([len(split) for split in splits])
        split = torch.arange(len(splits)).repeat_interleave(sizes)
        facts, index = torch.unique(torch.cat(splits), dim=0, return_inverse=True)
        first = torch.full((len(facts),), len(splits)).scatter_reduce(0, index, split, "amin")
        return facts, first

    def _index_facts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Index the facts by entity, as compressed sparse rows.

        The facts of entity e are `rows[offsets[e] : offsets[e + 1]]`. A fact that links an entity
        to itself is listed once.
        """
        head, tail = self._facts[:, 0], self._facts[:, 2]
        fact = torch.arange(len(self._facts))
        distinct = head != tail
        entity = torch.cat([head, tail[distinct]])
        order = torch.argsort(entity, stable=True)
        rows = torch.cat([fact, fact[distinct]])[order]
        offsets = torch.searchsorted(entity[order], torch.arange(self.graph.num_entities + 1))
        return rows, offsets

    def _run_info(self) -> dict[str, Any]:
        graph, about = self.graph, self.run.about
        counts = torch.bincount(self._facts[:, 1], minlength=graph.num_relations).tolist()
        return {
            "name": self.name,
            "experiment": self.run.experiment.name,
            "graph": graph.name,
            "seed": int(about["seed"]),
            "entities": graph.num_entities,
            "relations": [
                {"name": name, "facts": counts[relation]}
                for relation, name in enumerate(graph.relations)
            ],
            "facts": {split: len(graph.facts(split)) for split in graph.splits},
            "modalities": [
                {
                    "name": name,
                    "present": int(has.sum()),
                    "pairs": name in self.pairs,
                    **self._raw_content(name),
                }
                for name, has in self.present.items()
            ],
            "probabilities": self.predictor.calibration is not None,
            "notes": [*self.content.notes, *self._calibration_notes()],
            "additions": len(self.additions),
        }

    def _calibration_notes(self) -> list[str]:
        calibration = self.predictor.calibration
        return [calibration.weak] if calibration is not None and calibration.weak else []

    def _raw_content(self, modality: str) -> dict[str, Any]:
        """Describe the raw content from which a modality of a new entity is computed."""
        features = accepted_modalities(self.loaded.trained).get(modality)
        kind = "nothing" if features is None else takes(features)[0]
        names = attributes(features) if features is not None and kind == "numbers" else []
        return {"takes": kind, "attributes": names}

    # -- predictions ---------------------------------------------------------------------------

    def check_names(self, names: Sequence[str], relation: str | None = None) -> None:
        """Check that entities and a relation exist.

        Raises:
            UnknownName: one does not, with near matches.
        """
        for name in names:
            self.graph.entities.id(name)
        if relation is not None:
            self.graph.relations.id(relation)

    def predict(
        self, questions: Sequence[Question], check: Check = unlimited
    ) -> list[dict[str, Any] | Exception]:
        """Answer questions, scored together; an invalid question gets its error as the answer.

        Args:
            check: see `Predictor.ask`.
        """
        try:
            answers = self.predictor.ask(questions, check)
        except ValueError as error:
            if len(questions) == 1:
                return [error]
            # One invalid question fails the whole batch: find out which by asking one by one.
            return [self.predict([question], check)[0] for question in questions]
        return [Answer.of(answer.question, answer) for answer in answers]

    def missing(self, request: MissingRequest, check: Check = unlimited) -> dict[str, Any]:
        """Predict the missing facts of an entity."""
        predictions = self.predictor.missing(
            request.entity, request.k, min_probability=request.min_probability, check=check
        )
        return Answer.of(predictions.question, predictions)

    def score_facts(self, request: ScoreRequest, check: Check = unlimited) -> dict[str, Any]:
        """Score given facts."""
        facts = [(fact.head, fact.relation, fact.tail) for fact in request.facts]
        predictions = self.predictor.score_facts(facts, check)
        return Answer.of(predictions.question, predictions)

    def explain(self, request: ExplainRequest, check: Check = unlimited) -> dict[str, Any]:
        """Explain the score of a fact."""
        fact = (request.head, request.relation, request.tail)
        return asdict(self.predictor.explain(*fact, check))

    # -- browsing ------------------------------------------------------------------------------

    def find_names(self, typed: str, k: int) -> dict[str, Any]:
        """Search entities by name."""
        return {"entities": [self._named_count(entity) for entity in self.search(typed, k)]}

    def _named_count(self, entity: int) -> dict[str, Any]:
        return {"name": self.graph.entities[entity], "facts": self.degree[entity]}

    def entity(self, name: str) -> dict[str, Any]:
        """Describe an entity."""
        entity = self.graph.entities.id(name)
        content = self.content
        texts = content.texts.get(entity, []) or self._addition_texts(name)
        return {
            **self._named_count(entity),
            "in_training": bool(self.present[STRUCTURE][entity]),
            "weights": self.predictor.weights(name),
            "modalities": {
                name: bool(has[entity])
                for name, has in self.present.items()
                if name not in self.pairs
            },
            "pairs": {name: self._count_pairs(pairs, entity) for name, pairs in self.pairs.items()},
            "texts": [{"modality": modality, "text": text} for modality, text in texts],
            "numbers": [
                {"modality": modality, "name": attribute, "value": value}
                for modality, attribute, value in content.numbers.get(entity, [])
            ],
            "files": self._file_links(name, entity),
            "types": content.types.get(entity, []),
            "addition": self._addition_info(name),
        }

    @staticmethod
    def _count_pairs(pairs: Pairs, entity: int) -> int:
        return int(((pairs.head == entity) | (pairs.tail == entity)).sum())

    def _addition_texts(self, name: str) -> list[tuple[str, str]]:
        """Return (modality, text) of an addition; a text of several modalities is listed once."""
        if name not in self.additions:
            return []
        modality_of: dict[str, str] = {}
        for modality, texts in self.additions[name].texts.items():
            for text in texts:
                modality_of.setdefault(text, modality)
        return [(modality, text) for text, modality in modality_of.items()]

    def _addition_info(self, name: str) -> dict[str, Any] | None:
        """Describe how an entity was added; None if the run was trained with it."""
        if name not in self.additions:
            return None
        about = self.additions[name].as_dict()
        return {key: about[key] for key in ("time", "given", "notes")}

    def _file_links(self, name: str, entity: int) -> list[dict[str, Any]]:
        next_index: Counter[str] = Counter()
        links = []
        for modality, path in self.content.files.get(entity, []):
            query = {"run": self.name, "name": name, "modality": modality}
            url = f"/v1/file?{urlencode({**query, 'index': next_index[modality]})}"
            kind, hidden = describe(path, self.content.folders)
            links.append({"modality": modality, "kind": kind, "url": url, "hidden": hidden})
            next_index[modality] += 1
        return links

    def file(self, name: str, modality: str, index: int) -> MediaFile:
        """Open an entity's file; `index` counts its files of the modality.

        Raises:
            LookupError: there is no such file.
            NotShown: it may not be sent.
        """
        files = self.content.files.get(self.graph.entities.id(name), [])
        paths = [path for file_modality, path in files if file_modality == modality]
        if index < len(paths):
            try:
                return MediaFile.open(paths[index], self.content.folders)
            except OSError:
                pass
        raise LookupError(f"{name!r} has no file {index} of the modality {modality!r}")

    def facts(self, name: str, relation: str | None, offset: int, limit: int) -> dict[str, Any]:
        """Return a page of an entity's facts, sorted by relation and then by name."""
        rows = self._fact_rows(self.graph.entities.id(name))
        if relation is not None:
            relation_id = self.graph.relations.id(relation)
            rows = rows[self._facts[rows, 1] == relation_id]
        facts = sorted(
            (self._fact(row) for row in rows.tolist()),
            key=lambda f: (f["relation"], f["head"] != name, f["head"], f["tail"]),
        )
        return {"total": len(facts), "facts": facts[offset : offset + limit]}

    def _fact_rows(self, entity: int) -> torch.Tensor:
        return self._rows[int(self._offsets[entity]) : int(self._offsets[entity + 1])]

    def _fact(self, row: int) -> dict[str, Any]:
        head, relation, tail = self._facts[row].tolist()
        names = self.graph.entities
        return {
            "head": names[head],
            "relation": self.graph.relations[relation],
            "tail": names[tail],
            "split": list(self.graph.splits)[self._split[row]],
        }

    def neighbourhood(self, name: str, limit: int) -> dict[str, Any]:
        """Return an entity, at most `limit` neighbours, and all facts among them."""
        centre = self.graph.entities.id(name)
        neighbours = self._ordered_neighbours(centre)
        shown = [centre, *neighbours[:limit]]
        inside = torch.zeros(self.graph.num_entities, dtype=torch.bool)
        inside[shown] = True
        # Only facts among the shown entities: a hub among the neighbours may have many more.
        among = inside[self._facts[:, 0]] & inside[self._facts[:, 2]]
        edges = [self._fact(row) for row in among.nonzero().flatten().tolist()]
        return {
            "nodes": [self._named_count(entity) for entity in shown],
            "edges": edges,
            "left_out": len(neighbours) - (len(shown) - 1),
        }

    def _ordered_neighbours(self, centre: int) -> list[int]:
        """Return the neighbours of an entity, the most informative first.

        The first neighbour of every relation and direction comes before the second of any; among
        equals, those with few facts come first, because they are the most specific.
        """
        facts = self._facts[self._fact_rows(centre)]
        other = torch.where(facts[:, 0] == centre, facts[:, 2], facts[:, 0]).tolist()
        inverse = (facts[:, 0] != centre).tolist()
        count: Counter[tuple[int, bool]] = Counter()
        order = []
        by_degree = sorted(range(len(facts)), key=lambda i: (self.degree[other[i]], other[i]))
        for index in by_degree:
            group = (int(facts[index, 1]), inverse[index])
            order.append((count[group], self.degree[other[index]], other[index]))
            count[group] += 1
        neighbours = dict.fromkeys(entity for _, _, entity in sorted(order))
        return [entity for entity in neighbours if entity != centre]

    def report(self) -> dict[str, Any]:
        """Return the evaluations, the training log and the calibration."""
        recorded = (self.run.evaluation(split) for split in ("valid", "test"))
        evaluations = [result for result in recorded if result is not None]
        calibration = self.predictor.calibration
        record = None if calibration is None else json.loads(json.dumps(calibration.record))
        return {"evaluations": evaluations, "training": self.run.log(), "calibration": record}
