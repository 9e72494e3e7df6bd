"""The web page: reviewing suggestions, and the list of decisions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from page_helpers import ASYMMETRIC, CARD_CHANGED, DECISIONS_FILE, Site, Visit, enter_name, serving

from mocme.runs.run import Run


def decided_facts(site: Site) -> list[tuple[str, str]]:
    return [(" ".join(item.fact), item.decision) for item in site.decisions()]


def test_review_with_single_keys(
    open_visit: Callable[..., Visit], runs: list[Run], tmp_path: Path
) -> None:
    with serving(runs[:1], tmp_path / "reviews.sqlite") as site:
        visit = open_visit(site)
        page = visit.go(ASYMMETRIC)
        title = page.locator(".review-card h2")
        first = title.text_content()
        page.keyboard.press("a")
        enter_name(visit)
        visit.wait_for(CARD_CHANGED, first)
        second = title.text_content()
        page.keyboard.press("n")
        page.keyboard.type("no border: a")
        page.keyboard.press("Enter")
        page.keyboard.press("r")
        visit.wait_for(CARD_CHANGED, second)
        third = title.text_content()
        page.keyboard.press("s")
        visit.wait_until(lambda: len(site.decisions()) == 3)
        expected = [(third, "skip"), (second, "reject"), (first, "accept")]
        assert decided_facts(site) == expected
        assert [item.note for item in site.decisions()] == ["", "no border: a", ""]
        assert {item.reviewer for item in site.decisions()} == {"Ada"}
        page.keyboard.press("u")
        visit.wait_until(lambda: len(site.decisions()) == 2)
        assert decided_facts(site) == expected[1:]
        assert title.text_content() == third
        # Decided suggestions are not shown again.
        page.reload()
        visit.settle()
        assert title.text_content() == third
        page.get_by_role("button", name="Reviewing as Ada").click()
        enter_name(visit, "Grace")
        page.get_by_role("button", name="Accept").click()
        visit.wait_until(lambda: len(site.decisions()) == 3)
        assert site.decisions()[0].reviewer == "Grace"
        check_list(visit, site)


def check_list(visit: Visit, site: Site) -> None:
    """Check the list of decisions, its filter, downloads, and undo."""
    page = visit.go("#/decisions")
    assert page.locator(".decisions tbody tr").count() == 3
    assert "2 accepted, 1 rejected, 0 skipped" in page.locator("main").text_content()
    page.get_by_label("Decision", exact=True).select_option("reject")
    visit.settle()
    visit.wait_for("() => document.querySelectorAll('.decisions tbody tr').length === 1")
    assert "no border: a" in page.locator(".decisions").text_content()
    assert "Download all decisions" in page.locator(".downloads").text_content()
    for title, ending in (("TSV", "tsv"), ("CSV", "csv"), ("JSON lines", "jsonl")):
        with page.expect_download() as started:
            page.get_by_role("link", name=f"Download all decisions as {title}").click()
        assert re.fullmatch(DECISIONS_FILE.format(ending), started.value.suggested_filename)
        text = Path(started.value.path()).read_text(encoding="utf-8")
        assert "Grace" in text, ending
    page.get_by_role("button", name="Undo").first.click()
    visit.wait_until(lambda: len(site.decisions()) == 2)
    visit.see("text=No decision matches the filter.")


def test_no_decision_is_lost(
    open_visit: Callable[..., Visit], runs: list[Run], tmp_path: Path
) -> None:
    with serving(runs[:1], tmp_path / "reviews.sqlite") as site:
        visit = open_visit(site, refusals=True)
        page = visit.go(ASYMMETRIC)
        page.evaluate("localStorage.setItem('mocme.reviewer', 'Ada')")
        page.context.set_offline(True)
        title = page.locator(".review-card h2")
        shown = []
        for key in "ara":
            shown.append(title.text_content())
            page.keyboard.press(key)
            visit.wait_for(CARD_CHANGED, shown[-1])
        page.keyboard.press("u")
        visit.see("#banner:has-text('cannot be reached')")
        assert page.locator(".nav .count").text_content().startswith("2")
        assert site.decisions() == []
        page.context.set_offline(False)
        visit.wait_until(lambda: len(site.decisions()) == 2)
        assert decided_facts(site) == [(shown[1], "reject"), (shown[0], "accept")]
        visit.wait_for("() => !document.querySelector('.nav .count')")
        check_lost_answer(visit, site)
        check_reloaded_page(visit, site)


def check_lost_answer(visit: Visit, site: Site) -> None:
    """A decision whose answer is lost is not stored twice."""
    page = visit.page
    lost = []

    def lose(route: Any) -> None:
        if route.request.method == "POST" and not lost:
            lost.append(route.fetch().status)
            route.abort()
        else:
            route.continue_()

    page.route("**/v1/reviews*", lose)
    page.keyboard.press("a")
    visit.wait_for("() => document.querySelector('.nav .count')")
    visit.wait_for("() => !document.querySelector('.nav .count')")
    assert lost == [201]
    assert len(site.decisions()) == 3
    page.unroute("**/v1/reviews*")


def check_reloaded_page(visit: Visit, site: Site) -> None:
    """A reloaded page sends the unsent decisions, and shows refused ones."""
    page = visit.page
    page.route(
        "**/v1/reviews",
        lambda route: route.abort() if route.request.method == "POST" else route.continue_(),
    )
    page.keyboard.press("r")
    visit.wait_for("() => document.querySelector('.nav .count')")
    page.unroute("**/v1/reviews")
    visit.go("#/decisions")
    page.reload()
    visit.wait_until(lambda: len(site.decisions()) == 4)
    error = {
        "code": "invalid",
        "message": "the fact is refused",
        "remedy": "ask the author",
        "near": [],
    }
    refuse = {
        "status": 422,
        "body": json.dumps({"error": error}),
        "content_type": "application/json",
    }
    page.route(
        "**/v1/reviews",
        lambda route: (
            route.fulfill(**refuse) if route.request.method == "POST" else route.continue_()
        ),
    )
    visit.go(ASYMMETRIC)
    page.keyboard.press("s")
    visit.see(".toast.failed:has-text('the fact is refused')")
    visit.go("#/decisions")
    assert "ask the author" in visit.see(".unsent").text_content()
    page.get_by_role("button", name="Discard").click()
    page.wait_for_selector(".unsent", state="detached")
    assert len(site.decisions()) == 4


def test_decisions_in_lists(
    open_visit: Callable[..., Visit], runs: list[Run], tmp_path: Path
) -> None:
    with serving(runs[:1], tmp_path / "reviews.sqlite") as site:
        visit = open_visit(site)
        page = visit.go("#/ask?relation=also%20spoken&tail=English")
        page.evaluate("localStorage.setItem('mocme.reviewer', 'Ada')")
        for key in ("j", "a", "r"):
            page.keyboard.press(key)
        visit.wait_until(lambda: len(site.decisions()) == 2)
        shown = page.locator(".suggestion").evaluate_all(
            "rows => rows.map((row) => row.dataset.decision)"
        )
        assert shown[:3] == ["accept", "reject", ""]
        page.get_by_role("button", name="Undo").first.click()
        visit.wait_until(lambda: len(site.decisions()) == 1)
        assert page.locator(".suggestion [aria-pressed=true]").count() == 1


def test_a_symmetric_fact_is_decided_once(
    open_visit: Callable[..., Visit], runs: list[Run], tmp_path: Path
) -> None:
    """The decision is stored for both directions, in lists and in review."""
    with serving(runs[:1], tmp_path / "reviews.sqlite") as site:
        visit = open_visit(site)
        page = visit.go("#/entity/Chad?k=60")
        page.evaluate("localStorage.setItem('mocme.reviewer', 'Ada')")
        sentences = page.locator(".fact").all_text_contents()
        ends = [text.split(" borders ") for text in sentences]
        pairs = [tuple(sorted(pair)) for pair in ends if len(pair) == 2]
        assert pairs
        assert len(set(pairs)) == len(pairs)
        row = page.locator(".suggestion:has-text('and the other way round')").first
        head, tail = row.locator(".fact").text_content().split(" borders ")
        both = {(head, "borders", tail), (tail, "borders", head)}
        row.locator(".decision-button.accept").click()
        visit.wait_until(lambda: len(site.decisions()) == 2)
        assert {item.fact for item in site.decisions()} == both
        assert {item.decision for item in site.decisions()} == {"accept"}
        assert "and the other way round" in visit.text(".toast")
        page.get_by_role("button", name="Undo").first.click()
        visit.wait_until(lambda: not site.decisions())
        assert row.get_attribute("data-decision") == ""
        page = visit.go("#/review?entity=Chad&relation=borders&min=0")
        title = page.locator(".review-card h2")
        assert "stored for both facts" in page.locator(".review-card").text_content()
        first = title.text_content()
        page.keyboard.press("r")
        visit.wait_for(CARD_CHANGED, first)
        visit.wait_until(lambda: len(site.decisions()) == 2)
        inverse = " borders ".join(reversed(first.split(" borders ")))
        assert {" ".join(item.fact) for item in site.decisions()} == {first, inverse}
        page.keyboard.press("u")
        visit.wait_until(lambda: not site.decisions())
        assert title.text_content() == first


def test_a_suggestion_lists_existing_links(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit()
    page = visit.go("#/ask?relation=also%20spoken&tail=French&k=300")
    predictions = page.request.post(
        visit.site.url + "v1/heads", data={"relation": "also spoken", "tail": "French", "k": 300}
    ).json()["predictions"]
    linked = [prediction for prediction in predictions if prediction["linked"]]
    assert linked
    for prediction in linked:
        row = page.locator(".suggestion").nth(predictions.index(prediction))
        assert f"already: {', '.join(prediction['linked'])}" in row.text_content()
    assert page.locator(".suggestion:has-text('already: ')").count() == len(linked)
    address = "#/review?relation=also%20spoken&tail=French&min=0"
    visit.page.route(
        "**/v1/heads", lambda route: route.fulfill(json={"question": "", "predictions": linked})
    )
    visit.go(address)
    assert f"already: {linked[0]['linked'][0]}" in visit.text(".review-card")


def test_review_walks_over_the_graph(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit()
    page = visit.go("#/review?relation=borders&min=0")
    assert " borders " in page.locator(".review-card h2").text_content()
