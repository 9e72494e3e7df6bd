"""Constructors are schemas: what fits is built, what does not is named by its path."""

from __future__ import annotations

import inspect
import math
import typing
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.core.registry import (
    ConfigError,
    Configurable,
    Spec,
    build,
    construct,
    convert,
    expand,
    expand_settings,
    resolve,
    settings,
)
from mocme.data.features.sources import Source
from mocme.experts.base import ExpertSettings
from mocme.experts.embedding.settings import TrainingSettings
from mocme.mixture.base import MixtureSettings
from mocme.runs.config import DataSettings, EvaluationSettings


class Shape(Configurable):
    """A family."""

    @abstractmethod
    def area(self) -> float:
        """Of the shape."""


class Square(Shape):
    def __init__(self, *, side: float = 2.0, solid: bool = True) -> None:
        if side <= 0:
            raise ValueError("side must be above 0")
        self.side, self.solid = side, solid

    def area(self) -> float:
        return self.side**2


class Pair(Shape):
    def __init__(
        self,
        context: str = "none",
        *,
        first: Shape,
        second: Shape = Square(),
        names: Sequence[str] = ("a", "b"),
        limits: tuple[int, float] = (1, 2.0),
        by_name: Mapping[str, float] = {"x": 1.0},
        mode: Literal["on", "off"] = "on",
        count: int | None = None,
    ) -> None:
        self.context, self.first, self.second, self.names = context, first, second, names
        self.limits, self.by_name, self.mode, self.count = limits, by_name, mode, count

    def area(self) -> float:
        return self.first.area() + self.second.area()


class Unfinished(Shape):
    pass


class Bad(Shape):
    """Its default part has arguments, which nothing would write out."""

    def __init__(self, *, inner: Shape = Square(side=7.0)) -> None:
        self.inner = inner

    def area(self) -> float:
        return 0.0


Shape.kinds = (Square, Pair, Bad)
PAIR = {"kind": "Pair", "first": {"kind": "Square", "side": 3}}


def plain(part: Configurable) -> dict[str, Any]:
    """A part as nested tables, to compare two."""
    return {
        key: {"class": type(value), **plain(value)} if isinstance(value, Configurable) else value
        for key, value in vars(part).items()
    }


def test_a_table_becomes_a_part() -> None:
    part = build(Shape, {**PAIR, "names": ["c"], "count": 3}, "shape", "given")
    assert isinstance(part, Pair)
    assert part.area() == 13
    assert (part.context, part.names, part.count) == ("given", ("c",), 3)
    assert isinstance(part.first.side, float)


def test_everything_is_written_out() -> None:
    assert expand(Shape, PAIR, "shape") == {
        "kind": "Pair",
        "first": {"kind": "Square", "side": 3.0, "solid": True},
        "second": {"kind": "Square", "side": 2.0, "solid": True},
        "names": ["a", "b"],
        "limits": [1, 2.0],
        "by_name": {"x": 1.0},
        "mode": "on",
    }


squares = st.fixed_dictionaries(
    {"kind": st.just("Square")},
    optional={"side": st.floats(0.1, 9) | st.integers(1, 9), "solid": st.booleans()},
)
shapes = st.recursive(
    squares,
    lambda inner: st.fixed_dictionaries(
        {"kind": st.just("Pair"), "first": inner},
        optional={
            "second": inner,
            "names": st.lists(st.text(max_size=3), max_size=3),
            "by_name": st.dictionaries(st.text(max_size=3), st.floats(0, 1)),
            "mode": st.sampled_from(["on", "off"]),
            "count": st.integers(),
        },
    ),
    max_leaves=4,
)


@given(shapes)
def test_expanding_changes_nothing_of_what_is_built(table: dict[str, Any]) -> None:
    full = expand(Shape, table, "shape")
    assert plain(build(Shape, full, "shape")) == plain(build(Shape, table, "shape"))
    assert expand(Shape, full, "shape") == full


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frist": 1}, "shape.frist: unknown setting; did you mean 'first'?"),
        ({"zzz": 1}, "shape.zzz: unknown setting; known: by_name, count, first"),
        ({"first": {"kind": "Square", "sid": 1}}, "shape.first.sid: .* did you mean 'side'?"),
        ({"first": {"kind": "Sqare"}}, "shape.first.kind: 'Sqare' is none of: Square, Pair, Bad"),
        ({"first": {"side": 1}}, "shape.first: needs a kind, one of Square, Pair, Bad"),
        ({"first": 3}, "shape.first: must be a table with a kind, one of Square"),
        ({"first": {"kind": "Pair"}}, "shape.first.first: is missing"),
        (
            {"first": {"kind": "Square", "side": True}},
            "shape.first.side: must be a number, not True",
        ),
        ({"first": {"kind": "Square", "side": "1"}}, "shape.first.side: must be a number, not '1'"),
        ({"first": {"kind": "Square", "solid": 1}}, "shape.first.solid: must be true or false"),
        ({"first": {"kind": "Square", "side": math.nan}}, "shape.first.side: .* not NaN"),
        ({"first": {"kind": "Square", "side": -1.0}}, "shape.first: side must be above 0"),
        ({"names": "ab"}, "shape.names: must be a list"),
        ({"names": ["a", 1]}, r"shape.names\[1\]: must be a text, not 1"),
        ({"limits": [1]}, "shape.limits: must be a list of 2"),
        ({"limits": [1.5, 2.0]}, r"shape.limits\[0\]: must be a whole number"),
        ({"by_name": 1}, "shape.by_name: must be a table"),
        ({"by_name": {"x": "1"}}, "shape.by_name.x: must be a number"),
        ({"mode": "of"}, "shape.mode: 'of' is none of on, off"),
        ({"count": True}, "shape.count: must be a whole number, not True"),
        ({"count": 1.0}, "shape.count: must be a whole number, not 1.0"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        build(Shape, {**PAIR, **changes}, "shape")
    if "above 0" not in message:  # a constructor's own check comes when it is built
        with pytest.raises(ConfigError, match=f"^{message}"):
            expand(Shape, {**PAIR, **changes}, "shape")


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, 1.0),
        (1, int | float, 1),
        (1.5, int | str | float, 1.5),
        (None, int | None, None),
        (True, bool, True),
        ([1, 2], Sequence[float], (1.0, 2.0)),
        ([1, 2], tuple[int, ...], (1, 2)),
        ({"a": [1]}, Mapping[str, Sequence[int]], {"a": (1,)}),
        (object, Any, object),
        (2, Literal[1, 2], 2),
    ],
)
def test_values_fit_annotations(value: Any, hint: Any, expected: Any) -> None:
    found = convert(value, hint, "x")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, Literal[1, 2], "x: True is none of 1, 2"),
        (None, int, "x: must be a whole number, not None"),
        ([], int | str, "x: must be a whole number or a text"),
        (True, float | None, "x: must be a number, not True"),
    ],
)
def test_values_that_do_not_fit(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        convert(value, hint, "x")


def test_a_part_of_the_users_own() -> None:
    assert resolve(Shape, f"{__name__}:Square", "shape") is Square
    table = {"kind": f"{__name__}:Square", "side": 4}
    assert expand(Shape, table, "shape") == {**table, "side": 4.0, "solid": True}
    assert build(Shape, table, "shape").area() == 16


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("no_such_module:X", "cannot be imported: No module"),
        (f"{__name__}:Nothing", "cannot be imported"),
        (":Square", "cannot be imported"),
        (".relative:Square", "cannot be imported"),
        (f"{__name__}:PAIR", "is not a Shape"),
        ("mocme.runs.config:DataSettings", "is not a Shape"),
        (f"{__name__}:Unfinished", "is abstract; it does not define area"),
    ],
)
def test_a_part_of_the_users_own_that_is_none(kind: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^shape.kind: '{kind}' .*{problem}"):
        build(Shape, {"kind": kind}, "shape")


def test_a_default_part_with_arguments_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^shape.inner: a default part must be made without"):
        expand(Shape, {"kind": "Bad"}, "shape")


ROOTS = (DataSettings, TrainingSettings, EvaluationSettings)


def families() -> list[type[Configurable]]:
    """Every part that the package's settings can reach."""
    found: list[type[Configurable]] = []

    def visit(part: type[Configurable]) -> None:
        if part in found:
            return
        found.append(part)
        for hint, default in settings(part).values():
            if isinstance(default, Configurable):
                visit(type(default))
            if typing.get_origin(hint) is Spec:
                (hint,) = typing.get_args(hint)
                for kind in hint.kinds or (hint,):
                    visit(kind)
            elif isinstance(hint, type) and issubclass(hint, Configurable):
                for kind in hint.kinds:
                    visit(kind)

    for root in (*ROOTS, *Source.kinds, *ExpertSettings.kinds, *MixtureSettings.kinds):
        if not inspect.isabstract(root):
            visit(root)
    return found


REACHED = families()
REQUIRED = {"path": "x.tsv", "paths": ["x.tsv"], "names": ["x.tsv"]}


@pytest.mark.parametrize("part", REACHED, ids=lambda part: part.__name__)
def test_every_part_of_the_package_is_written_out_and_built_again(part: type[Configurable]) -> None:
    absent = inspect.Parameter.empty
    needed = {
        key: REQUIRED[key]
        for key, (_, default) in settings(part).items()
        if key in REQUIRED and (default is absent or not default)
    }
    full = expand_settings(part, needed, "x")
    hints = settings(part)
    assert set(full) == {key for key, (_, default) in hints.items() if default is not None}
    assert expand_settings(part, full, "x") == full
    again = construct(part, full, "x", *part.trial)
    assert type(again) is part
    with pytest.raises(ConfigError, match=r"^x.no_such_setting: unknown setting"):
        construct(part, {**full, "no_such_setting": 1}, "x", *part.trial)
