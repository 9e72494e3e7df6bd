"""The published benchmarks by name: their description, their folder and their download."""

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
from typing import Any, Literal, get_args

import tomli_w

from mocme.core.cache import cache_folder, folder_lock
from mocme.core.digest import file_digest
from mocme.data.benchmarks.archive import is_archive, unpack
from mocme.data.benchmarks.convert import CONVERTERS, FILES
from mocme.data.benchmarks.download import Advance, WrongChecksum, download
from mocme.data.formats.kinds import tsv
from mocme.data.formats.report import Report
from mocme.data.formats.tsv import read_names
from mocme.data.formats.writers import atomic_file
from mocme.data.ingest.reader import LISTS
from mocme.data.quality import repair
from mocme.storage.workspace import workspace

Version = Literal["repaired", "as-published"]
VERSIONS: tuple[Version, ...] = get_args(Version)
RECORD = "fetched.json"
# Bytes, far above the files of every listed benchmark; a larger file is not the expected one.
LIMIT = 1 << 28


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Attributes:
        size: in bytes, if known; shown to users and for the progress only.
        sha256: if the file itself was available; None accepts the first download.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """The description of a benchmark.

    Attributes:
        layout: key of the converter for its files, in `convert.CONVERTERS`.
        facts: rows of each split as published, with repetitions.
        converted: SHA-256 of the converted files, if known.
        defects: of the files as published, one sentence each.
        also: other names.
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
        """What a user should know about the loaded benchmark, one line each.

        Args:
            folder: from which it is loaded, as `locate` gives it; a repaired copy adds its changes.
        """
        lines = [f"{self.name} as published: {defect}" for defect in self.defects]
        if folder is not None and (folder / repair.CHANGES).is_file():
            changes = json.loads((folder / repair.CHANGES).read_bytes())["changes"]
            lines += [f"{self.name} repaired: {change['text']}" for change in changes]
            lines.append(
                f"{self.name}: results on repaired splits do not compare with published ones, "
                f"which are for the version as-published"
                if changes
                else f"{self.name}: there was nothing to repair; the splits are as published"
            )
        return [*lines, f"{self.name}: licence: {self.licence}; source: {self.home}"]

    def as_dict(self) -> dict[str, Any]:
        """All attributes, for JSON."""
        files = [vars(remote) for remote in self.files]
        return {**vars(self), "facts": dict(self.facts), "files": files}


@cache
def all_benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name."""
    tables = tomllib.loads(Path(__file__).with_name("benchmarks.toml").read_text(encoding="utf-8"))
    return {name: _benchmark(name, table) for name, table in tables.items()}


def find(name: str) -> Benchmark:
    """A benchmark by its name, ignoring case, ``-``, ``_`` and spaces.

    Raises:
        ValueError: there is none; with similar names.
    """
    benchmark = get(name)
    if benchmark is None:
        similar = suggest(name)
        hint = (
            f"did you mean {' or '.join(similar)}?"
            if similar
            else f"known: {', '.join(all_benchmarks())}"
        )
        raise ValueError(f"there is no benchmark named {name!r}; {hint}")
    return benchmark


def get(name: str) -> Benchmark | None:
    """As `find`, but None if there is none."""
    wanted = _normalized(name)
    for benchmark in all_benchmarks().values():
        if wanted in map(_normalized, (benchmark.name, *benchmark.also)):
            return benchmark
    return None


def suggest(name: str, count: int = 3) -> list[str]:
    """Up to `count` names of benchmarks that are similar to `name`, best first."""
    from rapidfuzz import fuzz, process, utils

    matches = process.extract(
        name,
        list(all_benchmarks()),
        scorer=fuzz.ratio,
        processor=utils.default_process,
        limit=count,
        score_cutoff=50,
    )
    return [match for match, _, _ in matches]


def locate(name: str, version: str = "repaired") -> Path:
    """The folder of a benchmark, for `mocme.load`.

    The version as published is in ``MOCME_DATA`` (in a folder with its name), if that is set and
    has it, and otherwise in the cache. The repaired copy is made on first use and is in the cache,
    under the digest of its sources.

    Raises:
        ValueError: there is no such benchmark or version, or it is not on this machine; with the
            command that fetches it.
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
    """Download a benchmark into the cache, verify it and convert it; existing files are kept.

    ``fetched.json`` records the source and time of each download. A file without a known checksum
    is accepted at the first download; its checksum is then recorded, and every later download must
    have it.

    Args:
        force: download existing files again.
        advance: called with the name of each file; returns the callback for its progress.
        settings: for `download.download` (timeout, tries, pause).

    Returns:
        The folder of the version as published.

    Raises:
        ValueError: a download or the conversion failed, with the remedy; the next call resumes.
    """
    benchmark = name if isinstance(name, Benchmark) else find(name)
    home = _home(benchmark)
    folder = home / "as-published"
    with folder_lock(home, benchmark.name):
        record = _read_record(home)
        if not force and record.get("converted") and record["converted"] == _checksums(folder):
            return folder
        for remote in benchmark.files:
            previous = record["files"].get(remote.name, {})
            previous = previous if previous.get("asked") == remote.url else {}
            progress = advance(remote.name) if advance else None
            record["files"][remote.name] = _download(
                remote, previous, home, force, {**settings, "advance": progress}
            )
            _write_record(home, benchmark, record)
        record["converted"] = _convert(benchmark, home, folder)
        _write_record(home, benchmark, record)
    return folder


def _download(
    remote: Remote,
    previous: Mapping[str, Any],
    home: Path,
    force: bool,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Download a file unless it exists; return its record.

    Args:
        previous: the record of an earlier download from the same address.
    """
    file = home / "downloads" / remote.name
    if force:
        file.unlink(missing_ok=True)
    expected = remote.sha256 or previous.get("sha256")
    try:
        received = download(remote.url, file, sha256=expected, limit=LIMIT, **settings)
    except WrongChecksum as error:
        if remote.sha256 is not None:
            raise
        raise WrongChecksum(
            f"{error} (expected is the checksum of the first download; if the change is correct, "
            f"delete {home / RECORD})"
        ) from error
    return {
        "asked": remote.url,
        "answered": (
            received.url if received.url != remote.url else previous.get("answered", received.url)
        ),
        "bytes": received.bytes,
        "sha256": received.sha256,
        "sha256_from": "the list of benchmarks" if remote.sha256 else "the first download",
        "first": previous.get("first", _now()),
        "checked": _now(),
    }


def _convert(benchmark: Benchmark, home: Path, folder: Path) -> dict[str, str]:
    """Convert the downloads to `folder`, or leave it unchanged; return the files' checksums."""
    with workspace(folder) as temporary:
        raw, converted, old = (temporary / name for name in ("raw", "fresh", "old"))
        raw.mkdir()
        converted.mkdir()
        for remote in benchmark.files:
            file = home / "downloads" / remote.name
            if is_archive(file):
                unpack(file, raw / file.name)
            else:
                shutil.copyfile(file, raw / file.name)
        CONVERTERS[benchmark.layout](raw, converted)
        _check(benchmark, converted)
        about = {"name": benchmark.name, "licence": benchmark.licence}
        (converted / "graph.toml").write_text(tomli_w.dumps(about), encoding="utf-8")
        checksums = _checksums(converted)
        if folder.exists():
            os.rename(folder, old)
        os.rename(converted, folder)
        return checksums


def _check(benchmark: Benchmark, folder: Path) -> None:
    """Compare a converted benchmark with its description.

    Raises:
        ValueError: they differ, with the difference.
    """
    remedy = f"the files at {benchmark.home} have changed; name another version, or report it"
    for file, expected in benchmark.converted.items():
        if (checksum := _checksums(folder).get(file)) != expected:
            raise ValueError(
                f"{benchmark.name}: {file} as converted has SHA-256 {checksum}, but {expected} is "
                f"expected; {remedy}"
            )
    # Entities, then relations.
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
    # The lists may have entities without a fact.
    for file, names_of_kind in zip(LISTS, names, strict=True):
        if (folder / file).is_file():
            names_of_kind.update(name for (name,) in read_names(folder / file).rows)
    if tuple(map(len, names)) != (benchmark.entities, benchmark.relations):
        raise ValueError(
            f"{benchmark.name}: has {len(names[0]):,} entities and {len(names[1]):,} relations, "
            f"but {benchmark.entities:,} and {benchmark.relations:,} are expected; {remedy}"
        )


def _published(benchmark: Benchmark) -> Path:
    """The folder of a benchmark as published.

    Raises:
        ValueError: it is not on this machine, or MOCME_DATA is not a folder.
    """
    tried = []
    if chosen := os.environ.get("MOCME_DATA"):
        if not Path(chosen).is_dir():
            raise ValueError(
                f"MOCME_DATA is {chosen}, which is not a folder; set it to the folder that "
                f"contains {benchmark.name}, or unset it"
            )
        tried.append(Path(chosen) / benchmark.name)
    tried.append(_home(benchmark) / "as-published")
    for folder in tried:
        if (folder / "train.tsv").is_file():
            return folder
    raise ValueError(
        f"{benchmark.name} is not here (looked in {' and '.join(map(str, tried))}); get it with "
        f"`mocme fetch {benchmark.name}`, or set MOCME_DATA to a folder that has it as "
        f"{benchmark.name}/train.tsv"
    )


def _repaired(benchmark: Benchmark, published: Path) -> Path:
    """The folder of the repaired copy, which is made on first use with links to other files."""
    # A change of the source or of the repair itself makes a new copy.
    code = Path(repair.__file__).read_bytes()
    checksums = sorted(_checksums(published).items())
    sources = [str(published.resolve()), *(f"{name} {sha256}" for name, sha256 in checksums)]
    digest = hashlib.sha256("\n".join(sources).encode() + code).hexdigest()
    home = _home(benchmark)
    folder = home / f"repaired-{digest[:16]}"
    if folder.is_dir():
        return folder
    with folder_lock(home, benchmark.name, wait=True):
        if folder.is_dir():
            return folder
        with workspace(folder) as parent:
            temporary = parent / "content"
            repair.repair(published, temporary)
            for file in published.iterdir():
                # Files of modalities, which are unchanged.
                if file.name not in FILES and not (temporary / file.name).exists():
                    (temporary / file.name).symlink_to(file.resolve())
            os.rename(temporary, folder)
    return folder


def _read_record(home: Path) -> dict[str, Any]:
    path = home / RECORD
    if not path.is_file():
        return {"files": {}}
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
        if not all(isinstance(entry, dict) for entry in record["files"].values()):
            raise TypeError("files are tables")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: damaged ({error}); delete it (the checksums of first downloads are then "
            f"recorded again)"
        ) from error
    return record


def _write_record(home: Path, benchmark: Benchmark, record: Mapping[str, Any]) -> None:
    about = {"name": benchmark.name, "licence": benchmark.licence, **record}
    with atomic_file(home / RECORD) as file:
        file.write(json.dumps(about, indent=2, ensure_ascii=False).encode() + b"\n")


def _benchmark(name: str, table: Mapping[str, Any]) -> Benchmark:
    fields = {key: value for key, value in table.items() if key != "base"}
    files = [Remote(file, table["base"] + file, **about) for file, about in table["files"].items()]
    fields |= {"name": name, "files": tuple(files)}
    fields |= {key: tuple(table.get(key, ())) for key in ("defects", "also")}
    return Benchmark(**fields)


def _home(benchmark: Benchmark) -> Path:
    return cache_folder() / "benchmarks" / benchmark.name


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of facts and names in a folder."""
    return {name: file_digest(path) for name in FILES if (path := folder / name).is_file()}


def _normalized(name: str) -> str:
    return name.casefold().translate(str.maketrans("", "", "-_ "))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
