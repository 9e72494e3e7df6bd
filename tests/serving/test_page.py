"""The web page: search, entities, questions and explanations, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from page_helpers import ASYMMETRIC, OPTIONS, VIEWS, Site, Visit, axe_api, sync_api

# -- search ----------------------------------------------------------------------------------------


def test_search_works_with_the_keyboard(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit()
    page = visit.go("#/")
    page.keyboard.press("/")
    page.keyboard.type("chad")
    field = visit.see("#search [role=combobox]")
    visit.see("#search [role=option]")
    assert field.get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    marked = page.locator(f"[id='{field.get_attribute('aria-activedescendant')}']")
    assert marked.locator(".name").text_content() == "Chad"
    assert marked.get_attribute("aria-selected") == "true"
    page.keyboard.press("Enter")
    visit.settle()
    assert page.url.endswith("#/entity/Chad")
    assert page.locator("h1").text_content() == "Chad"
    assert page.evaluate("document.activeElement.tagName") == "H1"
    page.go_back()
    assert visit.see(".home-links")
    assert page.title() == "Atlas · mocme"


def test_search_drops_outdated_answers(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit()
    page = visit.go("#/")
    delayed = []
    page.route("**/v1/search?q=n&*", lambda route: delayed.append(route))
    field = page.locator("#search [role=combobox]")
    field.type("n")
    visit.wait_until(lambda: delayed)
    field.type("iger")
    names = [visit.see("#search [role=option] .name").text_content()]
    body = {"entities": [{"name": "too late", "facts": 1}]}
    # The page may have aborted the request, which is just as good.
    with suppress(sync_api.Error):
        delayed[0].fulfill(body=json.dumps(body), content_type="application/json")
    page.wait_for_timeout(150)
    names += page.locator("#search [role=option] .name").all_text_contents()
    assert "too late" not in names
    assert any(name.startswith("Niger") for name in names)
    page.keyboard.press("Escape")
    assert field.get_attribute("aria-expanded") == "false"


# -- entities --------------------------------------------------------------------------------------


def test_an_entity_shows_all_its_content(open_visit: Callable[..., Visit], site: Site) -> None:
    visit = open_visit()
    page = visit.go("#/entity/Chad")
    info = page.request.get(site.url + "v1/entity?name=Chad").json()
    side = page.locator(".entity-side")
    assert side.locator("img").first.evaluate("image => image.decode().then(() => 1)") == 1
    shown = side.locator(".weight-name").all_text_contents()
    assert {*shown} == {*info["weights"], *info["modalities"]}
    assert info["pairs"]
    assert not {*info["pairs"]} & {*shown}
    pairs = side.locator(".pairs")
    assert "Used by rules only" in pairs.text_content()
    assert pairs.locator("li").count() == len(info["pairs"])
    for name, count in info["pairs"].items():
        number = "none" if not count else "1 pair" if count == 1 else f"{count} pairs"
        assert f"{name} {number}" in pairs.locator("li").all_text_contents()
    numbers = {number["name"] for number in info["numbers"]}
    assert numbers <= set(side.locator(".numbers th").all_text_contents())
    assert info["texts"][0]["text"] in side.locator(".text").first.text_content()
    assert "28 facts" in page.locator(".subtitle").text_content()
    assert page.locator(".suggestion").count() == 15
    texts = page.locator(".suggestion .probability-number").all_text_contents()
    probabilities = [float(text.strip("%<> ")) for text in texts]
    assert probabilities == sorted(probabilities, reverse=True)


def test_facts_by_relation_and_page(open_visit: Callable[..., Visit], site: Site) -> None:
    visit = open_visit()
    page = visit.go("#/")
    url = site.url + "v1/facts?name=United%20Nations&limit=1000"
    facts = page.request.get(url).json()["facts"]
    assert len(facts) > 100
    page = visit.go("#/entity/United%20Nations/facts")
    shown = page.locator(".fact-ends .entity-link .name").all_text_contents()
    page.get_by_role("link", name="Next").click()
    visit.see("text=101 to")
    visit.settle()
    shown += page.locator(".fact-ends .entity-link .name").all_text_contents()
    ends = [f["tail"] if f["head"] == "United Nations" else f["head"] for f in facts]
    assert sorted(shown) == sorted(ends)
    page = visit.go("#/entity/Chad/facts")
    page.get_by_label("Relation").select_option("borders")
    visit.settle()
    assert "relation=borders" in page.url
    assert page.locator(".fact-group").count() == 2
    page.go_back()
    visit.settle()
    assert page.locator(".fact-group").count() > 2


def test_the_neighbourhood_links_to_other_entities(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit()
    page = visit.go("#/entity/Chad/neighbourhood")
    visit.wait_for("() => document.querySelector('.graph')?.graph !== undefined")
    listed = page.locator(".graph-list .fact").count()
    assert listed == page.evaluate("document.querySelector('.graph').graph.edges().length")
    page.locator(".graph").scroll_into_view_if_needed()
    position = page.evaluate(
        """() => {
            const box = document.querySelector(".graph");
            const node = box.graph.nodes().filter((item) => item.data("name") === "Niger");
            const { x, y } = node.renderedPosition();
            const corner = box.getBoundingClientRect();
            return [corner.left + x, corner.top + y];
        }"""
    )
    page.mouse.click(*position)
    visit.wait_for("() => location.hash === '#/entity/Niger/neighbourhood'")
    visit.settle()
    visit.see("summary:has-text('as a list')").click()
    visit.see(".graph-list a:has-text('Chad')").click()
    visit.settle()
    assert page.url.endswith("#/entity/Chad")


# -- questions -------------------------------------------------------------------------------------


def test_questions_of_every_kind(open_visit: Callable[..., Visit], site: Site) -> None:
    visit = open_visit()
    page = visit.go("#/ask")
    page.get_by_label("Head", exact=True).fill("Chad")
    page.get_by_label("Relation").select_option("borders")
    page.get_by_label("Number of answers").fill("7")
    page.get_by_label("Candidates").select_option("observed")
    page.get_by_role("button", name="Ask", exact=True).click()
    visit.see(".suggestion")
    body = {"head": "Chad", "relation": "borders", "k": 7, "among": "observed"}
    predictions = page.request.post(site.url + "v1/tails", data=body).json()["predictions"]
    shown = page.locator(".suggestion strong .name").all_text_contents()
    assert shown == [prediction["tail"] for prediction in predictions]
    assert "k=7" in page.url
    for address, expected in (
        ("#/ask?relation=borders&tail=Chad&known=mark", "known"),
        ("#/ask?head=Chad&tail=Niger&known=mark", "borders"),
        ("#/ask?head=Chad&relation=borders&tail=Niger", "known"),
        ("#/ask?tail=Chad", "What is missing about Chad"),
    ):
        visit.go(address)
        visit.see(f".answers:has-text('{expected}')")
        assert page.locator(".suggestion").count() >= 1
    visit.go("#/ask?head=Chad&relation=borders&min=1")
    visit.see("text=No answer is left.")


def test_every_view_says_probability(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit()
    synonyms = re.compile(r"\b(chances?|likelihood)\b", re.IGNORECASE)
    for address in VIEWS.values():
        page = visit.go(address)
        titles = page.locator("main [title]").evaluate_all(
            "elements => elements.map((element) => element.title)"
        )
        assert not synonyms.search(" ".join([page.locator("main").text_content(), *titles])), (
            address
        )
    visit.go("#/review?entity=Chad&min=0")
    assert "probability that it is a fact" in visit.text(".review-card")


def test_an_incomplete_question_says_what_is_missing(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit()
    page = visit.go("#/ask")
    page.get_by_role("button", name="Ask", exact=True).click()
    assert "Enter an entity" in page.locator(".field-error").text_content()


def test_two_runs_side_by_side(open_visit: Callable[..., Visit], site: Site) -> None:
    visit = open_visit()
    page = visit.go("#/compare")
    page.get_by_label("Head", exact=True).fill("Chad")
    page.get_by_label("Relation").select_option("borders")
    page.get_by_role("button", name="Ask", exact=True).click()
    visit.see(".compare tbody tr")
    lists = []
    for run in ("fused", "links"):
        body = {"head": "Chad", "relation": "borders", "run": run}
        answer = page.request.post(site.url + "v1/tails", data=body).json()
        lists.append([prediction["tail"] for prediction in answer["predictions"]])
    shown = page.locator(".compare tbody th .name").all_text_contents()
    assert sorted(shown) == sorted({*lists[0], *lists[1]})
    common = page.locator(".compare tr.agree th .name").all_text_contents()
    assert sorted(common) == sorted({*lists[0]} & {*lists[1]})
    page.get_by_label("Run", exact=True).select_option("links")
    visit.settle()
    assert "run=links" in page.url


EXPLANATION: dict[str, Any] = {
    "score": 1.5,
    "probability": 0.25,
    "known": False,
    "tail_rank": 2,
    "head_rank": 11,
    "modalities": [
        *({"name": "text", "of": of, "present": True, "weight": 0.7} for of in ("head", "tail")),
        {"name": "sound", "of": "tail", "present": False, "weight": 0.0},
    ],
    "rules": [{"name": "near and near", "relations": [], "paths": 3, "share": 0.6}],
    "supports": [
        *(
            {"head": "Chad", "relation": "borders", "tail": tail, "kind": kind, "change": change}
            for tail, kind, change in (("Niger", "fact", -0.5), ("sahel", "token", 0.125))
        )
    ],
    "paths": [
        [
            {"head": "Chad", "relation": "borders", "tail": "Niger"},
            {"head": "Mali", "relation": "borders", "tail": "Niger"},
        ]
    ],
    "neighbours": [
        {"of": "head", "by": "vector", "entities": [{"name": "Niger", "similarity": 0.9}]}
    ],
    "notes": ["there is more that cannot be shown"],
}
for modality in EXPLANATION["modalities"]:
    modality |= {"views": [0.75, 0.25], "without": 0.4 if modality["present"] else None}
for support in EXPLANATION["supports"]:
    support |= {"by_vectors": 0.3, "by_rules": 0.2}


@pytest.mark.parametrize("reasons", [True, False])
def test_an_explanation_shows_all_its_parts(
    open_visit: Callable[..., Visit], reasons: bool
) -> None:
    """The content is fixed here; explanations of the server are tested in their own room."""
    visit = open_visit()

    def explain(route: Any) -> None:
        weights = {"correlation": 0.6, "facts": 200, "reasons": reasons, "text": "as measured"}
        body = {**EXPLANATION, **json.loads(route.request.post_data), "weights": weights}
        route.fulfill(body=json.dumps(body), content_type="application/json")

    visit.page.route("**/v1/explain", explain)
    page = visit.go("#/ask?head=Chad&relation=borders")
    why_button = page.locator(".why-button").first
    why_button.click()
    explanation = visit.see(".why")
    assert why_button.get_attribute("aria-expanded") == "true"
    text = explanation.text_content()
    for expected in ("2nd", "11th", "+0.40", "absent", "near and near", "+0.60", "3 paths"):
        assert expected in text
    for expected in ("+0.50", "\u22120.13", "sahel", "0.90", "there is more", "as measured"):
        assert expected in text
    assert explanation.locator(".notice").count() == (0 if reasons else 1)
    heading = "Composition of the vectors" + ("" if reasons else " (weights are not reasons)")
    assert heading in explanation.locator("h3").all_text_contents()
    weights = explanation.locator(".weight").first
    assert weights.is_visible() == reasons
    assert (
        explanation.locator(".view-weights").first.get_attribute("aria-label")
        == "Views of text: 1: 75%, 2: 25%"
    )
    result = axe_api.Axe().run(page, options=OPTIONS)
    assert result.violations_count == 0, result.generate_report()
    why_button.click()
    assert not explanation.is_visible()


def test_an_explanation_comes_from_the_server(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit()
    page = visit.go("#/ask?head=Chad&relation=borders")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("o")
    panel = visit.see(".suggestion:nth-child(2) .why-panel :is(.why, .empty)")
    assert panel.is_visible()
    assert page.locator(".failure").count() == 0


def test_one_key_opens_explanations_in_every_view(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit(viewport={"width": 1000, "height": 500})
    page = visit.go("#/ask?relation=also%20spoken&tail=English")
    page.keyboard.press("j")
    page.keyboard.press("w")
    assert visit.see(".suggestion:first-child .why").is_visible()
    page.keyboard.press("w")
    assert not page.locator(".why").is_visible()
    visit.go(ASYMMETRIC)
    explanation = page.locator(".review-why")
    page.keyboard.press("w")
    assert not explanation.is_visible()
    page.keyboard.press("w")
    assert visit.see(".review-why .why").is_visible()
    edge = "box => box.getBoundingClientRect().top < innerHeight - 20"
    assert explanation.evaluate(edge)
    page.keyboard.press("?")
    rows = [row.text_content() for row in visit.see("dialog").locator("tr").all()]
    assert [text.startswith("wShow or hide the explanation") for text in rows].count(True) == 2
