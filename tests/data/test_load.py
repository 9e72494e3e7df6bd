"""Folders and files become graphs, or errors with a remedy."""

from __future__ import annotations

import gzip
import time
from collections import Counter
from pathlib import Path

import pytest

from mocme.data.graph import Graph
from mocme.data.load import load

DATA = Path(__file__).parents[3] / "shared" / "data"


def put(folder: Path, **files: str | bytes) -> Path:
    """Write files; `train_tsv` is train.tsv."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        data = text if isinstance(text, bytes) else text.encode()
        (folder / ".".join(name.rsplit("_", 1))).write_bytes(data)
    return folder


def named(graph: Graph, split: str) -> list[tuple[str, str, str]]:
    return [
        (graph.entities[h], graph.relations[r], graph.entities[t])
        for h, r, t in graph.splits[split].tolist()
    ]


def test_a_folder_of_splits(tmp_path: Path) -> None:
    folder = put(
        tmp_path,
        train_tsv="b\tr\ta\r\n\nb\tr\ta\nc\ts\tb\n# note\n",
        valid_txt="a\tr\tb\n",
        test_tsv="new\tr\tb\n",
        known_tsv="",
        graph_toml='name = "mine"\n[modalities.text]\nkind = "words"\npaths = ["x.tsv"]\n',
    )
    graph = load(folder)
    assert graph.name == "mine"
    assert graph.modalities["text"]["paths"] == ["x.tsv"]
    assert graph.entities.names == ("b", "a", "c", "new")
    assert graph.relations.names == ("r", "s")
    assert named(graph, "train") == [("b", "r", "a"), ("c", "s", "b")]
    assert named(graph, "valid") == [("a", "r", "b")]
    assert named(graph, "test") == [("new", "r", "b")]
    assert named(graph, "known") == []
    assert not graph.linked()[graph.entities.id("new")]
    assert "5 lines = 2 rows + 1 duplicate + 2 blank, comment and header lines" in graph.notes[0]
    assert len(graph.inputs) == 4


def test_splits_may_be_of_any_format(tmp_path: Path) -> None:
    folder = put(
        tmp_path,
        train_csv='head,relation,tail\n"b, c",r,a\n',
        valid_nt="<http://x/a> <http://x/r> <http://x/b> .\n",
        test_jsonl='{"head": "a", "relation": "r", "tail": "b, c"}\n',
        known_tsv="a\tr\ta\n",
    )
    (folder / "known.tsv").rename(folder / "known.tsv.gz")
    (folder / "known.tsv.gz").write_bytes(gzip.compress(b"a\tr\ta\n"))
    graph = load(folder)
    assert graph.entities.names == ("b, c", "a", "http://x/a", "http://x/b")
    assert {split: len(facts) for split, facts in graph.splits.items()} == dict.fromkeys(
        ("train", "valid", "test", "known"), 1
    )
    assert named(graph, "test") == [("a", "r", "b, c")]
    assert not graph.listed


def test_named_graphs_are_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.nq").write_text("<http://a> <http://b> <http://c> <http://g> .\n")
    with pytest.raises(ValueError, match=r"a.nq: .* as N-Triples"):
        load(tmp_path / "a.nq")


def test_a_folder_of_openke_files(tmp_path: Path) -> None:
    folder = put(
        tmp_path,
        entity2id_txt="3\nA b\t0\nc\t2\nunused 1\n",
        relation2id_txt="1\nr 0\n",
        train2id_txt="2\n0 2 0\n0 2 0\n",
        test2id_txt="1\n2 0 0\n",
    )
    graph = load(folder)
    assert graph.entities.names == ("A b", "unused", "c")
    assert named(graph, "train") == [("A b", "r", "c")]
    assert named(graph, "test") == [("c", "r", "A b")]
    assert graph.listed
    assert "1 duplicate" in graph.notes[0]
    assert len(graph.inputs) == 4


def test_a_benchmark_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCME_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MOCME_DATA", raising=False)
    with pytest.raises(ValueError, match="mocme fetch MKG-Y"):
        load("MKG-Y")
    with pytest.raises(ValueError, match=r"or a benchmark: .*MKG-"):
        load("MKG-X")


def test_lists_of_names_give_ids(tmp_path: Path) -> None:
    folder = put(
        tmp_path,
        train_tsv="b\tr\ta\n",
        entities_txt="unused\n#a\na\nb\n",
        relations_txt=b"\xef\xbb\xbfq\r\nr\r\n",
    )
    graph = load(folder)
    assert graph.entities.names == ("unused", "#a", "a", "b")
    assert graph.relations.names == ("q", "r")
    assert graph.splits["train"].tolist() == [[3, 1, 2]]
    assert any("relations.txt" in note and "byte order mark" in note for note in graph.notes)
    assert {Path(path).name for path in graph.inputs} == {
        "train.tsv",
        "entities.txt",
        "relations.txt",
    }


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"entities_txt": "a\n"}, r"train.tsv: line 3: 'b' is not listed in entities.txt; add it"),
        ({"entities_txt": ""}, r"train.tsv: line 1: 'a' is not listed in entities.txt"),
        ({"relations_txt": "q\n"}, r"train.tsv: line 1: 'r' is not listed in relations.txt"),
        ({"entities_txt": "a\n\nb\n"}, r"entities.txt: line 2: blank"),
        ({"relations_txt": "r\nr\n"}, r"relations.txt: line 2: 'r' is already in line 1"),
        ({"entities_txt": "a\nb\t2\n"}, r"(?s)entities.txt.*line 2: 2 columns"),
    ],
)
def test_invalid_lists_of_names_are_errors(
    tmp_path: Path, files: dict[str, str], problem: str
) -> None:
    folder = put(tmp_path, train_tsv="a\tr\ta\n\na\tr\tb\n", **files)
    with pytest.raises(ValueError, match=problem):
        load(folder)


def test_folders_without_a_graph_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it holds nothing"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"no train.tsv \(or train.txt\) .* train.xlsx"):
        load(put(tmp_path, train_xlsx="a,r,b\n"))
    put(tmp_path, train_tsv="a\tr\tb\n", train_txt="a\tr\tb\n")
    with pytest.raises(ValueError, match=r"both train.tsv and train.txt; keep one"):
        load(tmp_path)
    with pytest.raises(ValueError, match="no such folder or file; give"):
        load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        (b"a\tb\nc\td\n", "a line is HEAD, tab, RELATION, tab, TAIL"),
        (b"h\tr\tt\ttime\na\tb\tc\td\n", "a line is HEAD, tab, RELATION, tab, TAIL"),
        (b"head,relation,tail\na,r,b\n", "separated by ','; separate them by tabs"),
        (b"a r b\n", "separated by ' '"),
        (b"a|r|b\n", "separated by '|'"),
    ],
)
def test_a_file_without_facts_is_an_error_that_says_what_it_seems_to_be(
    tmp_path: Path, data: bytes, remedy: str
) -> None:
    folder = put(tmp_path, train_tsv=data)
    for path in (folder, folder / "train.tsv"):
        with pytest.raises(ValueError, match=r"train.tsv: not one line is a fact") as caught:
            load(path)
        assert remedy in str(caught.value)
        assert "line 1:" in str(caught.value)
    # The same applies to a split that is only evaluated.
    put(tmp_path, train_tsv="a\tr\tb\n", valid_tsv=data)
    with pytest.raises(ValueError, match=r"valid.tsv: not one line is a fact"):
        load(folder)


@pytest.mark.parametrize("data", ["", "\n\n", "# a\n"])
def test_a_train_split_without_facts_is_refused(tmp_path: Path, data: str) -> None:
    folder = put(tmp_path, train_tsv=data, test_tsv="a\tr\tb\n")
    with pytest.raises(ValueError, match=r"train.tsv: holds no fact"):
        load(folder)
    with pytest.raises(ValueError, match=r"train.tsv: 0 facts leave none to train on"):
        load(folder / "train.tsv")


def test_rejects_and_headers_are_noted(tmp_path: Path) -> None:
    folder = put(tmp_path, train_tsv="Head\tRelation\tTail\na\tr\tb\na\tr\n")
    graph = load(folder)
    assert len(graph.splits["train"]) == 2
    assert "1 reject" in graph.notes[0]
    assert "line 3: 2 columns where 3 are expected: 'a\\tr'" in graph.notes[0]
    assert "line 1 reads like a header" in graph.notes[1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name = ", "not valid TOML"),
        ("nmae = 'x'", "unknown key 'nmae'; known: encode, files, licence"),
        ("modalities = 3", r"\[modalities.NAME\] must be tables"),
        ("[modalities]\ntext = 3", r"\[modalities.NAME\] must be tables"),
    ],
)
def test_an_invalid_graph_toml_is_an_error(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"graph.toml: .*{problem}"):
        load(put(tmp_path, train_tsv="a\tr\tb\n", graph_toml=text))


def test_one_file_is_split_by_seed(tmp_path: Path) -> None:
    lines = [f"e{n % 13}\tr{n % 5}\te{n}\n" for n in range(101)]
    path = put(tmp_path, facts_tsv="".join([*lines, lines[0]])) / "facts.tsv"
    graph, again, other = load(path), load(path), load(path, seed=1)
    assert graph.digest() == again.digest() != other.digest()
    assert {s: len(f) for s, f in graph.splits.items()} == {"train": 81, "valid": 10, "test": 10}
    parts = [fact for split in graph.splits for fact in named(graph, split)]
    assert Counter("\t".join(fact) + "\n" for fact in parts) == Counter(lines)
    assert "1 duplicate" in graph.notes[0]
    assert "seed 0" in graph.notes[1]
    all_train = load(path, ratios=(1.0, 0.0, 0.0))
    assert list(all_train.splits) == ["train"]
    halves = load(path, ratios=(0.5, 0.0, 0.5))
    assert {s: len(f) for s, f in halves.splits.items()} == {"train": 50, "test": 51}


@pytest.mark.parametrize(
    "ratios", [(0.8, 0.1, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)]
)
def test_ratios_are_fractions(tmp_path: Path, ratios: tuple[float, float, float]) -> None:
    path = put(tmp_path, facts_tsv="a\tr\tb\n") / "facts.tsv"
    with pytest.raises(ValueError, match="three fractions that sum to 1"):
        load(path, ratios=ratios)
    with pytest.raises(ValueError, match="1 fact leaves none to train on"):
        load(path, ratios=(0.1, 0.5, 0.4))


def test_the_embedded_graph_is_read_without_rejects() -> None:
    graph = load("atlas")
    assert graph.name == "Atlas"
    assert len(graph.facts("train")) > 5000
    assert all(" 0 duplicates" in note and " 0 rejects" in note for note in graph.notes)


@pytest.mark.skipif(not DATA.is_dir(), reason="the benchmarks are not next to the checkout")
def test_published_benchmarks_have_their_counts() -> None:
    """Rows as published; DB15K has fewer distinct valid facts, because it repeats some."""
    started = time.process_time()
    sets = {
        "MKG-Y": (15000, 28, (21310, 2665, 2663), (21310, 2665, 2663)),
        "MKG-W": (15000, 169, (34196, 4276, 4274), (34196, 4276, 4274)),
        "DB15K": (12842, 279, (79222, 9904, 9902), (79222, 7481, 9902)),
    }
    for name, (entities, relations, rows, distinct) in sets.items():
        graph = load(DATA / name)
        assert (graph.num_entities, graph.num_relations) == (entities, relations)
        splits = ("train", "valid", "test")
        assert tuple(len(graph.splits[s]) for s in splits) == distinct
        for note, count, kept in zip(graph.notes, rows, distinct, strict=False):
            expected = f"{count:,} lines = {kept:,} rows + {count - kept:,} duplicates + 0 blank"
            assert expected in note
    assert time.process_time() - started < 5
