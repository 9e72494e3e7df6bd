"""What is asked for: new entities with their content and facts, from Python or a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mocme.data.graph import UnknownName
from mocme.inductive.store import Fact

# A text or file, several of them, numbers by attribute, tokens, or a vector.
Content = (
    str
    | Path
    | Sequence[str]
    | Sequence[Path]
    | Sequence[float]
    | Mapping[str, float]
    | AbstractSet[str]
    | np.ndarray
    | Tensor
)


class InvalidEntity(ValueError):
    """Something of a new entity does not fit the run.

    Attributes:
        field: which part of a `NewEntity` it is: ``name``, ``names``, ``text``,
            ``numbers``, ``content.MODALITY`` (also where a text or numbers went to it), or
            ``facts.N``, numbered from 0; empty where it is none alone.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@contextmanager
def part(name: str) -> Iterator[None]:
    """Errors are told to be of this part of a new entity; see `InvalidEntity`."""
    try:
        yield
    except UnknownName as error:
        error.field = name
        raise
    except InvalidEntity:
        raise
    except ValueError as error:
        raise InvalidEntity(str(error), name) from error


class EncodedContent(NamedTuple):
    """What a modality gets for an entity: a vector or tokens; what was given; notes.

    `texts` are those that it is made of, for pairs or to be shown.
    """

    vector: Tensor | None
    tokens: tuple[str, ...] | None
    given: str
    notes: tuple[str, ...] = ()
    texts: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class NewEntity:
    """An entity to add to a run; all but its name may be left out.

    Attributes:
        facts: each names the entity; the other end is in the graph, an addition, or of its batch.
        text: for every modality that is made of texts and not in `content`.
        numbers: by attribute, for every modality that is made of numbers and not in `content`.
        content: by modality. A string is a text, or for pictures, sounds and videos the path of a
            file; a list of strings several of them; a mapping numbers by attribute; a set its
            tokens; an array or a list of numbers a ready vector.
        home: where relative paths begin.
        names: what texts call it, for pairs that are made of names; its name by default.
    """

    name: str
    facts: Sequence[Fact] = ()
    text: str | Sequence[str] | None = None
    numbers: Mapping[str, float] | None = None
    content: Mapping[str, Content] = field(default_factory=dict)
    home: Path = Path()
    names: str | Sequence[str] = ()


_KEYS = ("name", "facts", "text", "numbers", "content", "names")


def read_entities(path: str | Path) -> list[NewEntity]:
    """Entities of a file of JSON lines, an object each with the keys of `NewEntity`.

    In `content`, ``{"tokens": [...]}`` is a set of tokens and ``{"vector": "file.npy"}`` a ready
    vector; paths begin in the file's folder.

    Raises:
        ValueError: a line is not such an object, with its number.
    """
    home, found = Path(path).parent, []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(_entity(json.loads(line), home))
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(f"{path}: line {number}: {error}") from error
    if not found:
        raise ValueError(f"{path}: holds no entity; write an object with a name in each line")
    return found


def _entity(about: Any, home: Path) -> NewEntity:
    if not isinstance(about, dict) or not isinstance(about.get("name"), str):
        raise ValueError('must be an object with a "name"')
    if strange := sorted(set(about) - set(_KEYS)):
        raise ValueError(f"unknown key {strange[0]!r}; known are {', '.join(_KEYS)}")
    for key, kind in (("facts", list), ("numbers", dict), ("content", dict)):
        if about.get(key) is not None and not isinstance(about[key], kind):
            raise ValueError(f"{key} must be {'an object' if kind is dict else 'a list'}")
    facts = []
    for fact in about.get("facts") or ():
        if not isinstance(fact, list) or len(fact) != 3:
            raise ValueError(f"{fact!r} is not a fact; write [head, relation, tail]")
        facts.append((fact[0], fact[1], fact[2]))
    content = {name: _content(own, home) for name, own in (about.get("content") or {}).items()}
    numbers = None if about.get("numbers") is None else _numbers(about["numbers"])
    names = about.get("names") or ()
    if not isinstance(names, str | list | tuple) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"names = {names!r}: must be a string or a list of strings")
    return NewEntity(about["name"], facts, about.get("text"), numbers, content, home, names)


def _numbers(given: Mapping[str, Any]) -> dict[str, float]:
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} = {value!r} is not a number")
    return {name: float(value) for name, value in given.items()}


def _content(own: Any, home: Path) -> Content:
    if isinstance(own, dict) and set(own) == {"tokens"}:
        return frozenset(own["tokens"])
    if isinstance(own, dict) and set(own) == {"vector"}:
        return own["vector"] if isinstance(own["vector"], list) else vector(home / own["vector"])
    if isinstance(own, dict):
        return _numbers(own)
    if not isinstance(own, str | list):
        raise ValueError(f"{own!r} is no content")
    return own


def vector(path: Path) -> np.ndarray:
    """The vector in a ``.npy`` file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as .npy ({error})") from error
    return found
