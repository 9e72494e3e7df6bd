"""Server and browser for the tests of the web page; importing it skips without a browser."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mocme.data.reviews import Reviews
from mocme.runs.run import Run

BROWSERS = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
BROWSER = os.environ.get("MOCME_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
if BROWSER is None:
    pytest.skip(
        "the tests of the page need a browser: install chromium (apt-get install chromium), or "
        "name one in the environment variable MOCME_BROWSER",
        allow_module_level=True,
    )
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the tests of the page need playwright: pip install playwright"
)
axe_api = pytest.importorskip(
    "axe_playwright_python.sync_playwright",
    reason="the tests of the page need axe: pip install axe-playwright-python",
)
pytest.importorskip("fastapi", reason="the page needs the server: pip install 'mocme[serve]'")

TOKEN = "a-token-of-the-tests"
VIEWS = {
    "start": "#/",
    "entity": "#/entity/Chad",
    "facts": "#/entity/Chad/facts",
    "neighbourhood": "#/entity/Chad/neighbourhood",
    "ask": "#/ask?head=Chad&relation=borders&among=observed",
    "compare": "#/compare?head=Chad&relation=borders",
    "review": "#/review?entity=Chad&min=0",
    "decisions": "#/decisions",
    "run": "#/run",
    "unknown address": "#/nowhere",
}
# Name of a downloaded file of decisions.
DECISIONS_FILE = r"atlas-decisions-\d{{4}}-\d\d-\d\d\.{}"
# Suggestions of a relation that is not symmetric.
ASYMMETRIC = "#/review?relation=also%20spoken&tail=English&min=0"
# True once another suggestion is shown.
CARD_CHANGED = """old => {
    const title = document.querySelector(".review-card h2")?.textContent;
    return title !== undefined && title !== old;
}"""
# In the dark scheme, only the colours differ.
OPTIONS = {"resultTypes": ["violations"]}
COLOURS = OPTIONS | {"runOnly": ["color-contrast"]}


# -- server ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """A running server and the file of its decisions; `closed` is set when it stops."""

    url: str
    reviews: Path
    closed: threading.Event = field(default_factory=threading.Event)

    def decisions(self) -> list[Any]:
        """The stored decisions, newest first."""
        reviews = Reviews(self.reviews)
        decisions = reviews.find()[1]
        reviews.close()
        return decisions


@contextmanager
def serving(
    runs: list[Run], reviews: Path, token: str | None = None, upload_folder: Path | None = None
) -> Iterator[Site]:
    """Serve runs in a thread, on a free port of this machine.

    Args:
        upload_folder: folder for pictures of new entities; None disables additions.
    """
    import uvicorn

    from mocme.serving.api import create_app
    from mocme.serving.run_view import RunView
    from mocme.serving.uploads import ImageUploads

    uploads = None if upload_folder is None else ImageUploads(upload_folder)
    run_views = [RunView(run.path.name, run) for run in runs]
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(run_views, Reviews(reviews), token=token, uploads=uploads)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    site = Site(f"http://127.0.0.1:{listener.getsockname()[1]}/", reviews)
    try:
        yield site
    finally:
        site.closed.set()
        server.should_exit = True
        thread.join(10)
        listener.close()


@dataclass
class Visit:
    """A page in a fresh profile, with the errors of its console and its dialogs."""

    page: Any
    site: Site
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def go(self, address: str) -> Any:
        """Open an address of the page, and wait until it is loaded."""
        self.page.goto(self.site.url + address)
        return self.settle()

    def settle(self) -> Any:
        """Wait until all requests are finished."""
        self.page.wait_for_load_state("networkidle")
        self.wait_for("() => !document.querySelector('[aria-busy=true], .skeleton')")
        return self.page

    def wait_for(self, condition: str, value: Any = None) -> None:
        """Wait until a JavaScript function returns true.

        `page.wait_for_function` needs eval, which the content-security policy forbids.
        """
        self.wait_until(lambda: self.page.evaluate(condition, value))

    def wait_until(self, condition: Callable[[], Any], seconds: float = 30) -> None:
        """Wait until a condition is true; the page keeps running meanwhile."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the condition did not become true"
            self.page.wait_for_timeout(20)

    def text(self, selector: str) -> str:
        """Return the text of the first match of a selector."""
        text: str = self.see(selector).text_content()
        return text

    def see(self, selector: str) -> Any:
        """Wait for the first match of a selector, and return it."""
        locator = self.page.locator(selector).first
        locator.wait_for()
        return locator


def listen(visit: Visit) -> None:
    """Record the errors of the console, and dialogs opened by scripts."""

    def console(message: Any) -> None:
        url = message.location.get("url", "")
        if message.type in ("error", "warning"):
            visit.errors.append(f"{message.type}: {message.text} ({url})")

    def dialog(opened: Any) -> None:
        visit.dialogs.append(opened.message)
        opened.dismiss()

    visit.page.on("console", console)
    visit.page.on("pageerror", lambda error: visit.errors.append(f"page: {error}"))
    visit.page.on("dialog", dialog)


def enter_name(visit: Visit, name: str = "Ada") -> None:
    """Enter the name of the reviewer in the dialog."""
    visit.see("dialog input").fill(name)
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("dialog", state="detached")


def navigate(visit: Visit, arguments: str) -> None:
    """Navigate as the links of the page do, with the arguments of `route.go`."""
    visit.page.evaluate(
        f"async () => {{ const route = await import('./static/route.js'); route.go({arguments}); }}"
    )
    visit.settle()


def assert_accessible(page: Any) -> None:
    """Check with axe in light and dark, and that nothing overflows horizontally on a phone."""
    for scheme, width in (("light", 1280), ("dark", 1280), ("dark", 375), ("light", 375)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 812})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if (scheme, width) != ("dark", 375):
            result = axe_api.Axe().run(page, options=OPTIONS if scheme == "light" else COLOURS)
            assert result.violations_count == 0, (scheme, width, result.generate_report())
