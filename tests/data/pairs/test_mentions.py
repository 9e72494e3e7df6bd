"""Mentions, compared with a search over all n-grams; contexts on handwritten sentences."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocme.audit.audit import audit
from mocme.core.registry import ConfigError
from mocme.data.features.ablations import Ablation
from mocme.data.features.kinds.mentions import Mentions
from mocme.data.features.sources import read_features
from mocme.data.graph import Graph, Vocabulary
from mocme.data.ingest.exporter import export
from mocme.data.load import load
from mocme.data.modality import Pairs
from mocme.data.pairs.mentions import _match_text, _MatchedKeys, _NameIndex, mentions
from mocme.data.words import STOPS, running
from mocme.encoders.export_raw import export_raw

Texts = Mapping[int, Sequence[str]]
IdPairs = set[tuple[int, int]]


def by_kind(pairs: Pairs) -> dict[str, IdPairs]:
    id_pairs: dict[str, IdPairs] = {kind: set() for kind in pairs.kinds}
    rows = zip(pairs.kind.tolist(), pairs.head.tolist(), pairs.tail.tolist(), strict=True)
    for kind, head, tail in rows:
        id_pairs[pairs.kinds[kind]].add((head, tail))
    return id_pairs


def read(names: Sequence[str], texts: Mapping[int, str], **limits: int) -> dict[str, IdPairs]:
    """Return the pairs of entities with one name and at most one text each."""
    name_lists = {number: [name] for number, name in enumerate(names)}
    text_lists = {head: [text] for head, text in texts.items()}
    return by_kind(mentions(name_lists, text_lists, len(names), **limits))


def without_stops(tokens: Sequence[str]) -> list[str]:
    return [token for token in tokens if token not in STOPS]


def stripped(tokens: Sequence[str]) -> list[str]:
    while tokens and tokens[-1] in STOPS:
        tokens = tokens[:-1]
    while tokens and tokens[0] in STOPS:
        tokens = tokens[1:]
    return list(tokens)


def forms(name: str) -> list[list[str]]:
    """Return the tokens of a name with and without stops, without a trailing bracket."""
    bare = name.rstrip()
    if bare.endswith(")") and "(" in bare and without_stops(running(bare[: bare.rindex("(")])):
        name = bare[: bare.rindex("(")]
    tokens = stripped(running(name, stops=True))
    return [tokens, without_stops(tokens)]


def ngrams(text: str) -> list[tuple[int, list[str]]]:
    tokens = running(text, stops=True)
    size = len(tokens)
    return [(a, tokens[a:b]) for a in range(size) for b in range(a + 1, size + 1)]


def naive(names: Texts, texts: Texts, part: int, share: int, shortest: int) -> dict[str, IdPairs]:
    wanted, bearers = defaultdict(set), defaultdict(set)
    for entity, entity_names in names.items():
        for form in (form for name in entity_names for form in forms(name)):
            if form and (len(form) > 1 or len(form[0]) >= shortest):
                wanted[tuple(form)].add(entity)
            for word in without_stops(form):
                if len(word) >= shortest:
                    bearers[word].add(entity)
    pairs: dict[str, IdPairs] = defaultdict(set)
    for head, text in ((head, text) for head, lines in texts.items() for text in lines):
        covered = set()
        for start, gram in ngrams(text):
            for tail in wanted.get(tuple(gram), ()):
                pairs["mentions"].add((head, tail))
                covered |= set(range(start, start + len(gram)))
        for position, word in enumerate(running(text, stops=True)):
            if position not in covered and 0 < len(bearers[word]) <= part:
                pairs["mentions a part"] |= {(head, tail) for tail in bearers[word]}
    pairs["mentions a part"] -= pairs["mentions"]
    for head, name in ((head, name) for head, own in names.items() for name in own):
        for _, gram in ngrams(name):
            pairs["named within"] |= {(head, tail) for tail in wanted.get(tuple(gram), ())}
    for entities in bearers.values():
        if len(entities) <= share:
            pairs["shares a name word"] |= set(permutations(entities, 2))
    different = {kind: {(h, t) for h, t in of_kind if h != t} for kind, of_kind in pairs.items()}
    return {kind: of_kind for kind, of_kind in different.items() if of_kind}


WRITTEN = st.text(alphabet="ab &.(),", max_size=9).map(lambda t: t.replace("b", "bcd"))
WRITINGS = st.dictionaries(st.integers(0, 6), st.lists(WRITTEN, max_size=2), max_size=7)


@given(WRITINGS, WRITINGS, st.integers(0, 3), st.integers(0, 4), st.integers(1, 3))
def test_mentions_equal_those_of_a_search_over_all_ngrams(
    names: Texts, texts: Texts, part: int, share: int, shortest: int
) -> None:
    # The reference handles only brackets that are not nested.
    names = {e: [n for n in own if n.count("(") <= 1 >= n.count(")")] for e, own in names.items()}
    limits = {"part": part, "share": share, "shortest": shortest}
    pairs = mentions(names, texts, 7, contexts=0, **limits)
    assert by_kind(pairs) == naive(names, texts, **limits)


@given(WRITINGS, WRITINGS, st.randoms())
def test_the_order_of_entities_and_texts_does_not_matter(
    names: Texts, texts: Texts, order: random.Random
) -> None:
    def shuffled(texts: Texts) -> Texts:
        items = list(texts.items())
        order.shuffle(items)
        return {entity: order.sample(own, len(own)) for entity, own in items}

    pairs = mentions(names, texts, 7, contexts=1)
    assert mentions(shuffled(names), shuffled(texts), 7, contexts=1).digest() == pairs.digest()
    assert not (pairs.head == pairs.tail).any()
    assert set(pairs.kind.tolist()) == set(range(len(pairs.kinds)))
    shared = by_kind(pairs).get("shares a name word", set())
    assert shared == {(tail, head) for head, tail in shared}
    for kind, of_kind in by_kind(pairs).items():
        if "after" in kind:
            assert of_kind <= by_kind(pairs)["mentions"]


# -- mentions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "is_named"),
    [
        ("Chad", "in CHAD, they say", True),
        ("Chad", "Chadian", False),
        ("New York", "born in new  york", True),
        ("New York", "New\u00a0York-based", True),
        ("New York", "New, York", False),
        ("Paris (Texas)", "seen in Paris.", True),
        ("Paris (Texas) ", "Texas", False),
        ("(Texas)", "Texas", True),
        ("Paris \uff08Texas\uff09", "Paris", True),
        ("St. Louis", "St. Louis", True),
        ("St. Louis", "St Louis", True),
        ("St. Louis", "the st. Louis", True),
        ("Paris Hilton", "in Paris. Hilton", False),
        ("U.S.", "the U.S. Army", True),
        ("U.S.", "us", False),
        ("Earth, Wind & Fire", "by Earth, Wind & Fire", True),
        ("Earth, Wind & Fire", "by Earth, Wind and Fire", False),
        ("Li", "Li said", False),
        ("Li Na", "Li Na said", True),
        ("snake_case", "a snake case", True),
        ("Café", "the Cafe\u0301 here", True),
        ("हिन्दी", "यह हिन्दी में है", True),
        ("हिन", "यह हिन्दी में है", False),
        ("नई दिल्ली", "वह नई दिल्ली। गया", True),
        ("مصر العربية", "في مصر العربية، كان", True),
        ("كتاب", "هذا كتابه", False),
        ("東京都", "彼 は 東京都、日本 に", True),
        ("東京 タワー", "彼女 は 東京 タワー へ", True),
        ("東京 タワー", "東京、タワー", False),
        ("...", "...", False),
    ],
)
def test_a_name_in_a_text(name: str, text: str, is_named: bool) -> None:
    pairs = read(["someone else", name], {0: text}, part=0)
    assert pairs.get("mentions", set()) == ({(0, 1)} if is_named else set())


def test_shortest_sets_the_length_of_a_name() -> None:
    assert read(["x", "日本"], {0: "彼 は 日本 に"}) == {}
    assert read(["x", "日本"], {0: "彼 は 日本 に"}, shortest=2)["mentions"] == {(0, 1)}


def test_names_within_names_and_entities_with_the_same_name() -> None:
    names = ["New York City", "York", "york (UK)", "City Hall", "x y (York)"]
    pairs = read(names, {3: "the New York City Hall"}, part=0, share=0)
    # "City Hall" is the name of the head; names within the longest one count too.
    assert pairs["mentions"] == {(3, 0), (3, 1), (3, 2)}
    # A name may occur within a bracket too.
    assert pairs["named within"] == {(0, 1), (0, 2), (1, 2), (2, 1), (4, 1), (4, 2)}


def test_an_entity_may_have_several_names() -> None:
    names = {0: ["Nile"], 1: ["Germany", "Deutschland", "Federal Republic"]}
    texts = {0: ["not in Deutschland", "but a Republic"]}
    pairs = by_kind(mentions(names, texts, 2))
    assert pairs["mentions"] == {(0, 1)}
    assert "mentions a part" not in pairs
    texts = {0: ["but a Republic"]}
    assert by_kind(mentions(names, texts, 2)) == {"mentions a part": {(0, 1)}}


def test_a_mention_is_within_one_text() -> None:
    names = {0: ["x"], 1: ["New York"]}
    assert not len(mentions(names, {0: ["something New", "York"]}, 2, part=0).kind)


def test_parts_are_words_of_few_names_outside_mentions() -> None:
    names = ["Ann Lee", "Bob Lee", "Cat Lee", "Dan Roe", "nobody"]
    pairs = read(names, {4: "Ann Lee met Roe and a Lee"}, part=3, share=0)
    assert pairs["mentions"] == {(4, 0)}
    assert pairs["mentions a part"] == {(4, 1), (4, 2), (4, 3)}
    assert read(names, {4: "Roe and a Lee"}, part=2)["mentions a part"] == {(4, 3)}
    assert "mentions a part" not in read(names, {4: "Roe and a Lee"}, part=0)


def test_shared_words_are_words_of_few_names() -> None:
    names = ["Ann Lee", "Bob Lee", "Cat Lee (Roe)", "Dan Roe", "Roe"]
    assert read(names, {}, share=2) == {
        "named within": {(2, 4), (3, 4)},
        "shares a name word": {(3, 4), (4, 3)},
    }
    lees = set(permutations(range(3), 2))
    assert read(names, {}, share=3)["shares a name word"] == lees | {(3, 4), (4, 3)}
    assert "shares a name word" not in read(names, {}, share=0)


# -- contexts ------------------------------------------------------------------------------------

PEOPLE = ["Ann Lee", "Bob Roe", "Cat Fox", "film"]


def after(text: str, at_least: int = 1) -> dict[str, set[int]]:
    """Return the people that the text of the film names, by the words before the name."""
    by_context = read(PEOPLE, {3: text}, contexts=at_least, part=0, share=0)
    by_context.pop("mentions", None)
    prefix = "mentions, after "
    return {k.removeprefix(prefix): {t for _, t in pairs} for k, pairs in by_context.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it is directed by Ann Lee", {"by": {0}, "directed by": {0}}),
        ("By Ann Lee", {"by": {0}}),
        ("Ann Lee made it", {}),
        ("made by Ann Lee and Bob Roe", {"by": {0, 1}, "made by": {0, 1}}),
        ("by Ann Lee, Bob Roe & Cat Fox", {"by": {0, 1, 2}}),
        ("by Ann Lee as well as Bob Roe", {"by": {0, 1}}),
        ("Ann Lee and Bob Roe", {}),
        ("by Ann Lee; Bob Roe", {"by": {0}, ";": {1}, "lee ;": {1}}),
        ("by Ann Lee with Bob Roe", {"by": {0}, "with": {1}, "lee with": {1}}),
        ("said. Ann Lee", {".": {0}, "said .": {0}}),
    ],
)
def test_contexts_are_the_words_before_a_list(text: str, expected: dict[str, set[int]]) -> None:
    assert after(text) == expected


def test_a_context_needs_enough_pairs() -> None:
    text = "by Ann Lee and Bob Roe with Cat Fox and by Ann Lee"
    assert set(after(text, 2)) == {"by"}
    assert after(text, 3) == {}
    assert after(text, 0) == {}


def test_a_context_is_that_of_the_longest_name() -> None:
    pairs = read(["York", "New York", "x"], {2: "in New York"}, contexts=1, part=0, share=0)
    assert pairs["mentions"] == {(2, 0), (2, 1)}
    assert pairs["mentions, after in"] == {(2, 1)}
    assert "mentions, after new" not in pairs


def test_a_name_with_a_stop_may_be_a_list() -> None:
    names = ["Lee, Iowa", "Lee", "Iowa", "x"]
    pairs = read(names, {3: "located in Lee, Iowa"}, contexts=1, part=0, share=0)
    assert pairs["mentions, after in"] == pairs["mentions"] == {(3, 0), (3, 1), (3, 2)}
    # Of names without a stop, only the longest has the context.
    pairs = read(["Lee Iowa", "Lee", "Iowa", "x"], {3: "in Lee Iowa"}, contexts=1, part=0, share=0)
    assert pairs["mentions, after in"] == {(3, 0)}


# -- limits, ablations, the source ---------------------------------------------------------------


def test_empty_content_has_no_pairs() -> None:
    assert mentions({}, {}, 3).kinds == ()
    assert mentions({0: [""]}, {1: ["", "a b"]}, 3).kinds == ()


@pytest.mark.parametrize("name", ["contexts", "part", "share", "shortest"])
def test_limits_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=r"0 or more; shortest is 1 or more"):
        mentions({}, {}, 3, **{name: -1})
    with pytest.raises(ValueError, match=r"0 or more; shortest is 1 or more"):
        Mentions(names=["n.tsv"], **{name: -1})


@pytest.mark.parametrize("replace", ["random", "shuffled"])
def test_ablations_keep_kinds_and_nearly_all_pairs(replace: Any) -> None:
    rng = random.Random(0)
    syllables = [a + b for a in "bdfgk" for b in "aeiou"]
    names = {e: [" ".join("".join(rng.sample(syllables, 2)) for _ in "ab")] for e in range(300)}
    texts = {
        e: [" and ".join(f"by {names[t][0]}" for t in rng.sample(range(300), 3))]
        for e in range(200)
    }
    pairs = mentions(names, texts, 300)
    ablated = Ablation(replace, seed=1)(pairs)
    assert ablated.kinds == pairs.kinds
    before, after = Counter(pairs.kind.tolist()), Counter(ablated.kind.tolist())
    assert all(0.95 * before[kind] <= after[kind] <= before[kind] for kind in before)
    assert ablated.digest() not in (pairs.digest(), Ablation(replace, seed=2)(pairs).digest())
    assert ablated.digest() == Ablation(replace, seed=1)(pairs).digest()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A graph whose texts name each other."""
    (tmp_path / "train.tsv").write_text("Q1\tr\tQ2\nQ2\tr\tQ3\n")
    (tmp_path / "names.tsv").write_text("Q1\tx\tAnn Lee\nQ2\tx\tBob Roe\nQ3\tx\tChad\nQ9\tx\tZ\n")
    (tmp_path / "other.tsv").write_text("Q3\tTchad\nQ3\tToumaï\n")
    (tmp_path / "texts.tsv").write_text("Q1\twas born in Toumaï\nQ2\tknew Ann Lee and Tchad\n")
    (tmp_path / "graph.toml").write_text(
        '[modalities.names]\nkind = "mentions"\nnames = ["names.tsv", "other.tsv"]\n'
        'name_columns = [3, 2]\ntexts = ["texts.tsv"]\ncontexts = 1\n'
    )
    return tmp_path


def test_a_graph_declares_mentions(home: Path) -> None:
    graph = load(home)
    features = read_features(graph, graph.modalities)
    pairs = features.pairs["names"]
    ids = {name: number for number, name in enumerate(graph.entities)}
    of_kind = by_kind(pairs)
    assert of_kind["mentions"] == {
        (ids["Q1"], ids["Q3"]),
        (ids["Q2"], ids["Q1"]),
        (ids["Q2"], ids["Q3"]),
    }
    assert of_kind["mentions, after knew"] == {(ids["Q2"], ids["Q1"]), (ids["Q2"], ids["Q3"])}
    assert any("first 'Q9'" in note for note in features.notes)
    assert any("texts of 2 of 2 entities name another, in 3" in note for note in features.notes)
    assert pairs.provenance["source"] == "names.tsv\tother.tsv\ttexts.tsv"
    assert len(pairs.provenance["sha256"].split("\t")) == 3
    assert features.digest() == read_features(graph, graph.modalities, home).digest()
    assert any("name another" in note for note in audit(graph).notes)


def test_files_of_mentions_are_found_in_the_folder_of_the_graph(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    graph = load(home)
    features = read_features(graph, graph.modalities, elsewhere)
    assert features.digest() == read_features(graph, graph.modalities).digest()


def test_an_exported_graph_has_the_same_mentions(home: Path, tmp_path: Path) -> None:
    graph = load(home)
    export(graph, tmp_path / "out")
    export_raw(graph, tmp_path / "out")
    again = load(tmp_path / "out")
    digest = read_features(graph, graph.modalities).digest()
    assert read_features(again, again.modalities).digest() == digest


def test_names_alone_are_enough(home: Path) -> None:
    (home / "names.tsv").write_text("Q1\tLake Chad\nQ3\tChad\n")
    graph = load(home)
    pairs, notes = Mentions(names=["names.tsv"]).load(graph, home)
    assert pairs.kinds == ("named within", "shares a name word")
    assert not any("name another" in note for note in notes)


def test_several_names_in_a_cell(home: Path) -> None:
    (home / "names.tsv").write_text("Q1\tAnn; Anna Lee\nQ3\tChad\n")
    (home / "texts.tsv").write_text("Q3\tAnna Lee\n")
    graph = load(home)
    pairs, _ = Mentions(names=["names.tsv"], texts=["texts.tsv"], separator=";").load(graph, home)
    assert isinstance(pairs, Pairs)
    assert pairs.kinds == ("mentions",)
    whole, _ = Mentions(names=["names.tsv"], texts=["texts.tsv"]).load(graph, home)
    assert isinstance(whole, Pairs)
    assert whole.kinds == ("mentions a part",)


def test_names_without_mentions_are_an_error(home: Path) -> None:
    graph = load(home)
    source = Mentions(names=["names.tsv"], texts=["texts.tsv"], part=0)
    with pytest.raises(ValueError, match=r"names.tsv: of the 3 .* none is named.*name_columns"):
        source.load(graph, home)
    with pytest.raises(ValueError, match=r"absent.tsv: cannot be read"):
        Mentions(names=["absent.tsv"]).load(graph, home)
    with pytest.raises(ValueError, match=r"texts.tsv: has 2 columns, so there is no column 4"):
        Mentions(names=["names.tsv"], texts=["texts.tsv"], columns=[4]).load(graph, home)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({}, r"modalities.x.names: is missing"),
        ({"names": []}, "names must be a list of at least one file"),
        ({"names": ["n"], "name_columns": [1]}, "name_columns must give the text column"),
        ({"names": ["n"], "texts": ["a", "b", "c"], "columns": [2, 3]}, "one per file of texts"),
        ({"names": ["n"], "part": -1}, "0 or more"),
        ({"names": ["n"], "separator": ""}, "leave it out if a cell has one name"),
        ({"names": ["n"], "parts": 1}, "unknown.*mean 'part'"),
    ],
)
def test_errors_about_tables_name_the_setting(table: dict[str, Any], problem: str) -> None:
    graph = Graph(
        Vocabulary(["a"]), Vocabulary(["r"], "relation"), {"train": torch.zeros(0, 3).long()}
    )
    with pytest.raises(ConfigError, match=problem):
        read_features(graph, {"x": {"kind": "mentions", **table}})


def test_repeated_mentions_of_a_name_of_many_entities_are_kept_once() -> None:
    index = _NameIndex.of({entity: ["same name"] for entity in range(50)}, 3, 10)
    sizes = []
    for times in (3, 300):
        matched = _MatchedKeys()
        _match_text(index, matched, 0, running("the same name " * times, stops=True), 1, 3)
        sizes.append((len(matched.full), len(matched.after)))
    assert sizes[0] == sizes[1]
    assert sizes[0][0] == 50
