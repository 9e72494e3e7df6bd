"""The audit in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from mocme.audit.audit import Audit
from mocme.audit.findings import findings, percent
from mocme.audit.html import short, visible
from mocme.evaluation.breakdown import CARDINALITIES

COLOURS = {"defect": "red", "caution": "yellow", "good": "green"}


def overview(audit: Audit) -> RenderableType:
    """Findings first, then splits, defects, floors, relations and modalities."""
    parts: list[RenderableType] = [_findings(audit), _splits(audit)]
    if audit.defects:
        parts.append(_defects(audit))
    if audit.floors:
        parts.append(_floors(audit))
    parts.append(_relations(audit))
    if audit.coverage.dense or audit.coverage.tokens or audit.coverage.pairs:
        parts.append(_modalities(audit))
    return Group(*parts)


def _findings(audit: Audit) -> Table:
    whole = audit.components
    table = _table(
        f"{_name(audit.name)}: {audit.entities:,} entities, {len(audit.relations):,} relations",
        "",
        "finding",
        caption=f"{whole.count:,} connected parts of train, the largest of {whole.largest:,} "
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
    for found in audit.defects:
        cells = (f"{found.rows:,}", f"{found.distinct:,}", percent(found.share))
        table.add_row(found.split, found.kind, *cells)
    return table


def _floors(audit: Audit) -> Table:
    metrics = ("mrr", "hits@1", "hits@10")
    heads = ("MRR", "hits@1", "hits@10", "MRR of rows")
    table = _table("floors, without learning", "split", "floor", *heads)
    for split, found in audit.floors.items():
        for name, floor in found.items():
            values = (*(floor.facts[metric] for metric in metrics), floor.rows["mrr"])
            table.add_row(split, name, *(f"{value:.4f}" for value in values))
    return table


def _relations(audit: Audit) -> Table:
    table = _table("relations by cardinality class", "class", "relations", "facts")
    for kind in CARDINALITIES:
        sizes = [relation.facts for relation in audit.relations if relation.cardinality == kind]
        table.add_row(kind, f"{len(sizes):,}", f"{sum(sizes):,}")
    return table


def _modalities(audit: Audit) -> Table:
    table = _table("modalities", "modality", "entities", "share", "looks filled in")
    for name, vectors in audit.coverage.dense.items():
        odd = f"{vectors.zeros:,} zero, {vectors.in_groups:,} not alone"
        table.add_row(_name(name), f"{vectors.present:,}", percent(vectors.share), odd)
    for name, sets in audit.coverage.tokens.items():
        table.add_row(_name(name), f"{sets.present:,}", percent(sets.share), "")
    for name, pairs in audit.coverage.pairs.items():
        table.add_row(_name(name), f"{pairs.present:,}", percent(pairs.share), "")
    return table


def _table(title: str, *columns: str, caption: str | None = None) -> Table:
    table = Table(title=title, caption=caption, title_justify="left")
    for place, column in enumerate(columns):
        words = place == 0 or column in ("finding", "defect", "floor", "looks filled in")
        table.add_column(column, justify="left" if words else "right")
    return table


def _name(name: str) -> str:
    """A name of the data without anything that a terminal or the table would act on."""
    return escape(visible(short(name)))
