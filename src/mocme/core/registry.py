"""Parts from tables: a constructor's keyword-only arguments are the schema of its settings.

A part is written ``{kind = "ComplEx", ...}``. Its family (an abstract class) lists its kinds in
``kinds``; ``kind = "package.module:Class"`` names a part of the user's own. An argument whose
annotation is a family is a part again. Unknown keys, missing keys and wrong types are errors that
name their path.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
import types
import typing
from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar, Union

P = TypeVar("P", bound="Configurable")
C = TypeVar("C", bound="Configurable", covariant=True)


class ConfigError(ValueError):
    """A setting that is not right; the message begins with its path."""


class Configurable(ABC):  # noqa: B024 (a family adds what is abstract)
    """Something that a configuration can choose and set up.

    A part that is the default of an argument takes no arguments itself: its class is what
    `expand` writes out.
    """

    kinds: ClassVar[tuple[type[Configurable], ...]] = ()
    # Of a family that is used by `Spec`: a small context to build it with, so that a setting out of
    # range is refused when the configuration is read.
    trial: ClassVar[tuple[Any, ...]] = ()

    @classmethod
    def kind_name(cls) -> str:
        """What `kind` says in a table to choose this class: by default the name of the class."""
        return cls.__name__


@dataclasses.dataclass(frozen=True, init=False)
class Spec(Generic[C]):
    """A component that is chosen now and built when its context is known.

    A scorer needs the embedding dimension, a fusion the number of its inputs. An annotation
    ``Spec[Scorer]`` makes a setting that is a table with a kind of `Scorer`.

    Attributes:
        component: the class.
        settings: keyword arguments of its constructor.
    """

    component: type[C]
    settings: Mapping[str, Any]

    def __init__(self, component: type[C], **settings: Any) -> None:
        object.__setattr__(self, "component", component)
        object.__setattr__(self, "settings", settings)

    def build(self, *context: Any) -> C:
        """A new component."""
        return self.component(*context, **self.settings)

    def table(self) -> dict[str, Any]:
        """The settings as a table, with the kind if the family has several."""
        kind = {"kind": self.component.kind_name()} if self.component.kinds else {}
        return {**kind, **self.settings}


def modules(package: types.ModuleType) -> list[types.ModuleType]:
    """The modules and packages of a package, imported, in alphabetical order."""
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def discover(family: type[P], package: types.ModuleType) -> tuple[type[P], ...]:
    """The concrete classes of a family that the modules of a package define.

    A new kind is a new module: no list has to be changed for it. Names that begin with an
    underscore and abstract classes are left out.
    """
    return tuple(
        value
        for module in modules(package)
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, family)
        and value.__module__.startswith(module.__name__)
        and not name.startswith("_")
        and not inspect.isabstract(value)
    )


def resolve(family: type[P], kind: object, path: str) -> type[P]:
    """The class that `kind` names within a family (importing a user's own where it has a colon)."""
    if not isinstance(kind, str):
        raise ConfigError(f"{path}: needs a kind, one of {_names(family)}")
    for part in family.kinds:
        if part.kind_name() == kind:
            return typing.cast("type[P]", part)
    if ":" in kind:
        module, _, name = kind.partition(":")
        try:
            part = getattr(importlib.import_module(module), name)
        except Exception as error:  # a module of the user's own may fail in any way
            raise ConfigError(f"{path}.kind: {kind!r} cannot be imported: {error}") from error
        if not (isinstance(part, type) and issubclass(part, family)):
            raise ConfigError(f"{path}.kind: {kind!r} is not a {family.__name__}")
        if inspect.isabstract(part):
            missing = ", ".join(sorted(part.__abstractmethods__))
            raise ConfigError(f"{path}.kind: {kind!r} is abstract; it does not define {missing}")
        return part
    raise ConfigError(f"{path}.kind: {kind!r} is none of: {_names(family)}")


def build(family: type[P], table: Mapping[str, Any], path: str, *context: Any) -> P:
    """Make the part that a table describes; `context` are its positional arguments.

    Raises:
        ConfigError: with the path of the setting that is wrong.
    """
    part = resolve(family, table.get("kind"), path)
    rest = {key: value for key, value in table.items() if key != "kind"}
    return construct(part, rest, path, *context)


def construct(part: type[P], table: Mapping[str, Any], path: str, *context: Any) -> P:
    """Make a part of a known class from its settings."""
    hints = settings(part)
    check_keys(table, hints, path)
    arguments = {k: convert(v, hints[k][0], f"{path}.{k}") for k, v in table.items()}
    for key, (_, default) in hints.items():
        if default is inspect.Parameter.empty and key not in arguments:
            raise ConfigError(f"{path}.{key}: is missing")
    try:
        return part(*context, **arguments)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def specify(family: type[P], table: Mapping[str, Any], path: str) -> Spec[P]:
    """The checked choice of a component, which is built later.

    Raises:
        ConfigError: with the path of the setting that is wrong.
    """
    part, rest = family, dict(table)
    if family.kinds:
        part = resolve(family, rest.pop("kind", None), path)
    construct(part, rest, path, *part.trial)
    hints = settings(part)
    return Spec(part, **{k: convert(v, hints[k][0], f"{path}.{k}") for k, v in rest.items()})


def settings(part: type) -> dict[str, tuple[Any, Any]]:
    """Settings of a class: name to (annotation, default).

    They are the keyword-only fields of a dataclass, inherited ones first, or else the keyword-only
    arguments of the constructor.
    """
    if dataclasses.is_dataclass(part):
        hints = typing.get_type_hints(part)
        return {
            field.name: (hints[field.name], _default(field))
            for field in dataclasses.fields(part)
            if field.init and field.kw_only
        }
    constructor = inspect.getattr_static(part, "__init__")
    hints = typing.get_type_hints(constructor)
    signature = inspect.signature(constructor)
    return {
        name: (hints.get(name, Any), parameter.default)
        for name, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty


def check_keys(table: Mapping[str, Any], known: Mapping[str, Any], path: str) -> None:
    """Refuse keys that nothing knows, naming the nearest known one."""
    import difflib

    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise ConfigError(f"{path}.{key}: unknown setting; {hint}".lstrip("."))


def convert(value: Any, hint: Any, path: str) -> Any:
    """Check a value of a configuration against an annotation; whole numbers serve as floats.

    Raises:
        ConfigError: with `path`, what is needed and what was given.
    """
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint), path)
    if origin is Literal:
        choices = typing.get_args(hint)
        # The type too, for True equals 1.
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return value
        raise ConfigError(f"{path}: {value!r} is none of {', '.join(map(str, choices))}")
    if origin is Spec:
        family = typing.get_args(hint)[0]
        if isinstance(value, Spec):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: must be a table{_needs(family)}")
        return specify(family, value, path)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: must be a table")
        inner = typing.get_args(hint)[1]
        return {key: convert(item, inner, f"{path}.{key}") for key, item in value.items()}
    if origin is not None and issubclass(origin, Sequence):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path}: must be a list")
        inner, *others = typing.get_args(hint)
        if origin is tuple and others != [...]:
            if len(value) != 1 + len(others):
                raise ConfigError(f"{path}: must be a list of {1 + len(others)}, not {value!r}")
            pairs = zip(value, (inner, *others), strict=True)
        else:
            pairs = zip(value, [inner] * len(value), strict=True)
        return tuple(convert(item, h, f"{path}[{n}]") for n, (item, h) in enumerate(pairs))
    if isinstance(hint, type) and issubclass(hint, Configurable):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: must be a table{_needs(hint)}")
        return build(hint, value, path) if hint.kinds else construct(hint, value, path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{path}: must be {_word(hint)}, not NaN")
    if isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise ConfigError(f"{path}: must be {_word(hint)}, not {value!r}")


def _convert_union(value: Any, choices: tuple[Any, ...], path: str) -> Any:
    if value is None and type(None) in choices:
        return None
    choices = tuple(choice for choice in choices if choice is not type(None))
    errors = []
    for choice in choices:
        try:
            return convert(value, choice, path)
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise ConfigError(f"{path}: must be {' or '.join(map(_word, choices))}, not {value!r}")


def expand(family: type[Configurable], table: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The table of a part with every default written out. Absent optional settings stay absent."""
    if not family.kinds:
        return expand_settings(family, table, path)
    part = resolve(family, table.get("kind"), path)
    rest = {key: value for key, value in table.items() if key != "kind"}
    return {"kind": table["kind"], **expand_settings(part, rest, path)}


def expand_settings(part: type, table: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Every setting of a part of a known class, defaults included."""
    hints = settings(part)
    check_keys(table, hints, path)
    full: dict[str, Any] = {}
    for key, (hint, default) in hints.items():
        value = table.get(key, default)
        if value is inspect.Parameter.empty:
            raise ConfigError(f"{path}.{key}: is missing")
        if value is None:
            continue
        family = _family(hint)
        if isinstance(value, Spec):
            value = value.table()
        if isinstance(value, Configurable):
            if _plain(value) != _plain(type(value)()):
                raise ConfigError(f"{path}.{key}: a default part must be made without arguments")
            named = {"kind": type(value).kind_name()} if type(value).kinds else {}
            value = {**named, **expand_settings(type(value), {}, f"{path}.{key}")}
        elif family is not None and isinstance(value, Mapping):
            value = expand(family, value, f"{path}.{key}")
        else:
            value = convert(value, hint, f"{path}.{key}")
        full[key] = list(value) if isinstance(value, tuple) else value
    return full


def _family(hint: Any) -> type[Configurable] | None:
    if typing.get_origin(hint) is Spec:
        return _family(typing.get_args(hint)[0])
    for choice in (hint, *typing.get_args(hint)):
        if isinstance(choice, type) and issubclass(choice, Configurable):
            return choice
    return None


def _plain(part: Configurable) -> dict[str, Any]:
    """Attributes of plain types, enough to tell a part with arguments from one without."""
    plain = (bool, int, float, str, tuple)
    return {key: value for key, value in vars(part).items() if isinstance(value, plain)}


def _needs(family: type[Configurable]) -> str:
    return f" with a kind, one of {_names(family)}" if family.kinds else " of settings"


def _names(family: type[Configurable]) -> str:
    return ", ".join(part.kind_name() for part in family.kinds)


def _word(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return words.get(hint, str(getattr(hint, "__name__", hint)))
