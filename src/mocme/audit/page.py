"""The audit as one HTML page that needs nothing else: no script, no address, no file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mocme.audit import charts as pictures
from mocme.audit.audit import Audit
from mocme.audit.charts import Bar
from mocme.audit.findings import COMMON, findings, percent
from mocme.audit.html import Markup, join, label, tag
from mocme.data.formats.writers import written
from mocme.data.quality.leakage import DEFECTS, Defect
from mocme.data.quality.profile import Partner, RelationProfile
from mocme.data.quality.relation_overlap import STRONG
from mocme.evaluation.breakdown import CARDINALITIES

# Relations that are shown at once; the others are one click away.
SHOWN = 20
SIGNS = {"defect": "\u2715", "caution": "!", "good": "\u2713"}
FLOORS = {"frequency": "commonest answers", "lookup": "facts of train"}
STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --ink: #1d232a; --soft: #5d6773;
  --edge: #dfe3e8; --one: #2f6fb0; --two: #c2641a; --bad: #b3261e; --warn: #8a5a00;
  --good: #1f7a3d }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1c2127; --ink: #e6e9ed;
  --soft: #9aa5b1; --edge: #333b45; --one: #6aa5e0; --two: #e8955a; --bad: #ff8a80; --warn: #f0c060;
  --good: #7fd49a } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 880px; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem }
p { margin: .4rem 0 .8rem } .soft { color: var(--soft) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); gap: .7rem;
  margin: 1.4rem 0 }
.tile { background: var(--card); border: 1px solid var(--edge); border-radius: 8px;
  padding: .6rem .8rem }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums }
.tile span { color: var(--soft); font-size: .85rem }
.findings { list-style: none; margin: 0; padding: 0 }
.findings li { display: flex; gap: .8rem; background: var(--card); border: 1px solid var(--edge);
  border-left-width: 5px; border-radius: 6px; padding: .5rem .8rem; margin: .45rem 0;
  overflow-wrap: anywhere }
.findings b { flex: 0 0 1em; text-align: center }
.findings span { min-width: 0 }
.defect { border-left-color: var(--bad) !important } .defect b { color: var(--bad) }
.caution { border-left-color: var(--warn) !important } .caution b { color: var(--warn) }
.good { border-left-color: var(--good) !important } .good b { color: var(--good) }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--edge);
  vertical-align: top }
th + th, td + td { padding-left: .5rem }
th { color: var(--soft); font-weight: 600 }
.n { text-align: right; white-space: nowrap }
td bdi { overflow-wrap: anywhere }
.picture { margin: .8rem 0; overflow-x: auto }
svg { display: block; width: 100%; min-width: 600px }
svg text { font-size: 13px; fill: var(--ink) } svg .value { fill: var(--soft) }
svg line { stroke: var(--edge) } .track { fill: var(--edge); opacity: .55 }
.one { fill: var(--one) } .two { fill: var(--two) } .bad { fill: var(--bad) }
.dot { fill: var(--one); fill-opacity: .55 }
summary { cursor: pointer; color: var(--one); padding: .5rem 0 }
dt { font-weight: 600; margin-top: .5rem } dd { margin: 0; color: var(--soft) }
pre { background: var(--card); border: 1px solid var(--edge); border-radius: 6px; padding: .8rem;
  overflow-x: auto; font-size: .8rem; white-space: pre-wrap; overflow-wrap: anywhere }
"""
# Nothing may be fetched or run, whatever a name holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(audit: Audit) -> str:
    """The page of an audit."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", f"Audit of {audit.name}"),
        tag("style", Markup(STYLE)),
    )
    body = tag(
        "main",
        tag("h1", "Audit of ", label(audit.name)),
        tag("p", "What the files of this graph hold, as they were released.", class_="soft"),
        _tiles(audit),
        _findings(audit),
        _splits(audit),
        _floors(audit),
        _entities(audit),
        _relations(audit),
        _modalities(audit),
        _words(),
        _notes(audit),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def write_page(audit: Audit, path: str | Path) -> None:
    """Write the page of an audit, in place of what stands there.

    Raises:
        ValueError: the file cannot be written.
    """
    with written(path) as file:
        file.write(page(audit).encode())


def _bar(defect: Defect) -> Bar:
    """The share of a split's rows that suffer from a defect."""
    return Bar(
        f"{defect.split}: {defect.kind}",
        [(defect.share, "two" if defect.split == "test" else "one")],
        f"{defect.rows:,} rows, {percent(defect.share)}",
    )


def _tiles(audit: Audit) -> Markup:
    counts = {"entities": audit.entities, "relations": len(audit.relations)}
    counts |= {f"rows of {name}": split.rows for name, split in audit.splits.items()}
    tiles = [
        tag("div", tag("b", f"{n:,}"), tag("span", what), class_="tile")
        for what, n in counts.items()
    ]
    return tag("div", *tiles, class_="tiles")


def _findings(audit: Audit) -> Markup:
    items = [
        tag("li", tag("b", SIGNS[f.weight], title=f.weight), tag("span", f.text), class_=f.weight)
        for f in findings(audit)
    ]
    return _section("What to know first", tag("ul", *items, class_="findings"))


def _splits(audit: Audit) -> Markup:
    rows: list[Sequence[str]] = [
        (name, f"{split.rows:,}", f"{split.distinct:,}", f"{split.repeated:,}")
        for name, split in audit.splits.items()
    ]
    parts: list[str] = [_table(("split", "rows", "distinct", "repeat another"), rows)]
    found = [defect for defect in audit.defects if not defect.kind.startswith("unseen")]
    if found:
        parts.append(
            tag(
                "p",
                "Rows of valid and of test that other rows give away. Rows that stand in another "
                "split are errors of the splits. An inverse, or another relation between the same "
                "two entities, is a property of the graph, which simple rules exploit.",
            )
        )
        drawn = [_bar(defect) for defect in found]
        parts.append(pictures.bars("Share of the rows of valid and test that leak", drawn))
    return _section("Splits and leakage", *parts)


def _floors(audit: Audit) -> Markup:
    if not audit.floors:
        return Markup("")
    drawn = [
        Bar(
            f"{split}: {FLOORS[name]}",
            [(floor.facts["mrr"], "two" if split == "test" else "one")],
            f"MRR {floor.facts['mrr']:.3f} (rows {floor.rows['mrr']:.3f})",
        )
        for split, found in audit.floors.items()
        for name, floor in found.items()
    ]
    said = (
        "What needs no learning: candidates ranked by how often they answer the relation in "
        "train, and a table of the facts of train that falls back on that. Filtered ranks, "
        "realistic ties, both directions; each distinct fact counts once, or, in brackets, every "
        "released row. A model has to be judged by what it adds to these."
    )
    return _section("Floors", tag("p", said), pictures.bars("MRR of the floors", drawn))


def _entities(audit: Audit) -> Markup:
    unseen, whole = audit.unseen, audit.components
    degree = audit.degrees.percentiles
    said = (
        f"An entity stands in {audit.degrees.mean:.1f} training facts on average; half of them in "
        f"at most {degree.get('50', 0):,}, one in a hundred in more than {degree.get('99', 0):,}. "
        f"{unseen.entities:,} are in none; valid or test ask about {unseen.entities_asked:,} of "
        f"these, and {unseen.entities_nowhere:,} are in no split at all."
    )
    parts = (
        f"The training facts fall into {whole.count:,} connected part"
        f"{'s' if whole.count != 1 else ''}; the largest has {whole.largest:,} entities "
        f"({percent(whole.largest_share)})."
    )
    drawn = pictures.columns(
        "Entities by number of training facts",
        # A span reads "2+", for both of its ends would not fit below a column.
        {re.sub(r"-\d+", "+", span): n for span, n in audit.degrees.histogram.items()},
        "training facts of an entity, up to those of the next column",
    )
    touched = [_bar(defect) for defect in audit.defects if defect.kind.startswith("unseen")]
    rows = pictures.bars("Rows with a name unseen in train", touched) if touched else ""
    return _section("Entities", tag("p", said), drawn, tag("p", parts), rows)


def _relations(audit: Audit) -> Markup:
    ordered = sorted(audit.relations, key=lambda relation: -relation.facts)
    groups = {
        kind: [(r.name, r.facts) for r in ordered if r.cardinality == kind and r.facts]
        for kind in CARDINALITIES
    }
    drawn = pictures.strips(
        "Relations by cardinality class", groups, "facts of a relation (a dot each)"
    )
    parts: list[str] = [drawn, _relation_table(ordered[:SHOWN])]
    if rest := ordered[SHOWN:]:
        summary = tag("summary", f"{len(rest):,} smaller relations")
        parts.append(tag("details", summary, _relation_table(rest)))
    return _section("Relations", *parts)


def _relation_table(relations: Sequence[RelationProfile]) -> Markup:
    head = ("relation", "facts", "class", "symmetric", "inverse", "same pairs")
    rows = [
        (
            label(relation.name),
            f"{relation.facts:,}",
            relation.cardinality,
            percent(relation.symmetric) if relation.symmetric else "-",
            _partner(relation.inverse),
            _partner(relation.twin),
        )
        for relation in relations
    ]
    return _table(head, rows, numbers=(1, 3))


def _partner(partner: Partner | None) -> str:
    if partner is None:
        return "-"
    return join(label(partner.name), f" ({percent(partner.share)})")


def _modalities(audit: Audit) -> Markup:
    covered = audit.coverage
    drawn = []
    for name, vectors in covered.dense.items():
        shared = vectors.in_groups if vectors.largest_share >= COMMON else 0
        odd = (vectors.zeros + shared) / max(1, audit.entities)
        text = f"{vectors.present:,}, {percent(vectors.share)}"
        drawn.append(Bar(_cut(name), [(vectors.share - odd, "one"), (odd, "bad")], text))
    for name, sets in covered.tokens.items():
        text = f"{sets.present:,}, {percent(sets.share)}"
        drawn.append(Bar(_cut(name), [(sets.share, "two")], text))
    for name, pairs in covered.pairs.items():
        text = f"{pairs.present:,}, {percent(pairs.share)}"
        drawn.append(Bar(_cut(name), [(pairs.share, "two")], text))
    if not drawn:
        return _section("Modalities", tag("p", "The graph declares none.", class_="soft"))
    said = (
        "Entities that have each modality. Blue: vectors; orange: sets of tokens, and pairs of "
        f"entities; red: vectors that are all zero, or shared where one belongs to {COMMON:.0%} "
        "of its entities or more, which may stand for missing values."
    )
    rows: list[Sequence[str]] = []
    for name, vectors in covered.dense.items():
        several = f"{vectors.groups:,} vectors shared by {vectors.in_groups:,} entities"
        largest = f"the commonest by {vectors.largest:,} ({percent(vectors.largest_share)})"
        rows.append(
            (label(name), f"{vectors.width:,} wide; {vectors.zeros:,} zero; {several}; {largest}")
        )
    for name, sets in covered.tokens.items():
        rows.append(
            (label(name), f"{sets.vocabulary:,} tokens; of an entity: {_spread(sets.sizes)}")
        )
    for name, pairs in covered.pairs.items():
        kinds = f"{pairs.pairs:,} pairs of {pairs.kinds:,} kinds"
        rows.append((label(name), f"{kinds}; of an entity: {_spread(pairs.sizes)}"))
    for name, texts in covered.texts.items():
        rows.append((label(name), f"{texts.present:,} texts; words in one: {_spread(texts.words)}"))
    table = _table(("modality", "values"), rows, numbers=())
    chart = pictures.bars("Share of the entities that have each modality", drawn)
    return _section("Modalities", tag("p", said), chart, table)


def _words() -> Markup:
    meanings = {
        "repeat another": "A row whose fact stands in an earlier row of the same split.",
        **{kind: f"{text[0].upper()}{text[1:]}." for kind, text in DEFECTS.items()},
        "implies": f"At least {STRONG:.0%} of the relation's facts have their inverse under the "
        "other relation, or under itself (symmetric), over all splits.",
        "class": "By training facts: a side is n where a question for it has 1.5 answers or more "
        "on average. 1-n: a head has many tails.",
        "symmetric": "Share of the relation's facts whose inverse is a fact of the same relation.",
        "inverse": "The other relation that holds most of its inverses, with the share.",
        "same pairs": "The other relation that links most of the same pairs in the same order, "
        "with the share: near 100 % it says the same, or is more special.",
    }
    items = [
        tag(kind, text)
        for pair in meanings.items()
        for kind, text in zip(("dt", "dd"), pair, strict=True)
    ]
    return tag("details", tag("summary", "What the words mean"), tag("dl", *items))


def _notes(audit: Audit) -> Markup:
    if not audit.notes:
        return Markup("")
    # A note is text for people with line ends of its own, which stay.
    lines = [line for note in audit.notes for line in note.split("\n")]
    text = Markup("\n").join(join(line) for line in lines)
    return tag("details", tag("summary", "How the files were read"), tag("pre", Markup(text)))


def _section(title: str, *content: str) -> Markup:
    return tag("section", tag("h2", title), *content)


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] | None = None
) -> Markup:
    """A table; columns of numbers are set to the right (all but the first by default)."""
    right = range(1, len(head)) if numbers is None else numbers
    sides = ["n" if place in right else None for place in range(len(head))]
    top = tag("tr", *(tag("th", text, class_=s) for text, s in zip(head, sides, strict=True)))
    body = [
        tag("tr", *(tag("td", cell, class_=s) for cell, s in zip(row, sides, strict=True)))
        for row in rows
    ]
    return tag("div", tag("table", tag("thead", top), tag("tbody", *body)), class_="wide")


def _spread(values: dict[str, int]) -> str:
    if not values:
        return "none"
    return f"{values['50']:,} in the middle, {values['0']:,} to {values['100']:,}"


def _cut(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:22]}..."
