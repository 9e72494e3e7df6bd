"""docs/api.md: the public names with their signatures and docstrings.

python scripts/api_reference.py            # write the page
python scripts/api_reference.py --check    # fail if the page is out of date
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
    """Render the page."""
    parts = [HEAD]
    for name in mocme.__all__:
        value = getattr(mocme, name)
        parts += [f"## {name}\n", *entry(name, value)]
        if inspect.isclass(value) and not issubclass(value, Exception):
            for method, function in methods(value):
                parts += [f"### {name}.{method}\n", *entry(f"{name}.{method}", function)]
    return "\n".join(parts)


def methods(cls: type) -> Iterator[tuple[str, object]]:
    """Public methods and properties that a class itself defines, in their order."""
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, property) or inspect.isfunction(value):
            yield name, value


def entry(name: str, value: object) -> list[str]:
    """Signature and docstring of one name."""
    text = [f"```text\n{signature(name, value)}\n```\n"]
    # The generated docstring of a dataclass only repeats its signature.
    docstring = inspect.getdoc(value) or ""
    if docstring and not docstring.startswith(f"{name}("):
        text.append(f"{markdown(docstring)}\n")
    return text


def signature(name: str, value: object) -> str:
    """A name with its arguments, one per line if they do not fit on one."""
    if isinstance(value, property):
        return name
    try:
        inspected = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return name
    if dataclasses.is_dataclass(value):
        inspected = inspected.replace(return_annotation=inspect.Signature.empty)
    arguments = []
    for argument in inspected.parameters.values():
        if argument.name == "self":
            continue
        if argument.kind is argument.KEYWORD_ONLY and "*" not in arguments:
            arguments.append("*")
        text = f"{argument.name}: {argument.annotation}"
        default = argument.default
        arguments.append(text if default is argument.empty else f"{text} = {default!r}")
    returned = inspected.return_annotation
    arrow = "" if returned is inspect.Signature.empty else f" -> {str(returned).strip(chr(39))}"
    line = f"{name}({', '.join(arguments)}){arrow}"
    if len(line) > 96:
        body = "".join(f"    {part},\n" for part in arguments)
        line = f"{name}(\n{body}){arrow}"
    return re.sub(r"<factory>|<function \S+ at 0x\w+>", "...", line)


def markdown(text: str) -> str:
    """Convert a docstring to Markdown: titles of sections in bold, their entries as a list."""
    lines = []
    in_section = False
    for line in text.replace("``", "`").splitlines():
        if re.fullmatch(r"(Args|Attributes|Returns|Raises|Yields):", line):
            lines += [f"**{line[:-1]}**", ""]
            in_section = True
        elif in_section and re.match(r"    \S", line):
            lines.append(f"- {line.strip()}")
        elif in_section and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            in_section = in_section and not line.strip()
            lines.append(line)
    return textwrap.dedent("\n".join(lines))


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") != page():
            raise SystemExit(f"{PAGE} is out of date; run: python {__file__}")
    else:
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
