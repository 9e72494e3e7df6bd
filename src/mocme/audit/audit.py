"""The audit of a graph: everything that is counted, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mocme.data.features.sources import not_encoded, read_features
from mocme.data.formats.report import Reject
from mocme.data.graph import Graph
from mocme.data.load import load_raw
from mocme.data.modality import Features
from mocme.data.quality import leakage, profile
from mocme.data.quality.coverage import Coverage, coverage, text_lengths
from mocme.data.quality.leakage import Defect, SplitCounts, UnseenNames
from mocme.data.quality.profile import Components, Degrees, RelationProfile
from mocme.data.quality.raw_rows import RawGraph
from mocme.data.quality.relation_overlap import inverses, twins
from mocme.evaluation.baselines import Baseline, floors
from mocme.evaluation.breakdown import cardinality


@dataclass(frozen=True)
class Audit:
    """What was counted in a graph as released.

    Attributes:
        entities: how many there are, of facts or not.
        splits: rows by split.
        defects: of the rows of valid and test, with zeros where nothing is wrong.
        unseen: names that no training fact holds.
        degrees, components: of the training facts.
        relations: a record each, in the order of ids.
        coverage: which entities have which modality.
        floors: by split, then ``frequency`` and ``lookup``; empty if not asked for.
        notes: what reading the graph and its modalities reported.
        rejects: by file, lines that were left out because they are no facts.
    """

    name: str
    entities: int
    splits: dict[str, SplitCounts]
    defects: list[Defect]
    unseen: UnseenNames
    degrees: Degrees
    components: Components
    relations: list[RelationProfile]
    coverage: Coverage
    floors: dict[str, dict[str, Baseline]]
    notes: list[str] = field(default_factory=list)
    rejects: dict[str, list[Reject]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Everything in dicts, lists, texts and numbers, as JSON holds them."""
        return asdict(self)

    def defect(self, split: str, kind: str) -> Defect:
        """A defect of a split; nothing where the graph has no such split."""
        for found in self.defects:
            if (found.split, found.kind) == (split, kind):
                return found
        return Defect(split, kind, 0, 0, 0.0)

    @property
    def clean(self) -> bool:
        """Whether rows are distinct and no row of valid or test is given away by another split.

        This is what `mocme.data.quality.repair` brings about. Names unseen in train and inverse
        facts are no part of it: they are properties of the graph, and no row is wrong.
        """
        repeated = any(split.repeated for split in self.splits.values())
        leaked = any(found.rows for found in self.defects if found.kind in leakage.LEAKS)
        return not repeated and not leaked


def audit(
    data: str | Path | Graph | RawGraph,
    features: str | Path | Features | None = None,
    *,
    modalities: Mapping[str, Mapping[str, Any]] | None = None,
    ranked: bool = True,
) -> Audit:
    """Count everything that can be wrong with a graph.

    Args:
        data: what `load` takes; rows that were read already; or a graph in memory, whose facts
            are distinct, so that repeated rows of its files are not seen.
        features: modalities as they are, or the folder that their paths start from (the graph's
            own by default).
        modalities: settings by modality name, instead of those that the graph declares.
        ranked: whether to rank valid and test for the floors, which takes most of the time.

    Raises:
        ValueError: an input is wrong, with the file, the line and the remedy.
    """
    if isinstance(data, Graph):
        data = RawGraph.of(data)
    released = data if isinstance(data, RawGraph) else load_raw(data)
    graph, facts = released.graph, released.distinct()
    reversed_ = inverses(facts, graph.num_entities, graph.num_relations)
    same = twins(facts, graph.num_entities, graph.num_relations)
    covered, notes = _modalities(graph, features, modalities)
    return Audit(
        graph.name,
        graph.num_entities,
        leakage.splits(released),
        leakage.defects(released, reversed_),
        leakage.unseen(released),
        profile.degrees(released),
        profile.components(released),
        profile.relations(released, cardinality(graph), reversed_, same),
        covered,
        floors(released) if ranked else {},
        [*graph.notes, *notes],
        {name: sorted(own, key=lambda one: one.line) for name, own in released.rejects.items()},
    )


def _modalities(
    graph: Graph,
    features: str | Path | Features | None,
    tables: Mapping[str, Mapping[str, Any]] | None,
) -> tuple[Coverage, list[str]]:
    tables = graph.modalities if tables is None else tables
    if isinstance(features, Features):
        return coverage(features), list(features.notes)
    folder = None if features is None else Path(features)
    waiting = [name for name, table in tables.items() if not_encoded(table, graph, folder)]
    tables = {name: table for name, table in tables.items() if name not in waiting}
    found = read_features(graph, tables, folder)
    texts = text_lengths(graph, tables, folder)
    notes = [
        f"{name}: is not encoded yet; run: mocme encode all {graph.folder}" for name in waiting
    ]
    return replace(coverage(found), texts=texts), [*found.notes, *notes]
