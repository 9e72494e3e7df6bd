"""Files of decisions for other programs."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from mocme.core.csv_text import csv_text
from mocme.data.reviews import COLUMNS, OPTIONAL_COLUMNS, Review

FORMATS = ("tsv", "csv", "jsonl")


def export_lines(reviews: Iterable[Review], format: str) -> Iterator[str]:
    """Yield the lines of a file of decisions: ``tsv``, ``csv`` (both with a header) or ``jsonl``.

    In TSV, tabs, line ends and backslashes are escaped with a backslash, as in C.

    Raises:
        ValueError: the format is not one of `FORMATS`.
    """
    columns = (*COLUMNS, *OPTIONAL_COLUMNS)
    if format == "jsonl":
        for review in reviews:
            yield json.dumps(asdict(review), ensure_ascii=False) + "\n"
    elif format == "csv":
        for row in itertools.chain([columns], (list(asdict(r).values()) for r in reviews)):
            yield csv_text([row], line_end="\n", guard=True)
    elif format == "tsv":
        yield "\t".join(columns) + "\n"
        for review in reviews:
            yield "\t".join(_cell(value) for value in asdict(review).values()) + "\n"
    else:
        raise ValueError(f"decisions are exported as {', '.join(FORMATS)}, not {format!r}")


def export_name(graph: str, format: str) -> str:
    """Return the name of an exported file, as "atlas-decisions-2025-06-01.tsv" (date in UTC)."""
    name = re.sub(r"[^a-z0-9._-]+", "-", graph.lower()).strip("-.")[:60] or "graph"
    return f"{name}-decisions-{datetime.now(UTC):%Y-%m-%d}.{format}"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    for character, escape in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(character, escape)
    return text
