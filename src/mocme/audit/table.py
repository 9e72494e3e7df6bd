"""The audit as tables in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from mocme.audit.audit import Audit
from mocme.audit.findings import findings, percent
from mocme.audit.html import short, visible
from mocme.data.quality.coverage import PairCoverage, TokenCoverage
from mocme.evaluation.breakdown import CARDINALITIES

COLOURS = {"defect": "red", "caution": "yellow", "good": "green"}


def summary_table(audit: Audit) -> RenderableType:
    """Tables of findings, splits, defects, baselines, relations and modalities, in this order."""
    parts: list[RenderableType] = [_findings(audit), _splits(audit)]
    if audit.defects:
        parts.append(_defects(audit))
    if audit.floors:
        parts.append(_floors(audit))
    parts.append(_relations(audit))
    coverage = audit.coverage
    if coverage.dense or coverage.tokens or coverage.pairs or audit.not_encoded:
        parts.append(_modalities(audit))
    return Group(*parts)


def _findings(audit: Audit) -> Table:
    components = audit.components
    table = _table(
        f"{_name(audit.name)}: {audit.entities:,} entities, {len(audit.relations):,} relations",
        "",
        "finding",
        caption=f"{components.count:,} connected components of train, the largest of "
        f"{components.largest:,} "
        f"entities; {audit.unseen.entities:,} entities are in no training fact",
    )
    for finding in findings(audit):
        colour = COLOURS[finding.weight]
        table.add_row(f"[{colour}]{finding.weight}[/{colour}]", escape(visible(finding.text)))
    return table


def _splits(audit: Audit) -> Table:
    table = _table("rows", "split", "rows", "distinct", "repeat another")
    for name, split in audit.splits.items():
        table.add_row(name, f"{split.rows:,}", f"{split.distinct:,}", f"{split.repeated:,}")
    return table


def _defects(audit: Audit) -> Table:
    table = _table("rows of valid and test", "split", "defect", "rows", "distinct", "share")
    for defect in audit.defects:
        cells = (f"{defect.rows:,}", f"{defect.distinct:,}", percent(defect.share))
        table.add_row(defect.split, defect.kind, *cells)
    return table


def _floors(audit: Audit) -> Table:
    metrics = ("mrr", "hits@1", "hits@10")
    titles = ("MRR", "hits@1", "hits@10", "MRR of rows")
    table = _table("baselines, without learning", "split", "baseline", *titles)
    for split, baselines in audit.floors.items():
        for name, baseline in baselines.items():
            values = (*(baseline.facts[metric] for metric in metrics), baseline.rows["mrr"])
            table.add_row(split, name, *(f"{value:.4f}" for value in values))
    return table


def _relations(audit: Audit) -> Table:
    table = _table("relations by cardinality class", "class", "relations", "facts")
    for kind in CARDINALITIES:
        sizes = [relation.facts for relation in audit.relations if relation.cardinality == kind]
        table.add_row(kind, f"{len(sizes):,}", f"{sum(sizes):,}")
    return table


def _modalities(audit: Audit) -> Table:
    table = _table("modalities", "modality", "entities", "share", "suspected fillers")
    for name, vectors in audit.coverage.dense.items():
        fillers = f"{vectors.zeros:,} zero, {vectors.in_groups:,} shared"
        table.add_row(_name(name), f"{vectors.present:,}", percent(vectors.share), fillers)
    sparse: list[tuple[str, TokenCoverage | PairCoverage]]
    sparse = [*audit.coverage.tokens.items(), *audit.coverage.pairs.items()]
    for name, sets in sparse:
        table.add_row(_name(name), f"{sets.present:,}", percent(sets.share), "")
    for name in audit.not_encoded:
        table.add_row(_name(name), "?", "?", "not encoded yet")
    return table


def _table(title: str, *columns: str, caption: str | None = None) -> Table:
    table = Table(title=title, caption=caption, title_justify="left")
    for position, column in enumerate(columns):
        words = position == 0 or column in ("finding", "defect", "baseline", "suspected fillers")
        table.add_column(column, justify="left" if words else "right")
    return table


def _name(name: str) -> str:
    """A name of the data without control characters and markup."""
    return escape(visible(short(name)))
