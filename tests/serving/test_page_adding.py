"""Adding an entity on the page, and taking it back, in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The module skips, saying why, where there is no browser.
from test_page import COLOURS, OPTIONS, TOKEN, Site, Visit, axe_api, browser, serving, visit
from test_serving_additions import picture, picture_run

from mocme.runs.run import Run

__all__ = ["browser", "picture_run", "visit"]  # fixtures


@pytest.fixture
def run(picture_run: Path, tmp_path: Path) -> Run:
    shutil.copytree(picture_run, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture
def site(run: Run, tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "pictures").mkdir()
    with serving([run], tmp_path / "reviews.sqlite", None, tmp_path / "pictures") as found:
        yield found


def file(name: str, data: bytes) -> dict[str, Any]:
    """As one chooses it."""
    return {"name": name, "mimeType": "image/png", "buffer": data}


def fact(made: Visit, side: str, relation: str, other: str) -> Any:
    """Fill one more line of facts."""
    page = made.page
    page.get_by_role("button", name="Add a fact").click()
    row = page.locator(".add-fact").last
    row.get_by_label("The new entity is").select_option(side)
    row.get_by_label("Relation").select_option(relation)
    row.get_by_role("combobox", name="Other entity").type(other)
    row.locator("[role=listbox] li").first.click()
    return row


def test_an_entity_is_added_where_search_finds_nothing_and_taken_back(
    visit: Callable[..., Visit], site: Site, run: Run
) -> None:
    made = visit(site)
    page = made.go("#/")
    page.keyboard.press("/")
    page.keyboard.type("Newland")
    made.see("#search .trouble >> text=Add it as a new entity").click()
    made.settle()
    assert page.locator("h1").text_content() == "Add an entity"
    assert page.get_by_label("Name").input_value() == "Newland"
    page.get_by_label("Text").fill("a red house")
    page.get_by_label("Pictures (image)").set_input_files(
        [file("one.png", picture(80)), file("two.png", picture(90))]
    )
    made.until(lambda: page.locator(".add-pictures >> text=ready").count() == 2)
    shown = page.locator(".add-picture").first
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 40
    page.get_by_role("button", name="Leave out: two.png").click()
    page.get_by_role("button", name="Add a number").click()
    page.get_by_label("Number", exact=True).fill("16")
    fact(made, "head", "r", "e1")
    fact(made, "tail", "r", "e3")
    page.get_by_role("button", name="Add it").click()
    made.see(".tag >> text=added")
    assert page.url.endswith("#/entity/Newland")
    (kept,) = run.additions()
    assert kept.facts == (("Newland", "r", "e1"), ("e3", "r", "Newland"))
    assert dict(kept.given) == {
        "image": "a file",
        "number": "size = 16",
        "word": "a text of 11 characters",
    }
    made.settle()
    card = made.text(".card:has(h2:text-is('Added'))")
    for told in ("image: a file", "size = 16", "a text of 11 characters"):
        assert told in card
    made.go("#/entity/Newland/facts")
    assert page.locator(".fact-ends a").all_text_contents() == ["e1", "e3"]
    # The start counts it, and it can be found.
    made.go("#/")
    assert "one of the entities added" in made.text(".under-title")
    made.go("#/entity/Newland")
    page.get_by_role("button", name="Take it back").click()
    made.see("dialog >> text=Cancel").click()
    page.wait_for_selector("dialog", state="detached")
    assert run.additions()
    page.get_by_role("button", name="Take it back").click()
    page.locator("dialog").get_by_role("button", name="Take it back").click()
    made.see(".doors")
    assert not run.additions()
    assert "added" not in made.text(".under-title")


def test_by_keyboard_alone(visit: Callable[..., Visit], site: Site, run: Run) -> None:
    made = visit(site)
    page = made.go("#/")
    page.keyboard.press("g")
    page.keyboard.press("n")
    made.see("form.add")
    page.get_by_label("Name").focus()
    page.keyboard.type("Ada")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Add a fact":
            break
    page.keyboard.press("Enter")  # the new line takes the focus
    page.keyboard.press("Tab")
    page.keyboard.type("r")
    page.keyboard.press("Tab")
    page.keyboard.type("e2")
    made.see(".add-fact [role=option]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    made.see(".tag >> text=added")
    made.settle()
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert run.additions()[0].facts == (("Ada", "r", "e2"),)


def test_what_is_wrong_stands_beside_its_field(
    visit: Callable[..., Visit], site: Site, run: Run
) -> None:
    made = visit(site, refusals=True)
    page = made.go("#/add")
    add = page.get_by_role("button", name="Add it")
    beside = lambda field: page.locator(".labelled", has=field).locator(".field-trouble")  # noqa: E731
    add.click()
    name = page.get_by_label("Name")
    assert beside(name).text_content() == "Give it a name."
    assert name.evaluate("field => field === document.activeElement")
    name.fill("e1")
    assert beside(name).text_content() == ""
    assert name.get_attribute("aria-invalid") is None
    pictures = page.get_by_label("Pictures (image)")
    pictures.set_input_files([file("no.png", b"no picture")])
    made.until(lambda: "no picture of a known format" in beside(pictures).text_content())
    add.click()
    made.until(lambda: add.is_enabled())
    assert "no.png" in beside(pictures).text_content()
    page.get_by_role("button", name="Leave out: no.png").click()
    page.get_by_role("button", name="Add a number").click()
    page.get_by_role("button", name="Add a fact").click()
    add.click()
    made.see(".add-number .field-trouble >> text=Give a number, or leave this line out.")
    made.see(".add-fact .field-trouble >> text=Give a relation and an entity")
    page.get_by_role("button", name="Leave out: number").click()
    row = page.locator(".add-fact").first
    row.get_by_label("Relation").select_option("r")
    other = row.get_by_role("combobox", name="Other entity")
    other.fill("e99")
    add.click()  # the server looks at the name first
    made.until(lambda: "is an entity of the graph" in beside(name).text_content())
    name.fill("Ada")
    add.click()
    made.until(lambda: "no entity named 'e99'" in row.locator(".field-trouble").text_content())
    assert other.get_attribute("aria-invalid") == "true"
    found = axe_api.Axe().run(page, options=OPTIONS)
    assert found.violations_count == 0, found.generate_report()
    other.fill("e2")
    add.click()
    made.see(".tag >> text=added")
    assert len(run.additions()) == 1


def test_one_that_others_name_is_not_taken_back(
    visit: Callable[..., Visit], site: Site, run: Run
) -> None:
    run.add("Ada", [("Ada", "r", "e1")])
    run.add("Bob", [("Bob", "r", "Ada")])
    made = visit(site, refusals=True)
    page = made.go("#/entity/Ada")
    page.get_by_role("button", name="Take it back").click()
    page.locator("dialog").get_by_role("button", name="Take it back").click()
    assert "facts of 'Bob' name 'Ada'" in made.text(".toast.bad")
    assert len(run.additions()) == 2


def test_nothing_is_offered_where_the_server_does_not_add(
    visit: Callable[..., Visit], run: Run, tmp_path: Path
) -> None:
    run.add("Ada", [("Ada", "r", "e1")])
    with serving([run], tmp_path / "other.sqlite") as site:
        made = visit(site, refusals=True)
        page = made.go("#/entity/Ada")
        made.see(".tag >> text=added")
        assert page.get_by_role("button", name="Take it back").count() == 0
        made.go("#/entity/Newland")
        made.see(".failure")
        page.keyboard.press("/")
        page.keyboard.type("Newland")
        made.see("#search .trouble >> text=No entity has a name like this.")
        assert page.get_by_text("Add it as a new entity").count() == 0
        assert not page.locator("#add").is_visible()
        made.go("#/add")
        assert "mocme serve RUN --additions" in made.text(".empty")
        made.go("#/")
        assert page.locator(".door").count() == 3


def test_pictures_are_sent_with_the_token(
    visit: Callable[..., Visit], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "room").mkdir()
    with serving([run], tmp_path / "other.sqlite", TOKEN, tmp_path / "room") as site:
        made = visit(site, refusals=True)
        page = made.page
        page.goto(site.url + "#/entity/Ada")
        made.see("dialog input").fill(TOKEN)
        page.keyboard.press("Enter")
        made.see("text=Add it as a new entity").click()
        assert page.get_by_label("Name").input_value() == "Ada"
        page.get_by_label("Pictures (image)").set_input_files([file("one.png", picture(80))])
        made.see(".add-pictures >> text=ready")
        page.get_by_role("button", name="Add it").click()
        made.see(".tag >> text=added")
    assert "image" in run.additions()[0].vectors


def test_hostile_names_stay_names(visit: Callable[..., Visit], site: Site, run: Run) -> None:
    name = "<img src=x onerror=window.hacked=1>/../?a=b&c#d%2F \u202e"
    made = visit(site)
    page = made.go("#/add")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Add it").click()
    made.see(".tag >> text=added")
    made.settle()
    assert page.locator("h1").text_content() == name
    page.get_by_role("button", name="Take it back").click()
    assert name in made.text("dialog")
    page.locator("dialog").get_by_role("button", name="Take it back").click()
    made.see(".doors")
    assert not run.additions()
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("view", ["add", "addition", "dialog"])
def test_axe_finds_nothing_in_light_and_dark_and_on_a_phone(
    view: str, visit: Callable[..., Visit], site: Site, run: Run
) -> None:
    run.add("Ada", [("Ada", "r", "e1")], text="a blue house")
    made = visit(site, viewport={"width": 1280, "height": 900})
    page = made.go("#/add?name=Newland" if view == "add" else "#/entity/Ada")
    if view == "add":
        page.get_by_label("Pictures (image)").set_input_files(
            [file("a picture with quite a long name.png", picture(80))]
        )
        made.see(".add-pictures >> text=ready")
        page.get_by_role("button", name="Add a number").click()
        fact(made, "head", "r", "e1")
    elif view == "addition":
        made.see(".notes >> text=not in the run's vocabulary")
    else:
        page.get_by_role("button", name="Take it back").click()
        made.see("dialog")
    for scheme, width in (("light", 1280), ("dark", 1280), ("dark", 375), ("light", 375)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 812})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if (scheme, width) != ("dark", 375):
            found = axe_api.Axe().run(page, options=OPTIONS if scheme == "light" else COLOURS)
            assert found.violations_count == 0, (scheme, width, found.generate_report())
