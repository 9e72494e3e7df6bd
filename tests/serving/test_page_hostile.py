"""The web page: hostile names of entities and relations remain text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

import pytest
import torch
from page_helpers import Site, Visit, enter_name, navigate, serving

import mocme
from mocme.data.graph import Graph, Vocabulary

PIECES = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "<svg/onload=window.hacked=1>",
    "javascript:window.hacked=1",
    "';alert(1);//",
    "{{constructor.constructor('window.hacked=1')()}}",
    "${alert(1)}",
    "</title></style></textarea><iframe srcdoc='<script>parent.hacked=1</script>'>",
    "%3Cscript%3Ealert(1)%3C/script%3E %2e%2e%2f %00 %zz",
    "../../etc/passwd?run=x&name=y#z",
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "zero\u200bwidth\u200d\ufeff\u2060",
    "👩‍👩‍👧‍👦 🏴‍☠️ 🇹🇩",
    "line\nbreak",
    "tab\tand\r\nreturn",
    " spaces  around ",
    "long" * 500,
    "long " * 400,
    "Z\u0351\u0343\u0361a\u0335\u0321l\u0322\u0310g\u0310\u035co",
    "=cmd|' /C calc'!A0",
    "__proto__",
    "constructor",
    ".",
    "..",
    "/",
    "?",
    "#",
    "&amp;&lt;&#60;",
    "\\u003cscript\\u003e",
    "\x01\x7f\x85",
)


def hostile_names(count: int) -> list[str]:
    """Make different names from pieces that are known to cause trouble."""
    generator = random.Random(0)
    names = list(PIECES)
    while len(names) < count:
        parts = generator.choices(PIECES, k=generator.randint(1, 3))
        name = generator.choice(("", " ", "\u200f")).join(parts)[:4000] + str(len(names))
        names.append(name)
    return list(dict.fromkeys(names))[:count]


HUB = "<b onclick=alert(1)>hub</b>"
LINK = "<i>is near</i>"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, list[str]]]:
    """A server of a graph without a valid split, in which a hub is linked to all hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    names = hostile_names(500)
    facts = torch.tensor([[0, n % 2, n] for n in range(1, len(names) + 1)])
    relations = Vocabulary([LINK, 'says "x"'], "relation")
    graph = Graph(Vocabulary([HUB, *names]), relations, {"train": facts}, name="<u>hostile</u>")
    settings = {"experts.embedding.training.epochs": 1}
    run = mocme.train(graph, "structure", out=folder / "<run>", settings=settings)
    with serving([run], folder / "reviews.sqlite") as site:
        yield site, names


def assert_unharmed(visit: Visit) -> None:
    """Check that no part of a name became an element or was executed."""
    result = visit.page.evaluate(
        """() => [
            window.hacked ?? null,
            document.querySelectorAll("main :is(script, iframe, b, i, u, style, [onerror])").length,
            [...document.querySelectorAll("main *")].filter((element) =>
                [...element.attributes].some((item) => item.name.startsWith("on"))).length,
        ]"""
    )
    assert result == [None, 0, 0]


def test_hostile_names_in_facts(
    open_visit: Callable[..., Visit], hostile: tuple[Site, list[str]]
) -> None:
    site, names = hostile
    visit = open_visit(site)
    page = visit.go("#/")
    shown: list[str] = []
    page.evaluate(f"location.hash = '#/entity/' + encodeURIComponent({json.dumps(HUB)}) + '/facts'")
    while True:
        page.wait_for_selector(".fact-ends")
        visit.settle()
        assert page.locator("h1").text_content() == HUB
        shown += page.locator(".fact-ends .entity-link .name").all_text_contents()
        assert_unharmed(visit)
        next_page = page.get_by_role("link", name="Next")
        if not next_page.count():
            break
        before = page.url
        next_page.click()
        visit.wait_for("before => location.href !== before", before)
    assert sorted(shown) == sorted(names)


def test_hostile_names_in_every_view(
    open_visit: Callable[..., Visit], hostile: tuple[Site, list[str]]
) -> None:
    site, names = hostile
    visit = open_visit(site)
    visit.go("#/")
    assert_unharmed(visit)
    for name in PIECES:
        navigate(visit, f"['entity', {json.dumps(name)}]")
        visit.see(".entity-side .weights")
        assert visit.page.locator("h1").text_content() == name
        for width in (1280, 375):
            visit.page.set_viewport_size({"width": width, "height": 800})
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert_unharmed(visit)
    navigate(visit, f"['entity', {json.dumps(HUB)}, 'neighbourhood'], {{ limit: 200 }}")
    visit.wait_for("() => document.querySelector('.graph')?.graph !== undefined")
    visit.see("summary:has-text('as a list')").click()
    ends = visit.page.locator(".graph-list .name").all_text_contents()
    assert len({*ends} & {*names}) == 200
    assert_unharmed(visit)
    query = json.dumps({"head": HUB, "relation": LINK, "known": "mark", "k": 500})
    navigate(visit, f"['ask'], {query}")
    visit.see(".suggestion")
    assert {*visit.page.locator(".suggestion strong .name").all_text_contents()} <= {*names}
    assert visit.page.locator(".suggestion").count() >= 400
    assert_unharmed(visit)


def test_hostile_names_in_review_and_search(
    open_visit: Callable[..., Visit], hostile: tuple[Site, list[str]]
) -> None:
    site, _ = hostile
    visit = open_visit(site)
    page = visit.go("#/")
    field = page.locator("#search [role=combobox]")
    for name in PIECES[:3]:
        field.fill(name)
        visit.see("#search [role=option]")
        visit.wait_for(
            "name => document.querySelector('#search [role=option] .name')?.textContent === name",
            name,
        )
    field.fill("")
    navigate(visit, f"['review'], {{ entity: {json.dumps(HUB)} }}")
    for key in "ars":
        visit.see(".review-card")
        shown = page.locator(".review-card h2").text_content()
        assert HUB in shown
        page.keyboard.press(key)
        if key == "a":
            enter_name(visit, PIECES[1])
        visit.wait_for(
            "old => document.querySelector('.review-card h2')?.textContent !== old", shown
        )
        assert_unharmed(visit)
    visit.wait_until(lambda: len(site.decisions()) == 3)
    visit.go("#/decisions")
    shown = page.locator(".decisions td:nth-child(4)").all_text_contents()
    assert shown == [PIECES[1]] * 3
    ends = [{item.head, item.tail} for item in site.decisions()]
    for row, facts in enumerate(ends):
        cells = page.locator(f".decisions tbody tr:nth-child({row + 1}) .fact-end .name")
        assert {*cells.all_text_contents()} == facts
    assert_unharmed(visit)
