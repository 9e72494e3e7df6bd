"""A run that is served, with what is added to it at one time: what the endpoints tell of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import torch

from mocme.data.modality import Pairs
from mocme.experts.embedding.model import STRUCTURE
from mocme.inductive.content import attributes, takes
from mocme.inductive.pairs import known
from mocme.inductive.store import FILE
from mocme.prediction.predictor import Predictor
from mocme.prediction.schema import Question
from mocme.runs.inputs import LoadedRun
from mocme.runs.run import Run
from mocme.serving.entity_content import Content, kind_of
from mocme.serving.name_search import NameSearch
from mocme.serving.schema.answers import Answer
from mocme.serving.schema.requests import CheckRequest, ExplainRequest, MissingRequest
from mocme.storage import Stamp


class RunView:
    """A run ready to be asked; every method gives what JSON holds.

    What is added to the run, or taken from it, while it is served changes nothing here: `renewed`
    gives another one.

    Args:
        name: what requests call it.
        advance: is told (questions done, questions in all) where it has to be calibrated first.
        before: the same run as it was served until now; what additions do not change is taken from
            there, not read again.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        device: str = "cpu",
        advance: Callable[[int, int], None] | None = None,
        *,
        before: RunView | None = None,
    ) -> None:
        self.name, self.run = name, run
        # Before they are read: what changes meanwhile is seen at the next look.
        self.stamp = self.present_stamp()
        added = run.additions()
        self.additions = {item.name: item for item in added}
        self.loaded: LoadedRun = before.loaded if before else run.loaded(device, advance)
        self.content: Content = (
            before.content if before else Content.of(run, self.loaded.trained.graph)
        )
        self.predictor: Predictor = self.loaded.predictor(added)
        self.graph = self.predictor.graph
        self.present = {STRUCTURE: self.graph.linked(), **self.predictor.features.present()}
        self.pairs = self.predictor.features.pairs
        self._facts, self._split = self._all_facts()
        self._by_entity = self._index()
        self.degree: list[int] = self._by_entity.diff().tolist()
        self.search = NameSearch(list(self.graph.entities), self.degree)
        # What is made once is made before the first question comes.
        self.predictor.model.frozen()
        _ = self.predictor.linking
        self.about = self._about()

    def present_stamp(self) -> Stamp:
        """What is no longer `stamp` once additions have changed; no file is read."""
        return self.run.folder.stamp(FILE)

    def renewed(self) -> RunView:
        """The run with the additions that it has now.

        Raises:
            RunError: their file is damaged.
        """
        return RunView(self.name, self.run, before=self)

    def _all_facts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Distinct facts of all splits, and the number of the (first) split of each."""
        splits = list(self.graph.splits.values())
        number = torch.arange(len(splits)).repeat_interleave(torch.tensor([len(s) for s in splits]))
        facts, place = torch.unique(torch.cat(splits), dim=0, return_inverse=True)
        first = torch.full((len(facts),), len(splits)).scatter_reduce(0, place, number, "amin")
        return facts, first

    def _index(self) -> torch.Tensor:
        """Where each entity's facts lie in `self._of`; a fact with itself counts once."""
        head, tail = self._facts[:, 0], self._facts[:, 2]
        rows = torch.arange(len(self._facts))
        apart = head != tail
        entity = torch.cat([head, tail[apart]])
        order = torch.argsort(entity, stable=True)
        self._of = torch.cat([rows, rows[apart]])[order]
        found: torch.Tensor = torch.searchsorted(
            entity[order], torch.arange(self.graph.num_entities + 1)
        )
        return found

    def _about(self) -> dict[str, Any]:
        graph, about = self.graph, self.run.folder.about
        counts = torch.bincount(self._facts[:, 1], minlength=graph.num_relations).tolist()
        return {
            "name": self.name,
            "experiment": self.run.experiment.name,
            "graph": graph.name,
            "seed": int(about["seed"]),
            "entities": graph.num_entities,
            "relations": [
                {"name": name, "facts": counts[r]} for r, name in enumerate(graph.relations)
            ],
            "facts": {split: len(graph.facts(split)) for split in graph.splits},
            "modalities": [
                {
                    "name": name,
                    "present": int(has.sum()),
                    "pairs": name in self.pairs,
                    **self._wants(name),
                }
                for name, has in self.present.items()
            ],
            "probabilities": self.predictor.calibration is not None,
            "notes": [*self.content.notes, *self._weak()],
            "additions": len(self.additions),
        }

    def _weak(self) -> list[str]:
        calibration = self.predictor.calibration
        return [calibration.weak] if calibration is not None and calibration.weak else []

    def _wants(self, modality: str) -> dict[str, Any]:
        """What of a new entity a modality is made of."""
        own = known(self.loaded.trained).get(modality)
        kind = "nothing" if own is None else takes(own)[0]
        wanted = attributes(own) if own is not None and kind == "numbers" else []
        return {"takes": kind, "attributes": wanted}

    # -- questions -----------------------------------------------------------------------------

    def known(self, names: Sequence[str], relation: str | None = None) -> None:
        """Check names before a question waits.

        Raises:
            UnknownName: with near matches.
        """
        for name in names:
            self.graph.entities.id(name)
        if relation is not None:
            self.graph.relations.id(relation)

    def ask(self, questions: Sequence[Question]) -> list[dict[str, Any] | Exception]:
        """Answers of questions that are scored together; an error is that of its question."""
        try:
            found = self.predictor.ask(questions)
        except ValueError as error:
            if len(questions) == 1:
                return [error]
            return [self.ask([question])[0] for question in questions]
        return [Answer.of(answer.question, answer) for answer in found]

    def missing(self, asked: MissingRequest) -> dict[str, Any]:
        """What is missing about an entity."""
        found = self.predictor.missing(asked.entity, asked.k, min_probability=asked.min_probability)
        return Answer.of(found.question, found)

    def check(self, asked: CheckRequest) -> dict[str, Any]:
        """Given facts."""
        found = self.predictor.score_facts([(f.head, f.relation, f.tail) for f in asked.facts])
        return Answer.of(found.question, found)

    def explain(self, asked: ExplainRequest) -> dict[str, Any]:
        """What speaks for a fact."""
        return asdict(self.predictor.explain(asked.head, asked.relation, asked.tail))

    # -- looking about -------------------------------------------------------------------------

    def find(self, typed: str, k: int) -> dict[str, Any]:
        """Names as they are typed."""
        return {"entities": [self._named(place) for place in self.search(typed, k)]}

    def _named(self, entity: int) -> dict[str, Any]:
        return {"name": self.graph.entities[entity], "facts": self.degree[entity]}

    def entity(self, name: str) -> dict[str, Any]:
        """An entity, and what is known of it."""
        entity = self.graph.entities.id(name)
        content = self.content
        texts = content.texts.get(entity, []) or self._texts_of(name)
        return {
            **self._named(entity),
            "in_training": bool(self.present[STRUCTURE][entity]),
            "weights": self.predictor.weights(name),
            "modalities": {
                name: bool(has[entity])
                for name, has in self.present.items()
                if name not in self.pairs
            },
            "pairs": {name: self._in_pairs(own, entity) for name, own in self.pairs.items()},
            "texts": [{"modality": modality, "text": text} for modality, text in texts],
            "numbers": [
                {"modality": modality, "name": what, "value": value}
                for modality, what, value in content.numbers.get(entity, [])
            ],
            "files": self._files(name, entity),
            "types": content.types.get(entity, []),
            "addition": self._added(name),
        }

    @staticmethod
    def _in_pairs(own: Pairs, entity: int) -> int:
        return int(((own.head == entity) | (own.tail == entity)).sum())

    def _texts_of(self, name: str) -> list[tuple[str, str]]:
        """Texts that an addition is made of; one for several modalities is told once."""
        if name not in self.additions:
            return []
        found: dict[str, str] = {}
        for modality, own in self.additions[name].texts.items():
            for text in own:
                found.setdefault(text, modality)
        return [(modality, text) for text, modality in found.items()]

    def _added(self, name: str) -> dict[str, Any] | None:
        """How an entity came to be added; None for one that the run was trained with."""
        if name not in self.additions:
            return None
        about = self.additions[name].as_dict()
        return {key: about[key] for key in ("time", "given", "notes")}

    def _files(self, name: str, entity: int) -> list[dict[str, Any]]:
        shown: Counter[str] = Counter()
        found = []
        for modality, path in self.content.files.get(entity, []):
            asked = {"run": self.name, "name": name, "modality": modality}
            address = f"/v1/file?{urlencode({**asked, 'index': shown[modality]})}"
            found.append({"modality": modality, "kind": kind_of(path)[0], "url": address})
            shown[modality] += 1
        return found

    def file(self, name: str, modality: str, index: int) -> Path:
        """The path of an entity's file.

        Raises:
            LookupError: there is none.
        """
        files = self.content.files.get(self.graph.entities.id(name), [])
        own = [path for what, path in files if what == modality]
        if not 0 <= index < len(own) or not own[index].is_file():
            raise LookupError(f"{name!r} has no file {index} of the modality {modality!r}")
        return own[index]

    def facts(self, name: str, relation: str | None, offset: int, limit: int) -> dict[str, Any]:
        """Facts of an entity, by relation and then by name."""
        rows = self._rows(self.graph.entities.id(name))
        if relation is not None:
            wanted = self.graph.relations.id(relation)
            rows = rows[self._facts[rows, 1] == wanted]
        named = sorted(
            (self._fact(row) for row in rows.tolist()),
            key=lambda f: (f["relation"], f["head"] != name, f["head"], f["tail"]),
        )
        return {"total": len(named), "facts": named[offset : offset + limit]}

    def _rows(self, entity: int) -> torch.Tensor:
        return self._of[int(self._by_entity[entity]) : int(self._by_entity[entity + 1])]

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
        """An entity, its neighbours (those with few facts first: they say most), and their links.

        With one neighbour of every relation before the second of any.
        """
        centre = self.graph.entities.id(name)
        rows = self._rows(centre)
        facts = self._facts[rows]
        other = torch.where(facts[:, 0] == centre, facts[:, 2], facts[:, 0]).tolist()
        inverse = (facts[:, 0] != centre).tolist()
        turn: Counter[tuple[int, bool]] = Counter()
        order = []
        by_degree = sorted(range(len(rows)), key=lambda p: (self.degree[other[p]], other[p]))
        for place in by_degree:
            sort = (int(facts[place, 1]), inverse[place])
            order.append((turn[sort], self.degree[other[place]], other[place]))
            turn[sort] += 1
        everyone = list(dict.fromkeys(entity for _, _, entity in sorted(order)))
        everyone = [entity for entity in everyone if entity != centre]
        shown = [centre, *everyone[:limit]]
        inside = torch.zeros(self.graph.num_entities, dtype=torch.bool)
        inside[shown] = True
        # From the centre and among its neighbours: a hub among these may have many facts.
        kept = inside[self._facts[:, 0]] & inside[self._facts[:, 2]]
        edges = [self._fact(row) for row in kept.nonzero().flatten().tolist()]
        return {
            "nodes": [self._named(entity) for entity in shown],
            "edges": edges,
            "left_out": len(everyone) - (len(shown) - 1),
        }

    def report(self) -> dict[str, Any]:
        """The run in figures."""
        folder = self.run.folder
        evaluations = [
            folder.read_json(f"evaluation-{split}.json")
            for split in ("valid", "test")
            if folder.has(f"evaluation-{split}.json")
        ]
        calibration = self.predictor.calibration
        record = None if calibration is None else json.loads(json.dumps(calibration.record))
        return {"evaluations": evaluations, "training": self.run.log(), "calibration": record}
