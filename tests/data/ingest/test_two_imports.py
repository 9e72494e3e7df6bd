"""Two imports into one folder: one wins, and files of the two never mix."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from mocme.data.ingest.importer import import_recipe


def recipe(folder: Path, name: str) -> Path:
    (folder / f"{name}.tsv").write_text(f"{name}1\tr\t{name}2\n{name}2\tr\t{name}3\n")
    (folder / f"{name}-texts.csv").write_text(f"id,text\n{name}1,the text of {name}\n")
    path = folder / f"{name}.toml"
    path.write_text(
        f'[[facts]]\npath = "{name}.tsv"\n[[texts]]\nname = "text"\npath = "{name}-texts.csv"\n'
        f'entity = "id"\ncolumn = "text"\n'
    )
    return path


def names_in(folder: Path) -> set[str]:
    return {word[0] for word in (folder / "entities.txt").read_text().split()} | {
        line[0] for line in (folder / "text.tsv").read_text().splitlines()
    }


def test_of_imports_at_the_same_time_one_wins(tmp_path: Path) -> None:
    recipes = [recipe(tmp_path, name) for name in "abcd"]
    out = tmp_path / "out"
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(len(recipes))

    def work(path: Path) -> None:
        barrier.wait()
        try:
            import_recipe(path, out)
        except ValueError as error:
            known = ("another process is writing this folder", "already exists; remove it")
            os._exit(3 if any(reason in str(error) for reason in known) else 4)
        os._exit(0)

    processes = [fork.Process(target=work, args=(path,)) for path in recipes]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert sorted(p.exitcode or 0 for p in processes) == [0, 3, 3, 3]
    assert len(names_in(out)) == 1
    assert not list(tmp_path.glob(".*"))


def test_a_second_import_is_refused_while_one_is_at_work(tmp_path: Path) -> None:
    first, second = recipe(tmp_path, "a"), recipe(tmp_path, "b")
    out = tmp_path / "out"
    refused: list[str] = []

    def advance(_: object) -> None:
        if not refused:
            with pytest.raises(ValueError, match="another process is writing this folder") as error:
                import_recipe(second, out)
            refused.append(str(error.value))

    import_recipe(first, out, advance)
    assert len(refused) == 1
    assert names_in(out) == {"a"}
