"""Benchmarks by name: their descriptions, their folders and their download."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import random
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mocme.core.cache import cache_folder
from mocme.data.benchmarks import registry as benchmarks
from mocme.data.benchmarks.convert import from_openke, from_tsv
from mocme.data.benchmarks.registry import (
    Benchmark,
    Remote,
    all_benchmarks,
    fetch,
    find,
    locate,
    suggest,
)
from mocme.data.load import load
from servers import Server, running_server

DATA = Path(__file__).parents[3] / "shared" / "data"
NAMES = ["DB15K", "MKG-W", "MKG-Y", "TIVA", "KVC16K", "FB15k-237", "WN18RR"]
HERE = [name for name in NAMES if (DATA / name).is_dir()]
needs_data = pytest.mark.skipif(not HERE, reason="the published benchmarks are not on this machine")

Row = tuple[str, str, str]
ENTITIES = ["plain", "with blank", "007", "两个 字", "#a", "nan"]
RELATIONS = ["is", "part of"]
SPLITS: dict[str, list[Row]] = {
    "train": [("plain", "is", "007"), ("plain", "is", "007"), ("#a", "part of", "with blank")],
    "valid": [("nan", "is", "plain"), ("plain", "is", "007")],
    "test": [("两个 字", "part of", "#a")],
}


def ids(names: list[str], separator: str = "\t") -> bytes:
    lines = [f"{name}{separator}{number}" for number, name in enumerate(names)]
    random.Random(0).shuffle(lines)
    return "\n".join([str(len(names)), *lines, ""]).encode()


def numbers(rows: list[Row]) -> bytes:
    lines = [f"{ENTITIES.index(h)} {ENTITIES.index(t)} {RELATIONS.index(r)}" for h, r, t in rows]
    return "\n".join([str(len(rows)), *lines, ""]).encode()


def text(rows: list[Row]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def openke() -> dict[str, bytes]:
    lists = {"entity2id.txt": ids(ENTITIES), "relation2id.txt": ids(RELATIONS, " ")}
    return lists | {f"{split}2id.txt": numbers(rows) for split, rows in SPLITS.items()}


def packed() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for split, rows in SPLITS.items():
            info = tarfile.TarInfo(f"./inside/{split}.txt")
            info.size = len(text(rows))
            archive.addfile(info, io.BytesIO(text(rows)))
    return sink.getvalue()


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with a small benchmark; the cache of this machine is not used."""
    monkeypatch.setenv("MOCME_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MOCME_DATA", raising=False)
    running.files.clear()
    running.requests.clear()
    for name, data in {**openke(), "small.tar.gz": packed()}.items():
        running.put(name, data)
    return running


def small(server: Server, *names: str, layout: str = "openke", **changes: Any) -> Benchmark:
    files = tuple(Remote(name, server.url(name)) for name in names or openke())
    benchmark = Benchmark(
        "small", "a small one", "nobody", "https://example.org", "none stated", layout,
        len(ENTITIES), len(RELATIONS), {s: len(rows) for s, rows in SPLITS.items()}, files,
    )  # fmt: skip
    return replace(benchmark, **changes)


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder.parent / "fetched.json").read_bytes())
    return content


def fetched(benchmark: Benchmark, **settings: Any) -> Path:
    return fetch(benchmark, pause=0.0, timeout=5.0, **settings)


def test_the_list_is_complete() -> None:
    assert list(all_benchmarks()) == NAMES
    for benchmark in all_benchmarks().values():
        assert benchmark.citation
        assert benchmark.licence
        assert benchmark.defects
        assert set(benchmark.facts) == {"train", "valid", "test"}
        for remote in benchmark.files:
            # A commit, not a branch, so the files cannot change.
            start = r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/"
            assert re.match(start, remote.url), remote
        for total in benchmark.converted.values():
            assert re.fullmatch("[0-9a-f]{64}", total)
        assert json.loads(json.dumps(benchmark.as_dict()))["name"] == benchmark.name


@pytest.mark.parametrize("name", NAMES)
def test_names_are_found_in_any_spelling(name: str) -> None:
    for written in (name, name.lower(), name.replace("-", "_"), name.replace("-", "")):
        assert find(written).name == name


def test_similar_names_are_suggested() -> None:
    assert find("Kuai16K").name == "KVC16K"
    assert suggest("FB15k-273")[0] == "FB15k-237"
    with pytest.raises(ValueError, match=r"no benchmark named 'MKG-X'; did you mean MKG-[WY] or"):
        find("MKG-X")
    with pytest.raises(ValueError, match="no benchmark named 'zzz'; known: DB15K, MKG-W"):
        find("zzz")
    assert benchmarks.get("/data/MKG-W") is None


def test_defects_are_stated() -> None:
    notes = find("TIVA").notes()
    assert any("lookup table reaches an MRR of 0.889" in note for note in notes)
    assert any("licence: none stated" in note for note in notes)
    assert not any("repaired" in note for note in notes)


def test_a_benchmark_that_is_not_here(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"MKG-W is not here \(looked in .*`mocme fetch MKG-W`"):
        locate("mkg-w")
    with pytest.raises(ValueError, match="a version is repaired or as-published, not 'best'"):
        locate("mkg-w", "best")  # type: ignore[arg-type]


def test_a_folder_of_benchmarks_has_priority_over_the_cache(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cached = tmp_path / "data", tmp_path / "cache" / "benchmarks" / "MKG-W" / "as-published"
    for folder in (data / "MKG-W", cached):
        folder.mkdir(parents=True)
        (folder / "train.tsv").write_text("a\tr\tb\n")
    assert locate("MKG-W", "as-published") == cached
    monkeypatch.setenv("MOCME_DATA", str(data))
    assert locate("MKG-W", "as-published") == data / "MKG-W"
    (data / "MKG-W" / "train.tsv").unlink()
    assert locate("MKG-W", "as-published") == cached
    monkeypatch.setenv("MOCME_DATA", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"MOCME_DATA is .*absent, which is not a folder"):
        locate("MKG-W", "as-published")


def test_the_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("MOCME_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "mocme"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/mocme")
    monkeypatch.setenv("MOCME_CACHE", "/chosen")
    assert cache_folder() == Path("/chosen")
    monkeypatch.delenv("MOCME_CACHE")
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "mocme"


def test_files_of_ids_are_fetched_and_converted(server: Server) -> None:
    seen: dict[str, list[int]] = {}
    folder = fetched(
        small(server), advance=lambda name: lambda done, _: seen.setdefault(name, []).append(done)
    )
    for split, rows in SPLITS.items():
        assert (folder / f"{split}.tsv").read_bytes() == text(rows)
    assert (folder / "entities.txt").read_text().splitlines() == ENTITIES
    graph = load(folder)
    assert graph.name == "small"
    assert graph.entities.names == tuple(ENTITIES)
    assert {name: counts[-1] for name, counts in seen.items()} == {
        name: len(data) for name, data in openke().items()
    }
    entry = record(folder)["files"]["train2id.txt"]
    assert entry["sha256"] == hashlib.sha256(openke()["train2id.txt"]).hexdigest()
    assert entry["sha256_from"] == "the first download"
    assert (entry["bytes"], entry["asked"]) == (
        len(openke()["train2id.txt"]), server.url("train2id.txt")
    )  # fmt: skip


def test_an_archive_is_fetched_and_converted(server: Server) -> None:
    total = hashlib.sha256(packed()).hexdigest()
    files = (Remote("small.tar.gz", server.url("small.tar.gz"), sha256=total),)
    folder = fetched(small(server, layout="tsv", files=files))
    for split, rows in SPLITS.items():
        assert (folder / f"{split}.tsv").read_bytes() == text(rows)
    assert record(folder)["files"]["small.tar.gz"]["sha256_from"] == "the list of benchmarks"
    assert {path.name for path in folder.parent.iterdir()} == {
        "as-published", "downloads", "fetched.json", "lock"
    }  # fmt: skip


def test_existing_files_are_not_fetched_again(server: Server) -> None:
    benchmark = small(server)
    folder = fetched(benchmark)
    server.requests.clear()
    assert fetched(benchmark) == folder
    # A damaged file is converted again from the downloads, without a request.
    (folder / "train.tsv").write_text("x\ty\tz\n")
    fetched(benchmark)
    assert (folder / "train.tsv").read_bytes() == text(SPLITS["train"])
    assert server.requests == []
    (folder.parent / "downloads" / "test2id.txt").write_bytes(b"damaged")
    (folder / "train.tsv").unlink()
    fetched(benchmark)
    assert [name for name, _ in server.requests] == ["test2id.txt"]
    fetched(benchmark, force=True)
    assert len(server.requests) == 6


def test_a_file_that_changed_since_its_first_download_is_refused(server: Server) -> None:
    benchmark = small(server)
    folder = fetched(benchmark)
    server.put("valid2id.txt", numbers(SPLITS["valid"][::-1]))
    with pytest.raises(
        ValueError, match=r"valid2id.txt: the file has .* is expected.*first download"
    ):
        fetched(benchmark, force=True)
    assert (folder / "valid.tsv").read_bytes() == text(SPLITS["valid"])


def test_an_interrupted_fetch_is_resumed(server: Server) -> None:
    benchmark = small(server)
    server.put("train2id.txt", openke()["train2id.txt"], breaks=[4])
    with pytest.raises(ValueError, match=r"train2id.txt: the connection ended after 4 of"):
        fetched(benchmark, tries=1)
    with pytest.raises(ValueError, match="not here"):
        locate("MKG-W", "as-published")
    server.requests.clear()
    folder = fetched(benchmark)
    ranges = {name: headers.get("range") for name, headers in server.requests}
    assert ranges["train2id.txt"] == "bytes=4-"
    assert "entity2id.txt" not in ranges
    assert (folder / "train.tsv").read_bytes() == text(SPLITS["train"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"facts": {"train": 4}}, "train has 3 rows, but 4 are expected"),
        ({"entities": 7}, "has 6 entities and 2 relations, but 7 and 2 are expected"),
        ({"relations": 3}, "but 6 and 3 are expected"),
        ({"converted": {"test.tsv": "0" * 64}}, "test.tsv as converted has SHA-256"),
    ],
)
def test_content_that_differs_from_its_description_is_refused(
    server: Server, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        fetched(small(server, **changes))
    home = cache_folder() / "benchmarks" / "small"
    assert not (home / "as-published").exists()
    assert {p.name for p in home.iterdir()} == {"downloads", "fetched.json", "lock"}


def test_only_one_process_fetches_at_a_time(server: Server) -> None:
    folder = fetched(small(server))
    with (folder.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is fetching small; wait"):
            fetched(small(server))
    fetched(small(server))


def test_a_damaged_record_is_an_error_with_a_remedy(server: Server) -> None:
    folder = fetched(small(server))
    for damage in (b"{", b"[]", b'{"files": {"x": 1}}', b'{"files": []}'):
        (folder.parent / "fetched.json").write_bytes(damage)
        with pytest.raises(ValueError, match=r"fetched.json: damaged .*; delete it"):
            fetched(small(server))


def test_an_unwritable_cache_is_an_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOCME_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"cannot be written .*; set MOCME_CACHE to a folder"):
        fetched(small(server))


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("train2id.txt", b"2\n0 1 0\n"),
        ("train2id.txt", b"1\n0 6 0\n"),
        ("train2id.txt", b"2\n0 1 0\n0 1\n"),
        ("relation2id.txt", b"2\nis 0\nat 0\n"),
    ],
)
def test_invalid_files_of_ids_are_refused(tmp_path: Path, file: str, data: bytes) -> None:
    (tmp_path / "raw").mkdir()
    for name, content in {**openke(), file: data}.items():
        (tmp_path / "raw" / name).write_bytes(content)
    with pytest.raises(ValueError, match=file):
        from_openke(tmp_path / "raw", tmp_path)
    (tmp_path / "raw" / file).unlink()
    with pytest.raises(ValueError, match=f"0 files are called {file}, not one; it holds entity2id"):
        from_openke(tmp_path / "raw", tmp_path)


def test_invalid_files_of_facts_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for split, rows in SPLITS.items():
        (raw / f"{split}.txt").write_bytes(text(rows))
    (raw / "test.txt").write_bytes(b"a\tb\n" + text(SPLITS["test"]))
    with pytest.raises(ValueError, match=r"test.txt: not every line is HEAD.*(?s:.*)line 1: 2 col"):
        from_tsv(raw, tmp_path)
    (raw / "deep").mkdir()
    (raw / "deep" / "train.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 files are called train.txt, not one; it holds test"):
        from_tsv(raw, tmp_path)


def test_a_repaired_copy_is_made_once_and_again_when_its_source_changes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "MKG-W"
    folder.mkdir(parents=True)
    monkeypatch.setenv("MOCME_DATA", str(tmp_path / "data"))
    rows = [(f"e{n}", "r", f"e{n + 1}") for n in range(40)]
    (folder / "train.tsv").write_bytes(text(rows[:30] + rows[:3]))
    (folder / "valid.tsv").write_bytes(text(rows[28:36]))
    (folder / "test.tsv").write_bytes(text(rows[34:]))
    (folder / "names.tsv").write_text("e0\tzero\n")
    repaired = locate("MKG-W")
    splits = {split: load(repaired).splits[split].tolist() for split in ("train", "valid", "test")}
    assert {split: len(facts) for split, facts in splits.items()} == {
        "train": 30, "valid": 4, "test": 6
    }  # fmt: skip
    assert (repaired / "names.tsv").read_text() == "e0\tzero\n"
    notes = find("MKG-W").notes(repaired)
    assert any("train: removed because they repeat a row of the split: 3 rows" in n for n in notes)
    assert any("do not compare with published ones" in note for note in notes)
    stamp = (repaired / "train.tsv").stat().st_mtime_ns
    assert locate("MKG-W") == repaired
    assert (repaired / "train.tsv").stat().st_mtime_ns == stamp
    (folder / "test.tsv").write_bytes(text(rows[37:]))
    assert locate("MKG-W") != repaired
    for split, facts in zip(
        ("train", "valid", "test"), (rows[:30], rows[30:35], rows[35:]), strict=True
    ):
        (folder / f"{split}.tsv").write_bytes(text(facts))
    clean = locate("MKG-W")
    assert (clean / "valid.tsv").read_bytes() == (folder / "valid.tsv").read_bytes()
    assert any("nothing to repair" in note for note in find("MKG-W").notes(clean))
    assert (repaired / "test.tsv").read_bytes() == text(rows[34:])


@needs_data
@pytest.mark.parametrize("name", HERE)
def test_stated_checksums_and_counts_are_those_of_the_files(name: str, tmp_path: Path) -> None:
    """The published rows, written as files of ids, convert into files of the stated checksums."""
    benchmark, source = all_benchmarks()[name], DATA / name
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    out.mkdir()
    lists = []
    for what, file in (("entity", "entities.txt"), ("relation", "relations.txt")):
        names = (source / file).read_text(encoding="utf-8").split("\n")[:-1]
        (raw / f"{what}2id.txt").write_bytes(ids(names))
        lists.append({entry: index for index, entry in enumerate(names)})
    entities, relations = lists
    rows = {}
    for split in ("train", "valid", "test"):
        lines = (source / f"{split}.tsv").read_text(encoding="utf-8").split("\n")[:-1]
        rows[split] = [tuple(line.split("\t")) for line in lines]
        id_lines = [f"{entities[h]} {entities[t]} {relations[r]}" for h, r, t in rows[split]]
        (raw / f"{split}2id.txt").write_text("\n".join([str(len(id_lines)), *id_lines, ""]))
        remote = next(r for r in benchmark.files if r.name == f"{split}2id.txt")
        if remote.size is not None:
            assert (raw / remote.name).stat().st_size == remote.size
    from_openke(raw, out)
    benchmarks._check(benchmark, out)
    stated = " ".join(benchmark.defects)
    distinct = {split: set(facts) for split, facts in rows.items()}
    train_ends = {end for h, _, t in distinct["train"] for end in (h, t)}
    expected: dict[str, list[int]] = {
        "DB15K": [
            len(distinct["valid"]),
            len(distinct["valid"] & distinct["train"]),
            len(distinct["valid"] & distinct["test"]),
        ],
        "TIVA": [len(distinct["train"]), sum(row in distinct["train"] for row in rows["test"])],
        "KVC16K": [
            len(rows["train"]) - len(distinct["train"]),
            sum(row in distinct["train"] for row in rows["test"]),
            len(distinct["valid"] & distinct["train"]),
            len(distinct["valid"] & distinct["test"]),
        ],
    }
    unseen = sum(not {h, t} <= train_ends for h, _, t in rows["test"])
    for number in expected.get(name, [unseen]):
        assert re.search(rf"(?<![\d,]){number:,}(?![\d,])", stated), (number, stated)
