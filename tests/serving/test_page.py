"""The page for curators, in a real browser against the real server."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

import mocme
from mocme.data.graph import Graph, Vocabulary
from mocme.runs.run import Run

BROWSERS = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
BROWSER = os.environ.get("MOCME_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
if BROWSER is None:
    pytest.skip(
        "the page is tested in a browser, and there is none: install chromium (apt-get install "
        "chromium), or name one in the environment variable MOCME_BROWSER",
        allow_module_level=True,
    )
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the page is tested with playwright: pip install playwright"
)
axe_api = pytest.importorskip(
    "axe_playwright_python.sync_playwright",
    reason="the page is checked by axe: pip install axe-playwright-python",
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
    "nothing there": "#/nowhere",
}


# What a file of decisions is called.
FILE = r"atlas-decisions-\d{{4}}-\d\d-\d\d\.{}"
# Suggestions of a relation whose facts say nothing turned around.
ONE_WAY = "#/review?relation=also%20spoken&tail=English&min=0"
ANOTHER = """old => {
    const title = document.querySelector(".review-card h2")?.textContent;
    return title !== undefined && title !== old;
}"""


# -- server ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """A server that runs until it is `over`, and the file of its decisions."""

    url: str
    reviews: Path
    over: threading.Event = field(default_factory=threading.Event)

    def decisions(self) -> list[Any]:
        """Those that are kept, the newest first."""
        from mocme.data.reviews import Reviews

        kept = Reviews(self.reviews)
        found = kept.find()[1]
        kept.close()
        return found


@contextmanager
def serving(
    runs: list[Run], reviews: Path, token: str | None = None, pictures: Path | None = None
) -> Iterator[Site]:
    """The real application in a thread, on a free port of this machine.

    Args:
        pictures: a folder for pictures of new entities; None adds none.
    """
    import uvicorn

    from mocme.data.reviews import Reviews
    from mocme.serving.api import create_app
    from mocme.serving.run_view import RunView
    from mocme.serving.uploads import ImageUploads

    room = None if pictures is None else ImageUploads(pictures)
    served = [RunView(run.path.name, run) for run in runs]
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(served, Reviews(reviews), token=token, uploads=room)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    site = Site(f"http://127.0.0.1:{listener.getsockname()[1]}/", reviews)
    try:
        yield site
    finally:
        site.over.set()
        server.should_exit = True
        thread.join(10)
        listener.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two short trainings: with modalities, and without."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for name, experiment in (("fused", "atlas/mocme"), ("links", "structure")):
        settings = {"training.passes": 1}
        found.append(mocme.train("atlas", experiment, out=folder / name, settings=settings))
    found[0].evaluate("valid")
    return found


@pytest.fixture(scope="module")
def site(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(runs, tmp_path_factory.mktemp("reviews") / "reviews.sqlite") as found:
        yield found


# -- browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield started
        started.close()


@dataclass
class Visit:
    """A page in a fresh profile; what its console says is kept."""

    page: Any
    site: Site
    complaints: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def go(self, address: str) -> Any:
        """To an address of the page, until it has all it asked for."""
        self.page.goto(self.site.url + address)
        return self.settle()

    def settle(self) -> Any:
        """Wait until nothing is on its way."""
        self.page.wait_for_load_state("networkidle")
        self.holds("() => !document.querySelector('[aria-busy=true], .skeleton')")
        return self.page

    def holds(self, told: str, value: Any = None) -> None:
        """Wait until something holds in the page; Playwright's own way needs eval, which the
        page's policy forbids.
        """
        self.until(lambda: self.page.evaluate(told, value))

    def until(self, told: Callable[[], Any], seconds: float = 30) -> None:
        """Wait until a call gives something; the page goes on meanwhile."""
        end = time.monotonic() + seconds
        while not told():
            assert time.monotonic() < end, "it did not come to be"
            self.page.wait_for_timeout(20)

    def text(self, selector: str) -> str:
        """The text of what a selector finds."""
        found: str = self.see(selector).text_content()
        return found

    def see(self, selector: str) -> Any:
        """What a selector finds, once it is there."""
        found = self.page.locator(selector).first
        found.wait_for()
        return found


@pytest.fixture
def visit(browser: Any, site: Site) -> Iterator[Callable[..., Visit]]:
    """Opens pages; none may have complained when the test ends, of refused requests aside."""
    opened: list[tuple[Any, Visit, bool]] = []

    def make(at: Site = site, refusals: bool = False, **settings: Any) -> Visit:
        """`refusals`: the test makes requests fail, which a browser's console tells."""
        context = browser.new_context(reduced_motion="reduce", **settings)
        context.set_default_timeout(30_000)
        made = Visit(context.new_page(), at)
        listen(made)
        opened.append((context, made, refusals))
        return made

    yield make
    for context, made, refusals in opened:
        context.close()
        told = [text for text in made.complaints if not (refusals and "Failed to load" in text)]
        if made.site.over.is_set():  # a page may go on asking a server that the test has ended
            told = [text for text in told if "ERR_CONNECTION_REFUSED" not in text]
        assert told == []
        assert made.dialogs == []


def listen(made: Visit) -> None:
    """Keep what the console says, and dialogs of scripts."""

    def console(message: Any) -> None:
        where = message.location.get("url", "")
        if message.type in ("error", "warning"):
            made.complaints.append(f"{message.type}: {message.text} ({where})")

    def dialog(shown: Any) -> None:
        made.dialogs.append(shown.message)
        shown.dismiss()

    made.page.on("console", console)
    made.page.on("pageerror", lambda error: made.complaints.append(f"page: {error}"))
    made.page.on("dialog", dialog)


def named(made: Visit, name: str = "Ada") -> None:
    """Give the reviewer's name in the dialog that asks for it."""
    made.see("dialog input").fill(name)
    made.page.keyboard.press("Enter")
    made.page.wait_for_selector("dialog", state="detached")


# -- search ----------------------------------------------------------------------------------------


def test_search_by_keyboard_alone(visit: Callable[..., Visit]) -> None:
    made = visit()
    page = made.go("#/")
    page.keyboard.press("/")
    page.keyboard.type("chad")
    field = made.see("#search [role=combobox]")
    made.see("#search [role=option]")
    assert field.get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    marked = page.locator(f"[id='{field.get_attribute('aria-activedescendant')}']")
    assert marked.locator(".name").text_content() == "Chad"
    assert marked.get_attribute("aria-selected") == "true"
    page.keyboard.press("Enter")
    made.settle()
    assert page.url.endswith("#/entity/Chad")
    assert page.locator("h1").text_content() == "Chad"
    assert page.evaluate("document.activeElement.tagName") == "H1"
    page.go_back()
    assert made.see(".doors")
    assert page.title() == "Atlas · mocme"


def test_search_drops_answers_that_were_overtaken(visit: Callable[..., Visit]) -> None:
    made = visit()
    page = made.go("#/")
    held = []
    page.route("**/v1/search?q=n&*", lambda route: held.append(route))
    field = page.locator("#search [role=combobox]")
    field.type("n")
    made.until(lambda: held)
    field.type("iger")
    names = [made.see("#search [role=option] .name").text_content()]
    body = {"entities": [{"name": "too late", "facts": 1}]}
    # The page may have given the request up, which is as good.
    with suppress(sync_api.Error):
        held[0].fulfill(body=json.dumps(body), content_type="application/json")
    page.wait_for_timeout(150)
    names += page.locator("#search [role=option] .name").all_text_contents()
    assert "too late" not in names
    assert any(name.startswith("Niger") for name in names)
    page.keyboard.press("Escape")
    assert field.get_attribute("aria-expanded") == "false"


# -- entities --------------------------------------------------------------------------------------


def test_an_entity_shows_all_that_is_known(visit: Callable[..., Visit], site: Site) -> None:
    made = visit()
    page = made.go("#/entity/Chad")
    told = page.request.get(site.url + "v1/entity?name=Chad").json()
    side = page.locator(".entity-side")
    assert side.locator("img").first.evaluate("image => image.decode().then(() => 1)") == 1
    shown = side.locator(".weight-name").all_text_contents()
    assert {*shown} == {*told["weights"], *told["modalities"]}
    assert told["pairs"]
    assert not {*told["pairs"]} & {*shown}
    apart = side.locator(".pairs")
    assert "Used by patterns only" in apart.text_content()
    assert apart.locator("li").count() == len(told["pairs"])
    for name, count in told["pairs"].items():
        many = "none" if not count else "1 pair" if count == 1 else f"{count} pairs"
        assert f"{name} {many}" in apart.locator("li").all_text_contents()
    numbers = {one["name"] for one in told["numbers"]}
    assert numbers <= set(side.locator(".numbers th").all_text_contents())
    assert told["texts"][0]["text"] in side.locator(".text").first.text_content()
    assert "28 facts" in page.locator(".under-title").text_content()
    assert page.locator(".suggestion").count() == 15
    chances = page.locator(".suggestion .chance-number").all_text_contents()
    shown = [float(text.strip("%<> ")) for text in chances]
    assert shown == sorted(shown, reverse=True)


def test_facts_by_relation_and_page(visit: Callable[..., Visit], site: Site) -> None:
    made = visit()
    page = made.go("#/")
    url = site.url + "v1/facts?name=United%20Nations&limit=1000"
    facts = page.request.get(url).json()["facts"]
    assert len(facts) > 100
    page = made.go("#/entity/United%20Nations/facts")
    shown = page.locator(".fact-ends .entity-link .name").all_text_contents()
    page.get_by_role("link", name="Later").click()
    made.see("text=101 to")
    made.settle()
    shown += page.locator(".fact-ends .entity-link .name").all_text_contents()
    ends = [f["tail"] if f["head"] == "United Nations" else f["head"] for f in facts]
    assert sorted(shown) == sorted(ends)
    page = made.go("#/entity/Chad/facts")
    page.get_by_label("Relation").select_option("borders")
    made.settle()
    assert "relation=borders" in page.url
    assert page.locator(".fact-group").count() == 2
    page.go_back()
    made.settle()
    assert page.locator(".fact-group").count() > 2


def test_the_neighbourhood_can_be_walked(visit: Callable[..., Visit]) -> None:
    made = visit()
    page = made.go("#/entity/Chad/neighbourhood")
    made.holds("() => document.querySelector('.graph')?.graph !== undefined")
    listed = page.locator(".graph-list .fact").count()
    assert listed == page.evaluate("document.querySelector('.graph').graph.edges().length")
    page.locator(".graph").scroll_into_view_if_needed()
    spot = page.evaluate(
        """() => {
            const box = document.querySelector(".graph");
            const node = box.graph.nodes().filter((one) => one.data("name") === "Niger");
            const at = node.renderedPosition();
            const corner = box.getBoundingClientRect();
            return [corner.left + at.x, corner.top + at.y];
        }"""
    )
    page.mouse.click(*spot)
    made.holds("() => location.hash === '#/entity/Niger/neighbourhood'")
    made.settle()
    made.see("summary:has-text('as a list')").click()
    made.see(".graph-list a:has-text('Chad')").click()
    made.settle()
    assert page.url.endswith("#/entity/Chad")


# -- questions -------------------------------------------------------------------------------------


def test_questions_of_every_kind(visit: Callable[..., Visit], site: Site) -> None:
    made = visit()
    page = made.go("#/ask")
    page.get_by_label("Head", exact=True).fill("Chad")
    page.get_by_label("Relation").select_option("borders")
    page.get_by_label("How many").fill("7")
    page.get_by_label("Answers among").select_option("observed")
    page.get_by_role("button", name="Ask", exact=True).click()
    made.see(".suggestion")
    body = {"head": "Chad", "relation": "borders", "k": 7, "among": "observed"}
    found = page.request.post(site.url + "v1/tails", data=body).json()["predictions"]
    shown = page.locator(".suggestion strong .name").all_text_contents()
    assert shown == [one["tail"] for one in found]
    assert "k=7" in page.url
    for address, expected in (
        ("#/ask?relation=borders&tail=Chad&known=mark", "known"),
        ("#/ask?head=Chad&tail=Niger&known=mark", "borders"),
        ("#/ask?head=Chad&relation=borders&tail=Niger", "known"),
        ("#/ask?tail=Chad", "What is missing about Chad"),
    ):
        made.go(address)
        made.see(f".answers:has-text('{expected}')")
        assert page.locator(".suggestion").count() >= 1
    made.go("#/ask?head=Chad&relation=borders&min=1")
    made.see("text=No answer is left.")


def test_a_probability_has_one_name_everywhere(visit: Callable[..., Visit]) -> None:
    made = visit()
    other = re.compile(r"\b(chances?|likelihood)\b", re.IGNORECASE)
    for address in VIEWS.values():
        page = made.go(address)
        titles = page.locator("main [title]").evaluate_all("all => all.map((one) => one.title)")
        assert not other.search(" ".join([page.locator("main").text_content(), *titles])), address
    made.go("#/review?entity=Chad&min=0")
    assert "probability that it is a fact" in made.text(".review-card")


def test_a_question_too_short_says_what_is_needed(visit: Callable[..., Visit]) -> None:
    made = visit()
    page = made.go("#/ask")
    page.get_by_role("button", name="Ask", exact=True).click()
    assert "Give an entity" in page.locator(".field-trouble").text_content()


def test_two_runs_side_by_side(visit: Callable[..., Visit], site: Site) -> None:
    made = visit()
    page = made.go("#/compare")
    page.get_by_label("Head", exact=True).fill("Chad")
    page.get_by_label("Relation").select_option("borders")
    page.get_by_role("button", name="Ask", exact=True).click()
    made.see(".compare tbody tr")
    lists = []
    for run in ("fused", "links"):
        body = {"head": "Chad", "relation": "borders", "run": run}
        answer = page.request.post(site.url + "v1/tails", data=body).json()
        lists.append([one["tail"] for one in answer["predictions"]])
    shown = page.locator(".compare tbody th .name").all_text_contents()
    assert sorted(shown) == sorted({*lists[0], *lists[1]})
    agreed = page.locator(".compare tr.agree th .name").all_text_contents()
    assert sorted(agreed) == sorted({*lists[0]} & {*lists[1]})
    page.get_by_label("Run", exact=True).select_option("links")
    made.settle()
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
    "patterns": [{"name": "near and near", "relations": [], "paths": 3, "share": 0.6}],
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
for one in EXPLANATION["modalities"]:
    one |= {"experts": [0.75, 0.25], "without": 0.4 if one["present"] else None}
for one in EXPLANATION["supports"]:
    one |= {"by_vectors": 0.3, "by_patterns": 0.2}


@pytest.mark.parametrize("reasons", [True, False])
def test_why_shows_all_that_it_is_told(visit: Callable[..., Visit], reasons: bool) -> None:
    """Whatever an explanation may hold; what the server explains is tested where it is made."""
    made = visit()

    def explain(route: Any) -> None:
        weights = {"correlation": 0.6, "facts": 200, "reasons": reasons, "text": "so it was seen"}
        body = {**EXPLANATION, **json.loads(route.request.post_data), "weights": weights}
        route.fulfill(body=json.dumps(body), content_type="application/json")

    made.page.route("**/v1/explain", explain)
    page = made.go("#/ask?head=Chad&relation=borders")
    opener = page.locator(".opener").first
    opener.click()
    why = made.see(".why")
    assert opener.get_attribute("aria-expanded") == "true"
    text = why.text_content()
    for expected in ("2nd", "11th", "+0.40", "not there", "near and near", "+0.60", "3 paths"):
        assert expected in text
    for expected in ("+0.50", "\u22120.13", "sahel", "0.90", "there is more", "so it was seen"):
        assert expected in text
    assert why.locator(".notice").count() == (0 if reasons else 1)
    heading = "What the vectors are made of" + ("" if reasons else " (weights are not reasons)")
    assert heading in why.locator("h3").all_text_contents()
    weights = why.locator(".weight").first
    assert weights.is_visible() == reasons
    assert (
        why.locator(".experts").first.get_attribute("aria-label")
        == "Experts of text: 1: 75%, 2: 25%"
    )
    found = axe_api.Axe().run(page, options=OPTIONS)
    assert found.violations_count == 0, found.generate_report()
    opener.click()
    assert not why.is_visible()


def test_why_from_the_server(visit: Callable[..., Visit]) -> None:
    made = visit()
    page = made.go("#/ask?head=Chad&relation=borders")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("o")
    panel = made.see(".suggestion:nth-child(2) .why-panel :is(.why, .empty)")
    assert panel.is_visible()
    assert page.locator(".failure").count() == 0


def test_one_key_opens_the_why_everywhere(visit: Callable[..., Visit]) -> None:
    made = visit(viewport={"width": 1000, "height": 500})
    page = made.go("#/ask?relation=also%20spoken&tail=English")
    page.keyboard.press("j")
    page.keyboard.press("w")
    assert made.see(".suggestion:first-child .why").is_visible()
    page.keyboard.press("w")
    assert not page.locator(".why").is_visible()
    made.go(ONE_WAY)
    why = page.locator(".review-why")
    page.keyboard.press("w")
    assert not why.is_visible()
    page.keyboard.press("w")
    assert made.see(".review-why .why").is_visible()
    edge = "box => box.getBoundingClientRect().top < innerHeight - 20"
    assert why.evaluate(edge)
    page.keyboard.press("?")
    told = [row.text_content() for row in made.see("dialog").locator("tr").all()]
    assert [text.startswith("wShow or hide the why") for text in told].count(True) == 2


# -- review ----------------------------------------------------------------------------------------


def facts_of(site: Site) -> list[tuple[str, str]]:
    return [(" ".join(one.fact), one.decision) for one in site.decisions()]


def test_review_with_one_key_each(
    visit: Callable[..., Visit], runs: list[Run], tmp_path: Path
) -> None:
    with serving(runs[:1], tmp_path / "reviews.sqlite") as site:
        made = visit(site)
        page = made.go(ONE_WAY)
        title = page.locator(".review-card h2")
        first = title.text_content()
        page.keyboard.press("a")
        named(made)
        made.holds(ANOTHER, first)
        second = title.text_content()
        page.keyboard.press("n")
        page.keyboard.type("no border: a")
        page.keyboard.press("Enter")
        page.keyboard.press("r")
        made.holds(ANOTHER, second)
        third = title.text_content()
        page.keyboard.press("s")
        made.until(lambda: len(site.decisions()) == 3)
        expected = [(third, "skip"), (second, "reject"), (first, "accept")]
        assert facts_of(site) == expected
        assert [one.note for one in site.decisions()] == ["", "no border: a", ""]
        assert {one.reviewer for one in site.decisions()} == {"Ada"}
        page.keyboard.press("u")
        made.until(lambda: len(site.decisions()) == 2)
        assert facts_of(site) == expected[1:]
        assert title.text_content() == third
        # What was decided does not come again.
        page.reload()
        made.settle()
        assert title.text_content() == third
        page.get_by_role("button", name="Reviewing as Ada").click()
        named(made, "Grace")
        page.get_by_role("button", name="Accept").click()
        made.until(lambda: len(site.decisions()) == 3)
        assert site.decisions()[0].reviewer == "Grace"
        listed(made, site)


def listed(made: Visit, site: Site) -> None:
    """The list of decisions, its filter, its files, and its way back."""
    page = made.go("#/decisions")
    assert page.locator(".decisions tbody tr").count() == 3
    assert "2 accepted, 1 rejected, 0 skipped" in page.locator("main").text_content()
    page.get_by_label("Decision", exact=True).select_option("reject")
    made.settle()
    made.holds("() => document.querySelectorAll('.decisions tbody tr').length === 1")
    assert "no border: a" in page.locator(".decisions").text_content()
    assert "Download all decisions" in page.locator(".files").text_content()
    for title, ending in (("TSV", "tsv"), ("CSV", "csv"), ("JSON lines", "jsonl")):
        with page.expect_download() as started:
            page.get_by_role("link", name=f"Download all decisions as {title}").click()
        assert re.fullmatch(FILE.format(ending), started.value.suggested_filename)
        text = Path(started.value.path()).read_text(encoding="utf-8")
        assert "Grace" in text, ending
    page.get_by_role("button", name="Undo").first.click()
    made.until(lambda: len(site.decisions()) == 2)
    made.see("text=No decision is like this.")


def test_no_decision_is_lost(visit: Callable[..., Visit], runs: list[Run], tmp_path: Path) -> None:
    with serving(runs[:1], tmp_path / "reviews.sqlite") as site:
        made = visit(site, refusals=True)
        page = made.go(ONE_WAY)
        page.evaluate("localStorage.setItem('mocme.reviewer', 'Ada')")
        page.context.set_offline(True)
        title = page.locator(".review-card h2")
        shown = []
        for key in "ara":
            shown.append(title.text_content())
            page.keyboard.press(key)
            made.holds(ANOTHER, shown[-1])
        page.keyboard.press("u")
        made.see("#banner:has-text('cannot be reached')")
        assert page.locator(".nav .count").text_content().startswith("2")
        assert site.decisions() == []
        page.context.set_offline(False)
        made.until(lambda: len(site.decisions()) == 2)
        assert facts_of(site) == [(shown[1], "reject"), (shown[0], "accept")]
        made.holds("() => !document.querySelector('.nav .count')")
        arrived_all_the_same(made, site)
        outlives_the_page(made, site)


def arrived_all_the_same(made: Visit, site: Site) -> None:
    """An answer that is lost on its way does not make two of one."""
    page = made.page
    lost = []

    def lose(route: Any) -> None:
        if route.request.method == "POST" and not lost:
            lost.append(route.fetch().status)
            route.abort()
        else:
            route.continue_()

    page.route("**/v1/reviews*", lose)
    page.keyboard.press("a")
    made.holds("() => document.querySelector('.nav .count')")
    made.holds("() => !document.querySelector('.nav .count')")
    assert lost == [201]
    assert len(site.decisions()) == 3
    page.unroute("**/v1/reviews*")


def outlives_the_page(made: Visit, site: Site) -> None:
    """What is not sent when the page is closed is sent by the next; what is refused is shown."""
    page = made.page
    page.route(
        "**/v1/reviews",
        lambda route: route.abort() if route.request.method == "POST" else route.continue_(),
    )
    page.keyboard.press("r")
    made.holds("() => document.querySelector('.nav .count')")
    page.unroute("**/v1/reviews")
    made.go("#/decisions")
    page.reload()
    made.until(lambda: len(site.decisions()) == 4)
    error = {"code": "invalid", "message": "it is refused", "remedy": "ask the maker", "near": []}
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
    made.go(ONE_WAY)
    page.keyboard.press("s")
    made.see(".toast.bad:has-text('it is refused')")
    made.go("#/decisions")
    assert "ask the maker" in made.see(".unsent").text_content()
    page.get_by_role("button", name="Discard").click()
    page.wait_for_selector(".unsent", state="detached")
    assert len(site.decisions()) == 4


def test_decisions_in_lists(visit: Callable[..., Visit], runs: list[Run], tmp_path: Path) -> None:
    with serving(runs[:1], tmp_path / "reviews.sqlite") as site:
        made = visit(site)
        page = made.go("#/ask?relation=also%20spoken&tail=English")
        page.evaluate("localStorage.setItem('mocme.reviewer', 'Ada')")
        for key in ("j", "a", "r"):
            page.keyboard.press(key)
        made.until(lambda: len(site.decisions()) == 2)
        shown = page.locator(".suggestion").evaluate_all(
            "rows => rows.map((row) => row.dataset.decision)"
        )
        assert shown[:3] == ["accept", "reject", ""]
        page.get_by_role("button", name="Undo").first.click()
        made.until(lambda: len(site.decisions()) == 1)
        assert page.locator(".suggestion [aria-pressed=true]").count() == 1


def test_what_says_the_same_turned_around_is_decided_once(
    visit: Callable[..., Visit], runs: list[Run], tmp_path: Path
) -> None:
    """And the decision is kept for both facts, in lists and in review."""
    with serving(runs[:1], tmp_path / "reviews.sqlite") as site:
        made = visit(site)
        page = made.go("#/entity/Chad?k=60")
        page.evaluate("localStorage.setItem('mocme.reviewer', 'Ada')")
        told = [text.split(" borders ") for text in page.locator(".fact").all_text_contents()]
        pairs = [tuple(sorted(ends)) for ends in told if len(ends) == 2]
        assert pairs
        assert len(set(pairs)) == len(pairs)
        row = page.locator(".suggestion:has-text('and the other way round')").first
        head, tail = row.locator(".fact").text_content().split(" borders ")
        both = {(head, "borders", tail), (tail, "borders", head)}
        row.locator(".decide.accept").click()
        made.until(lambda: len(site.decisions()) == 2)
        assert {one.fact for one in site.decisions()} == both
        assert {one.decision for one in site.decisions()} == {"accept"}
        assert "and the other way round" in made.text(".toast")
        page.get_by_role("button", name="Undo").first.click()
        made.until(lambda: not site.decisions())
        assert row.get_attribute("data-decision") == ""
        page = made.go("#/review?entity=Chad&relation=borders&min=0")
        title = page.locator(".review-card h2")
        assert "kept for both facts" in page.locator(".review-card").text_content()
        first = title.text_content()
        page.keyboard.press("r")
        made.holds(ANOTHER, first)
        made.until(lambda: len(site.decisions()) == 2)
        turned = " borders ".join(reversed(first.split(" borders ")))
        assert {" ".join(one.fact) for one in site.decisions()} == {first, turned}
        page.keyboard.press("u")
        made.until(lambda: not site.decisions())
        assert title.text_content() == first


def test_a_suggestion_says_what_links_the_two_already(visit: Callable[..., Visit]) -> None:
    made = visit()
    page = made.go("#/ask?relation=also%20spoken&tail=French&k=300")
    told = page.request.post(
        made.site.url + "v1/heads", data={"relation": "also spoken", "tail": "French", "k": 300}
    ).json()["predictions"]
    linked = [one for one in told if one["linked"]]
    assert linked
    for one in linked:
        row = page.locator(".suggestion").nth(told.index(one))
        assert f"already: {', '.join(one['linked'])}" in row.text_content()
    assert page.locator(".suggestion:has-text('already: ')").count() == len(linked)
    address = "#/review?relation=also%20spoken&tail=French&min=0"
    made.page.route(
        "**/v1/heads", lambda route: route.fulfill(json={"question": "", "predictions": linked})
    )
    made.go(address)
    assert f"already: {linked[0]['linked'][0]}" in made.text(".review-card")


def test_a_walk_over_the_graph(visit: Callable[..., Visit]) -> None:
    made = visit()
    page = made.go("#/review?relation=borders&min=0")
    assert " borders " in page.locator(".review-card h2").text_content()


# -- the run ---------------------------------------------------------------------------------------


def test_the_run_in_pictures(visit: Callable[..., Visit], runs: list[Run]) -> None:
    made = visit()
    page = made.go("#/run")
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
    made.see("select").select_option("links")
    made.see("text=This run has not been evaluated.")


# -- states ----------------------------------------------------------------------------------------


def test_an_unknown_name_has_a_remedy(visit: Callable[..., Visit]) -> None:
    made = visit(refusals=True)
    page = made.go("#/entity/Chadd")
    failure = made.see(".failure:has(a)")
    assert "there is no entity named 'Chadd'" in failure.text_content()
    failure.get_by_role("link", name="Chad", exact=True).click()
    made.settle()
    assert page.locator("h1").text_content() == "Chad"


def test_a_busy_server_is_asked_again_when_it_says(visit: Callable[..., Visit]) -> None:
    made = visit(refusals=True)
    times = []

    def busy(route: Any) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="{}")
        else:
            route.continue_()

    made.page.route("**/v1/missing", busy)
    made.go("#/entity/Chad")
    made.see(".suggestion")
    assert times[1] - times[0] >= 1


def test_a_failure_can_be_tried_again(visit: Callable[..., Visit]) -> None:
    made = visit(refusals=True)
    page = made.page
    page.route("**/v1/report", lambda route: route.abort())
    made.go("#/run")
    assert "cannot be reached" in made.see(".failure").text_content()
    page.unroute("**/v1/report")
    page.get_by_role("button", name="Try again").last.click()
    made.see("figure")
    assert not page.locator("#banner").is_visible()


def test_a_token_is_asked_for_once(
    visit: Callable[..., Visit], runs: list[Run], tmp_path: Path
) -> None:
    with serving(runs[:1], tmp_path / "reviews.sqlite", TOKEN) as site:
        made = visit(site, refusals=True)
        page = made.page
        page.goto(site.url + "#/entity/Chad")
        for token in ("a wrong one", TOKEN):
            made.see("dialog input").fill(token)
            page.keyboard.press("Enter")
            page.wait_for_timeout(100)
        made.see(".suggestion")
        made.settle()
        source = page.locator(".entity-side img").first
        assert source.get_attribute("src").startswith("blob:")
        assert source.evaluate("image => image.decode().then(() => 1)") == 1
        page.reload()
        made.see(".suggestion")
        assert page.locator("dialog").count() == 0
        page.evaluate("localStorage.setItem('mocme.reviewer', 'Ada')")
        page.locator(".decide.accept").first.click()
        made.until(lambda: site.decisions())
        made.go("#/decisions")
        with page.expect_download() as started:
            page.get_by_role("link", name="as TSV").click()
        assert re.fullmatch(FILE.format("tsv"), started.value.suggested_filename)
        assert "Ada" in Path(started.value.path()).read_text(encoding="utf-8")


def test_theme_and_keys_are_remembered(visit: Callable[..., Visit]) -> None:
    made = visit(color_scheme="light")
    page = made.go("#/")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    for _ in range(2):
        page.keyboard.press("t")
    dark = page.evaluate(background)
    assert light != dark
    page.reload()
    made.settle()
    assert page.evaluate(background) == dark
    page.keyboard.press("?")
    made.see("dialog:has-text('Keys')")
    page.get_by_label("Single keys work").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    assert page.evaluate(background) == dark
    for key, view in (("r", "#/review"), ("s", "#/run")):
        page.evaluate("localStorage.removeItem('mocme.keys')")
        page.keyboard.press("g")
        page.keyboard.press(key)
        made.holds("view => location.hash === view", view)
    made.settle()


# What differs in the dark are the colours alone.
OPTIONS = {"resultTypes": ["violations"]}
COLOURS = OPTIONS | {"runOnly": ["color-contrast"]}


# -- for everyone ----------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(visit: Callable[..., Visit], view: str) -> None:
    """In light and dark, and on a phone, where nothing stands out to the side either."""
    made = visit(viewport={"width": 1280, "height": 900})
    page = made.go(VIEWS[view])
    if view == "review":
        made.see(".review-why :is(.why, .empty)")
    for scheme, width in (("light", 1280), ("dark", 1280), ("dark", 375), ("light", 375)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 812})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        if (scheme, width) != ("dark", 375):
            found = axe_api.Axe().run(page, options=OPTIONS if scheme == "light" else COLOURS)
            assert found.violations_count == 0, (scheme, width, found.generate_report())


# -- hostile names ---------------------------------------------------------------------------------

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
    """Different names made of pieces that have done harm elsewhere."""
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
    """A hub that is linked to all of the names, in a graph without a valid split."""
    folder = tmp_path_factory.mktemp("hostile")
    names = hostile_names(500)
    facts = torch.tensor([[0, n % 2, n] for n in range(1, len(names) + 1)])
    relations = Vocabulary([LINK, 'says "x"'], "relation")
    graph = Graph(Vocabulary([HUB, *names]), relations, {"train": facts}, name="<u>hostile</u>")
    settings = {"training.passes": 1}
    run = mocme.train(graph, "structure", out=folder / "<run>", settings=settings)
    with serving([run], folder / "reviews.sqlite") as site:
        yield site, names


def unharmed(made: Visit) -> None:
    """Nothing of a name became an element or ran."""
    found = made.page.evaluate(
        """() => [
            window.hacked ?? null,
            document.querySelectorAll("main :is(script, iframe, b, i, u, style, [onerror])").length,
            [...document.querySelectorAll("main *")].filter((one) =>
                [...one.attributes].some((each) => each.name.startsWith("on"))).length,
        ]"""
    )
    assert found == [None, 0, 0]


def test_hostile_names_in_facts(
    visit: Callable[..., Visit], hostile: tuple[Site, list[str]]
) -> None:
    site, names = hostile
    made = visit(site)
    page = made.go("#/")
    shown: list[str] = []
    page.evaluate(f"location.hash = '#/entity/' + encodeURIComponent({json.dumps(HUB)}) + '/facts'")
    while True:
        page.wait_for_selector(".fact-ends")
        made.settle()
        assert page.locator("h1").text_content() == HUB
        shown += page.locator(".fact-ends .entity-link .name").all_text_contents()
        unharmed(made)
        later = page.get_by_role("link", name="Later")
        if not later.count():
            break
        before = page.url
        later.click()
        made.holds("before => location.href !== before", before)
    assert sorted(shown) == sorted(names)


def test_hostile_names_in_every_view(
    visit: Callable[..., Visit], hostile: tuple[Site, list[str]]
) -> None:
    site, names = hostile
    made = visit(site)
    made.go("#/")
    unharmed(made)
    for name in PIECES:
        walk(made, f"['entity', {json.dumps(name)}]")
        made.see(".entity-side .weights")
        assert made.page.locator("h1").text_content() == name
        for width in (1280, 375):
            made.page.set_viewport_size({"width": width, "height": 800})
            assert made.page.evaluate("document.documentElement.scrollWidth") <= width
        unharmed(made)
    walk(made, f"['entity', {json.dumps(HUB)}, 'neighbourhood'], {{ limit: 200 }}")
    made.holds("() => document.querySelector('.graph')?.graph !== undefined")
    made.see("summary:has-text('as a list')").click()
    ends = made.page.locator(".graph-list .name").all_text_contents()
    assert len({*ends} & {*names}) == 200
    unharmed(made)
    asked = json.dumps({"head": HUB, "relation": LINK, "known": "mark", "k": 500})
    walk(made, f"['ask'], {asked}")
    made.see(".suggestion")
    assert {*made.page.locator(".suggestion strong .name").all_text_contents()} <= {*names}
    assert made.page.locator(".suggestion").count() >= 400
    unharmed(made)


def walk(made: Visit, address: str) -> None:
    """Go where the page's own links would."""
    made.page.evaluate(
        "async (address) => { const route = await import('./static/route.js');"
        f" route.go({address}); }}",
        address,
    )
    made.settle()


def test_hostile_names_in_review_and_search(
    visit: Callable[..., Visit], hostile: tuple[Site, list[str]]
) -> None:
    site, _ = hostile
    made = visit(site)
    page = made.go("#/")
    field = page.locator("#search [role=combobox]")
    for name in PIECES[:3]:
        field.fill(name)
        made.see("#search [role=option]")
        made.holds(
            "name => document.querySelector('#search [role=option] .name')?.textContent === name",
            name,
        )
    field.fill("")
    walk(made, f"['review'], {{ entity: {json.dumps(HUB)} }}")
    for key in "ars":
        made.see(".review-card")
        shown = page.locator(".review-card h2").text_content()
        assert HUB in shown
        page.keyboard.press(key)
        if key == "a":
            named(made, PIECES[1])
        made.holds("old => document.querySelector('.review-card h2')?.textContent !== old", shown)
        unharmed(made)
    made.until(lambda: len(site.decisions()) == 3)
    made.go("#/decisions")
    shown = page.locator(".decisions td:nth-child(4)").all_text_contents()
    assert shown == [PIECES[1]] * 3
    ends = [{one.head, one.tail} for one in site.decisions()]
    for row, facts in enumerate(ends):
        cells = page.locator(f".decisions tbody tr:nth-child({row + 1}) .fact-end .name")
        assert {*cells.all_text_contents()} == facts
    unharmed(made)
