"""Convert the downloaded files of a benchmark to a folder for `mocme.load`, row for row."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mocme.data.formats import openke
from mocme.data.formats.kinds import tsv
from mocme.data.formats.report import Report
from mocme.data.formats.writers import Row, write_names
from mocme.data.ingest.reader import LISTS

SPLITS = ("train", "valid", "test")
FILES = (*LISTS, *(f"{split}.tsv" for split in (*SPLITS, "known")))


def from_openke(raw: Path, out: Path) -> None:
    """Convert files of ids (see `formats.openke`); rows keep their order and repetitions.

    Raises:
        ValueError: a file is missing or malformed, with its line.
    """
    for name in (*openke.LISTS, *(openke.FILES[split] for split in SPLITS)):
        _only_file(raw, name)
    folder = openke.read(_only_file(raw, openke.FILES["train"]).parent)
    for file, names in zip(LISTS, (folder.entities, folder.relations), strict=True):
        write_names(out / file, names)
    for split in SPLITS:
        tsv.write(out / f"{split}.tsv", _rows(folder, split))


def _rows(folder: openke.Folder, split: str) -> Iterator[Row]:
    report = Report(str(folder.files[split]))
    for block in folder.facts(split, report):
        heads, relations, tails = block.columns
        yield from zip(heads, relations, tails, strict=True)
    if report.rejects:
        raise ValueError(f"{report.path}: not every line is HEAD TAIL RELATION\n{report}")


def from_tsv(raw: Path, out: Path) -> None:
    """Copy ``train.txt``, ``valid.txt`` and ``test.txt``, if every line is a fact.

    Raises:
        ValueError: a file is missing, or a line is not a fact, with its number.
    """
    for split in SPLITS:
        path = _only_file(raw, f"{split}.txt")
        report = Report(str(path))
        for _ in tsv.facts(path, report):
            pass
        if report.rows != report.lines or report.bom or report.encoding:
            raise ValueError(f"{path}: not every line is HEAD, tab, RELATION, tab, TAIL\n{report}")
        shutil.copyfile(path, out / f"{split}.tsv")


CONVERTERS: Mapping[str, Callable[[Path, Path], None]] = {"openke": from_openke, "tsv": from_tsv}


def _only_file(raw: Path, name: str) -> Path:
    """The only file of a name, in any folder of the download.

    Raises:
        ValueError: there are none or several.
    """
    files = sorted(raw.rglob(name))
    if len(files) != 1:
        shown = ", ".join(sorted(p.name for p in raw.rglob("*") if p.is_file())[:8])
        raise ValueError(
            f"{raw}: {len(files)} files are called {name}, not one; it holds {shown}, so the "
            f"download is not the described one; check the address"
        )
    return files[0]
