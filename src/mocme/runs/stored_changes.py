"""Changes of a run's stored additions: all of a change or nothing of it.

The caller holds the lock of the run, and has checked that the folder holds the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mocme.core.deadline import Check
from mocme.inductive import store
from mocme.inductive.add import Advance
from mocme.inductive.extended_run import RunContents
from mocme.inductive.new_entity import NewEntity
from mocme.inductive.pairs import related
from mocme.inductive.store import Addition, Additions
from mocme.runs.inputs import LoadedRun
from mocme.storage import RunFolder


def add_entities(
    loaded: LoadedRun, entities: Sequence[NewEntity], advance: Advance | None, check: Check
) -> list[Addition]:
    """Add entities to those of a run; see `Run.add_all`."""
    path = str(loaded.folder.path)
    present = loaded.additions()
    loaded.trained.check_usable(present, path)
    new = loaded.add(entities, present, advance, check)
    check()
    everyone = related(loaded.trained, [*present, *new])
    # What is written is what the run will read: in the types in which it is stored.
    loaded.trained.check_usable(everyone, path)
    check()
    store.write(loaded.folder, everyone, loaded.model)
    return list(everyone)[len(present) :]


def remove_entities(
    folder: RunFolder,
    model: str | None,
    names: Sequence[str],
    trained: Callable[[], RunContents],
    check: Check,
) -> None:
    """Remove additions of a run; see `Run.remove`.

    Args:
        model: digest of the trained model.
        trained: reads the run without additions, where that is needed.
    """
    present = store.read(folder, model)
    for name in names:
        if name not in present.names:
            has = ", ".join(map(repr, present.names[:10])) or "none"
            raise store.NoAddition(f"{folder.path}: there is no addition {name!r}; there are {has}")
    stay = Additions([item for item in present if item.name not in names])
    for item in stay:
        if named := {n for h, _, t in item.facts for n in (h, t)} & set(names):
            raise ValueError(
                f"{folder.path}: facts of {item.name!r} contain {min(named)!r}, and its row "
                f"was fitted to them; remove both together, or {item.name!r} alone first"
            )
    if present.pairs and stay:
        contents, path = trained(), str(folder.path)
        # Those that cannot be used have no pairs, and follow the others.
        usable = contents.usable(stay, path)
        rest = [item for item in stay if item not in usable]
        known = related(contents, usable)
        stay = Additions([*known, *rest], known.pairs)
    check()
    store.write(folder, stay, model)
