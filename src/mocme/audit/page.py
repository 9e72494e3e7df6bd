"""The audit as one self-contained HTML page: no scripts, no links, no other files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mocme.audit import charts
from mocme.audit.audit import Audit
from mocme.audit.charts import Bar
from mocme.audit.findings import COMMON, findings, percent
from mocme.audit.html import Markup, join, label, tag
from mocme.data.formats.writers import atomic_file
from mocme.data.quality.coverage import PairCoverage, TokenCoverage
from mocme.data.quality.leakage import DEFECTS, Defect
from mocme.data.quality.profile import Partner, RelationProfile
from mocme.data.quality.relation_overlap import STRONG
from mocme.evaluation.breakdown import CARDINALITIES

# Relations in the visible table; the others are in a folded one.
SHOWN = 20
SIGNS = {"defect": "\u2715", "caution": "!", "good": "\u2713"}
FLOORS = {"frequency": "most frequent answers", "lookup": "lookup table"}
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
# Nothing may be loaded or run, whatever a name contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(audit: Audit) -> str:
    """Render the page of an audit."""
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
        tag("p", "The contents of this graph's files, as they were released.", class_="soft"),
        _tiles(audit),
        _findings(audit),
        _splits(audit),
        _floors(audit),
        _entities(audit),
        _relations(audit),
        _modalities(audit),
        _glossary(),
        _notes(audit),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def write_page(audit: Audit, path: str | Path) -> None:
    """Write the page of an audit; an existing file is replaced.

    Raises:
        ValueError: the file cannot be written.
    """
    with atomic_file(path) as file:
        file.write(page(audit).encode())


def _bar(defect: Defect) -> Bar:
    """The share of a split's rows that have a defect."""
    return Bar(
        f"{defect.split}: {defect.kind}",
        [(defect.share, "two" if defect.split == "test" else "one")],
        f"{defect.rows:,} rows, {percent(defect.share)}",
    )


def _tiles(audit: Audit) -> Markup:
    counts = {"entities": audit.entities, "relations": len(audit.relations)}
    counts |= {f"rows of {name}": split.rows for name, split in audit.splits.items()}
    tiles = [
        tag("div", tag("b", f"{n:,}"), tag("span", name), class_="tile")
        for name, n in counts.items()
    ]
    return tag("div", *tiles, class_="tiles")


def _findings(audit: Audit) -> Markup:
    items = [
        tag("li", tag("b", SIGNS[f.weight], title=f.weight), tag("span", f.text), class_=f.weight)
        for f in findings(audit)
    ]
    return _section("Findings", tag("ul", *items, class_="findings"))


def _splits(audit: Audit) -> Markup:
    rows: list[Sequence[str]] = [
        (name, f"{split.rows:,}", f"{split.distinct:,}", f"{split.repeated:,}")
        for name, split in audit.splits.items()
    ]
    parts: list[str] = [_table(("split", "rows", "distinct", "repeat another"), rows)]
    leaks = [defect for defect in audit.defects if not defect.kind.startswith("unseen")]
    if leaks:
        parts.append(
            tag(
                "p",
                "Rows of valid and test whose answer other rows give away. Rows that are in "
                "another split are errors of the splits. An inverse, or another relation between "
                "the same two entities, is a property of the graph, which simple rules exploit.",
            )
        )
        bars = [_bar(defect) for defect in leaks]
        parts.append(charts.bars("Share of the rows of valid and test that leak", bars))
    return _section("Splits and leakage", *parts)


def _floors(audit: Audit) -> Markup:
    if not audit.floors:
        return Markup("")
    bars = [
        Bar(
            f"{split}: {FLOORS[name]}",
            [(floor.facts["mrr"], "two" if split == "test" else "one")],
            f"MRR {floor.facts['mrr']:.3f} (rows {floor.rows['mrr']:.3f})",
        )
        for split, baselines in audit.floors.items()
        for name, floor in baselines.items()
    ]
    text = (
        "Baselines without learning: candidates ranked by how often they answer the relation in "
        "train, and a lookup table of the facts of train that falls back on that. Filtered ranks, "
        "realistic ties, both directions; each distinct fact counts once, or, in brackets, every "
        "released row. Judge a model by what it adds to these."
    )
    return _section("Baselines", tag("p", text), charts.bars("MRR of the baselines", bars))


def _entities(audit: Audit) -> Markup:
    unseen, components = audit.unseen, audit.components
    degree = audit.degrees.percentiles
    degrees_text = (
        f"An entity is in {audit.degrees.mean:.1f} training facts on average; half of them are in "
        f"at most {degree.get('50', 0):,}, one in a hundred is in more than "
        f"{degree.get('99', 0):,}. {unseen.entities:,} are in none; valid or test ask about "
        f"{unseen.entities_asked:,} of these, and {unseen.entities_nowhere:,} are in no split."
    )
    components_text = (
        f"The training facts have {components.count:,} connected component"
        f"{'s' if components.count != 1 else ''}; the largest has {components.largest:,} entities "
        f"({percent(components.largest_share)})."
    )
    histogram = charts.columns(
        "Entities by number of training facts",
        # "2+" instead of "2-3": both ends would not fit below a column.
        {re.sub(r"-\d+", "+", span): n for span, n in audit.degrees.histogram.items()},
        "training facts of an entity, up to those of the next column",
    )
    bars = [_bar(defect) for defect in audit.defects if defect.kind.startswith("unseen")]
    unseen_chart = charts.bars("Rows with a name unseen in train", bars) if bars else ""
    return _section(
        "Entities", tag("p", degrees_text), histogram, tag("p", components_text), unseen_chart
    )


def _relations(audit: Audit) -> Markup:
    ordered = sorted(audit.relations, key=lambda relation: -relation.facts)
    groups = {
        kind: [(r.name, r.facts) for r in ordered if r.cardinality == kind and r.facts]
        for kind in CARDINALITIES
    }
    chart = charts.strips(
        "Relations by cardinality class", groups, "facts of a relation (a dot each)"
    )
    parts: list[str] = [chart, _relation_table(ordered[:SHOWN])]
    if smaller := ordered[SHOWN:]:
        summary = tag("summary", f"{len(smaller):,} smaller relations")
        parts.append(tag("details", summary, _relation_table(smaller)))
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
    bars = _coverage_bars(audit)
    if not bars:
        return _section("Modalities", tag("p", "The graph declares none.", class_="soft"))
    text = (
        "Entities that have each modality. Blue: vectors; orange: sets of tokens, and pairs of "
        f"entities; red: vectors that are all zero, or shared where one belongs to {COMMON:.0%} "
        "of its entities or more, which may stand for missing values."
    )
    table = _table(("modality", "values"), _modality_rows(audit), numbers=())
    chart = charts.bars("Share of the entities that have each modality", bars)
    return _section("Modalities", tag("p", text), chart, table)


def _coverage_bars(audit: Audit) -> list[Bar]:
    """A bar for each modality; suspected fillers among vectors have a colour of their own."""
    bars = []
    for name, vectors in audit.coverage.dense.items():
        shared = vectors.in_groups if vectors.largest_share >= COMMON else 0
        fillers = (vectors.zeros + shared) / max(1, audit.entities)
        parts = [(vectors.share - fillers, "one"), (fillers, "bad")]
        bars.append(Bar(_cut(name), parts, f"{vectors.present:,}, {percent(vectors.share)}"))
    sparse: list[tuple[str, TokenCoverage | PairCoverage]]
    sparse = [*audit.coverage.tokens.items(), *audit.coverage.pairs.items()]
    for name, sets in sparse:
        text = f"{sets.present:,}, {percent(sets.share)}"
        bars.append(Bar(_cut(name), [(sets.share, "two")], text))
    return bars


def _modality_rows(audit: Audit) -> list[Sequence[str]]:
    """A row with the values of each modality."""
    rows: list[Sequence[str]] = []
    for name, vectors in audit.coverage.dense.items():
        shared = f"{vectors.groups:,} vectors shared by {vectors.in_groups:,} entities"
        largest = f"the most common by {vectors.largest:,} ({percent(vectors.largest_share)})"
        rows.append(
            (label(name), f"{vectors.width:,} wide; {vectors.zeros:,} zero; {shared}; {largest}")
        )
    for name, sets in audit.coverage.tokens.items():
        rows.append(
            (label(name), f"{sets.vocabulary:,} tokens; of an entity: {_spread(sets.sizes)}")
        )
    for name, pairs in audit.coverage.pairs.items():
        kinds = f"{pairs.pairs:,} pairs of {pairs.kinds:,} kinds"
        rows.append((label(name), f"{kinds}; of an entity: {_spread(pairs.sizes)}"))
    for name, texts in audit.coverage.texts.items():
        rows.append((label(name), f"{texts.present:,} texts; words in one: {_spread(texts.words)}"))
    return rows


def _glossary() -> Markup:
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
        "with the share: near 100 % it has the same meaning, or is more specific.",
    }
    items = [
        tag(kind, text)
        for pair in meanings.items()
        for kind, text in zip(("dt", "dd"), pair, strict=True)
    ]
    return tag("details", tag("summary", "Glossary"), tag("dl", *items))


def _notes(audit: Audit) -> Markup:
    if not audit.notes:
        return Markup("")
    # Notes may have several lines; their line ends stay.
    lines = [line for note in audit.notes for line in note.split("\n")]
    text = Markup("\n").join(join(line) for line in lines)
    return tag("details", tag("summary", "Notes on reading the files"), tag("pre", Markup(text)))


def _section(title: str, *content: str) -> Markup:
    return tag("section", tag("h2", title), *content)


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] | None = None
) -> Markup:
    """Make a table; columns of numbers (all but the first by default) are aligned right."""
    right = range(1, len(head)) if numbers is None else numbers
    classes = ["n" if column in right else None for column in range(len(head))]

    def table_row(element: str, cells: Sequence[str]) -> Markup:
        pairs = zip(cells, classes, strict=True)
        return tag("tr", *(tag(element, cell, class_=name) for cell, name in pairs))

    body = [table_row("td", row) for row in rows]
    table = tag("table", tag("thead", table_row("th", head)), tag("tbody", *body))
    return tag("div", table, class_="wide")


def _spread(values: dict[str, int]) -> str:
    if not values:
        return "none"
    return f"median {values['50']:,}, {values['0']:,} to {values['100']:,}"


def _cut(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:22]}..."
