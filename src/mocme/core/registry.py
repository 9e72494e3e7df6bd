"""Build objects from configuration tables: the settings of a class are its schema.

A component is written ``{kind = "ComplEx", ...}``. Its family (an abstract class) lists the classes
to choose from in ``kinds``; ``kind = "package.module:Class"`` names a class of the user. The other
keys are the settings of that class: the keyword-only fields of a dataclass, inherited ones
included, or else the keyword-only arguments of its constructor. A setting whose annotation is a
family is itself a component. Unknown keys, missing keys and values of the wrong type are errors
that begin with the path of the setting.

Importing runs code, and tables come from files that others may have written. So a class of the user
is imported only where the caller passes ``trust_code=True``; `import_name` is the only place in the
package that imports what a file names.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from mocme.core.configurable import CodeName as CodeName
from mocme.core.configurable import ConfigError as ConfigError
from mocme.core.configurable import Configurable as Configurable
from mocme.core.configurable import Spec as Spec
from mocme.core.configurable import UntrustedCode as UntrustedCode
from mocme.core.configurable import UnusableCode as UnusableCode
from mocme.core.configurable import check_keys as check_keys
from mocme.core.configurable import settings as settings

P = TypeVar("P", bound=Configurable)
# Numbers of a tensor in the trial build of a component, whose context is small.
TRIAL_NUMBERS = 50_000_000


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


def import_name(name: str, where: str, *, trust_code: bool) -> Any:
    """Import the object that ``package.module:name`` names, if the code is trusted.

    Args:
        where: the setting, as errors begin with it.

    Raises:
        UntrustedCode: the code is not trusted; nothing is imported.
        UnusableCode: it cannot be imported.
    """
    if not trust_code:
        raise UntrustedCode(
            f"{where} {name!r} is code, which is imported only if it is trusted, and nothing of it "
            f"was run; pass trust_code=True (Python) or --trust-code (command line), which runs "
            f"the module with your rights, only if you trust its author"
        )
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing a module of the user can raise anything
        remedy = "install its package, or add its folder to PYTHONPATH"
        if isinstance(error, AttributeError):
            remedy = "use the version of its module that has this name, or correct the name"
        raise UnusableCode(f"{where} {name!r} cannot be imported: {error}; {remedy}") from error


def resolve(family: type[P], kind: object, path: str, *, trust_code: bool = False) -> type[P]:
    """Find the class that `kind` names; a name with a colon is imported, if code is trusted.

    Raises:
        UntrustedCode: `kind` names code, and `trust_code` is false.
        UnusableCode: the code cannot be imported, or is not a concrete class of `family`.
        ConfigError: `kind` is unknown.
    """
    if not isinstance(kind, str):
        raise ConfigError(f"{path}: needs a kind, one of {_kind_names(family)}")
    for component in family.kinds:
        if component.kind_name() == kind:
            return typing.cast("type[P]", component)
    if ":" in kind:
        component = import_name(kind, f"{path}.kind:", trust_code=trust_code)
        if not (isinstance(component, type) and issubclass(component, family)):
            article = "an" if family.__name__[0] in "AEIOU" else "a"
            raise UnusableCode(
                f"{path}.kind: {kind!r} is not {article} {family.__name__} class; use the "
                f"version of its module in which it is one, or correct the name"
            )
        if inspect.isabstract(component):
            missing = ", ".join(sorted(component.__abstractmethods__))
            raise UnusableCode(
                f"{path}.kind: {kind!r} is abstract; it does not define {missing}; use the version "
                f"of its module that does"
            )
        return component
    raise ConfigError(f"{path}.kind: {kind!r} is none of: {_kind_names(family)}")


def build(
    family: type[P], table: Mapping[str, Any], path: str, *context: Any, trust_code: bool = False
) -> P:
    """Build the component that a table describes.

    Args:
        context: positional arguments of the constructor, which no table gives.
        trust_code: whether classes of the user that the table names may be imported, here and in
            the tables in it.

    Raises:
        ConfigError: a setting is wrong; the message begins with its path.
    """
    component = resolve(family, table.get("kind"), path, trust_code=trust_code)
    return construct(component, _without_kind(table), path, *context, trust_code=trust_code)


def construct(
    component: type[P], table: Mapping[str, Any], path: str, *context: Any, trust_code: bool = False
) -> P:
    """Build an object of a known class from the table of its settings.

    Args:
        trust_code: as of `build`.

    Raises:
        ConfigError: a setting is wrong, or the constructor raised a ValueError.
    """
    hints = settings(component)
    check_keys(table, hints, path)
    arguments = _converted(table, hints, path, trust_code)
    for key, (_, default) in hints.items():
        if default is inspect.Parameter.empty and key not in arguments:
            raise ConfigError(f"{path}.{key}: is missing")
    try:
        return component(*context, **arguments)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def specify(
    family: type[P], table: Mapping[str, Any], path: str, *, trust_code: bool = False
) -> Spec[P]:
    """The checked choice of a component, which is built later.

    Args:
        trust_code: as of `build`.

    Raises:
        ConfigError: with the path of the setting that is wrong.
    """
    part, rest = family, dict(table)
    if family.kinds:
        part = resolve(family, rest.pop("kind", None), path, trust_code=trust_code)
    _try(part, rest, path, trust_code)
    return Spec(part, **_converted(rest, settings(part), path, trust_code))


def _try(part: type[Configurable], table: Mapping[str, Any], path: str, trust_code: bool) -> None:
    """Build a component with its trial context, within a limit of memory.

    Raises:
        ConfigError: a setting is wrong.
    """
    from mocme.core.allocation import AllocationLimit

    try:
        # A setting may be a size, and a configuration may come from elsewhere.
        with AllocationLimit(TRIAL_NUMBERS):
            construct(part, table, path, *part.trial, trust_code=trust_code)
    except (RuntimeError, OverflowError, MemoryError) as error:
        raise ConfigError(f"{path}: a setting is too large") from error


def _converted(
    table: Mapping[str, Any], hints: Mapping[str, tuple[Any, Any]], path: str, trust_code: bool
) -> dict[str, Any]:
    return {
        key: convert(value, hints[key][0], f"{path}.{key}", trust_code=trust_code)
        for key, value in table.items()
    }


def convert(value: Any, hint: Any, path: str, *, trust_code: bool = False) -> Any:
    """Check a value of a configuration against an annotation; integers are accepted as floats.

    Args:
        trust_code: as of `build`.

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
        return _convert_union(value, typing.get_args(hint), path, trust_code)
    if origin is Literal:
        return _convert_literal(value, typing.get_args(hint), path)
    if origin is Spec:
        family = typing.get_args(hint)[0]
        if isinstance(value, Spec):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: must be a table{_needs(family)}")
        return specify(family, value, path, trust_code=trust_code)
    if origin is not None and issubclass(origin, Mapping):
        return _convert_mapping(value, typing.get_args(hint)[1], path, trust_code)
    if origin is not None and issubclass(origin, Sequence):
        return _convert_sequence(value, hint, path, trust_code)
    if isinstance(hint, type) and issubclass(hint, Configurable):
        return _convert_component(value, hint, path, trust_code)
    if hint is CodeName:
        return _convert_code_name(value, path, trust_code)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{path}: must be {_type_name(hint)}, not NaN")
    if isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    remedy = ""
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        last = path.rpartition(".")[2]
        remedy = f'; put it in quotes: {last} = "{value}" (--set \'{last}="{value}"\')'
    raise ConfigError(f"{path}: must be {_type_name(hint)}, not {value!r}{remedy}")


def _convert_union(value: Any, choices: tuple[Any, ...], path: str, trust_code: bool) -> Any:
    if value is None and type(None) in choices:
        return None
    choices = tuple(choice for choice in choices if choice is not type(None))
    errors = []
    for choice in choices:
        try:
            return convert(value, choice, path, trust_code=trust_code)
        except UntrustedCode:
            raise
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise ConfigError(f"{path}: must be {' or '.join(map(_type_name, choices))}, not {value!r}")


def _convert_mapping(value: Any, inner: Any, path: str, trust_code: bool) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: must be a table")
    return {
        key: convert(item, inner, f"{path}.{key}", trust_code=trust_code)
        for key, item in value.items()
    }


def _convert_code_name(value: Any, path: str, trust_code: bool) -> str:
    """Check a name; it is imported where it is used, but refused here if code is not trusted."""
    name: str = convert(value, str, path)
    if ":" in name and not trust_code:
        import_name(name, f"{path}:", trust_code=False)
    return name


def _convert_literal(value: Any, choices: tuple[Any, ...], path: str) -> Any:
    # The type is compared too, because True equals 1.
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    raise ConfigError(f"{path}: {value!r} is none of {', '.join(map(str, choices))}")


def _convert_sequence(value: Any, hint: Any, path: str, trust_code: bool) -> tuple[Any, ...]:
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
    return tuple(
        convert(item, item_hint, f"{path}[{n}]", trust_code=trust_code)
        for n, (item, item_hint) in pairs
    )


def _convert_component(
    value: Any, family: type[Configurable], path: str, trust_code: bool
) -> Configurable:
    if isinstance(value, family):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: must be a table{_needs(family)}")
    if family.kinds:
        return build(family, value, path, trust_code=trust_code)
    return construct(family, value, path, trust_code=trust_code)


def expand(
    family: type[Configurable], table: Mapping[str, Any], path: str, *, trust_code: bool = False
) -> dict[str, Any]:
    """Write out every default in the table of a component; unset optional settings stay absent.

    Args:
        trust_code: as of `build`.

    Raises:
        ConfigError: a setting is wrong; the message begins with its path.
    """
    if not family.kinds:
        return expand_settings(family, table, path, trust_code=trust_code)
    component = resolve(family, table.get("kind"), path, trust_code=trust_code)
    full = expand_settings(component, _without_kind(table), path, trust_code=trust_code)
    return {"kind": table["kind"], **full}


def expand_settings(
    component: type, table: Mapping[str, Any], path: str, *, trust_code: bool = False
) -> dict[str, Any]:
    """Write out every default in the table of a known class.

    Args:
        trust_code: as of `build`.

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
            value = expand(family, value, f"{path}.{key}", trust_code=trust_code)
        else:
            value = convert(value, hint, f"{path}.{key}", trust_code=trust_code)
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
