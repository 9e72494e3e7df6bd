"""New entities with their content and facts, from Python or from a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mocme.core.text_formats import parse_json
from mocme.data.formats.report import Report
from mocme.data.formats.streams import line_chunks, normalize_line_ends, open_stream
from mocme.data.formats.tensors import map_npy
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
    """A new entity does not fit the run.

    Attributes:
        field: the part of `NewEntity` that is wrong: ``name``, ``names``, ``text``, ``numbers``,
            ``content.MODALITY`` (also for a text or numbers that were passed on to it), or
            ``facts.N``, counted from 0; empty where no single part is wrong.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@contextmanager
def part(name: str) -> Iterator[None]:
    """Attribute errors to this part of a new entity; see `InvalidEntity`."""
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
    """The content of a modality for one entity.

    Attributes:
        vector: of a dense modality.
        tokens: of a modality of tokens.
        given: description of the input.
        notes: what a reader should know.
        texts: from which it was computed, for pairs and for display.
    """

    vector: Tensor | None
    tokens: tuple[str, ...] | None
    given: str
    notes: tuple[str, ...] = ()
    texts: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class NewEntity:
    """An entity to add to a run; only its name is required.

    Attributes:
        facts: each contains the entity; the other end is in the graph, an addition, or in the same
            batch.
        text: for every modality that is computed from texts and is not in `content`.
        numbers: by attribute, for every modality of numbers that is not in `content`.
        content: by modality. A string is a text, or the path of a file for pictures, sounds and
            videos; a list of strings is several of them; a mapping is numbers by attribute; a set
            is tokens; an array or a list of numbers is a vector.
        home: the folder that relative paths start from.
        names: by which texts mention it, for pairs computed from names; its name by default.
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
    """Read entities from a file of JSON lines, one object with the keys of `NewEntity` each.

    In `content`, ``{"tokens": [...]}`` is a set of tokens and ``{"vector": "file.npy"}`` a
    vector; paths start from the folder of the file.

    Raises:
        ValueError: a line is not such an object, with its number; or the file cannot be read.
    """
    home, entities = Path(path).parent, []
    for number, raw in _lines(path):
        if not raw.strip():
            continue
        try:
            entities.append(_entity(parse_json(raw), home))
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(f"{path}: line {number}: {error}") from error
    if not entities:
        raise ValueError(f"{path}: contains no entity; write an object with a name on each line")
    return entities


def _lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers."""
    report = Report(str(path))
    with open_stream(path, report) as file:
        for chunk in line_chunks(file, report):
            for raw in normalize_line_ends(chunk).split(b"\n")[:-1]:
                report.lines += 1
                yield report.lines, raw


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
    content = {name: _content(value, home) for name, value in (about.get("content") or {}).items()}
    numbers = None if about.get("numbers") is None else _numbers(about["numbers"])
    names = about.get("names") or ()
    if not isinstance(names, str | list | tuple) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"names = {names!r}: must be a string or a list of strings")
    return NewEntity(about["name"], facts, about.get("text"), numbers, content, home, names)


def _numbers(given: Mapping[str, Any]) -> dict[str, float]:
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} = {value!r} is not a number")
        if isinstance(value, int) and abs(value) > 2**1023:
            raise ValueError(f"{name} is an integer beyond the range of float64; correct it")
    return {name: float(value) for name, value in given.items()}


def _content(value: Any, home: Path) -> Content:
    if isinstance(value, dict) and set(value) == {"tokens"}:
        tokens = value["tokens"]
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError("tokens must be a list of strings")
        return frozenset(tokens)
    if isinstance(value, dict) and set(value) == {"vector"}:
        return given if isinstance(given := value["vector"], list) else vector(home / str(given))
    if isinstance(value, dict):
        return _numbers(value)
    if not isinstance(value, str | list):
        raise ValueError(f"{value!r} is not content")
    return value


def vector(path: Path) -> np.ndarray:
    """The vector in a ``.npy`` file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return np.array(map_npy(path))
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as .npy ({error}); check the file") from error
