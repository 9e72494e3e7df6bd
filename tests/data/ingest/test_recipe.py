"""A recipe makes one graph of many tables, and every line of them is counted."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
import torch

from mocme.core.registry import ConfigError
from mocme.data.features.sources import read_features
from mocme.data.formats.registry import KINDS
from mocme.data.graph import Graph
from mocme.data.ingest.importer import import_recipe
from mocme.data.ingest.recipe import Recipe
from mocme.data.load import load

RECIPE = """
name = "films"
licence = "CC0-1.0"

[[facts]]
path = "roles.csv"
head = "film"
relation = "role"
tail = "person"

[[facts]]
path = "films.jsonl"
head = "title"
tail = "genres"
says = "genre"
separator = "|"

[[facts]]
path = "more.nt.gz"

[[facts]]
path = "old.tsv"
split = "valid"

[[texts]]
name = "plot"
path = "films.jsonl"
entity = "title"
column = "plot"

[[numbers]]
name = "figures"
path = "films.jsonl"
entity = "title"
columns = ["year", "budget"]

[[files]]
name = "poster"
path = "posters.txt"
delimiter = ";"
entity = "film"
column = "file"
"""
FILES = {
    "roles.csv": 'id,film,role,person\n1,Alien,directed by,"Scott, R."\n2,Alien,stars,Weaver\n'
    "3,,stars,Nobody\n2,Alien,stars,Weaver\n",
    "films.jsonl": '{"title": "Alien", "genres": "horror|sf", "plot": "In space,\\tno one", '
    '"year": 1979, "budget": 1.1e7}\n'
    '{"title": "Solaris", "genres": "sf", "plot": null, "year": 1972}\n'
    '{"title": "Nameless", "genres": "", "plot": "Nothing\\nat all", "year": "soon"}\n',
    "old.tsv": "Solaris\tstars\tBanionis\n",
    "posters.txt": "film;file\nAlien;img/alien.png\nSolaris;img/none.png\nAlien;\n",
}
RDF = (
    b"<urn:mocme:Alien> <http://x/part_of> <http://x/series> .\n"
    b'<http://x/series> <http://x/label> "Alien series"@en .\n'
    b'<http://x/series> <http://x/films> "4"^^<http://www.w3.org/2001/XMLSchema#integer> .\n'
    b"broken\n"
)


def recipe(folder: Path, text: str = RECIPE) -> Path:
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "more.nt.gz").write_bytes(gzip.compress(RDF))
    (folder / "img").mkdir()
    (folder / "img" / "alien.png").write_bytes(b"a picture")
    path = folder / "films.toml"
    path.write_text(text, encoding="utf-8")
    return path


def named(graph: Graph, split: str) -> set[tuple[str, str, str]]:
    return {
        (graph.entities[h], graph.relations[r], graph.entities[t])
        for h, r, t in graph.splits[split].tolist()
    }


def test_many_tables_become_one_graph(tmp_path: Path) -> None:
    imported = import_recipe(recipe(tmp_path), tmp_path / "out")
    graph = load(tmp_path / "out")
    assert graph.name == "films"
    assert named(graph, "train") == {
        ("Alien", "directed by", "Scott, R."),
        ("Alien", "stars", "Weaver"),
        ("Alien", "genre", "horror"),
        ("Alien", "genre", "sf"),
        ("Solaris", "genre", "sf"),
        ("Alien", "http://x/part_of", "http://x/series"),
    }
    assert named(graph, "valid") == {("Solaris", "stars", "Banionis")}
    # An entity that only has a text.
    assert not graph.linked()[graph.entities.id("Nameless")]
    assert imported.repeated == {"pool": 1, "valid": 0}
    assert imported.facts == {"train": 6, "valid": 1}
    assert imported.values == {"numbers": 1, "texts": 1, "plot": 2, "figures": 3, "poster": 1}
    assert imported.missing == {"plot": 1, "figures": 2, "poster": 1}
    assert "Solaris" in (tmp_path / "out" / "figures.tsv").read_text()


def test_every_line_is_accounted_for(tmp_path: Path) -> None:
    seen = []
    imported = import_recipe(
        recipe(tmp_path), tmp_path / "out", lambda file: seen.append(file.path)
    )
    assert set(seen) == {file.path for file in imported.reports}
    assert all(file.accounted for file in imported.reports)
    rejects = {
        (Path(file.path).name, reject.line, reject.reason)
        for file in imported.reports
        for reject in file.rejects
    }
    assert {(name, line) for name, line, _ in rejects} == {
        ("roles.csv", 4),
        ("more.nt.gz", 4),
        ("posters.txt", 3),
    }
    cells = [(cell.line, cell.reason) for file in imported.reports for cell in file.cells]
    assert [line for line, _ in cells] == [3]
    assert "year is 'soon'" in cells[0][1]
    assert any("no such file" in reason for _, _, reason in rejects)
    written = json.loads((tmp_path / "out" / "import.json").read_text())
    assert len(written["reports"]) == len(imported.reports) == 7
    assert all(len(file["sha256"]) == 64 for file in written["reports"])


def test_declared_modalities_can_be_read_as_features(tmp_path: Path) -> None:
    import_recipe(recipe(tmp_path), tmp_path / "out")
    graph = load(tmp_path / "out")
    assert set(graph.modalities) == {"numbers", "texts", "plot", "figures"}
    features = read_features(graph, {"figures": graph.modalities["figures"]})
    present = features.dense["figures"].present()
    assert {graph.entities[n] for n in present.nonzero().flatten().tolist()} == {
        "Alien",
        "Solaris",
    }
    plot = {"plot": {**graph.modalities["plot"], "at_least": 1, "at_most": 1.0}}
    assert "space" in read_features(graph, plot).tokens["plot"].vocabulary


def test_facts_without_a_split_are_split_by_seed(tmp_path: Path) -> None:
    lines = [f"e{n}\tr\te{n * 7 % 50}\n" for n in range(100)]
    (tmp_path / "all.tsv").write_text("".join(lines))
    text = '[[facts]]\npath = "all.tsv"\n[split]\nvalid = 0.1\ntest = 0.2\nseed = {}\n'
    graphs = []
    for number, seed in enumerate((0, 0, 1)):
        (tmp_path / "r.toml").write_text(text.format(seed))
        imported = import_recipe(tmp_path / "r.toml", tmp_path / f"out{number}")
        assert imported.facts == {"train": 70, "valid": 10, "test": 20}
        graphs.append(load(tmp_path / f"out{number}"))
    assert len(graphs[0].facts()) == 100
    assert graphs[0].digest() == graphs[1].digest()
    assert not torch.equal(graphs[0].splits["test"], graphs[2].splits["test"])


def test_entities_without_a_fact_may_be_left_out(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'entities = "facts"\n' + RECIPE)
    imported = import_recipe(path, tmp_path / "out")
    assert "Nameless" not in load(tmp_path / "out").entities
    assert imported.unknown == {"plot": 1, "figures": 1, "poster": 0}
    assert all(file.accounted for file in imported.reports)


def test_only_some_predicates_of_a_dump(tmp_path: Path) -> None:
    text = (
        '[[facts]]\npath = "old.tsv"\n[[facts]]\npath = "more.nt.gz"\n'
        'predicates = ["http://x/label"]\n'
    )
    imported = import_recipe(recipe(tmp_path, text), tmp_path / "out")
    assert imported.values == {"texts": 1}
    assert imported.facts == {"train": 1}
    assert "2 statements of other predicates left out" in str(imported)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name = ", "not valid TOML"),
        ("nmae = 'x'", "nmae: unknown; known: name"),
        ("name = 'x'", r"facts: is missing; add a \[\[facts\]\] table"),
        ("[facts]\npath = 'x'", r"write \[\[facts\]\], with two brackets"),
        ("[[facts]]\npaht = 'x'", r"facts\[0\].paht: unknown setting; did you mean 'path'"),
        ("[[facts]]\nhead = 'x'\npath = 'x.csv'", "give head, relation and tail, or none"),
        ("[[facts]]\nsays = 'x'\npath = 'x.csv'", "says needs head and tail"),
        ("[[facts]]\npredicates = []\npath = 'x.csv'", "predicates are for .nt"),
        ("[[facts]]\npath = 'old.tsv'\n[split]\nvalid = 1.0", "together below 1"),
        ("[[facts]]\npath = 'old.tsv'\nsplit = 'dev'", "'dev' is none of train"),
        ("entities = 'some'\n[[facts]]\npath = 'old.tsv'", 'entities: is "all" or "facts"'),
        ("[[facts]]\npath = 'none.tsv'", "none.tsv: cannot be read"),
        ("[[facts]]\npath = 'roles.csv'", "none of the usual names"),
        ("[[facts]]\npath = 'films.toml'", "the ending '.toml' belongs to no known format"),
        (
            "[[facts]]\npath = 'old.tsv'\n[[texts]]\nname = 'train'\npath = 'x'\nentity = '1'\n"
            "column = '2'",
            "'train': is reserved",
        ),
        (
            "[[facts]]\npath = 'old.tsv'\n[[texts]]\nname = 'a'\npath = 'old.tsv'\nentity = '1'\n"
            "column = '4'",
            "has 3 columns, but column 4 is needed",
        ),
        (
            "[[facts]]\npath = 'old.tsv'\n[[texts]]\nname = 'a'\npath = 'old.tsv'\nentity = 'x'\n"
            "column = '2'",
            "named by their numbers",
        ),
    ],
)
def test_an_invalid_recipe_leaves_nothing_behind(tmp_path: Path, text: str, problem: str) -> None:
    path = recipe(tmp_path, text)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=problem):
        import_recipe(path, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_one_file_needs_no_recipe(tmp_path: Path) -> None:
    recipe(tmp_path)
    imported = import_recipe(Recipe.of_facts(str(tmp_path / "more.nt.gz")), tmp_path / "out")
    assert imported.facts == {"train": 1}
    assert imported.values == {"numbers": 1, "texts": 1}


@pytest.mark.parametrize("kind", ["nt", "csv", "tsv", "jsonl"])
def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    data = {
        "nt": b"<http://a> <http://b> <http://c> .\n",
        "csv": b"head,relation,tail\nhttp://a,http://b,http://c\n",
        "tsv": b"http://a\thttp://b\thttp://c\n",
        "jsonl": b'{"h": "http://a", "r": "http://b", "t": "http://c"}\n',
    }

    class Input:
        buffer = io.BytesIO(gzip.compress(data[kind]))

    monkeypatch.setattr("sys.stdin", Input)
    import_recipe(Recipe.of_facts("-", kind), tmp_path / "out")
    assert named(load(tmp_path / "out"), "train") == {("http://a", "http://b", "http://c")}
    with pytest.raises(ConfigError, match="standard input needs a format"):
        Recipe.of_facts("-")
    with pytest.raises(ConfigError, match=f"a format is one of {', '.join(KINDS)}, not 'xyz'"):
        Recipe.of_facts("-", "xyz")


def test_empty_parts_and_cells_are_neither_facts_nor_rejects(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("f,g\nA,Jazz|Rock|\nB,Jazz||Soul\nC,\nD,|\n,Pop\n")
    (tmp_path / "r.toml").write_text(
        '[[facts]]\npath = "s.csv"\nhead = "f"\ntail = "g"\nsays = "is"\nseparator = "|"\n'
    )
    (report,) = import_recipe(tmp_path / "r.toml", tmp_path / "out").reports
    assert named(load(tmp_path / "out"), "train") == {
        *(("A", "is", "Jazz"), ("A", "is", "Rock"), ("B", "is", "Jazz"), ("B", "is", "Soul"))
    }
    assert (report.rows, report.empty, [r.line for r in report.rejects]) == (4, 2, [6])
    assert (report.lines, report.further) == (6, 2)
    assert report.accounted
    assert "6 lines with 2 further tails = 4 rows" in str(report)
    assert "2 with an empty cell" in str(report)


@pytest.mark.parametrize("separator", ["", 'separator = "|"\n'])
def test_a_list_in_json_lines_is_several_tails(tmp_path: Path, separator: str) -> None:
    lines = [
        '{"f": "A", "g": ["Jazz", "Rock"]}',
        '{"f": "B", "g": []}',
        '{"f": "C", "g": "Pop"}',
        '{"f": "D", "g": ["Soul", "", null]}',
        '{"f": "E", "g": ["Jazz", ["Rock"]]}',
        '{"f": ["F"], "g": "Jazz"}',
        '{"f": "G", "g": [1999]}',
    ]
    (tmp_path / "s.jsonl").write_text("\n".join(lines))
    (tmp_path / "r.toml").write_text(
        f'[[facts]]\npath = "s.jsonl"\nhead = "f"\ntail = "g"\nsays = "is"\n{separator}'
    )
    (report,) = import_recipe(tmp_path / "r.toml", tmp_path / "out").reports
    assert named(load(tmp_path / "out"), "train") == {
        *(("A", "is", "Jazz"), ("A", "is", "Rock"), ("C", "is", "Pop"), ("D", "is", "Soul")),
        ("G", "is", "1999"),
    }
    assert [(reject.line, reject.reason) for reject in report.rejects] == [
        (5, "'g' is a list, not a string"),
        (6, "'f' is a list, not a string"),
    ]
    assert (report.lines, report.further, report.rows, report.empty) == (7, 3, 5, 3)
    assert report.accounted


def test_a_slice_of_a_dump_of_wikidata(tmp_path: Path) -> None:
    """Links, labels, a quantity, a date and a location, and an incomplete last line."""
    item, prop = "http://www.wikidata.org/entity/", "http://www.wikidata.org/prop/direct/"
    label, xsd = "http://www.w3.org/2000/01/rdf-schema#label", "http://www.w3.org/2001/XMLSchema#"
    lines = [
        f"<{item}Q64> <{prop}P31> <{item}Q515> .",
        f"<{item}Q64> <{prop}P17> <{item}Q183> .",
        f"<{item}Q64> <{prop}P1376> <{item}Q183> .",
        f'<{item}Q64> <{label}> "Berlin"@en .',
        f'<{item}Q64> <{label}> "Berlín"@es .',
        f'<{item}Q64> <{prop}P1082> "+3644826"^^<{xsd}decimal> .',
        f'<{item}Q64> <{prop}P571> "1244-01-01T00:00:00Z"^^<{xsd}dateTime> .',
        f'<{item}Q64> <{prop}P625> "Point(13.38 52.52)"'
        "^^<http://www.opengis.net/ont/geosparql#wktLiteral> .",
        f"<{item}Q64> <{prop}P3",
    ]
    (tmp_path / "slice.nt").write_text("\n".join(lines), encoding="utf-8")
    kept = [f"{prop}P31", f"{prop}P17", label, f"{prop}P1082", f"{prop}P571", f"{prop}P625"]
    (tmp_path / "r.toml").write_text(f'[[facts]]\npath = "slice.nt"\npredicates = {kept}\n')
    imported = import_recipe(tmp_path / "r.toml", tmp_path / "out")
    assert named(load(tmp_path / "out"), "train") == {
        (f"{item}Q64", f"{prop}P31", f"{item}Q515"),
        (f"{item}Q64", f"{prop}P17", f"{item}Q183"),
    }
    numbers = (tmp_path / "out" / "numbers.tsv").read_text().splitlines()
    assert {tuple(line.split("\t")[1:]) for line in numbers} == {
        (f"{prop}P1082", "+3644826"),
        (f"{prop}P571", "1244.0"),
    }
    texts = (tmp_path / "out" / "texts.tsv").read_text(encoding="utf-8")
    assert f"{item}Q64\t{label}@es\tBerlín\n" in texts
    (report,) = imported.reports
    assert report.accounted
    assert [reject.line for reject in report.rejects] == [9]
    assert "1 statements of other predicates left out" in str(imported)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ValueError, match="out: already exists"):
        import_recipe(path, tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "x"


def test_an_invalid_setting_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be"):
        import_recipe(recipe(tmp_path, "[[facts]]\npath = 3"), tmp_path / "out")


def test_a_neo4j_export(tmp_path: Path) -> None:
    """The layout of its bulk CSV: ids, labels separated by semicolons, typed relations."""
    (tmp_path / "nodes.csv").write_text(
        "id:ID,name,born:int,:LABEL\np1,Keanu Reeves,1964,Person;Actor\nm1,The Matrix,,Movie\n"
    )
    (tmp_path / "rels.csv").write_text(
        ':START_ID,role,:END_ID,:TYPE\np1,"Neo, the One",m1,ACTED_IN\n'
    )
    (tmp_path / "r.toml").write_text(
        '[[facts]]\npath = "rels.csv"\nhead = ":START_ID"\nrelation = ":TYPE"\ntail = ":END_ID"\n'
        '[[facts]]\npath = "nodes.csv"\nhead = "id:ID"\ntail = ":LABEL"\nsays = "is a"\n'
        'separator = ";"\n'
        '[[texts]]\nname = "name"\npath = "nodes.csv"\nentity = "id:ID"\ncolumn = "name"\n'
        '[[numbers]]\nname = "born"\npath = "nodes.csv"\nentity = "id:ID"\ncolumns = ["born:int"]\n'
    )
    import_recipe(tmp_path / "r.toml", tmp_path / "out")
    assert named(load(tmp_path / "out"), "train") == {
        ("p1", "ACTED_IN", "m1"),
        ("p1", "is a", "Person"),
        ("p1", "is a", "Actor"),
        ("m1", "is a", "Movie"),
    }
    assert (tmp_path / "out" / "born.tsv").read_text() == "p1\tborn:int\t1964\n"


def test_an_invalid_number_does_not_affect_the_rest_of_its_row(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("head,relation,tail\nAda,knows,Bob\n")
    (tmp_path / "n.csv").write_text("who,height,born,score\nAda,168.1,1889,n/a\nBob,180,,2\n")
    (tmp_path / "r.toml").write_text("""
[[facts]]
path = "f.csv"
[[numbers]]
name = "figures"
path = "n.csv"
entity = "who"
columns = ["height", "born", "score"]
""")
    imported = import_recipe(tmp_path / "r.toml", tmp_path / "out")
    text = (tmp_path / "out" / "figures.tsv").read_text()
    assert text == "Ada\theight\t168.1\nAda\tborn\t1889\nBob\theight\t180\nBob\tscore\t2\n"
    assert imported.values["figures"] == 4
    assert imported.missing["figures"] == 1
    assert "line 2: score is 'n/a'" in str(imported)
