"""Files of experiments: find, extend and override their tables. No setting is checked here."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mocme.core.configurable import ConfigError
from mocme.core.files import read_toml as toml_table
from mocme.core.text_formats import parse_toml

# What describes an experiment and does not change it.
WORDS = ("description", "expected")


def folder() -> Path:
    """The folder of the shipped experiments."""
    inside = Path(__file__).parents[1] / "experiments"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "experiments"


def shipped() -> dict[str, Path]:
    """Shipped experiments by name, for instance ``structure/mkg-y``."""
    home = folder()
    return {p.relative_to(home).with_suffix("").as_posix(): p for p in sorted(home.rglob("*.toml"))}


def find(source: str | Path) -> Path:
    """The file of an experiment, by path or by shipped name.

    Raises:
        ConfigError: naming near shipped ones.
    """
    import difflib

    path = Path(source)
    if path.suffix == ".toml":
        if path.is_file():
            return path
        # A path that starts in the repository also names the shipped file.
        named = path.as_posix().removeprefix("experiments/").removesuffix(".toml")
    else:
        named = path.as_posix()
    known = shipped()
    if named in known:
        return known[named]
    near = difflib.get_close_matches(named, known, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else "list them with: mocme experiments"
    raise ConfigError(f"{source}: there is no such experiment file or shipped experiment; {hint}")


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a file.

    Raises:
        ConfigError: not TOML, not a regular file, or it cannot be read.
    """
    try:
        return toml_table(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The merged table of a file and everything it extends.

    Raises:
        ConfigError: not TOML, or files that extend each other.
    """
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path}: extends itself by way of {seen[-1].name}")
    table = experts_by_name(read_toml(path), str(path))
    base = table.pop("extends", None)
    if base is None:
        return table
    parent = path.parent / str(base)
    if not parent.is_file():
        # Not next to the file, so a shipped experiment.
        named = str(base).removesuffix(".toml")
        if named not in shipped():
            raise ConfigError(
                f"{path}: extends {base!r}, which is neither next to it nor a shipped experiment "
                f"(list those with: mocme experiments)"
            )
        parent = shipped()[named]
    inherited = read(parent, (*seen, path))
    # Results and words describe one file, not those that build on it.
    for key in WORDS:
        inherited.pop(key, None)
    return merge(inherited, table)


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the changes; a table that names another kind replaces the old one completely."""
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        if not (isinstance(old, Mapping) and isinstance(value, Mapping)):
            result[key] = value
        elif "kind" in value and value["kind"] != old.get("kind"):
            result[key] = dict(value)
        else:
            result[key] = merge(old, value)
    return result


def parse_override(text: str) -> tuple[str, Any]:
    """``seed=3`` as path and value; anything but a TOML value is a string.

    Raises:
        ConfigError: there is no ``=``.
    """
    dotted, equals, value = text.partition("=")
    if not equals or not dotted.strip():
        raise ConfigError(f"--set {text}: write it as path=value, for instance seed=3")
    try:
        parsed = parse_toml(f"value = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    # TOML may read several lines as several settings; here they are one string.
    return dotted.strip(), parsed["value"] if len(parsed) == 1 else value.strip()


def experts_by_name(table: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """A table with its list of experts as a table by name.

    Raises:
        ConfigError: an expert has neither name nor kind, or two have one name.
    """
    prefix = f"{where}: " if where else ""
    listed = table.get("experts")
    if listed is None:
        return dict(table)
    if isinstance(listed, Mapping):
        listed = [{"name": name, **section(listed, name)} for name in listed]
    if not isinstance(listed, list | tuple) or not all(isinstance(e, Mapping) for e in listed):
        raise ConfigError(f"{prefix}experts: must be a list of tables, [[experts]]")
    experts: dict[str, Any] = {}
    for position, expert in enumerate(listed):
        name = expert.get("name", expert.get("kind"))
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]{0,49}", name):
            raise ConfigError(
                f"{prefix}experts[{position}]: needs a kind, and a name of letters, digits, - "
                f"and _ where the kind is used twice"
            )
        if name in experts:
            raise ConfigError(f"{prefix}experts: two are named {name!r}; give each its own name")
        experts[name] = {key: value for key, value in expert.items() if key != "name"}
    return {**table, "experts": experts}


def overridden(table: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The table, experts by name, with values set at dotted paths.

    ``experts.X`` is the expert named X; where there is none, it is every expert of kind X.
    """
    result = dict(table)
    for dotted, value in overrides.items():
        for path in addressed(result, dotted):
            _set(result, path, value)
    return result


def addressed(table: Mapping[str, Any], dotted: str) -> list[str]:
    """The paths that a path of `overridden` stands for: one for each expert of a kind."""
    first, _, rest = dotted.partition(".")
    name, dot, inner = rest.partition(".")
    experts = table.get("experts")
    if first != "experts" or not isinstance(experts, Mapping) or name in experts:
        return [dotted]
    of_kind = [known for known, settings in experts.items() if settings.get("kind") == name]
    return [f"experts.{known}{dot}{inner}" for known in of_kind] or [dotted]


def _set(table: dict[str, Any], dotted: str, value: Any) -> None:
    *folders, last = dotted.split(".")
    change: dict[str, Any] = {last: value}
    for key in reversed(folders):
        change = {key: change}
    merged = merge(table, change)
    table.clear()
    table.update(merged)


def section(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A section of a table; empty if it is absent.

    Raises:
        ConfigError: it is not a table.
    """
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: must be a table")
    return dict(value)


def title(path: Path) -> str:
    """The name of a shipped experiment, or of the file."""
    for name, known in shipped().items():
        if known.resolve() == path.resolve():
            return name
    return path.stem
