"""docs/api.md: the public names with their signatures and docstrings.

python scripts/api_reference.py            # writes it
python scripts/api_reference.py --check    # fails if it is not what the code says
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import mocme

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
HEAD = """# Python reference

Every public name of `mocme`, from its docstrings (`python scripts/api_reference.py`). Shapes: B
questions, N entities, R relations (2R with inverses), C candidates, M modalities, D width.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name in mocme.__all__:
        thing = getattr(mocme, name)
        parts += [f"## {name}\n", *entry(name, thing)]
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            for method, function in methods(thing):
                parts += [f"### {name}.{method}\n", *entry(f"{name}.{method}", function)]
    return "\n".join(parts)


def methods(kind: type) -> Iterator[tuple[str, object]]:
    """Public methods and properties of a class, as they stand in it."""
    for name, value in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, property) or inspect.isfunction(value):
            yield name, value


def entry(name: str, thing: object) -> list[str]:
    """Signature and docstring of one name."""
    text = [f"```text\n{signature(name, thing)}\n```\n"]
    # What a dataclass writes for itself is its signature once more.
    own = inspect.getdoc(thing) or ""
    if own and not own.startswith(f"{name}("):
        text.append(f"{markdown(own)}\n")
    return text


def signature(name: str, thing: object) -> str:
    """A name with its arguments, one a line where they are many."""
    if isinstance(thing, property):
        return name
    try:
        found = inspect.signature(thing)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return name
    if dataclasses.is_dataclass(thing):
        found = found.replace(return_annotation=inspect.Signature.empty)
    told = []
    for argument in found.parameters.values():
        if argument.name == "self":
            continue
        if argument.kind is argument.KEYWORD_ONLY and "*" not in told:
            told.append("*")
        text = f"{argument.name}: {argument.annotation}"
        default = argument.default
        told.append(text if default is argument.empty else f"{text} = {default!r}")
    back = found.return_annotation
    arrow = "" if back is inspect.Signature.empty else f" -> {str(back).strip(chr(39))}"
    line = f"{name}({', '.join(told)}){arrow}"
    if len(line) > 96:
        body = "".join(f"    {part},\n" for part in told)
        line = f"{name}(\n{body}){arrow}"
    return re.sub(r"<factory>|<function \S+ at 0x\w+>", "...", line)


def markdown(text: str) -> str:
    """A docstring as Markdown: its sections in bold, its names as a list."""
    lines = []
    inside = False
    for line in text.replace("``", "`").splitlines():
        if re.fullmatch(r"(Args|Attributes|Returns|Raises|Yields):", line):
            lines += [f"**{line[:-1]}**", ""]
            inside = True
        elif inside and re.match(r"    \S", line):
            lines.append(f"- {line.strip()}")
        elif inside and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            inside = inside and not line.strip()
            lines.append(line)
    return textwrap.dedent("\n".join(lines))


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") != page():
            raise SystemExit(f"{PAGE} is not what the code says; run: python {__file__}")
    else:
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
