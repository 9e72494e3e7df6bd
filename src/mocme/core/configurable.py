"""Classes that a configuration can choose and set up, and what their settings are."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

C = TypeVar("C", bound="Configurable", covariant=True)
# The annotation of a setting that names an object to import, as ``package.module:name``.
CodeName = typing.NewType("CodeName", str)


class ConfigError(ValueError):
    """A setting is wrong; the message begins with the path of the setting."""


class UnusableCode(ConfigError):
    """A setting names code to import, which is not trusted or cannot be imported."""


class UntrustedCode(UnusableCode):
    """A setting names code to import, and the caller does not trust it."""


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


def settings(component: type) -> dict[str, tuple[Any, Any]]:
    """Return the settings of a class: name to (annotation, default).

    They are the keyword-only arguments of the constructor; for a dataclass that is its keyword-only
    fields, inherited ones first. A setting without a default has `inspect.Parameter.empty`.
    """
    return {
        name: (hint, _default(parameter, field))
        for name, (hint, parameter, field) in _signature(component).items()
    }


@functools.cache
def _signature(
    component: type,
) -> dict[str, tuple[Any, inspect.Parameter, dataclasses.Field[Any] | None]]:
    """Keyword-only arguments of a class: name to annotation, parameter and dataclass field.

    Cached: annotations are text, which `typing` compiles anew at each call.
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
        name: (hints.get(name, Any), parameter, fields.get(name))
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
