"""What is encoded, and whose it is: tables of any format, lists of files, files named by entity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mocme.core.registry import ConfigError
from mocme.data.graph import Graph, Vocabulary
from mocme.encoders.base import EncodingJob, EncodingReport, UnusableItem
from mocme.encoders.inputs import escaped, read_file, unescaped
from mocme.encoders.kinds.image import ImageEncoder
from mocme.encoders.kinds.text import TextEncoder
from mocme.encoders.store import FeatureStore, RawItem

NAMES = ["Ada", "Bob / Co", "Dr. No", "100%", ".hidden", "naïve", "x.png"]


@pytest.fixture
def graph() -> Graph:
    import torch

    facts = {"train": torch.zeros(1, 3).long()}
    return Graph(Vocabulary(NAMES), Vocabulary(["r"], "relation"), facts)


def gathered(
    encoder: TextEncoder | ImageEncoder, graph: Graph, folder: Path
) -> tuple[list[RawItem], EncodingReport]:
    outcome = EncodingReport("m", "test")
    with FeatureStore(folder / "out" / "m.safetensors") as store:
        encoder.gather(EncodingJob(graph, "m", folder, folder), store, outcome)
        store.settle()
        return [item for window in store.windows(3) for item in window], outcome


@given(st.text(min_size=1, max_size=60))
@example('a/b\\c:d*e?f"g<h>i|j%k')
@example("..")
@example(" x ")
@example("CON.")
@example("%41")
@example("\x00\x1f\x7f")
def test_a_name_comes_back_from_its_file_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    text = escaped(name)
    assert unescaped(text) == name
    assert not set('/\\:*?"<>|\x00') & set(text)
    assert text not in (".", "..")
    assert not text.startswith(".")


def test_a_name_that_is_too_long_for_a_file_is_refused() -> None:
    with pytest.raises(ValueError, match="too long for a file name; list its files in a table"):
        escaped("é" * 200)


def test_files_that_are_named_by_entity(graph: Graph, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / escaped("Bob / Co")).mkdir(parents=True)
    files = ["Ada.JPG", "Dr. No.png", "100%25.png", "%2Ehidden.gif", "naïve.webp", "x.png"]
    files += ["Bob %2F Co/2.png", "Bob %2F Co/1.jpg", "Nobody.png", ".DS_Store"]
    # What the format is, the content tells.
    files += ["Ada.jfif", "Bob %2F Co/.secret.png"]
    (folder / escaped("Bob / Co") / "more").mkdir()
    for name in files:
        (folder / name).write_bytes(b"x")
    items, outcome = gathered(ImageEncoder(paths=["pictures"]), graph, tmp_path)
    found = [(NAMES[item.entity], Path(item.source).name) for item in items]
    # "x.png" is the picture of an entity named x, of which there is none.
    assert found == [
        ("Ada", "Ada.JPG"),
        ("Ada", "Ada.jfif"),
        ("Bob / Co", "1.jpg"),
        ("Bob / Co", "2.png"),
        ("Dr. No", "Dr. No.png"),
        ("100%", "100%25.png"),
        (".hidden", "%2Ehidden.gif"),
        ("naïve", "naïve.webp"),
    ]
    assert outcome.unknown == 2
    assert outcome.strange == ["Nobody", "x"]
    assert outcome.counts == {
        "hidden files, passed over": 2,
        "folders in an entity's folder, passed over": 1,
    }


def test_a_list_of_files_starts_in_its_own_folder(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    rows = [("Ada", "a.png"), ("Ada", "sub/b.png"), ("Who", "c.png"), ("Dr. No", "")]
    rows.append(("naïve", "https://example.org/x.png"))
    text = "".join(f"{name}\t{path}\n" for name, path in rows)
    (tmp_path / "lists" / "pictures.tsv").write_text(text)
    items, outcome = gathered(ImageEncoder(paths=["lists/pictures.tsv"]), graph, tmp_path)
    base = tmp_path / "lists"
    assert [item.source for item in items] == [
        str(base / "a.png"), str(base / "sub/b.png"), "", "https://example.org/x.png",
    ]  # fmt: skip
    assert items[0].place.endswith("pictures.tsv, line 1")
    assert outcome.unknown == 1
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


def test_tables_of_every_format_say_the_same(graph: Graph, tmp_path: Path) -> None:
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
    want = [(0, rows[0][1]), (0, rows[2][1]), (2, rows[1][1])]
    for name in ("t.tsv", "t.csv", "t.jsonl", "t.parquet"):
        items, _ = gathered(TextEncoder(paths=[name]), graph, tmp_path)
        assert [(item.entity, item.source) for item in items] == want, name


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


def test_wrong_settings_and_missing_files(graph: Graph, tmp_path: Path) -> None:
    from mocme.encoders.catalog import encoder_of

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
