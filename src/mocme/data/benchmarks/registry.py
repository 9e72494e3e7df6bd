"""The published benchmarks by name: what is known of them, where they lie, how they are fetched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import tomli_w

from mocme.core.cache import cache_folder, locked
from mocme.data.benchmarks.archive import is_archive, unpack
from mocme.data.benchmarks.convert import CONVERTERS, FILES, LISTS
from mocme.data.benchmarks.download import Advance, WrongChecksum, download
from mocme.data.formats import tsv
from mocme.data.formats.report import Report
from mocme.data.quality import repair

VERSIONS = ("repaired", "as-published")
RECORD, CHANGES = "fetched.json", "changes.json"
# Far above every benchmark listed here; what is larger is not what was asked for.
LIMIT = 1 << 28


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Attributes:
        size: in bytes, where a copy was counted; for people and for the progress.
        sha256: where those very bytes were read.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """What is known of a benchmark.

    Attributes:
        layout: which of `converting.CONVERTERS` reads its files.
        facts: rows of each split as released, repetitions counted.
        converted: SHA-256 of the files that conversion makes, where they were read.
        defects: of the files as published, a sentence each.
    """

    name: str
    title: str
    citation: str
    home: str
    licence: str
    layout: str
    entities: int
    relations: int
    facts: Mapping[str, int]
    files: tuple[Remote, ...]
    converted: Mapping[str, str] = field(default_factory=dict)
    defects: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def notes(self, folder: Path | None = None) -> list[str]:
        """What a reader should know on loading it, a line each.

        Args:
            folder: that it is loaded from, as `locate` gives it; a repaired copy adds its changes.
        """
        lines = [f"{self.name} as published: {defect}" for defect in self.defects]
        if folder is not None and (folder / CHANGES).is_file():
            changes = json.loads((folder / CHANGES).read_bytes())["changes"]
            lines += [f"{self.name} repaired: {change['text']}" for change in changes]
            lines.append(
                f"{self.name}: results on repaired splits do not compare with published ones; "
                f"those are the version as-published"
                if changes
                else f"{self.name}: there was nothing to repair; the splits are as published"
            )
        return [*lines, f"{self.name}: licence: {self.licence}; source: {self.home}"]

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        files = [vars(remote) for remote in self.files]
        return {**vars(self), "facts": dict(self.facts), "files": files}


@cache
def known() -> dict[str, Benchmark]:
    """All benchmarks by name."""
    tables = tomllib.loads(Path(__file__).with_name("benchmarks.toml").read_text(encoding="utf-8"))
    return {name: _benchmark(name, table) for name, table in tables.items()}


def find(name: str) -> Benchmark:
    """A benchmark by its name; capitals, ``-``, ``_`` and blanks make no difference.

    Raises:
        ValueError: there is none, with near names.
    """
    found = get(name)
    if found is None:
        near = suggest(name)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known())}"
        raise ValueError(f"there is no benchmark named {name!r}; {hint}")
    return found


def get(name: str) -> Benchmark | None:
    """As `find`, or None."""
    wanted = _plain(name)
    for benchmark in known().values():
        if wanted in map(_plain, (benchmark.name, *benchmark.also)):
            return benchmark
    return None


def suggest(name: str, count: int = 3) -> list[str]:
    """Up to `count` names of benchmarks that look most like `name`, best first."""
    from rapidfuzz import fuzz, process, utils

    found = process.extract(
        name,
        list(known()),
        scorer=fuzz.ratio,
        processor=utils.default_process,
        limit=count,
        score_cutoff=50,
    )
    return [match for match, _, _ in found]


def locate(name: str, version: str = "repaired") -> Path:
    """The folder of a benchmark, as `mocme.load` reads it.

    As published it lies in ``MOCME_DATA`` (a folder by its name there), where that is set and has
    it, or else in the cache. The repaired copy is made at the first use and lies in the cache,
    under the digest of what it was made from.

    Raises:
        ValueError: there is no such benchmark or version, or it is not here, with how to fetch it.
    """
    benchmark = find(name)
    if version not in VERSIONS:
        raise ValueError(f"a version is {' or '.join(VERSIONS)}, not {version!r}")
    published = _published(benchmark)
    return published if version == "as-published" else _repaired(benchmark, published)


def fetch(
    name: str | Benchmark,
    *,
    force: bool = False,
    advance: Callable[[str], Advance] | None = None,
    **settings: Any,
) -> Path:
    """Download a benchmark into the cache, check it and convert it; what is there is kept.

    What was downloaded from where and when stands in ``fetched.json``. A file whose checksum is
    not known beforehand is accepted at the first download; its checksum is recorded then, and
    every later download must have it.

    Args:
        force: download again even what is there.
        advance: told the name of each file, gives what is told of its progress.
        settings: for `fetching.download` (timeout, tries, pause).

    Returns:
        The folder, as published.

    Raises:
        ValueError: what went wrong and what to do; the next call goes on where this one stopped.
    """
    benchmark = name if isinstance(name, Benchmark) else find(name)
    home = _home(benchmark)
    folder = home / "as-published"
    with locked(home, benchmark.name):
        record = _read_record(home)
        if not force and record.get("converted") and record["converted"] == _sums(folder):
            return folder
        for remote in benchmark.files:
            noted = record["files"].get(remote.name, {})
            noted = noted if noted.get("asked") == remote.url else {}
            told = advance(remote.name) if advance else None
            found = _get(remote, noted, home, force, {**settings, "advance": told})
            record["files"][remote.name] = found
            _write_record(home, benchmark, record)
        record["converted"] = _convert(benchmark, home, folder)
        _write_record(home, benchmark, record)
    return folder


def _get(
    remote: Remote, noted: Mapping[str, Any], home: Path, force: bool, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Download a file, unless it is there; returns what is noted of it."""
    file = home / "downloads" / remote.name
    if force:
        file.unlink(missing_ok=True)
    expected = remote.sha256 or noted.get("sha256")
    try:
        got = download(remote.url, file, sha256=expected, limit=LIMIT, **settings)
    except WrongChecksum as error:
        if remote.sha256 is not None:
            raise
        raise WrongChecksum(
            f"{error} (expected is what the first download had; if the change is right, delete "
            f"{home / RECORD})"
        ) from error
    return {
        "asked": remote.url,
        "answered": got.url if got.url != remote.url else noted.get("answered", got.url),
        "bytes": got.bytes,
        "sha256": got.sha256,
        "sha256_from": "the list of benchmarks" if remote.sha256 else "the first download",
        "first": noted.get("first", _now()),
        "checked": _now(),
    }


def _convert(benchmark: Benchmark, home: Path, folder: Path) -> dict[str, str]:
    """Make `folder` of the downloads, or nothing; returns the checksums of its files."""
    raw, fresh, old = (home / name for name in (".raw", ".fresh", ".old"))
    for left in (raw, fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        raw.mkdir()
        fresh.mkdir()
        for remote in benchmark.files:
            file = home / "downloads" / remote.name
            if is_archive(file):
                unpack(file, raw / file.name)
            else:
                shutil.copyfile(file, raw / file.name)
        CONVERTERS[benchmark.layout](raw, fresh)
        _check(benchmark, fresh)
        about = {"name": benchmark.name, "licence": benchmark.licence}
        (fresh / "graph.toml").write_text(tomli_w.dumps(about), encoding="utf-8")
        sums = _sums(fresh)
        if folder.exists():
            os.rename(folder, old)
        os.rename(fresh, folder)
        return sums
    finally:
        for left in (raw, fresh, old):
            shutil.rmtree(left, ignore_errors=True)


def _check(benchmark: Benchmark, folder: Path) -> None:
    """Compare a converted benchmark with what is known of it.

    Raises:
        ValueError: it is not the one that was asked for, with what differs.
    """
    remedy = f"the files at {benchmark.home} have changed; name another version, or tell us"
    for file, expected in benchmark.converted.items():
        if (found := _sums(folder).get(file)) != expected:
            raise ValueError(
                f"{benchmark.name}: {file} as converted has SHA-256 {found}, but {expected} is "
                f"expected; {remedy}"
            )
    names: tuple[set[str], set[str]] = (set(), set())
    for split, expected_rows in benchmark.facts.items():
        report = Report(str(folder / f"{split}.tsv"))
        for block in tsv.facts(report.path, report):
            heads, relations, tails = block.columns
            names[0].update(heads, tails)
            names[1].update(relations)
        if report.rows != expected_rows:
            raise ValueError(
                f"{benchmark.name}: {split} has {report.rows:,} rows, but {expected_rows:,} are "
                f"expected; {remedy}"
            )
    # Lists may name entities that have no fact.
    for file, held in zip(LISTS, names, strict=True):
        if (folder / file).is_file():
            held.update(name for (name,) in tsv.read_names(folder / file).rows)
    if tuple(map(len, names)) != (benchmark.entities, benchmark.relations):
        raise ValueError(
            f"{benchmark.name}: has {len(names[0]):,} entities and {len(names[1]):,} relations, "
            f"but {benchmark.entities:,} and {benchmark.relations:,} are expected; {remedy}"
        )


def _published(benchmark: Benchmark) -> Path:
    """Where a benchmark lies as published."""
    tried = []
    if chosen := os.environ.get("MOCME_DATA"):
        if not Path(chosen).is_dir():
            raise ValueError(
                f"MOCME_DATA is {chosen}, which is no folder; let it name the folder that holds "
                f"{benchmark.name}, or unset it"
            )
        tried.append(Path(chosen) / benchmark.name)
    tried.append(_home(benchmark) / "as-published")
    for folder in tried:
        if (folder / "train.tsv").is_file():
            return folder
    raise ValueError(
        f"{benchmark.name} is not here (looked in {' and '.join(map(str, tried))}); get it by "
        f"`mocme fetch {benchmark.name}`, or let MOCME_DATA name a folder that has it as "
        f"{benchmark.name}/train.tsv"
    )


def _repaired(benchmark: Benchmark, published: Path) -> Path:
    """The repaired copy, made if it is not there yet; other files are linked to."""
    made_by = Path(repair.__file__).read_bytes()
    what = [str(published.resolve()), *(f"{n} {s}" for n, s in sorted(_sums(published).items()))]
    digest = hashlib.sha256("\n".join(what).encode() + made_by).hexdigest()
    home = _home(benchmark)
    folder = home / f"repaired-{digest[:16]}"
    if folder.is_dir():
        return folder
    with locked(home, benchmark.name, wait=True):
        if folder.is_dir():
            return folder
        fresh = home / ".repaired"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            repair.repair(published, fresh)
            for file in published.iterdir():
                # Modalities of the graph, which stay as they are.
                if file.name not in FILES and not (fresh / file.name).exists():
                    (fresh / file.name).symlink_to(file.resolve())
            os.rename(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _read_record(home: Path) -> dict[str, Any]:
    path = home / RECORD
    if not path.is_file():
        return {"files": {}}
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
        if not all(isinstance(noted, dict) for noted in record["files"].values()):
            raise TypeError("files are tables")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: damaged ({error}); delete it (checksums of first downloads are then "
            f"recorded anew)"
        ) from error
    return record


def _write_record(home: Path, benchmark: Benchmark, record: Mapping[str, Any]) -> None:
    about = {"name": benchmark.name, "licence": benchmark.licence, **record}
    fresh = home / f".{RECORD}"
    fresh.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(fresh, home / RECORD)


def _benchmark(name: str, table: Mapping[str, Any]) -> Benchmark:
    rest = {key: value for key, value in table.items() if key != "base"}
    files = [Remote(file, table["base"] + file, **about) for file, about in table["files"].items()]
    rest |= {"name": name, "files": tuple(files)}
    rest |= {key: tuple(table.get(key, ())) for key in ("defects", "also")}
    return Benchmark(**rest)


def _home(benchmark: Benchmark) -> Path:
    return cache_folder() / "benchmarks" / benchmark.name


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of facts and names in a folder."""
    found = {}
    for name in FILES:
        if (path := folder / name).is_file():
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _plain(name: str) -> str:
    return name.casefold().translate(str.maketrans("", "", "-_ "))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
