"""Build objects from configuration tables: the settings of a class are its schema.

A component is written ``{kind = "ComplEx", ...}``. Its family (an abstract class) lists the classes
to choose from in ``kinds``; ``kind = "package.module:Class"`` names a class of the user. The other
keys are the settings of that class: the keyword-only fields of a dataclass, inherited ones
included, or else the keyword-only arguments of its constructor. A setting whose annotation is a
family is itself a component. Unknown keys, missing keys and values of the wrong type are errors
that begin with the path of the setting.
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
    """A setting is wrong; the message begins with the path of the setting."""


class Configurable(ABC):  # noqa: B024 (the families add abstract methods)
    """A class that a configuration can choose and set up.

    A component that is the default of a setting is constructed without arguments, because `expand`
    writes out the defaults of its class.
    """

    kinds: ClassVar[tuple[type[Configurable], ...]] = ()
    # Of a family that is used by `Spec`: a small context to build it with, so that a setting out of
    # range is refused when the configuration is read.
    trial: ClassVar[tuple[Any, ...]] = ()

    @classmethod
    def kind_name(cls) -> str:
        """Return the `kind` that chooses this class in a table: by default the class name."""
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
    """Import the modules and packages in a package, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def discover(family: type[P], package: types.ModuleType) -> tuple[type[P], ...]:
    """Find the concrete classes of a family that the modules of a package define.

    A new kind is a new module; no list needs an entry. Abstract classes and names that begin with
    an underscore are left out.
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
    """Find the class that `kind` names; a name with a colon is imported.

    Raises:
        ConfigError: `kind` is unknown, cannot be imported, or is not a concrete class of `family`.
    """
    if not isinstance(kind, str):
        raise ConfigError(f"{path}: needs a kind, one of {_kind_names(family)}")
    for component in family.kinds:
        if component.kind_name() == kind:
            return typing.cast("type[P]", component)
    if ":" in kind:
        module, _, name = kind.partition(":")
        try:
            component = getattr(importlib.import_module(module), name)
        except Exception as error:  # importing a module of the user can raise anything
            raise ConfigError(f"{path}.kind: {kind!r} cannot be imported: {error}") from error
        if not (isinstance(component, type) and issubclass(component, family)):
            raise ConfigError(f"{path}.kind: {kind!r} is not a {family.__name__}")
        if inspect.isabstract(component):
            missing = ", ".join(sorted(component.__abstractmethods__))
            raise ConfigError(f"{path}.kind: {kind!r} is abstract; it does not define {missing}")
        return component
    raise ConfigError(f"{path}.kind: {kind!r} is none of: {_kind_names(family)}")


def build(family: type[P], table: Mapping[str, Any], path: str, *context: Any) -> P:
    """Build the component that a table describes.

    Args:
        context: positional arguments of the constructor, which no table gives.

    Raises:
        ConfigError: a setting is wrong; the message begins with its path.
    """
    component = resolve(family, table.get("kind"), path)
    return construct(component, _without_kind(table), path, *context)


def construct(component: type[P], table: Mapping[str, Any], path: str, *context: Any) -> P:
    """Build an object of a known class from the table of its settings.

    Raises:
        ConfigError: a setting is wrong, or the constructor raised a ValueError.
    """
    hints = settings(component)
    check_keys(table, hints, path)
    arguments = {k: convert(v, hints[k][0], f"{path}.{k}") for k, v in table.items()}
    for key, (_, default) in hints.items():
        if default is inspect.Parameter.empty and key not in arguments:
            raise ConfigError(f"{path}.{key}: is missing")
    try:
        return component(*context, **arguments)
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
    _try(part, rest, path)
    hints = settings(part)
    return Spec(part, **{k: convert(v, hints[k][0], f"{path}.{k}") for k, v in rest.items()})


def _try(part: type[Configurable], table: Mapping[str, Any], path: str) -> None:
    """Build a component with its trial context, without memory for tensors.

    Raises:
        ConfigError: a setting is wrong.
    """
    import torch

    try:
        # A setting may be a size, and a configuration may come from elsewhere.
        with torch.device("meta"):
            construct(part, table, path, *part.trial)
    except (RuntimeError, OverflowError) as error:
        if part.__module__.startswith("mocme."):
            raise ConfigError(f"{path}: a setting is too large") from error
        # A component of the user may need the values of its tensors.
        construct(part, table, path, *part.trial)


def settings(component: type) -> dict[str, tuple[Any, Any]]:
    """Return the settings of a class: name to (annotation, default).

    They are the keyword-only arguments of the constructor; for a dataclass that is its keyword-only
    fields, inherited ones first. A setting without a default has `inspect.Parameter.empty`.
    """
    # A plain class may inherit from a dataclass and have a constructor of its own; then
    # `dataclasses.fields` does not describe it, although `is_dataclass` is true.
    owner = next(base for base in component.__mro__ if "__init__" in vars(base))
    constructor = vars(owner)["__init__"]
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(constructor).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    fields = {field.name: field for field in vars(owner).get("__dataclass_fields__", {}).values()}
    # A generated constructor has the annotations of inherited fields as text that only the modules
    # of their own classes can resolve, so the hints are those of the class.
    generated = bool(fields) and parameters.keys() <= fields.keys()
    hints = typing.get_type_hints(owner if generated else constructor)
    return {
        name: (hints.get(name, Any), _default(parameter, fields.get(name)))
        for name, parameter in parameters.items()
    }


def _default(parameter: inspect.Parameter, field: dataclasses.Field[Any] | None) -> Any:
    if field is not None and field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return parameter.default


def check_keys(table: Mapping[str, Any], known: Mapping[str, Any], path: str) -> None:
    """Refuse unknown keys.

    Raises:
        ConfigError: with the nearest known key, or all of them if none is near.
    """
    import difflib

    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise ConfigError(f"{path}.{key}: unknown setting; {hint}".lstrip("."))


def convert(value: Any, hint: Any, path: str) -> Any:
    """Check a value of a configuration against an annotation; integers are accepted as floats.

    Returns:
        The value. Lists become tuples, integers become floats where a float is needed, and tables
        become objects where a component is needed.

    Raises:
        ConfigError: with `path`, the expected type and the value.
    """
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint), path)
    if origin is Literal:
        return _convert_literal(value, typing.get_args(hint), path)
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
        return _convert_sequence(value, hint, path)
    if isinstance(hint, type) and issubclass(hint, Configurable):
        return _convert_component(value, hint, path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{path}: must be {_type_name(hint)}, not NaN")
    if isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise ConfigError(f"{path}: must be {_type_name(hint)}, not {value!r}")


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
    raise ConfigError(f"{path}: must be {' or '.join(map(_type_name, choices))}, not {value!r}")


def _convert_literal(value: Any, choices: tuple[Any, ...], path: str) -> Any:
    # The type is compared too, because True equals 1.
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    raise ConfigError(f"{path}: {value!r} is none of {', '.join(map(str, choices))}")


def _convert_sequence(value: Any, hint: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{path}: must be a list")
    inner, *others = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and others != [...]:
        if len(value) != 1 + len(others):
            raise ConfigError(f"{path}: must be a list of {1 + len(others)}, not {value!r}")
        inner_hints = [inner, *others]
    else:
        inner_hints = [inner] * len(value)
    pairs = enumerate(zip(value, inner_hints, strict=True))
    return tuple(convert(item, item_hint, f"{path}[{n}]") for n, (item, item_hint) in pairs)


def _convert_component(value: Any, family: type[Configurable], path: str) -> Configurable:
    if isinstance(value, family):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: must be a table{_needs(family)}")
    return build(family, value, path) if family.kinds else construct(family, value, path)


def expand(family: type[Configurable], table: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Write out every default in the table of a component; unset optional settings stay absent.

    Raises:
        ConfigError: a setting is wrong; the message begins with its path.
    """
    if not family.kinds:
        return expand_settings(family, table, path)
    component = resolve(family, table.get("kind"), path)
    return {"kind": table["kind"], **expand_settings(component, _without_kind(table), path)}


def expand_settings(component: type, table: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Write out every default in the table of a known class.

    Raises:
        ConfigError: a setting is wrong; the message begins with its path.
    """
    hints = settings(component)
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
            value = _expand_default(value, f"{path}.{key}")
        elif family is not None and isinstance(value, Mapping):
            value = expand(family, value, f"{path}.{key}")
        else:
            value = convert(value, hint, f"{path}.{key}")
        full[key] = list(value) if isinstance(value, tuple) else value
    return full


def _expand_default(component: Configurable, path: str) -> dict[str, Any]:
    """Write out a component that is the default of a setting."""
    kind = type(component)
    if _plain_attributes(component) != _plain_attributes(kind()):
        raise ConfigError(f"{path}: a default component must be constructed without arguments")
    return {**({"kind": kind.kind_name()} if kind.kinds else {}), **expand_settings(kind, {}, path)}


def _without_kind(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != "kind"}


def _family(hint: Any) -> type[Configurable] | None:
    """Return the family in an annotation, which may be one choice of a union."""
    if typing.get_origin(hint) is Spec:
        return _family(typing.get_args(hint)[0])
    for choice in (hint, *typing.get_args(hint)):
        if isinstance(choice, type) and issubclass(choice, Configurable):
            return choice
    return None


def _plain_attributes(component: Configurable) -> dict[str, Any]:
    """Return attributes of plain types, enough to see that a constructor had arguments."""
    plain = (bool, int, float, str, tuple)
    return {key: value for key, value in vars(component).items() if isinstance(value, plain)}


def _needs(family: type[Configurable]) -> str:
    return f" with a kind, one of {_kind_names(family)}" if family.kinds else " of settings"


def _kind_names(family: type[Configurable]) -> str:
    return ", ".join(component.kind_name() for component in family.kinds)


def _type_name(hint: Any) -> str:
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    return names.get(hint, str(getattr(hint, "__name__", hint)))
