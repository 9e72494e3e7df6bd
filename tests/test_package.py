"""The package from outside: its exports, the cost of importing it, the examples on its pages."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mocme

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_public_names_exist_and_are_documented() -> None:
    assert len(mocme.__all__) <= 22
    for name in mocme.__all__:
        assert getattr(mocme, name).__doc__, name
    assert set(mocme.__all__) <= set(dir(mocme))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mocme.nonsense  # noqa: B018


def test_public_names_are_those_of_their_modules() -> None:
    from mocme.data.load import load
    from mocme.runs.run import open_run

    assert mocme.load is load
    assert mocme.open is open_run


def test_the_reference_is_up_to_date() -> None:
    script = ROOT / "scripts" / "api_reference.py"
    process = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


# Libraries that a single feature needs; before a public name is used, not even torch is imported.
RARE = {"transformers", "PIL", "fastapi", "pyoxigraph", "matplotlib", "pandas", "rich"}


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import mocme", RARE | {"torch", "numpy", "scipy", "sklearn"}),
        ("from mocme import *", RARE),
    ],
)
def test_importing_imports_nothing_heavy(statement: str, heavy: set[str]) -> None:
    code = (
        f"import sys\n{statement}\n"
        f"imported = {heavy} & set(sys.modules)\n"
        "sys.exit(repr(imported) if imported else 0)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


# The example of asking.md has a test of its own, which checks its output too.
@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "asking.md"], ids=lambda p: p.name)
def test_python_on_the_pages_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})


def test_the_output_on_the_page_of_questions_is_reproduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores, and with them answers, differ between machines; the other lines do not."""
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "asking.md"
    (code,), (shown,) = blocks(page, "python"), blocks(page, "text")
    exec(compile(code, str(page), "exec"), {})
    output = capsys.readouterr().out

    def outline(text: str) -> list[str]:
        return [line for line in text.splitlines() if not re.search(r"\d", line)]

    assert outline(output) == outline(shown)
    assert len(output.splitlines()) == len(shown.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_toml_on_the_pages_is_valid(page: Path) -> None:
    for block in blocks(page, "toml"):
        assert tomllib.loads(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_on_the_pages_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_core_dependency_is_pinned_and_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", line).group().lower() for line in project["dependencies"]]
    assert len(names) <= 12
    pins = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    reasons = (ROOT / "docs" / "libraries.md").read_text()
    for name in names:
        assert f"\n{name}==" in pins, name
        assert f"| {name} |" in reasons, name


def pins(path: str) -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / path).read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


@pytest.mark.parametrize("name", ["serve", "test"])
def test_locked_versions_are_the_pinned_ones_and_have_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    locked = pins(f"requirements/{name}.txt")
    assert locked.items() <= pins("constraints.txt").items()
    for entry in re.split(r"\n(?=\S)", text.strip())[1:]:
        assert re.search(r"^\S+==\S+ \\\n +--hash=sha256:[0-9a-f]{64}", entry), entry


def test_all_that_an_environment_needs_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras, name in ((["serve"], "serve"), (["serve", "test"], "test")):
        locked = pins(f"requirements/{name}.txt")
        lines = [*project["dependencies"], "hatchling"]
        waiting = [*extras]
        while waiting:
            for line in project["optional-dependencies"][waiting.pop()]:
                own = re.fullmatch(r"mocme\[(.*)\]", line)
                waiting += own[1].split(",") if own else []
                lines += [] if own else [line]
        required = {re.match(r"[\w.-]+", line).group().lower() for line in lines}
        assert {n.replace("_", "-") for n in required} - {"torch"} <= locked.keys(), name


def test_every_requirement_has_a_least_version_that_pip_can_be_given() -> None:
    script = ROOT / "scripts" / "least_versions.py"
    process = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    least = dict(line.split("==") for line in process.stdout.split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        name = re.match(r"[\w.-]+", line).group()
        assert f"{name}>={least[name]}" in line


def test_the_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"version: {project['version']}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_page_has_a_placeholder(page: Path) -> None:
    assert not re.search(r"^[A-Z]{6,}$|to be filled|TODO|FIXME", page.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("environment", "spin_count"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_spin_waiting_is_limited_before_torch_is_imported(
    environment: dict[str, str], spin_count: str
) -> None:
    code = (
        "import os, sys, mocme\n"
        "assert 'torch' not in sys.modules\n"
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.strip() == spin_count
