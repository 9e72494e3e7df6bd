"""Downloaded files of a benchmark as the folder that `mocme.load` reads, row for row."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mocme.data.formats import openke, tsv
from mocme.data.formats.report import Report
from mocme.data.formats.writers import Row, write_tsv

SPLITS = ("train", "valid", "test")
LISTS = ("entities.txt", "relations.txt")
FILES = (*LISTS, *(f"{split}.tsv" for split in (*SPLITS, "known")))


def from_openke(raw: Path, out: Path) -> None:
    """Convert files of ids (see `formats.openke`); rows keep their order and repetitions.

    Raises:
        ValueError: a file is not so, with its line.
    """
    for name in (*openke.LISTS, *(openke.FILES[split] for split in SPLITS)):
        _only(raw, name)
    folder = openke.read(_only(raw, openke.FILES["train"]).parent)
    for file, names in zip(LISTS, (folder.entities, folder.relations), strict=True):
        text = "".join(f"{name}\n" for name in names)
        (out / file).write_text(text, encoding="utf-8", newline="")
    for split in SPLITS:
        write_tsv(out / f"{split}.tsv", _rows(folder, split))


def _rows(folder: openke.Folder, split: str) -> Iterator[Row]:
    report = Report(str(folder.files[split]))
    for block in folder.facts(split, report):
        heads, relations, tails = block.columns
        yield from zip(heads, relations, tails, strict=True)
    if report.rejects:
        raise ValueError(f"{report.path}: not every line is HEAD TAIL RELATION\n{report}")


def from_tsv(raw: Path, out: Path) -> None:
    """Take ``train.txt``, ``valid.txt`` and ``test.txt`` as they are, if every line is a fact.

    Raises:
        ValueError: a line is none, with its number.
    """
    for split in SPLITS:
        path = _only(raw, f"{split}.txt")
        report = Report(str(path))
        for _ in tsv.facts(path, report):
            pass
        if report.rows != report.lines or report.bom:
            raise ValueError(f"{path}: not every line is HEAD, tab, RELATION, tab, TAIL\n{report}")
        shutil.copyfile(path, out / f"{split}.tsv")


CONVERTERS: Mapping[str, Callable[[Path, Path], None]] = {"openke": from_openke, "tsv": from_tsv}


def _only(raw: Path, name: str) -> Path:
    """The one file of a name, in whichever folder of what was downloaded."""
    found = sorted(raw.rglob(name))
    if len(found) != 1:
        here = ", ".join(sorted(p.name for p in raw.rglob("*") if p.is_file())[:8])
        raise ValueError(
            f"{raw}: {len(found)} files are called {name}, not one; it holds {here}, so the "
            f"download is not the one that was described"
        )
    return found[0]
