"""The web page, in a real browser and with the real server."""

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
FILE = r"atlas-decisions-\d{{4}}-\d\d-\d\d\.{}"
# Suggestions of a relation that is not symmetric.
ASYMMETRIC = "#/review?relation=also%20spoken&tail=English&min=0"
# True once another suggestion is shown.
CARD_CHANGED = """old => {
    const title = document.querySelector(".review-card h2")?.textContent;
    return title !== undefined && title !== old;
}"""


# -- server ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """A running server and the file of its decisions; `closed` is set when it stops."""

    url: str
    reviews: Path
    closed: threading.Event = field(default_factory=threading.Event)

    def decisions(self) -> list[Any]:
        """The stored decisions, newest first."""
        from mocme.data.reviews import Reviews

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

    from mocme.data.reviews import Reviews
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two briefly trained runs: with modalities, and without."""
    folder = tmp_path_factory.mktemp("runs")
    trained = []
    for name, experiment in (("fused", "atlas/mocme"), ("links", "structure")):
        settings = {"training.passes": 1}
        trained.append(mocme.train("atlas", experiment, out=folder / name, settings=settings))
    trained[0].evaluate("valid")
    return trained


@pytest.fixture(scope="module")
def site(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(runs, tmp_path_factory.mktemp("reviews") / "reviews.sqlite") as running:
        yield running


# -- browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield browser
        browser.close()


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


@pytest.fixture
def open_visit(browser: Any, site: Site) -> Iterator[Callable[..., Visit]]:
    """Open pages; when the test ends, none may have logged errors except for refused requests."""
    opened: list[tuple[Any, Visit, bool]] = []

    def open_page(at: Site = site, refusals: bool = False, **settings: Any) -> Visit:
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
for modality in EXPLANATION["modalities"]:
    modality |= {"experts": [0.75, 0.25], "without": 0.4 if modality["present"] else None}
for support in EXPLANATION["supports"]:
    support |= {"by_vectors": 0.3, "by_patterns": 0.2}


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


# -- review ----------------------------------------------------------------------------------------


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
        assert re.fullmatch(FILE.format(ending), started.value.suggested_filename)
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
        assert re.fullmatch(FILE.format("tsv"), started.value.suggested_filename)
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


# In the dark scheme, only the colours differ.
OPTIONS = {"resultTypes": ["violations"]}
COLOURS = OPTIONS | {"runOnly": ["color-contrast"]}


# -- accessibility ---------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_accessible(open_visit: Callable[..., Visit], view: str) -> None:
    """In light and dark, and on a phone, where nothing may overflow horizontally."""
    visit = open_visit(viewport={"width": 1280, "height": 900})
    page = visit.go(VIEWS[view])
    if view == "review":
        visit.see(".review-why :is(.why, .empty)")
    for scheme, width in (("light", 1280), ("dark", 1280), ("dark", 375), ("light", 375)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 812})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if (scheme, width) != ("dark", 375):
            result = axe_api.Axe().run(page, options=OPTIONS if scheme == "light" else COLOURS)
            assert result.violations_count == 0, (scheme, width, result.generate_report())


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
    settings = {"training.passes": 1}
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


def navigate(visit: Visit, arguments: str) -> None:
    """Navigate as the links of the page do, with the arguments of `route.go`."""
    visit.page.evaluate(
        "async () => { const route = await import('./static/route.js');"
        f" route.go({arguments}); }}",
        arguments,
    )
    visit.settle()


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
