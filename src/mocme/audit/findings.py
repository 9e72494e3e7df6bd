"""An audit in sentences: what a reader should know before trusting a number, gravest first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mocme.audit.audit import Audit
from mocme.data.quality.leakage import Defect
from mocme.data.quality.relation_overlap import STRONG

Weight = Literal["defect", "caution", "good"]
# A share of a split's rows from which on it is worth a warning.
MANY = 0.05
# One vector of this share of the entities that have the modality stands for something missing.
COMMON = 0.01
WIDE = 16
WHERE = {"in train": "train", "in valid": "valid", "in test": "test"}


@dataclass(frozen=True)
class Finding:
    """A sentence and how grave it is: a `defect` can be repaired, a `caution` must be known."""

    weight: Weight
    text: str


def findings(audit: Audit) -> list[Finding]:
    """What an audit says, gravest first."""
    defects = [*_rejects(audit), *_repeated(audit), *_leaks(audit)]
    cautions = [*_floors(audit), *_inverses(audit), *_unseen(audit), *_filled_in(audit)]
    if audit.clean:
        text = "Rows are distinct, and no row of valid or test is in another split."
        return [*defects, *cautions, Finding("good", text)]
    return [*defects, *cautions]


def percent(share: float) -> str:
    """A share for people; never 0 % of something or 100 % of almost all."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def _rejects(audit: Audit) -> list[Finding]:
    found = []
    for name, own in audit.rejects.items():
        first, file = own[0], Path(name).name
        said = f"{len(own):,} lines of {file} are no facts and left out; the first is"
        if len(own) == 1:
            said = f"1 line of {file} is no fact and left out; it is"
        told = f"line {first.line:,}: {first.reason}: {first.text!r}"
        found.append(Finding("defect", f"{said} {told}. Mend the file."))
    return found


def _repeated(audit: Audit) -> list[Finding]:
    return [
        Finding(
            "defect",
            f"{split.repeated:,} of {split.rows:,} rows of {name} repeat another one; "
            f"{split.distinct:,} are distinct.",
        )
        for name, split in audit.splits.items()
        if split.repeated
    ]


def _leaks(audit: Audit) -> list[Finding]:
    found = []
    for defect in audit.defects:
        # Rows of valid in test and rows of test in valid are the same facts.
        if defect.kind not in WHERE or not defect.rows or defect.kind == "in valid":
            continue
        rows = audit.splits[defect.split].rows
        text = (
            f"{defect.rows:,} of {rows:,} rows of {defect.split} ({percent(defect.share)}; "
            f"{defect.distinct:,} distinct) are in {WHERE[defect.kind]}."
        )
        found.append((defect.share, Finding("defect", text)))
    return [finding for _, finding in sorted(found, key=lambda item: -item[0])]


def _floors(audit: Audit) -> list[Finding]:
    found = []
    for split, values in audit.floors.items():
        # Without a leak the table is the commonest answers and nothing else.
        if audit.defect(split, "in train").rows:
            lookup = values["lookup"]
            text = (
                f"A table of the facts of train, with the relation's commonest answers for the "
                f"rest, reaches MRR {lookup.rows['mrr']:.3f} on the rows of {split} "
                f"({lookup.facts['mrr']:.3f} on its distinct facts) and learns nothing."
            )
            found.append(Finding("caution", text))
    return found


def _inverses(audit: Audit) -> list[Finding]:
    rule = (
        f"their inverse is in train, under a relation that implies theirs (in {STRONG:.0%} of its "
        f"facts or more), so that a single rule answers"
    )
    return [
        Finding("caution", f"{_rows(defect)}: {rule}.")
        for defect in audit.defects
        if defect.kind == "inverse in train" and defect.share >= MANY
    ]


def _unseen(audit: Audit) -> list[Finding]:
    reasons = {
        "unseen entity": "head or tail is in no training fact; links alone say nothing of it",
        "unseen relation": "the relation is in no training fact, so that links cannot answer",
    }
    return [
        Finding("caution", f"{_rows(defect)}: {reasons[defect.kind]}.")
        for defect in audit.defects
        if defect.kind in reasons and defect.rows
    ]


def _rows(defect: Defect) -> str:
    rows = "row" if defect.rows == 1 else "rows"
    return f"{defect.rows:,} {rows} of {defect.split} ({percent(defect.share)})"


def _filled_in(audit: Audit) -> list[Finding]:
    found = []
    for name, vectors in audit.coverage.dense.items():
        if vectors.zeros:
            text = f"{vectors.zeros:,} of {vectors.present:,} vectors of {name!r} are all zero."
            found.append(Finding("caution", text))
        # A few numbers coincide by nature.
        if vectors.width >= WIDE and vectors.largest_share >= COMMON:
            text = (
                f"{vectors.in_groups:,} of {vectors.present:,} vectors of {name!r} are not their "
                f"entity's alone; the commonest belongs to {vectors.largest:,} entities and may "
                f"stand for a missing value."
            )
            found.append(Finding("caution", text))
    return found
