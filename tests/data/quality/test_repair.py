"""A repaired graph audits clean, loses no fact and overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mocme.audit.audit import audit
from mocme.data.features.sources import read_features
from mocme.data.graph import Graph, Vocabulary
from mocme.data.ingest.reader import settings_json
from mocme.data.load import load
from mocme.data.modality import Modality
from mocme.data.quality.raw_rows import RawGraph
from mocme.data.quality.repair import ENOUGH, HOLDOUT, repair
from split_graphs import (
    named,
    noisy,
    plant_in_train,
    plant_repeated,
    plant_shared,
    put,
    sound,
)


@pytest.mark.parametrize("seed", range(12))
def test_a_repaired_graph_is_clean_and_stays_unchanged(tmp_path: Path, seed: int) -> None:
    # With many facts among few entities, most or all of valid is in train.
    rows = noisy(seed, entities=5 + seed % 3, relations=2, facts=50 * (1 + seed % 4))
    before = RawGraph.read(put(tmp_path / "g", rows))
    changes = repair(tmp_path / "g", tmp_path / "out")
    after = RawGraph.read(tmp_path / "out")
    result = audit(after, ranked=False)
    assert result.clean
    assert after.graph.entities.names == before.graph.entities.names
    assert after.graph.relations.names == before.graph.relations.names
    # No fact is lost or invented; a fact of valid was in valid, or is held out of train.
    kept = {split: set(named(after, split)) for split in after.rows}
    assert set().union(*kept.values()) == set().union(*map(set, rows.values()))
    assert sum(map(len, kept.values())) == len(set().union(*kept.values()))
    train, valid, test = (set(rows[split]) for split in ("train", "valid", "test"))
    assert kept.get("test", set()) == test - train
    left = valid - train - test
    size = max(1, round(HOLDOUT * len(train)))
    held_out = len(left) < ENOUGH * size
    if held_out:
        assert kept["valid"] < train
        assert len(kept["valid"]) == size
        assert kept["train"] == train - kept["valid"]
        assert left <= kept.get("known", set())
    else:
        assert (kept["train"], kept["valid"]) == (train, left)
    assert any("hold-out" in change.what for change in changes) == held_out
    assert repair(tmp_path / "out", tmp_path / "again") == []
    again = load(tmp_path / "again")
    assert again.digest() == after.graph.digest()
    assert again.name == after.graph.name == "g (repaired)"


def test_every_change_is_stated_with_its_count(tmp_path: Path) -> None:
    rows = sound()
    plant_repeated(rows)
    plant_in_train(rows)
    plant_shared(rows)
    rows["known"] = [rows["train"][0], ("e0", "r0", "e9"), ("e0", "r0", "e9")]
    changes = repair(put(tmp_path / "g", rows), tmp_path / "out")
    assert [(c.split, c.rows, c.left) for c in changes] == [
        ("train", 4, 24),
        ("test", 1, 6),
        ("known", 1, 2),
        ("valid", 2, 3),
        ("test", 1, 5),
        ("valid", 2, 1),
        ("known", 1, 1),
    ]
    record = json.loads((tmp_path / "out" / "changes.json").read_text(encoding="utf-8"))
    assert [entry["text"] for entry in record["changes"]] == [str(change) for change in changes]
    assert record["rows before"] == {split: len(facts) for split, facts in rows.items()}
    assert record["rows after"] == {"train": 24, "valid": 1, "test": 5, "known": 1}
    assert (
        record["inputs"]["train.tsv"] == load(tmp_path / "g").inputs[str(tmp_path / "g/train.tsv")]
    )
    for split, count in record["rows after"].items():
        moved = sum(c.rows for c in changes if c.split == split)
        assert record["rows before"][split] - moved == count


def test_a_sound_graph_stays_unchanged(tmp_path: Path) -> None:
    rows = sound()
    assert repair(put(tmp_path / "g", rows), tmp_path / "out") == []
    assert load(tmp_path / "out").digest() == load(tmp_path / "g").digest()
    assert load(tmp_path / "out").name == "g"
    for split, facts in rows.items():
        assert named(RawGraph.read(tmp_path / "out"), split) == facts


def test_a_graph_without_valid_gets_none(tmp_path: Path) -> None:
    rows = sound()
    del rows["valid"]
    repair(put(tmp_path / "g", rows), tmp_path / "out")
    assert list(load(tmp_path / "out").splits) == ["train", "test"]


def test_the_hold_out_does_not_depend_on_the_global_seed(tmp_path: Path) -> None:
    rows = sound()
    rows["valid"] = rows["train"][:2]
    put(tmp_path / "g", rows)
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        repair(tmp_path / "g", tmp_path / f"out{seed}")
        drawn.append((tmp_path / f"out{seed}" / "valid.tsv").read_bytes())
    assert drawn[0] == drawn[1] != b""


def test_modalities_of_a_repaired_graph_are_found(tmp_path: Path) -> None:
    toml = 'licence = "mine"\n[modalities.words]\nkind = "words"\npaths = ["t.tsv"]\nat_least = 1\n'
    toml += "at_most = 1.0\n[pictures]\npath = 'words'\n"
    texts = "".join(f"e{n}\tword{n % 3}\n" for n in range(20))
    folder = put(tmp_path / "a" / "g", sound(), graph_toml=toml, t_tsv=texts)
    # A file with the name of a kind is not a path in the setting `kind`.
    (folder / "words").write_text("")
    repair(folder, tmp_path / "b" / "out")
    assert "../../a/g/words" in (tmp_path / "b" / "out" / "graph.toml").read_text()
    first, second = (audit(f, ranked=False) for f in (folder, tmp_path / "b" / "out"))
    assert first.coverage == second.coverage
    assert second.coverage.tokens["words"].present == 20


def test_encoded_features_are_copied_with_a_repaired_graph(tmp_path: Path) -> None:
    toml = "[encode.photo]\nkind = 'image'\npaths = ['photos']\n"
    toml += "[encode.later]\nkind = 'image'\npaths = ['photos']\n"
    folder = put(tmp_path / "g", sound(), graph_toml=toml)
    (folder / "photos").mkdir()
    (folder / "encoded").mkdir()
    graph = load(folder)
    photo = Modality(torch.randn(5, 2), torch.arange(5), graph.num_entities)
    tensors, metadata = photo.packed()
    metadata["entities"] = graph.entities.digest()
    metadata["settings"] = settings_json(graph.encode["photo"])
    save_file(tensors, folder / "encoded" / "photo.safetensors", metadata)
    repair(folder, tmp_path / "out")
    repaired = load(tmp_path / "out")
    features = read_features(repaired, {"photo": repaired.modalities["photo"]})
    assert features.dense["photo"].digest() == photo.digest()
    assert "../g/photos" in (tmp_path / "out" / "graph.toml").read_text()
    notes = audit(tmp_path / "out", ranked=False).notes
    assert any(note.startswith("later: is not encoded yet") for note in notes)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = put(tmp_path / "g", sound())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="already exists"):
        repair(folder, folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="already exists"):
        repair(folder, tmp_path / "file")
    with pytest.raises(ValueError, match="cannot be written"):
        repair(folder, tmp_path / "file" / "out")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "empty").mkdir()
    assert repair(folder, tmp_path / "empty") == []
    assert {path.name for path in tmp_path.iterdir()} == {"g", "file", "empty"}


@pytest.mark.parametrize("name", ["", "a\tb", "a\nb", "a\r", "\ufeffa"])
def test_names_that_a_tsv_file_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    for entities, relations in (([name, "x"], ["r"]), (["y", "x"], [name])):
        try:
            vocabularies = Vocabulary(entities), Vocabulary(relations, "relation")
        except ValueError:
            continue
        graph = Graph(*vocabularies, {"train": torch.tensor([[0, 0, 1]])})
        with pytest.raises(ValueError, match="TSV file cannot hold") as caught:
            repair(RawGraph.of(graph), tmp_path / "out")
        assert repr(name) in str(caught.value)
        assert not list(tmp_path.iterdir())
