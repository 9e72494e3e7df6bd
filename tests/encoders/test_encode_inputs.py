"""Raw inputs by entity: tables of any format, lists of files, files named after entities."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from media import named_graph
from mocme.core.registry import ConfigError
from mocme.data.graph import Graph
from mocme.encoders.base import EncodingJob, EncodingReport, UnusableItem
from mocme.encoders.catalog import encoder_of
from mocme.encoders.inputs import escaped, read_file, unescaped
from mocme.encoders.kinds.image import ImageEncoder
from mocme.encoders.kinds.text import TextEncoder
from mocme.encoders.store import FeatureStore, RawItem

NAMES = ["Ada", "Bob / Co", "Dr. No", "100%", ".hidden", "naïve", "x.png"]


@pytest.fixture
def graph() -> Graph:
    return named_graph(NAMES)


def gathered(
    encoder: TextEncoder | ImageEncoder, graph: Graph, folder: Path
) -> tuple[list[RawItem], EncodingReport]:
    report = EncodingReport("m", "test")
    with FeatureStore(folder / "out" / "m.safetensors") as store:
        encoder.gather(EncodingJob(graph, "m", folder, folder), store, report)
        store.sort_items()
        return [item for window in store.windows(3) for item in window], report


@given(st.text(min_size=1, max_size=60))
@example('a/b\\c:d*e?f"g<h>i|j%k')
@example("..")
@example(" x ")
@example("CON.")
@example("%41")
@example("\x00\x1f\x7f")
def test_a_name_is_recovered_from_its_file_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    text = escaped(name)
    assert unescaped(text) == name
    assert not set('/\\:*?"<>|\x00') & set(text)
    assert text not in (".", "..")
    assert not text.startswith(".")


def test_a_name_too_long_for_a_file_is_an_error() -> None:
    with pytest.raises(ValueError, match="too long for a file name; list its files in a table"):
        escaped("é" * 200)


def test_files_named_after_entities(graph: Graph, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / escaped("Bob / Co")).mkdir(parents=True)
    files = ["Ada.JPG", "Dr. No.png", "100%25.png", "%2Ehidden.gif", "naïve.webp", "x.png"]
    files += ["Bob %2F Co/2.png", "Bob %2F Co/1.jpg", "Nobody.png", ".DS_Store"]
    # An unknown ending is accepted: the content decides the format.
    files += ["Ada.jfif", "Bob %2F Co/.secret.png"]
    (folder / escaped("Bob / Co") / "more").mkdir()
    for name in files:
        (folder / name).write_bytes(b"x")
    items, report = gathered(ImageEncoder(paths=["images"]), graph, tmp_path)
    # "x.png" is the image of an entity named x, which is not in the graph.
    assert [(NAMES[item.entity], Path(item.source).name) for item in items] == [
        ("Ada", "Ada.JPG"),
        ("Ada", "Ada.jfif"),
        ("Bob / Co", "1.jpg"),
        ("Bob / Co", "2.png"),
        ("Dr. No", "Dr. No.png"),
        ("100%", "100%25.png"),
        (".hidden", "%2Ehidden.gif"),
        ("naïve", "naïve.webp"),
    ]
    assert report.unknown == 2
    assert report.strange == ["Nobody", "x"]
    assert report.counts == {
        "hidden files, skipped": 2,
        "folders in an entity's folder, skipped": 1,
    }


def test_paths_in_a_table_are_relative_to_its_folder(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    rows = [("Ada", "a.png"), ("Ada", "sub/b.png"), ("Who", "c.png"), ("Dr. No", "")]
    rows.append(("naïve", "https://example.org/x.png"))
    text = "".join(f"{name}\t{path}\n" for name, path in rows)
    (tmp_path / "lists" / "images.tsv").write_text(text)
    items, report = gathered(ImageEncoder(paths=["lists/images.tsv"]), graph, tmp_path)
    base = tmp_path / "lists"
    assert [item.source for item in items] == [
        str(base / "a.png"), str(base / "sub/b.png"), "", "https://example.org/x.png",
    ]  # fmt: skip
    assert items[0].origin.endswith("images.tsv, line 1")
    assert report.unknown == 1
    (base / "a.png").write_bytes(b"1234")
    assert read_file(items[0], 4) == b"1234"
    for item, limit, reason in (
        (items[0], 3, "the limit is"),
        (items[1], 9, "there is no file"),
        (items[2], 9, "no file is named"),
        (items[3], 9, "nothing is fetched"),
    ):
        with pytest.raises(UnusableItem, match=reason):
            read_file(item, limit)


def test_every_format_gives_the_same_items(graph: Graph, tmp_path: Path) -> None:
    rows = [("Ada", "a text, with a comma"), ("Dr. No", 'a "quoted" one'), ("Ada", "more")]
    (tmp_path / "t.tsv").write_text("".join(f"{n}\t{t}\n" for n, t in rows))
    quoted = "".join('"{}","{}"\n'.format(n, t.replace('"', '""')) for n, t in rows)
    (tmp_path / "t.csv").write_text("entity,text\n" + quoted)
    lines = "".join(json.dumps({"text": t, "x": 1, "entity": n}) + "\n" for n, t in rows)
    (tmp_path / "t.jsonl").write_text(lines)
    columns = {"entity": [n for n, _ in rows], "text": [t for _, t in rows]}
    pyarrow = pytest.importorskip("pyarrow", reason="a Parquet file is written with pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    expected = [(0, rows[0][1]), (0, rows[2][1]), (2, rows[1][1])]
    for name in ("t.tsv", "t.csv", "t.jsonl", "t.parquet"):
        items, _ = gathered(TextEncoder(paths=[name]), graph, tmp_path)
        assert [(item.entity, item.source) for item in items] == expected, name


def test_columns_of_several_tables(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("who,what\nAda,one\n")
    (tmp_path / "b.csv").write_text("who,else\nAda,two\n")
    encoder = TextEncoder(paths=["a.csv", "b.csv"], entity="who", columns=["what", "else"])
    items, _ = gathered(encoder, graph, tmp_path)
    assert [item.source for item in items] == ["one", "two"]
    with pytest.raises(ValueError, match="no column named 'what'"):
        gathered(TextEncoder(paths=["b.csv"], entity="who", columns=["what"]), graph, tmp_path)
    (tmp_path / "c.jsonl").write_text('{"who": "Ada", "else": "x"}\n{"who": "naïve"}\n')
    items, _ = gathered(
        TextEncoder(paths=["c.jsonl"], entity="who", columns=["else"]), graph, tmp_path
    )
    assert [item.source for item in items] == ["x", ""]
    with pytest.raises(
        ValueError, match=r"no object has a key 'what'; the first has 'who', 'else'"
    ):
        gathered(TextEncoder(paths=["c.jsonl"], entity="who", columns=["what"]), graph, tmp_path)


def test_wrong_settings_and_missing_files_are_errors(graph: Graph, tmp_path: Path) -> None:
    for table, problem in (
        ({"kind": "text"}, "encode.x.paths: is missing"),
        ({"kind": "text", "paths": "names.tsv"}, "encode.x.paths: must be a list"),
        ({"kind": "text", "paths": []}, "at least one"),
        ({"kind": "text", "paths": ["a"], "columns": ["1", "2"]}, "one for each"),
        ({"kind": "text", "paths": ["a"], "modell": "x"}, "did you mean 'model'"),
        ({"kind": "taste", "paths": ["a"]}, "none of: audio, bins"),
        ({"paths": ["a"]}, "needs a kind"),
    ):
        with pytest.raises(ConfigError, match=problem):
            encoder_of(table, "encode.x")
    with pytest.raises(ValueError, match=r"nowhere\.tsv: there is no such file or folder"):
        gathered(TextEncoder(paths=["nowhere.tsv"]), graph, tmp_path)
