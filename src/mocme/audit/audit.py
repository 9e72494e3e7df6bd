"""The audit of a graph: counts of rows, defects, relations and modalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mocme.core.table import data_frame
from mocme.data.features.sources import needs_encoding, read_features
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

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Audit:
    """Counts of a graph as released.

    Attributes:
        entities: number of entities, with or without facts.
        splits: counts of rows by split.
        defects: of the rows of valid and test, also those that no row has.
        unseen: counts of names that are in no training fact.
        degrees, components: of the training facts.
        relations: a record for each, in the order of ids.
        coverage: how many entities have each modality.
        floors: baselines without learning, by split, then ``frequency`` and ``lookup``; empty if
            they were not asked for.
        notes: of reading the graph and its modalities.
        rejects: by file, the first lines that were left out because they are not facts.
        rejected: number of all such lines, by file.
        not_encoded: modalities that are declared, and whose raw files are not encoded yet.
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
    rejected: dict[str, int] = field(default_factory=dict)
    not_encoded: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the audit as JSON values."""
        return asdict(self)

    def to_pandas(
        self, part: Literal["defects", "relations", "splits", "floors"] = "defects"
    ) -> pandas.DataFrame:
        """A data frame of one part of the audit, with a row for each record.

        ``defects``: counts by split and kind. ``relations``: their profiles, with name, facts and
        share of the inverse and the twin. ``splits``: counts of rows. ``floors``: the metrics of
        each baseline by split, over distinct facts and over rows.

        Raises:
            MissingLibrary: pandas is not installed.
        """
        records: list[dict[str, Any]]
        if part == "defects":
            records = [asdict(defect) for defect in self.defects]
        elif part == "relations":
            records = [_relation_record(relation) for relation in self.relations]
        elif part == "splits":
            records = [{"split": name, **asdict(counts)} for name, counts in self.splits.items()]
        else:
            records = [
                {"split": split, "floor": name, "over": over, **metrics}
                for split, baselines in self.floors.items()
                for name, baseline in baselines.items()
                for over, metrics in asdict(baseline).items()
            ]
        names = records[0] if records else ()
        return data_frame({name: [record[name] for record in records] for name in names})

    def defect(self, split: str, kind: str) -> Defect:
        """A defect of a split; with zero rows if the graph has no such split."""
        for defect in self.defects:
            if (defect.split, defect.kind) == (split, kind):
                return defect
        return Defect(split, kind, 0, 0, 0.0)

    @property
    def clean(self) -> bool:
        """Whether rows are distinct and no row of valid or test is in another split.

        `mocme.data.quality.repair` makes a graph clean. Names unseen in train and inverse facts do
        not count: they are properties of the graph, and no row is wrong.
        """
        repeated = any(split.repeated for split in self.splits.values())
        leaked = any(defect.rows for defect in self.defects if defect.kind in leakage.LEAKS)
        return not repeated and not leaked


def audit(
    data: str | Path | Graph | RawGraph,
    features: str | Path | Features | None = None,
    *,
    modalities: Mapping[str, Mapping[str, Any]] | None = None,
    ranked: bool = True,
    trust_code: bool = False,
) -> Audit:
    """Count the defects of a graph, and describe its facts and modalities.

    Args:
        data: an argument of `load`; rows that were read already; or a graph in memory, whose facts
            are distinct, so that repeated rows of its files are not counted.
        features: the modalities, or the folder that their paths are relative to (by default the
            graph's own).
        modalities: settings by modality name, instead of those that the graph declares.
        ranked: whether to rank valid and test by the baselines, which takes most of the time.
        trust_code: import the code that the tables of modalities name
            (``kind = "package.module:Class"``); by default, they are refused.

    Raises:
        ValueError: an input is invalid; the message has the file, the line and the remedy.
    """
    if isinstance(data, Graph):
        data = RawGraph.of(data)
    released = data if isinstance(data, RawGraph) else load_raw(data)
    graph, facts = released.graph, released.distinct()
    inverse_pairs = inverses(facts, graph.num_entities, graph.num_relations)
    twin_pairs = twins(facts, graph.num_entities, graph.num_relations)
    modality_coverage, notes, not_encoded = _modalities(graph, features, modalities, trust_code)
    return Audit(
        graph.name,
        graph.num_entities,
        leakage.split_counts(released),
        leakage.defects(released, inverse_pairs),
        leakage.unseen_names(released),
        profile.degrees(released),
        profile.components(released),
        profile.relation_profiles(released, cardinality(graph), inverse_pairs, twin_pairs),
        modality_coverage,
        floors(released) if ranked else {},
        [*graph.notes, *notes],
        {
            name: sorted(rejects, key=lambda reject: reject.line)
            for name, rejects in released.rejects.items()
        },
        dict(released.rejected),
        not_encoded,
    )


def _modalities(
    graph: Graph,
    features: str | Path | Features | None,
    tables: Mapping[str, Mapping[str, Any]] | None,
    trust_code: bool,
) -> tuple[Coverage, list[str], list[str]]:
    """Coverage of the modalities, notes of reading them, and the names of those not encoded yet."""
    tables = graph.modalities if tables is None else tables
    if isinstance(features, Features):
        return coverage(features), list(features.notes), []
    folder = None if features is None else Path(features)
    raw = [name for name, table in tables.items() if needs_encoding(table, graph, folder)]
    tables = {name: table for name, table in tables.items() if name not in raw}
    loaded = read_features(graph, tables, folder, trust_code=trust_code)
    texts = text_lengths(graph, tables, folder, trust_code=trust_code)
    notes = [f"{name}: is not encoded yet; run: mocme encode all {graph.folder}" for name in raw]
    return replace(coverage(loaded), texts=texts), [*loaded.notes, *notes], raw


def _relation_record(relation: RelationProfile) -> dict[str, Any]:
    """The profile of a relation, the fields of its inverse and its twin included."""
    record = asdict(relation)
    for key, partner in (("inverse", relation.inverse), ("twin", relation.twin)):
        record[key] = partner.name if partner else None
        record[f"{key}_facts"] = partner.facts if partner else 0
        record[f"{key}_share"] = partner.share if partner else 0.0
    return record
