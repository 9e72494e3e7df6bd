"""The package from outside: its exports, the cost of importing it, the truth of its pages."""

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


def test_the_reference_is_what_the_code_says() -> None:
    script = ROOT / "scripts" / "api_reference.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_runs_nothing_heavy() -> None:
    code = (
        "import sys, mocme; "
        "heavy = {'transformers', 'PIL', 'fastapi', 'pyoxigraph', 'matplotlib', 'pandas', 'rich'}; "
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# That of the page of questions runs in a test of its own.
@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "asking.md"], ids=lambda p: p.name)
def test_python_on_the_pages_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})


def test_what_the_page_of_questions_shows_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures differ between machines, and with them answers; the questions do not."""
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "asking.md"
    (code,), (shown,) = blocks(page, "python"), blocks(page, "text")
    exec(compile(code, str(page), "exec"), {})
    told = capsys.readouterr().out

    def outline(text: str) -> list[str]:
        return [line for line in text.splitlines() if not re.search(r"\d", line)]

    assert outline(told) == outline(shown)
    assert len(told.splitlines()) == len(shown.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_toml_on_the_pages_is_valid(page: Path) -> None:
    for block in blocks(page, "toml"):
        assert tomllib.loads(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_on_the_pages_lead_somewhere(page: Path) -> None:
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


def test_the_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"version: {project['version']}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_page_holds_a_placeholder(page: Path) -> None:
    assert not re.search(r"^[A-Z]{6,}$|to be filled|TODO|FIXME", page.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_waiting_threads_give_way_unless_told_otherwise(given: dict[str, str], found: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import os\n"
        "try: import mocme\nexcept ImportError: print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    free = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=free | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found
