"""Print constraints for pip: of every library that the package requires, the least version.

    python scripts/least_versions.py > least.txt
    pip install -c least.txt -e ".[test]"

`make test-least` runs the tests with them. They are the versions behind ``>=`` in pyproject.toml,
of the core and of all extras but `test` and `pykeen`. Everything else, the tools of the tests and
what the libraries require, has its version of constraints.txt.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = {"test", "pykeen", "all"}
# Their pinned versions do not accept the least versions of others, so pip chooses them.
FREE = {"pandas", "pydantic-core"}


def least_versions(project: dict) -> list[str]:
    """Return lines ``name==version`` in alphabetical order.

    Raises:
        ValueError: a requirement states no least and no exact version.
    """
    optional = project["optional-dependencies"]
    lines = [*project["dependencies"]]
    lines += [line for extra, some in optional.items() if extra not in TOOLS for line in some]
    least = set()
    for line in lines:
        if line.startswith("mocme["):
            continue
        match = re.match(r"([\w.-]+)[>=]=([\w.]+)", line)
        if match is None:
            raise ValueError(f"pyproject.toml: {line!r} states no least version; add one")
        least.add(f"{match[1]}=={match[2]}")
    return sorted(least)


def name(pin: str) -> str:
    """The normalised name of the library in a line ``name==version``."""
    return re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower()


def main() -> None:
    """Print the constraints."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = least_versions(project)
    named = {name(pin) for pin in least} | FREE
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    others = [pin for pin in pins if "==" in pin and name(pin) not in named]
    print("\n".join([*least, *others]))


if __name__ == "__main__":
    main()
