"""The web page: the run, errors, the token, stored settings and accessibility."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_helpers import DECISIONS_FILE, TOKEN, VIEWS, Visit, assert_accessible, serving

from mocme.runs.run import Run

# -- the run ---------------------------------------------------------------------------------------


def test_the_run_has_charts_and_tables(open_visit: Callable[..., Visit], runs: list[Run]) -> None:
    visit = open_visit()
    page = visit.go("#/run")
    figures = page.locator("figure")
    assert figures.count() >= 7
    assert page.locator("figure svg[role=img]").count() == figures.count()
    assert page.locator("figure table").count() == figures.count()
    report = json.loads((runs[0].path / "evaluation-valid.json").read_text())
    main = page.locator("main").text_content()
    assert f"{report['mrr']:.3f}" in main
    for relation, part in report["by"]["relation"].items():
        assert relation in main
        assert f"{part['mrr']:.3f}" in main
    assert "Predicted and observed" in main
    visit.see("select").select_option("links")
    visit.see("text=This run has not been evaluated.")


# -- states ----------------------------------------------------------------------------------------


def test_an_unknown_name_has_a_remedy(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit(refusals=True)
    page = visit.go("#/entity/Chadd")
    failure = visit.see(".failure:has(a)")
    assert "there is no entity named 'Chadd'" in failure.text_content()
    failure.get_by_role("link", name="Chad", exact=True).click()
    visit.settle()
    assert page.locator("h1").text_content() == "Chad"


def test_a_busy_server_is_retried_after_the_given_time(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit(refusals=True)
    times = []

    def busy(route: Any) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="{}")
        else:
            route.continue_()

    visit.page.route("**/v1/missing", busy)
    visit.go("#/entity/Chad")
    visit.see(".suggestion")
    assert times[1] - times[0] >= 1


def test_a_failed_request_can_be_retried(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit(refusals=True)
    page = visit.page
    page.route("**/v1/report", lambda route: route.abort())
    visit.go("#/run")
    assert "cannot be reached" in visit.see(".failure").text_content()
    page.unroute("**/v1/report")
    page.get_by_role("button", name="Try again").last.click()
    visit.see("figure")
    assert not page.locator("#banner").is_visible()


def test_a_token_is_asked_for_once(
    open_visit: Callable[..., Visit], runs: list[Run], tmp_path: Path
) -> None:
    with serving(runs[:1], tmp_path / "reviews.sqlite", TOKEN) as site:
        visit = open_visit(site, refusals=True)
        page = visit.page
        page.goto(site.url + "#/entity/Chad")
        for token in ("a wrong one", TOKEN):
            visit.see("dialog input").fill(token)
            page.keyboard.press("Enter")
            page.wait_for_timeout(100)
        visit.see(".suggestion")
        visit.settle()
        source = page.locator(".entity-side img").first
        assert source.get_attribute("src").startswith("blob:")
        assert source.evaluate("image => image.decode().then(() => 1)") == 1
        page.reload()
        visit.see(".suggestion")
        assert page.locator("dialog").count() == 0
        page.evaluate("localStorage.setItem('mocme.reviewer', 'Ada')")
        page.locator(".decision-button.accept").first.click()
        visit.wait_until(lambda: site.decisions())
        visit.go("#/decisions")
        with page.expect_download() as started:
            page.get_by_role("link", name="as TSV").click()
        assert re.fullmatch(DECISIONS_FILE.format("tsv"), started.value.suggested_filename)
        assert "Ada" in Path(started.value.path()).read_text(encoding="utf-8")


def test_theme_and_keys_are_stored(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit(color_scheme="light")
    page = visit.go("#/")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    for _ in range(2):
        page.keyboard.press("t")
    dark = page.evaluate(background)
    assert light != dark
    page.reload()
    visit.settle()
    assert page.evaluate(background) == dark
    page.keyboard.press("?")
    visit.see("dialog:has-text('Keyboard shortcuts')")
    page.get_by_label("Enable single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    assert page.evaluate(background) == dark
    for key, view in (("r", "#/review"), ("s", "#/run")):
        page.evaluate("localStorage.removeItem('mocme.keys')")
        page.keyboard.press("g")
        page.keyboard.press(key)
        visit.wait_for("view => location.hash === view", view)
    visit.settle()


# -- accessibility ---------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_accessible(open_visit: Callable[..., Visit], view: str) -> None:
    visit = open_visit(viewport={"width": 1280, "height": 900})
    page = visit.go(VIEWS[view])
    if view == "review":
        visit.see(".review-why :is(.why, .empty)")
    assert_accessible(page)
