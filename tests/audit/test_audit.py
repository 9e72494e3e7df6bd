"""Audits: exact counts of each kind of defect, repaired benchmarks, pages of hostile names."""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from mocme.audit.audit import Audit, audit
from mocme.audit.findings import findings, percent
from mocme.audit.page import page, write_page
from mocme.audit.table import summary_table
from mocme.cli import main
from mocme.data.graph import Graph, Vocabulary
from mocme.data.load import load
from mocme.data.modality import Features, Modality, Tokens
from mocme.data.quality import relation_overlap
from mocme.data.quality.leakage import DEFECTS
from mocme.data.quality.profile import PERCENTILES
from mocme.data.quality.raw_rows import RawGraph
from mocme.data.quality.repair import repair
from mocme.evaluation.breakdown import cardinality
from split_graphs import (
    Fact,
    Rows,
    naive_components,
    named,
    noisy,
    plant_in_train,
    plant_repeated,
    plant_shared,
    put,
    sound,
)

DATA = Path(__file__).parents[3] / "shared" / "data"


def defect_rows(audit: Audit) -> dict[tuple[str, str], int]:
    """Numbers of rows by split and kind of defect, those above zero."""
    rows = {(d.split, d.kind): d.rows for d in audit.defects if d.rows}
    repeated = {(s, "repeated"): c.repeated for s, c in audit.splits.items() if c.repeated}
    return {**rows, **repeated}


# -- planted defects -----------------------------------------------------------------------------


def test_a_sound_graph_has_no_defect(tmp_path: Path) -> None:
    result = audit(put(tmp_path / "g", sound()))
    assert defect_rows(result) == {}
    assert result.clean
    assert {(d.split, d.kind) for d in result.defects} == {
        *(("valid", kind) for kind in DEFECTS if kind != "in valid"),
        *(("test", kind) for kind in DEFECTS if kind != "in test"),
    }
    assert [f.weight for f in findings(result)] == ["good"]


def plant_in_train_repeated(rows: Rows) -> None:
    rows["test"] += [rows["train"][0]] * 3


def plant_pairs(rows: Rows) -> None:
    (h, _, t), (head, _, tail) = rows["train"][0], rows["train"][3]
    rows["test"] += [(h, "r1", t), (tail, "r2", head)]
    rows["valid"] += [(t, "r2", h)]


def plant_inverse(rows: Rows) -> None:
    # 9 of 10 facts have their inverse, so that each of the two relations implies the other.
    links = [(f"e{n}", f"e{n + 10}") for n in range(10)]
    rows["train"] += [(a, "child", b) for a, b in links]
    rows["train"] += [(b, "parent", a) for a, b in links[:7]]
    rows["test"] += [(b, "parent", a) for a, b in links[7:9]]


def plant_symmetric(rows: Rows) -> None:
    links = [(f"e{n}", f"e{n + 8}") for n in range(8)]
    rows["train"] += [(a, "near", b) for a, b in links]
    rows["train"] += [(b, "near", a) for a, b in links[:6]]
    rows["valid"] += [(b, "near", a) for a, b in links[6:]]


def plant_unseen(rows: Rows) -> None:
    rows["test"] += [("e1", "r1", "new"), ("new", "r1", "newer")]
    rows["valid"] += [("e2", "fresh", "e17")]


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (plant_repeated, {("train", "repeated"): 4, ("test", "repeated"): 1}),
        (plant_in_train, {("valid", "in train"): 2, ("test", "in train"): 1}),
        (plant_in_train_repeated, {("test", "in train"): 3, ("test", "repeated"): 2}),
        (plant_shared, {("valid", "in test"): 2, ("test", "in valid"): 2}),
        (plant_pairs, {("test", "pair in train"): 2, ("valid", "pair in train"): 1}),
        (plant_inverse, {("test", "inverse in train"): 2, ("test", "pair in train"): 2}),
        (plant_symmetric, {("valid", "inverse in train"): 2}),
        (plant_unseen, {("test", "unseen entity"): 2, ("valid", "unseen relation"): 1}),
    ],
)
def test_only_the_planted_defect_is_found(
    tmp_path: Path, plant: Callable[[Rows], None], expected: dict[tuple[str, str], int]
) -> None:
    rows = sound()
    plant(rows)
    result = audit(put(tmp_path / "g", rows))
    assert defect_rows(result) == expected
    unclean = any(kind in ("repeated", "in train", "in valid", "in test") for _, kind in expected)
    assert result.clean == (not unclean)
    assert any(f.weight == "defect" for f in findings(result)) == unclean


def test_relations_name_their_inverse_and_their_twin(tmp_path: Path) -> None:
    rows = sound()
    plant_inverse(rows)
    rows["train"] += [(h, "same", t) for h, r, t in rows["train"] if r == "child"][:8]
    rows["train"] += [("e1", "loop", "e1")]
    relations = {r.name: r for r in audit(put(tmp_path / "g", rows)).relations}
    child, parent, same = (relations[name] for name in ("child", "parent", "same"))
    assert child.inverse is not None
    assert (child.inverse.name, child.inverse.facts, child.inverse.share) == ("parent", 9, 0.9)
    assert parent.inverse is not None
    assert (parent.inverse.name, parent.inverse.share) == ("child", 1.0)
    assert child.twin is not None
    assert (child.twin.name, child.twin.share) == ("same", 0.8)
    assert same.twin is not None
    assert (same.twin.name, same.twin.share) == ("child", 1.0)
    assert (child.facts, parent.facts, parent.train) == (10, 9, 7)
    loop = relations["loop"]
    assert (loop.loops, loop.symmetric, loop.inverse) == (1, 0.0, None)


# -- against naive loops -------------------------------------------------------------------------


def naive_rule(facts: set[Fact], implies: str, implied: str) -> bool:
    """Whether at least 80 % of a relation's facts have their inverse under another one."""
    ends = [(h, t) for h, r, t in facts if r == implies and h != t]
    return 5 * sum((t, implied, h) in facts for h, t in ends) >= 4 * len(ends) > 0


def naive_defects(rows: Rows) -> dict[tuple[str, str], int]:
    facts = {fact for split in rows.values() for fact in split}
    train = set(rows["train"])
    kinds = {r for _, r, _ in facts}
    linked = {e for h, _, t in train for e in (h, t)}
    count: Counter[tuple[str, str]] = Counter()
    for split, others in (("valid", ("train", "test")), ("test", ("train", "valid"))):
        for fact in rows[split]:
            h, r, t = fact
            for other in others:
                count[split, f"in {other}"] += fact in set(rows[other])
            pair = [s for s in kinds - {r} if (h, s, t) in train or (t, s, h) in train]
            count[split, "pair in train"] += bool(pair)
            rules = [s for s in kinds if (t, s, h) in train and naive_rule(facts, s, r)]
            count[split, "inverse in train"] += h != t and bool(rules)
            count[split, "unseen entity"] += not {h, t} <= linked
            count[split, "unseen relation"] += r not in {s for _, s, _ in train}
    repeated = {(s, "repeated"): len(split) - len(set(split)) for s, split in rows.items()}
    return {key: n for key, n in {**count, **repeated}.items() if n}


def test_lines_that_are_not_facts_are_the_first_finding(tmp_path: Path) -> None:
    lines = ["a\tr\tb", "b\tr\tc", "c\tr", "c\tr\td", "\tr\ta"]
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    result = audit(tmp_path, ranked=False)
    assert [reject.line for reject in next(iter(result.rejects.values()))] == [3, 5]
    first, *others = findings(result)
    assert first.weight == "defect"
    assert first.text.startswith("2 lines of train.tsv are not facts and were left out; the first:")
    assert "line 3: 2 columns where 3 are expected: 'c\\tr'" in first.text
    assert not [finding for finding in others if finding.weight == "defect"]
    command = CliRunner().invoke(main, ["audit", str(tmp_path), "--no-floors"])
    assert "2 lines of train.tsv are not facts" in " ".join(command.stdout.split())
    assert json.loads(json.dumps(result.as_dict()))["rejects"]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("chunk", [1, 1 << 21])
def test_counts_equal_those_of_naive_loops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, chunk: int
) -> None:
    monkeypatch.setattr(relation_overlap, "CHUNK", chunk)
    # Few relations and entities make strong inverses and shared pairs common.
    rows = noisy(seed, entities=6 + seed % 4, relations=1 + seed % 3, facts=40 + 10 * (seed % 5))
    released = RawGraph.read(put(tmp_path / "g", rows))
    assert {split: named(released, split) for split in rows} == rows
    result = audit(released, ranked=False)
    assert defect_rows(result) == naive_defects(rows)
    facts, train = {f for s in rows.values() for f in s}, set(rows["train"])
    classes = cardinality(released.graph)
    for r, relation in enumerate(result.relations):
        members = [fact for fact in facts if fact[1] == relation.name]
        ends = [(h, t) for h, _, t in members if h != t]
        assert (relation.facts, relation.train) == (len(members), len(train.intersection(members)))
        assert (relation.loops, relation.cardinality) == (len(members) - len(ends), classes[r])
        symmetric = sum((t, relation.name, h) in facts for h, t in ends)
        assert relation.symmetric == pytest.approx(symmetric / len(ends) if ends else 0)
        for partner, turned in ((relation.inverse, True), (relation.twin, False)):
            shared = Counter(
                other.name
                for h, _, t in members
                for other in result.relations
                if other.name != relation.name
                and (
                    (t, other.name, h) in facts and h != t
                    if turned
                    else (h, other.name, t) in facts
                )
            )
            most = max(shared.values(), default=0)
            assert (partner.facts if partner else 0) == most
            if partner:
                assert shared[partner.name] == most
                assert partner.share == pytest.approx(most / len(ends if turned else members))


@pytest.mark.parametrize("seed", range(4))
def test_degrees_components_and_unseen_names(tmp_path: Path, seed: int) -> None:
    rows = noisy(seed, entities=30, facts=12)
    lists = {"entities_txt": "".join(f"e{n}\n" for n in range(33))}
    result = audit(put(tmp_path / "g", rows, **lists), ranked=False)
    train = set(rows["train"])
    degree = Counter(e for h, _, t in train for e in (h, t))
    values = sorted(degree[f"e{n}"] for n in range(33))
    percentiles = {str(p): values[max(0, math.ceil(p / 100 * 33) - 1)] for p in PERCENTILES}
    assert result.degrees.percentiles == percentiles
    assert result.degrees.mean == pytest.approx(2 * len(train) / 33)
    for span, count in result.degrees.histogram.items():
        low, _, high = span.partition("-")
        assert count == sum(int(low) <= value <= int(high or low) for value in values), span
    assert sum(result.degrees.histogram.values()) == 33
    asked = {e for s in ("valid", "test") for h, _, t in rows[s] for e in (h, t)}
    anywhere = {e for facts in rows.values() for h, _, t in facts for e in (h, t)}
    assert result.unseen.entities == 33 - len(degree)
    assert result.unseen.entities_asked == len(asked - set(degree))
    assert result.unseen.entities_nowhere == 33 - len(anywhere)
    number = {f"e{n}": n for n in range(33)}
    labels = naive_components([[number[h], 0, number[t]] for h, _, t in train], 33)
    sizes = Counter(labels[number[e]] for e in degree)
    assert (result.components.count, result.components.largest) == (len(sizes), max(sizes.values()))
    assert result.components.largest_share == pytest.approx(max(sizes.values()) / len(degree))


def naive_baseline(rows: Rows, split: str, names: list[str], baseline: str) -> tuple[float, float]:
    """MRR of distinct facts and of rows, with realistic ties, over both directions."""
    train, counts = set(rows["train"]), Counter(rows[split])
    hidden = ("train", "valid") if split == "valid" else tuple(rows)
    known = {fact for s in hidden for fact in rows[s]} | set(rows[split])
    of_facts: list[float] = []
    of_rows: list[float] = []
    for asked in counts:
        for side in (2, 0):
            scores = {}
            for name in names:
                fact = (*asked[:side], name, *asked[side + 1 :])
                times = sum(f[1] == asked[1] and f[side] == name for f in train)
                scores[name] = (baseline == "lookup" and fact in train, times)
                if fact in known and fact != asked:
                    del scores[name]
            answer = scores.pop(asked[side])
            above = sum(score > answer for score in scores.values())
            ties = sum(score == answer for score in scores.values())
            of_facts.append(1 / (1 + above + ties / 2))
            of_rows += of_facts[-1:] * counts[asked]
    return sum(of_facts) / len(of_facts), sum(of_rows) / len(of_rows)


@pytest.mark.parametrize("seed", range(4))
def test_baselines_equal_those_of_a_naive_ranking(tmp_path: Path, seed: int) -> None:
    rows = noisy(seed, entities=8, facts=30)
    result = audit(put(tmp_path / "g", rows))
    names = load(tmp_path / "g").entities.names
    assert set(result.floors) == {"valid", "test"}
    for split, baselines in result.floors.items():
        for name, baseline in baselines.items():
            mrr = baseline.facts["mrr"], baseline.rows["mrr"]
            expected = naive_baseline(rows, split, list(names), name)
            assert mrr == pytest.approx(expected), (split, name)


# -- modalities ----------------------------------------------------------------------------------


def test_suspected_fillers_are_counted() -> None:
    entities = 40
    values = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    values[3:7] = values[3]
    values[10:12] = values[10]
    values[20:25] = 0.0
    values[21] = -0.0
    rows = torch.arange(30) + 5
    graph = Graph(
        Vocabulary([f"e{n}" for n in range(entities)]),
        Vocabulary(["r"], "relation"),
        {"train": torch.tensor([[0, 0, 1]])},
    )
    pair = torch.tensor([[2, 0], [2, 1], [2, 2], [7, 1]])
    tokens = Tokens(("a", "b", "c"), pair[:, 0].contiguous(), pair[:, 1].contiguous(), entities)
    features = Features({"x": Modality(values, rows, entities)}, {"w": tokens})
    result = audit(graph, features).coverage
    vectors, sets = result.dense["x"], result.tokens["w"]
    assert (vectors.present, vectors.share, vectors.width) == (30, 0.75, 5)
    assert (vectors.zeros, vectors.groups, vectors.in_groups) == (5, 2, 6)
    assert (vectors.largest, vectors.largest_share) == (4, 4 / 30)
    assert (sets.present, sets.share, sets.vocabulary, sets.pairs) == (2, 0.05, 3, 4)
    assert (sets.sizes["0"], sets.sizes["100"]) == (1, 3)
    half = Features({"x": Modality(values.bfloat16(), rows, entities)})
    assert audit(graph, half).coverage.dense["x"].groups == 2
    texts = [f.text for f in findings(audit(graph, features))]
    assert any("5 of 30 vectors of 'x' are all zero" in text for text in texts)


def test_lengths_of_texts(tmp_path: Path) -> None:
    texts = "e0\tone two three\ne1\tone\ne2\t\nstrange\tone two\ne0\tfour\n"
    toml = '[modalities.notes]\nkind = "words"\npaths = ["t.tsv"]\nat_least = 1\nat_most = 1.0\n'
    folder = put(tmp_path / "g", sound(), graph_toml=toml, t_tsv=texts)
    for result in (
        audit(folder, ranked=False),
        audit(folder, tmp_path / "elsewhere", ranked=False),
    ):
        measured = result.coverage.texts["notes"]
        assert (measured.present, measured.share) == (2, 0.1)
        assert (measured.words["0"], measured.words["100"]) == (1, 4)
        assert result.coverage.tokens["notes"].present == 2


def test_pairs_of_entities_are_counted_and_shown(tmp_path: Path) -> None:
    texts = "e0\tknew Bob\ne1\tBob\ne2\tAnn and Bob\n"
    toml = (
        '[modalities.named]\nkind = "mentions"\nnames = ["n.tsv"]\ntexts = ["t.tsv"]\n'
        "contexts = 0\n"
    )
    names = "e3\tBob\ne4\tAnn\n"
    folder = put(tmp_path / "g", sound(), graph_toml=toml, t_tsv=texts, n_tsv=names)
    result = audit(folder, ranked=False)
    pairs = result.coverage.pairs["named"]
    assert (pairs.present, pairs.pairs, pairs.kinds) == (5, 4, 1)
    assert pairs.share == 5 / result.entities
    assert (pairs.sizes["0"], pairs.sizes["100"]) == (1, 3)
    console = Console(width=200, file=io.StringIO())
    console.print(summary_table(result))
    assert "named" in console.file.getvalue()
    assert "4 pairs of 1 kinds" in page(result)


# -- repeated rows ------------------------------------------------------------------------------


def test_one_file_keeps_its_repeated_rows(tmp_path: Path) -> None:
    lines = [f"e{n}\tr\te{n + 1}\n" for n in range(40)]
    path = tmp_path / "facts.tsv"
    path.write_text("".join([*lines, lines[3], lines[3], lines[17]]))
    result = audit(path, ranked=False)
    assert sum(split.rows for split in result.splits.values()) == 43
    assert sum(split.repeated for split in result.splits.values()) == 3
    assert {s: c.distinct for s, c in result.splits.items()} == {"train": 32, "valid": 4, "test": 4}
    repair(path, tmp_path / "out")
    assert load(tmp_path / "out").digest() == load(path).digest()


def test_other_formats_keep_their_repeated_rows(tmp_path: Path) -> None:
    rows = noisy(0)
    expected = defect_rows(audit(put(tmp_path / "tsv", rows), ranked=False))
    (tmp_path / "csv").mkdir()
    (tmp_path / "openke").mkdir()
    graph = load(tmp_path / "tsv")
    for split, facts in rows.items():
        text = "".join(f"{h},{r},{t}\n" for h, r, t in facts)
        (tmp_path / "csv" / f"{split}.csv").write_text(f"head,relation,tail\n{text}")
        ids = [
            (graph.entities.id(h), graph.entities.id(t), graph.relations.id(r)) for h, r, t in facts
        ]
        text = "".join(f"{h} {t} {r}\n" for h, t, r in ids)
        if split != "known":
            (tmp_path / "openke" / f"{split}2id.txt").write_text(f"{len(ids)}\n{text}")
    for kind in ("entity", "relation"):
        names = graph.entities if kind == "entity" else graph.relations
        text = "".join(f"{name}\t{n}\n" for n, name in enumerate(names))
        (tmp_path / "openke" / f"{kind}2id.txt").write_text(f"{len(names)}\n{text}")
    assert defect_rows(audit(tmp_path / "csv", ranked=False)) == expected
    del rows["known"]
    expected = defect_rows(audit(put(tmp_path / "without", rows), ranked=False))
    assert defect_rows(audit(tmp_path / "openke", ranked=False)) == expected


# -- page and terminal ---------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></svg></title><b>",
    "' onmouseover='alert(1)",
    "&lt;&amp;&#60;",
    "a\u202eb\u2066c",
    "\x1b[31mred\x07\0",
    "[bold]x[/bold] [/]",
    "line\u2028break",
    "名" * 5000,
    "javascript:alert(1)",
    "{{ 7 * 7 }} ${x} %s",
    "\U0001f600",
]


class Reader(HTMLParser):
    """Elements, attributes and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: dict[str, list[str]] = defaultdict(list)
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            self.attributes[name].append(value or "")
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_audit(folder: Path) -> Audit:
    rows = sound()
    rows["train"] += [(f"{name}!", name, "e0") for name in HOSTILE]
    rows["valid"] += rows["train"][-3:]
    toml = f"name = {json.dumps(HOSTILE[0] + HOSTILE[1])}\n"
    result = audit(put(folder / HOSTILE[3], rows, graph_toml=toml))
    assert any(HOSTILE[3] in note for note in result.notes)
    return result


def test_hostile_names_are_harmless_on_the_page(tmp_path: Path) -> None:
    result = hostile_audit(tmp_path)
    write_page(result, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text == page(result)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert set(reader.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "main", "section", "div", "p", "pre"),
        *("h1", "h2", "ul", "li", "b", "bdi", "span", "details", "summary", "dl", "dt", "dd"),
        *("table", "thead", "tbody", "tr", "th", "td", "figure"),
        *("svg", "text", "rect", "line", "circle"),
    }
    assert reader.tags["style"] == reader.tags["head"] == 1
    assert not [name for name in reader.attributes if name.startswith("on")]
    assert not {"href", "src", "style", "xlink:href"} & set(reader.attributes)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in "".join(reader.attributes["content"])
    for name in (*HOSTILE[:5], *HOSTILE[7:8], *HOSTILE[10:]):
        assert name in reader.text, name
    assert not re.search(r"[\0-\x08\x0b-\x1f\x7f\u202a-\u202e\u2028\u2066-\u2069]", text)
    assert "4,920 more characters" in text
    assert len(text) < 200_000


def test_hostile_names_are_harmless_in_the_terminal(tmp_path: Path) -> None:
    screen = io.StringIO()
    Console(file=screen, width=200).print(summary_table(hostile_audit(tmp_path)))
    text = screen.getvalue()
    assert "\x1b" not in text
    assert HOSTILE[0] in text
    for word in ("in train", "3 of 6 rows of valid", "frequency", "n-1"):
        assert word in text


def test_the_page_shows_all_counts(tmp_path: Path) -> None:
    rows = noisy(3, entities=30, facts=1500)
    reader = Reader()
    result = audit(put(tmp_path / "g", rows))
    reader.feed(page(result))
    for split in result.splits.values():
        assert f"{split.rows:,}" in reader.text
        assert f"{split.distinct:,}" in reader.text
    for defect in result.defects:
        assert f"{defect.rows:,} rows, {percent(defect.share)}" in reader.text
    for finding in findings(result):
        assert finding.text in reader.text
    assert json.loads(json.dumps(result.as_dict())) == result.as_dict()


def test_parts_of_an_audit_are_data_frames(tmp_path: Path) -> None:
    rows = sound()
    plant_inverse(rows)
    plant_repeated(rows)
    result = audit(put(tmp_path / "g", rows))
    defects = result.to_pandas()
    assert list(defects) == ["split", "kind", "rows", "distinct", "share"]
    assert defects["rows"].tolist() == [defect.rows for defect in result.defects]
    relations = result.to_pandas("relations").set_index("name")
    assert list(relations.index) == [relation.name for relation in result.relations]
    assert relations.loc["child", "inverse"] == "parent"
    assert relations.loc["child", "inverse_facts"] == 9
    assert relations["twin"].isna().sum() == sum(r.twin is None for r in result.relations)
    splits = result.to_pandas("splits").set_index("split")
    assert splits.loc["train", "repeated"] == 4
    floors = result.to_pandas("floors").set_index(["split", "floor", "over"])
    assert (
        floors.loc[("test", "lookup", "rows"), "mrr"] == result.floors["test"]["lookup"].rows["mrr"]
    )
    assert len(floors) == 2 * 2 * 2
    assert audit(put(tmp_path / "h", sound()), ranked=False).to_pandas("floors").empty


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.0 %"), (0.0001, "< 0.1 %"), (0.5, "50.0 %"), (0.9999, "> 99.9 %"), (1, "100.0 %")],
)
def test_shares_do_not_round_to_all_or_nothing(share: float, text: str) -> None:
    assert percent(share) == text


def test_tiny_graphs(tmp_path: Path) -> None:
    """One fact; an empty split; the embedded graph."""
    result = audit(put(tmp_path / "g", {"train": [("a", "r", "a")], "test": []}))
    assert defect_rows(result) == {}
    assert result.floors == {}
    assert page(result)
    atlas = audit("atlas", ranked=False)
    assert atlas.clean
    assert {d.kind for d in atlas.defects} == set(DEFECTS)
    assert set(atlas.coverage.dense) == {"text", "image", "number"}


# -- published benchmarks ------------------------------------------------------------------------

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the benchmarks are not next to the checkout"
)


@needs_data
@pytest.mark.parametrize(
    ("name", "size", "rows"),
    [
        ("MKG-W", (15000, 169), (34196, 4276, 4274)),
        ("MKG-Y", (15000, 28), (21310, 2665, 2663)),
        ("DB15K", (12842, 279), (79222, 9904, 9902)),
        ("TIVA", (11858, 16), (20071, 2000, 2000)),
        ("KVC16K", (16015, 4), (180190, 22523, 22525)),
    ],
)
def test_known_defects_of_published_benchmarks(
    name: str, size: tuple[int, int], rows: tuple[int, int, int], tmp_path: Path
) -> None:
    released = RawGraph.read(DATA / name)
    result = audit(released, ranked=name == "TIVA")
    assert (result.entities, len(result.relations)) == size
    assert tuple(result.splits[s].rows for s in ("train", "valid", "test")) == rows
    kinds = ("in train", "in valid", "in test")
    overlaps = {(d.split, d.kind): d for d in result.defects if d.kind in kinds and d.rows}
    repeated = {split: count.repeated for split, count in result.splits.items() if count.repeated}
    if name in ("MKG-W", "MKG-Y"):
        assert result.clean
        unseen = result.defect("test", "unseen entity").rows
        assert unseen == {"MKG-W": 306, "MKG-Y": 388}[name]
    elif name == "DB15K":
        assert result.splits["valid"].distinct == 7481
        assert overlaps["valid", "in train"].distinct == 6584
        assert overlaps["valid", "in test"].distinct == 824
        # Test is clean except for its rows that valid has too.
        assert set(overlaps) == {("valid", "in train"), ("valid", "in test"), ("test", "in valid")}
        assert set(repeated) == {"valid"}
    elif name == "TIVA":
        assert result.splits["train"].distinct == 11652
        assert overlaps["test", "in train"].rows == 1666
        assert round(result.floors["test"]["lookup"].rows["mrr"], 3) == 0.889
    else:
        assert repeated["train"] == 171
        assert overlaps["test", "in train"].rows == 48
        assert overlaps["valid", "in train"].distinct == 30
        assert overlaps["valid", "in test"].distinct == 5
    changes = repair(released, tmp_path / "out")
    assert bool(changes) == (name not in ("MKG-W", "MKG-Y"))
    assert any("hold-out" in change.what for change in changes) == (name == "DB15K")
    repaired = RawGraph.read(tmp_path / "out")
    assert audit(repaired, ranked=False).clean
    if name == "DB15K":
        assert len(repaired.rows["valid"]) == round(0.05 * 79222)
        assert len(repaired.rows["known"]) == 73
