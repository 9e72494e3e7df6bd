"""The findings of an audit as sentences, most severe first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mocme.audit.audit import Audit
from mocme.core.text import counted
from mocme.data.quality.leakage import Defect
from mocme.data.quality.relation_overlap import STRONG

Weight = Literal["defect", "caution", "good"]
# Minimum share of a split's rows for a warning.
MANY = 0.05
# A vector shared by at least this share of the entities with the modality is taken for a filler.
COMMON = 0.01
# Minimum dimension of such vectors: short ones coincide by chance.
WIDE = 16
OTHER_SPLIT = {"in train": "train", "in valid": "valid", "in test": "test"}


@dataclass(frozen=True)
class Finding:
    """A sentence and its severity: a `defect` can be repaired, a `caution` has to be known."""

    weight: Weight
    text: str


def findings(audit: Audit) -> list[Finding]:
    """The findings of an audit, most severe first."""
    defects = [*_rejects(audit), *_repeated(audit), *_leaks(audit)]
    cautions = [*_floors(audit), *_inverses(audit), *_unseen(audit), *_fillers(audit)]
    if audit.clean:
        text = "Rows are distinct, and no row of valid or test is in another split."
        return [*defects, *cautions, Finding("good", text)]
    return [*defects, *cautions]


def percent(share: float) -> str:
    """A share as text; never 0 % of something or 100 % of almost all."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def _rejects(audit: Audit) -> Iterator[Finding]:
    for name, rejects in audit.rejects.items():
        first, file = rejects[0], Path(name).name
        count = audit.rejected.get(name, len(rejects))
        if count == 1:
            subject = f"1 line of {file} is not a fact and was left out:"
        else:
            lines, facts = (
                ("line", "is not a fact and was")
                if count == 1
                else ("lines", "are not facts and were")
            )
            subject = f"{count:,} {lines} of {file} {facts} left out; the first:"
        example = f"line {first.line:,}: {first.reason}: {first.text!r}"
        yield Finding("defect", f"{subject} {example}. Correct the file.")


def _repeated(audit: Audit) -> Iterator[Finding]:
    for name, split in audit.splits.items():
        if split.repeated:
            yield Finding(
                "defect",
                f"{split.repeated:,} of {counted(split.rows, 'row')} of {name} "
                f"{'repeats' if split.repeated == 1 else 'repeat'} another one; "
                f"{split.distinct:,} are distinct.",
            )


def _leaks(audit: Audit) -> list[Finding]:
    leaks = []
    for defect in audit.defects:
        # Rows of valid that are in test, and rows of test that are in valid, are the same facts.
        if defect.kind not in OTHER_SPLIT or not defect.rows or defect.kind == "in valid":
            continue
        rows = audit.splits[defect.split].rows
        text = (
            f"{defect.rows:,} of {rows:,} rows of {defect.split} ({percent(defect.share)}; "
            f"{defect.distinct:,} distinct) are in {OTHER_SPLIT[defect.kind]}."
        )
        leaks.append((defect.share, Finding("defect", text)))
    return [finding for _, finding in sorted(leaks, key=lambda item: -item[0])]


def _floors(audit: Audit) -> Iterator[Finding]:
    for split, baselines in audit.floors.items():
        # Without a leak the lookup table only gives the most frequent answers.
        if audit.defect(split, "in train").rows:
            lookup = baselines["lookup"]
            yield Finding(
                "caution",
                f"A lookup table of the facts of train, with the relation's most frequent answers "
                f"for all other questions, reaches MRR {lookup.rows['mrr']:.3f} on the rows of "
                f"{split} ({lookup.facts['mrr']:.3f} on its distinct facts) without learning.",
            )


def _inverses(audit: Audit) -> Iterator[Finding]:
    rule = (
        f"their inverse is in train, under a relation that implies theirs (in {STRONG:.0%} of its "
        f"facts or more), so that a single rule answers"
    )
    for defect in audit.defects:
        if defect.kind == "inverse in train" and defect.share >= MANY:
            yield Finding("caution", f"{_rows(defect)}: {rule}.")


def _unseen(audit: Audit) -> Iterator[Finding]:
    reasons = {
        "unseen entity": "head or tail is in no training fact; links alone say nothing about it",
        "unseen relation": "the relation is in no training fact, so that links cannot answer",
    }
    for defect in audit.defects:
        if defect.kind in reasons and defect.rows:
            yield Finding("caution", f"{_rows(defect)}: {reasons[defect.kind]}.")


def _rows(defect: Defect) -> str:
    rows = "row" if defect.rows == 1 else "rows"
    return f"{defect.rows:,} {rows} of {defect.split} ({percent(defect.share)})"


def _fillers(audit: Audit) -> Iterator[Finding]:
    for name, vectors in audit.coverage.dense.items():
        if vectors.zeros:
            yield Finding(
                "caution",
                f"{vectors.zeros:,} of {vectors.present:,} vectors of {name!r} are all zero.",
            )
        if vectors.width >= WIDE and vectors.largest_share >= COMMON:
            yield Finding(
                "caution",
                f"{vectors.in_groups:,} of {vectors.present:,} vectors of {name!r} are shared by "
                f"several entities; the most common belongs to {vectors.largest:,} entities and "
                f"may stand for a missing value.",
            )
