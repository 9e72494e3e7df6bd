"""One value that is never right costs its row, with its place; it never refuses the whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from mocme.cli import main
from mocme.data.formats.registry import format_named
from mocme.data.ingest.importer import ImportReport, import_recipe
from mocme.data.ingest.recipe import Recipe
from mocme.data.load import load, load_raw

BAD = ["Jo\nBloggs", "Jo\tBloggs", "Jo\rBloggs", "\ufeffJo", "J\0o", "J\x1b[2Jo", "J\uffffo"]
GOOD = [("Ada", "knows", "Bob"), ("Bob", "knows", "Zo\u00eb"), ("Zo\u00eb", "likes", "Ada")]
# Formats that can hold such names.
HOLDING = ["csv", "jsonl", "parquet", "nt", "ttl"]


def imported(source: Path, out: Path) -> ImportReport:
    return import_recipe(Recipe.of_facts(str(source)), out)


def rows_of(folder: Path) -> list[tuple[str, ...]]:
    text = (folder / "train.tsv").read_text(encoding="utf-8")
    return [tuple(line.split("\t")) for line in text.splitlines()]


def write(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    format_named(path.suffix[1:]).write(path, rows)
    return path


@pytest.mark.parametrize("kind", HOLDING)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_name_that_is_never_right_is_a_reject_of_its_row(
    tmp_path: Path, kind: str, position: int
) -> None:
    rows = list(GOOD)
    for name in BAD:
        row = ["a", "r", "b"]
        row[position] = name
        rows.insert(len(rows) // 2, (row[0], row[1], row[2]))
    report = imported(write(tmp_path / f"facts.{kind}", rows), tmp_path / "out")
    assert rows_of(tmp_path / "out") == GOOD
    (file,) = report.reports
    assert file.accounted
    assert (file.rows, file.rejected) == (len(GOOD), len(BAD))
    assert {r.reason.split("(U+")[1][:4] for r in file.rejects} == {
        *("000A", "0009", "000D", "FEFF", "0000", "001B", "FFFF"),
    }
    assert str(tmp_path / f"facts.{kind}") in str(report)
    assert all(r.line and ";" in r.reason for r in file.rejects)
    names = (tmp_path / "out" / "entities.txt").read_text(encoding="utf-8").splitlines()
    assert names == ["Ada", "Bob", "Zo\u00eb"]
    assert load(tmp_path / "out").num_entities == 3


def test_ids_do_not_depend_on_rows_that_were_rejected(tmp_path: Path) -> None:
    rows = [(f"e{n % 50}", f"r{n % 3}", f"e{n * 7 % 60}") for n in range(400)]
    bad = [("x\0", "r0", "new"), ("e1", "r\x07", "e2"), ("other", "r1", "y\ud7ff\x00")]
    clean = imported(write(tmp_path / "clean.csv", rows), tmp_path / "clean")
    mixed = [row for n, good in enumerate(rows) for row in (good, bad[n % 3])]
    dirty = imported(write(tmp_path / "dirty.csv", mixed), tmp_path / "dirty")
    for name in ("train.tsv", "entities.txt", "relations.txt"):
        assert (tmp_path / "dirty" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()
    assert dirty.reports[0].rejected == 400
    assert clean.facts == dirty.facts


def test_names_of_entities_in_tables_of_values_are_rejects(tmp_path: Path) -> None:
    write(tmp_path / "facts.csv", GOOD)
    about = [("Ada", "a text\nof lines", "1815"), *((name, "text", "1") for name in BAD)]
    write(tmp_path / "about.csv", about)
    os.makedirs(tmp_path / "a\nb")
    (tmp_path / "a\nb" / "x.png").write_bytes(b"")
    write(tmp_path / "files.csv", [("Ada", "r", "a\nb/x.png"), ("Bob", "r", "about.csv")])
    (tmp_path / "recipe.toml").write_text(
        '[[facts]]\npath = "facts.csv"\n'
        '[[texts]]\nname = "t"\npath = "about.csv"\nentity = "head"\ncolumn = "relation"\n'
        '[[numbers]]\nname = "n"\npath = "about.csv"\nentity = "head"\ncolumns = ["tail"]\n'
        '[[files]]\nname = "f"\npath = "files.csv"\nentity = "head"\ncolumn = "tail"\n'
    )
    report = import_recipe(tmp_path / "recipe.toml", tmp_path / "out")
    texts, numbers, files = report.reports[1:]
    assert texts.rejected == numbers.rejected == len(BAD)
    assert [r.line for r in files.rejects] == [2]
    assert all(part.accounted for part in report.reports)
    assert (tmp_path / "out" / "t.tsv").read_text() == "Ada\ta text of lines\n"
    assert (tmp_path / "out" / "n.tsv").read_text() == "Ada\ttail\t1815\n"
    assert report.entities == 3


def test_numbers_that_only_python_reads_are_rejects(tmp_path: Path) -> None:
    write(tmp_path / "facts.csv", GOOD)
    cells = ["1_000", "1,234", "\u0661", "inf", "nan", "1e999", "0x1", "2.5"]
    write(tmp_path / "n.csv", [("Ada", "r", cell) for cell in cells])
    (tmp_path / "recipe.toml").write_text(
        '[[facts]]\npath = "facts.csv"\n'
        '[[numbers]]\nname = "n"\npath = "n.csv"\nentity = "head"\ncolumns = ["tail"]\n'
    )
    report = import_recipe(tmp_path / "recipe.toml", tmp_path / "out").reports[1]
    assert [r.line for r in report.rejects] == list(range(2, 9))
    assert "separators of thousands" in report.rejects[1].reason
    assert (tmp_path / "out" / "n.tsv").read_text() == "Ada\ttail\t2.5\n"


def test_a_relation_of_a_recipe_is_a_name(tmp_path: Path) -> None:
    write(tmp_path / "facts.csv", GOOD)
    (tmp_path / "recipe.toml").write_text(
        '[[facts]]\npath = "facts.csv"\nhead = "head"\ntail = "tail"\nsays = "a\\tb"\n'
    )
    with pytest.raises(ValueError, match=r"recipe.toml: facts\[0\]: says: the name 'a\\tb' holds"):
        import_recipe(tmp_path / "recipe.toml", tmp_path / "out")


@pytest.mark.parametrize("name", [name for name in BAD if not set("\t\n\r\ufeff") & set(name)])
def test_direct_reading_names_the_line_and_an_audit_counts_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "train.tsv").write_text(f"a\tr\tb\nb\tr\tc\n{name}\tr\tc\n", newline="")
    for path in (tmp_path, tmp_path / "train.tsv"):
        with pytest.raises(ValueError, match=r"train.tsv: line 3: the name .*mocme import"):
            load(path)
    raw = load_raw(tmp_path)
    assert raw.graph.num_entities == 3
    assert list(raw.rejected.values()) == [1]
    (tmp_path / "train.tsv").write_text("a\tr\tb\n")
    (tmp_path / "entities.txt").write_text(f"a\nb\n{name}\n", newline="")
    with pytest.raises(ValueError, match=r"entities.txt: line 3: the name"):
        load(tmp_path)


def test_utf_16_is_read_as_the_same_graph(tmp_path: Path) -> None:
    text = "".join(f"{h}\t{r}\t{t}\n" for h, r, t in GOOD)
    for name, data in [("one", text.encode()), ("two", text.encode("utf-16"))]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.tsv").write_bytes(data)
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert one.entities.digest() == two.entities.digest()
    assert one.splits["train"].equal(two.splits["train"])
    (tmp_path / "two" / "train.tsv").write_bytes(text.encode("utf-16-le"))
    with pytest.raises(ValueError, match="iconv -f UTF-16LE -t UTF-8"):
        load(tmp_path / "two")


def test_names_that_look_alike_are_told_once_and_stay_apart(tmp_path: Path) -> None:
    rows = [("Ada", "knows", "Bob"), ("Ada ", "knows", "Cleo"), ("ada", "Knows", "Bob")]
    report = imported(write(tmp_path / "f.csv", rows), tmp_path / "out")
    assert report.entities == 5
    assert [note for note in report.notes if "like another one" in note] == report.notes
    assert len(report.notes) == 2
    assert "2 names of entities" in report.notes[0]
    assert "1 name of relations looks like another one; they are" in report.notes[1]
    assert report.notes[0] in str(report)
    notes = load(tmp_path / "out").notes
    assert [note for note in notes if "like another one" in note] == [
        note.replace(report.folder, str(tmp_path / "out")) for note in report.notes
    ]


def test_the_report_of_an_import_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "f.tsv").write_text("a\tr\tb\n" + "bad\n" * 30_000)
    report = imported(tmp_path / "f.tsv", tmp_path / "out")
    assert "30,000 rejects" in str(report)
    assert "the first 1,000 rejects of each file are in" in str(report)
    path = tmp_path / "out" / "import.json"
    assert path.stat().st_size < 200_000
    (file,) = json.loads(path.read_text())["reports"]
    assert (file["rejected"], len(file["rejects"])) == (30_000, 1000)
    assert file["reasons"] == {"1 columns where 3 are expected": 30_000}


def test_no_name_or_path_reaches_the_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "\x1b]0;pwned\x07[bold]"
    folder.mkdir()
    rows = [*GOOD, ("\x1b[31mred", "[red]r[/red]", "b\u202ea"), ("[bold]", "r\x9b2J", "b")]
    write(folder / "facts.csv", rows)
    (folder / "train.tsv").write_text("a\tr\tb\n[/b]\tr\tc\u202e\n")
    for command in (
        ["import", str(folder / "facts.csv"), "--out", str(folder / "out")],
        ["import", str(folder / "facts.csv"), "--out", str(folder / "json"), "--json"],
        ["import", str(folder / "absent.csv"), "--out", str(folder / "no")],
        ["audit", str(folder), "--no-floors"],
        ["export", str(folder), str(folder / "new.csv")],
        ["train", "structure", "--data", str(folder / "facts.csv"), "--out", str(folder / "r")],
    ):
        result = CliRunner().invoke(main, command)
        assert result.exception is None or isinstance(result.exception, SystemExit), command
        text = result.output.replace("\n", "")
        assert text
        assert not set("\x1b\x07\x9b\u202e") & set(text), command
        assert "pwned" in text


@pytest.mark.parametrize("section", ["numbers", "texts", "files", "encode"])
@pytest.mark.parametrize("name", ["numbers", "texts"])
def test_no_table_takes_the_place_of_literals(section: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "d.nt").write_text(
        '<a:a> <a:p> <a:b> .\n<a:a> <a:n> "a name" .\n'
        '<a:a> <a:h> "3"^^<http://www.w3.org/2001/XMLSchema#integer> .\n'
    )
    (tmp_path / "n.csv").write_text("id,size\na:a,7\n")
    column = 'columns = ["size"]' if section == "numbers" else 'column = "size"'
    table = f'[[{section}]]\nname = "{name}"\npath = "n.csv"\nentity = "id"\n{column}\n'
    if section == "encode":
        table = f'[encode.{name}]\nkind = "text"\npaths = ["n.csv"]\n'
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'[[facts]]\npath = "d.nt"\n{table}')
    with pytest.raises(ValueError, match=rf"{name}: the 1 {name} of RDF files.*literals = false"):
        import_recipe(recipe, tmp_path / "out")
    recipe.write_text(f'[[facts]]\npath = "d.nt"\nliterals = false\n{table}')
    import_recipe(recipe, tmp_path / "out")
