"""Settings of classes: tables that fit are built, errors begin with the path of the setting."""

from __future__ import annotations

import inspect
import math
import sys
import types
import typing
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        """Return the area."""


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
    """A class whose default component has arguments, which `expand` cannot write out."""

    def __init__(self, *, inner: Shape = Square(side=7.0)) -> None:
        self.inner = inner

    def area(self) -> float:
        return 0.0


Shape.kinds = (Square, Pair, Bad)
PAIR = {"kind": "Pair", "first": {"kind": "Square", "side": 3}}


def plain(component: Configurable) -> dict[str, Any]:
    """Return a component as nested tables, to compare two of them."""
    return {
        key: {"class": type(value), **plain(value)} if isinstance(value, Configurable) else value
        for key, value in vars(component).items()
    }


def test_a_table_becomes_a_component() -> None:
    pair = build(Shape, {**PAIR, "names": ["c"], "count": 3}, "shape", "given")
    assert isinstance(pair, Pair)
    assert pair.area() == 13
    assert (pair.context, pair.names, pair.count) == ("given", ("c",), 3)
    assert isinstance(pair.first.side, float)


def test_every_default_is_written_out() -> None:
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
def test_an_expanded_table_builds_the_same_object(table: dict[str, Any]) -> None:
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
        ({"names": ["a", 1]}, r"shape.names\[1\]: must be a string, not 1"),
        ({"limits": [1]}, "shape.limits: must be a list of 2"),
        ({"limits": [1.5, 2.0]}, r"shape.limits\[0\]: must be an integer"),
        ({"by_name": 1}, "shape.by_name: must be a table"),
        ({"by_name": {"x": "1"}}, "shape.by_name.x: must be a number"),
        ({"mode": "of"}, "shape.mode: 'of' is none of on, off"),
        ({"count": True}, "shape.count: must be an integer, not True"),
        ({"count": 1.0}, "shape.count: must be an integer, not 1.0"),
    ],
)
def test_an_error_begins_with_the_path_of_the_setting(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        build(Shape, {**PAIR, **changes}, "shape")
    if "above 0" not in message:  # a check of the constructor, which `expand` does not call
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
def test_values_that_fit_an_annotation(value: Any, hint: Any, expected: Any) -> None:
    converted = convert(value, hint, "x")
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, Literal[1, 2], "x: True is none of 1, 2"),
        (None, int, "x: must be an integer, not None"),
        ([], int | str, "x: must be an integer or a string"),
        (True, float | None, "x: must be a number, not True"),
    ],
)
def test_values_that_do_not_fit_an_annotation(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        convert(value, hint, "x")


def test_a_class_of_the_user() -> None:
    assert resolve(Shape, f"{__name__}:Square", "shape", trust_code=True) is Square
    table = {"kind": f"{__name__}:Square", "side": 4}
    full = {**table, "side": 4.0, "solid": True}
    assert expand(Shape, table, "shape", trust_code=True) == full
    assert build(Shape, table, "shape", trust_code=True).area() == 16


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
def test_a_class_of_the_user_that_cannot_be_used(kind: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^shape.kind: '{kind}' .*{problem}"):
        build(Shape, {"kind": kind}, "shape", trust_code=True)


def test_a_default_component_with_arguments_is_refused() -> None:
    message = r"^shape.inner: a default component must be constructed without arguments"
    with pytest.raises(ConfigError, match=message):
        expand(Shape, {"kind": "Bad"}, "shape")


# -- settings of dataclasses -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Limits(Configurable):
    """A table of settings within settings; it has no kinds."""

    low: int = 0
    high: int = 9

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low must be at most high")


@dataclass(frozen=True, kw_only=True)
class Reader(Configurable):
    """A family whose settings every kind inherits."""

    context: str = field(default="none", kw_only=False)
    path: str
    share: float = 1.0
    limits: Limits = field(default_factory=Limits)
    next: Reader | None = None
    cache: dict[str, int] = field(default_factory=dict, init=False)

    @abstractmethod
    def read(self) -> str:
        """Read the file."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError("share must be within 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Lines(Reader):
    columns: Sequence[int] = (2,)
    mode: Literal["all", "first"] = "all"

    def read(self) -> str:
        return self.path


@dataclass(frozen=True, kw_only=True)
class Upper(Lines):
    """Another default and another check than the class that it inherits from."""

    share: float = 0.5
    strict: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strict and self.mode == "first":
            raise ValueError("strict needs mode = all")


class Plain(Lines):
    """Not a dataclass, and without a constructor: has the settings that it inherits."""


class Handwritten(Lines):
    """Not a dataclass: the settings are those of its constructor."""

    def __init__(self, *, level: int = 3) -> None:
        self.level = level


@dataclass(frozen=True, kw_only=True)
class OwnConstructor(Reader):
    """A dataclass with a handwritten constructor, which `dataclass` keeps."""

    level: int

    def __init__(self, *, level: int) -> None:
        object.__setattr__(self, "level", level)

    def read(self) -> str:
        return ""


Reader.kinds = (Lines, Upper, Plain, Handwritten, OwnConstructor)
UPPER = {"kind": "Upper", "path": "x", "strict": True}


def test_inherited_settings_come_first_and_a_default_may_change() -> None:
    hints = settings(Upper)
    assert list(hints) == ["path", "share", "limits", "next", "columns", "mode", "strict"]
    assert hints["share"] == (float, 0.5)
    assert hints["limits"] == (Limits, Limits())
    assert hints["path"] == (str, inspect.Parameter.empty)
    assert settings(Lines)["share"] == (float, 1.0)


def test_a_default_from_a_factory_is_a_new_object_each_time() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Listed(Configurable):
        names: list[str] = field(default_factory=list)

    settings(Listed)["names"][1].append("changed")
    assert settings(Listed)["names"] == (list[str], [])


def test_fields_that_are_no_keyword_are_no_settings() -> None:
    assert not {"context", "cache"} & set(settings(Lines))
    lines = build(Reader, {"kind": "Lines", "path": "x"}, "reader", "given")
    assert isinstance(lines, Lines)
    assert (lines.context, lines.path, lines.columns, lines.cache) == ("given", "x", (2,), {})


def test_the_class_with_the_constructor_decides_what_the_settings_are() -> None:
    assert settings(Plain) == settings(Lines)
    assert settings(Handwritten) == {"level": (int, 3)}
    assert settings(OwnConstructor) == {"level": (int, inspect.Parameter.empty)}
    assert vars(build(Reader, {"kind": "Handwritten", "level": 4}, "reader")) == {"level": 4}


def test_defaults_of_inherited_settings_are_written_out() -> None:
    full = {
        "kind": "Upper",
        "path": "x",
        "share": 0.5,
        "limits": {"low": 0, "high": 9},
        "columns": [2],
        "mode": "all",
        "strict": True,
    }
    assert expand(Reader, UPPER, "reader") == full
    assert expand(Reader, full, "reader") == full
    assert build(Reader, full, "reader") == build(Reader, UPPER, "reader")
    changed = {**UPPER, "limits": {"high": 3}, "next": {"kind": "Lines", "path": "y"}}
    expanded = expand(Reader, changed, "reader")
    assert expanded["limits"] == {"low": 0, "high": 3}
    assert expanded["next"]["limits"] == {"low": 0, "high": 9}
    reader = build(Reader, expanded, "reader")
    assert isinstance(reader, Upper)
    assert reader.limits == Limits(high=3)
    assert reader.next == Lines(path="y")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shar": 1}, "reader.shar: unknown setting; did you mean 'share'?"),
        ({"modes": 1}, "reader.modes: unknown setting; did you mean 'mode'?"),
        ({"cache": {}}, "reader.cache: unknown setting; known: columns, limits, mode, next, path"),
        ({"context": "x"}, "reader.context: unknown setting"),
        ({"share": "1"}, "reader.share: must be a number, not '1'"),
        ({"share": math.nan}, "reader.share: must be a number, not NaN"),
        ({"strict": 1}, "reader.strict: must be true or false, not 1"),
        ({"columns": [1.5]}, r"reader.columns\[0\]: must be an integer, not 1.5"),
        ({"mode": "last"}, "reader.mode: 'last' is none of all, first"),
        ({"limits": 3}, "reader.limits: must be a table of settings"),
        ({"limits": {"hihg": 3}}, "reader.limits.hihg: unknown setting; did you mean 'high'?"),
        ({"limits": {"high": "3"}}, "reader.limits.high: must be an integer, not '3'"),
        ({"next": {"kind": "Lines"}}, "reader.next.path: is missing"),
        ({"next": {"kind": "Line"}}, "reader.next.kind: 'Line' is none of: Lines, Upper"),
        (
            {"next": {**UPPER, "limits": {"low": True}}},
            "reader.next.limits.low: must be an integer, not True",
        ),
    ],
)
def test_errors_of_inherited_settings_name_their_path(
    changes: dict[str, Any], message: str
) -> None:
    for act in (build, expand):
        with pytest.raises(ConfigError, match=f"^{message}"):
            act(Reader, {**UPPER, **changes}, "reader")


@pytest.mark.parametrize("key", ["path", "strict"])
def test_missing_settings_are_named_in_every_class_that_inherits_them(key: str) -> None:
    table = {name: value for name, value in UPPER.items() if name != key}
    for act in (build, expand):
        with pytest.raises(ConfigError, match=f"^reader.{key}: is missing$"):
            act(Reader, table, "reader")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 2}, "reader: share must be within 0 and 1"),
        ({"mode": "first"}, "reader: strict needs mode = all"),
        ({"limits": {"low": 10}}, "reader.limits: low must be at most high"),
        ({"next": {**UPPER, "share": -1}}, "reader.next: share must be within 0 and 1"),
    ],
)
def test_a_failed_check_of_values_names_the_path_of_its_table(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        build(Reader, {**UPPER, **changes}, "reader")


def test_inherited_annotations_are_resolved_in_the_module_that_wrote_them() -> None:
    source = """
from __future__ import annotations
from dataclasses import dataclass
from test_registry import Lines

@dataclass(frozen=True, kw_only=True)
class Elsewhere(Lines):
    depth: int = 1
"""
    module = types.ModuleType("elsewhere_of_the_registry")
    sys.modules[module.__name__] = module
    try:
        exec(source, vars(module))
        table = {"kind": f"{module.__name__}:Elsewhere", "path": "x", "limits": {"low": 2}}
        hints = settings(module.Elsewhere)
        assert (hints["mode"][0], hints["limits"][0]) == (Literal["all", "first"], Limits)
        assert expand(Reader, table, "reader", trust_code=True)["depth"] == 1
        reader = build(Reader, table, "reader", trust_code=True)
    finally:
        del sys.modules[module.__name__]
    assert isinstance(reader, module.Elsewhere)
    assert reader.limits == Limits(low=2)
    assert reader.depth == 1


# -- the settings of the package -------------------------------------------------------------------


ROOTS = (DataSettings, TrainingSettings, EvaluationSettings)


def reachable_classes() -> list[type[Configurable]]:
    """Return every class that the package's settings can reach."""
    classes: list[type[Configurable]] = []

    def visit(component: type[Configurable]) -> None:
        if component in classes:
            return
        classes.append(component)
        for hint, default in settings(component).values():
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
    return classes


REACHED = reachable_classes()
REQUIRED = {"path": "x.tsv", "paths": ["x.tsv"], "names": ["x.tsv"]}


@pytest.mark.parametrize("component", REACHED, ids=lambda component: component.__name__)
def test_every_class_of_the_package_is_written_out_and_built_again(
    component: type[Configurable],
) -> None:
    absent = inspect.Parameter.empty
    required = {
        key: REQUIRED[key]
        for key, (_, default) in settings(component).items()
        if key in REQUIRED and (default is absent or not default)
    }
    full = expand_settings(component, required, "x")
    hints = settings(component)
    assert set(full) == {key for key, (_, default) in hints.items() if default is not None}
    assert expand_settings(component, full, "x") == full
    again = construct(component, full, "x", *component.trial)
    assert type(again) is component
    with pytest.raises(ConfigError, match=r"^x.no_such_setting: unknown setting"):
        construct(component, {**full, "no_such_setting": 1}, "x", *component.trial)
