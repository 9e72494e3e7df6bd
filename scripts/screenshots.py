"""Take the screenshots of the web page in docs/browsing.md.

Usage: python scripts/screenshots.py runs/atlas runs/other --out docs   (two trained runs of Atlas)
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 375, "height": 760}
TALL = {"width": 1280, "height": 1240}
# Name, address, colour scheme, size, and the keys to press once the view is shown.
SCREENSHOTS = (
    ("browse-entity", "#/entity/Chad", "light", WIDE, ()),
    ("browse-entity-dark", "#/entity/Chad/neighbourhood", "dark", WIDE, ()),
    ("browse-review", "#/review?relation=borders", "light", TALL, ("s", "a")),
    ("browse-review-dark", "#/review?relation=borders", "dark", TALL, ("a",)),
    ("browse-phone", "#/review?relation=borders", "light", PHONE, ()),
    ("browse-ask", "#/ask?head=Chad&relation=borders", "light", TALL, ("j", "o")),
    ("browse-ask-dark", "#/ask?head=Chad&relation=borders", "dark", TALL, ("j", "o")),
    ("browse-add", "#/add?name=Newland", "light", TALL, ()),
    ("browse-compare", "#/compare?head=Chad&relation=borders", "light", WIDE, ()),
    ("browse-run", "#/run?split=valid", "light", WIDE, ()),
    ("browse-run-dark", "#/run?split=valid", "dark", WIDE, ()),
)


@contextmanager
def serving(paths: list[Path], reviews: Path) -> Iterator[str]:
    """Serve runs, and give the URL of the server."""
    import uvicorn

    from mocme.data.reviews import Reviews
    from mocme.runs.run import Run
    from mocme.serving.api import create_app
    from mocme.serving.run_view import RunView
    from mocme.serving.uploads import ImageUploads

    run_views = [RunView(path.name, Run.open(path)) for path in paths]
    listener = socket.create_server(("127.0.0.1", 0))
    upload_folder = reviews.parent / "pictures"
    upload_folder.mkdir()
    app = create_app(run_views, Reviews(reviews), uploads=ImageUploads(upload_folder))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def take_screenshots(browser: Any, url: str, out: Path) -> None:
    """Take all screenshots."""
    for name, address, scheme, size, keys in SCREENSHOTS:
        context = browser.new_context(color_scheme=scheme, viewport=size, reduced_motion="reduce")
        context.add_init_script("localStorage.setItem('mocme.reviewer', 'Ada')")
        page = context.new_page()
        page.goto(url + address)
        _wait_until_idle(page)
        for key in keys:
            page.keyboard.press(key)
            _wait_until_idle(page)
        # The message about a decision would hide part of the view.
        page.locator(".toast").evaluate_all("toasts => toasts.forEach((toast) => toast.remove())")
        page.screenshot(path=out / f"{name}.png")
        context.close()
        print(out / f"{name}.png")


def _wait_until_idle(page: Any) -> None:
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)
    page.locator(".skeleton, [aria-busy=true], .nav .count").first.wait_for(state="detached")
    page.wait_for_load_state("networkidle")


def main() -> None:
    """Serve the runs and take the screenshots."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    installed = filter(None, map(shutil.which, BROWSERS))
    executable = os.environ.get("MOCME_BROWSER") or next(installed, None)
    if executable is None:
        raise SystemExit("no browser found: install chromium, or set MOCME_BROWSER to one")
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(arguments.runs, Path(folder) / "reviews.sqlite") as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        take_screenshots(browser, url, arguments.out)
        browser.close()


if __name__ == "__main__":
    main()
