"""Adding and removing an entity on the page, in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from http_helpers import picture
from page_helpers import OPTIONS, TOKEN, Site, Visit, assert_accessible, axe_api, serving

from mocme.runs.run import Run


@pytest.fixture
def run(picture_run: Path, tmp_path: Path) -> Run:
    shutil.copytree(picture_run, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture
def site(run: Run, tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "pictures").mkdir()
    with serving([run], tmp_path / "reviews.sqlite", None, tmp_path / "pictures") as running:
        yield running


def png_file(name: str, data: bytes) -> dict[str, Any]:
    """Return a file in the form that Playwright selects."""
    return {"name": name, "mimeType": "image/png", "buffer": data}


def add_fact(visit: Visit, side: str, relation: str, other: str) -> Any:
    """Add a fact to the form."""
    page = visit.page
    page.get_by_role("button", name="Add a fact").click()
    row = page.locator(".add-fact").last
    row.get_by_label("The new entity is").select_option(side)
    row.get_by_label("Relation").select_option(relation)
    row.get_by_role("combobox", name="Other entity").type(other)
    row.locator("[role=listbox] li").first.click()
    return row


def test_an_entity_is_added_from_search_and_removed(
    open_visit: Callable[..., Visit], site: Site, run: Run
) -> None:
    visit = open_visit(site)
    page = visit.go("#/")
    page.keyboard.press("/")
    page.keyboard.type("Newland")
    visit.see("#search .error >> text=Add it as a new entity").click()
    visit.settle()
    assert page.locator("h1").text_content() == "Add an entity"
    assert page.get_by_label("Name").input_value() == "Newland"
    page.get_by_label("Text").fill("a red house")
    page.get_by_label("Pictures (image)").set_input_files(
        [png_file("one.png", picture(80)), png_file("two.png", picture(90))]
    )
    visit.wait_until(lambda: page.locator(".add-pictures >> text=ready").count() == 2)
    shown = page.locator(".add-picture").first
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 40
    page.get_by_role("button", name="Remove: two.png").click()
    page.get_by_role("button", name="Add a number").click()
    page.get_by_label("Number", exact=True).fill("16")
    add_fact(visit, "head", "r", "e1")
    add_fact(visit, "tail", "r", "e3")
    page.get_by_role("button", name="Add entity").click()
    visit.see(".tag >> text=added")
    assert page.url.endswith("#/entity/Newland")
    (addition,) = run.additions()
    assert addition.facts == (("Newland", "r", "e1"), ("e3", "r", "Newland"))
    assert dict(addition.given) == {
        "image": "a file",
        "number": "size = 16",
        "word": "a text of 11 characters",
    }
    visit.settle()
    card = visit.text(".card:has(h2:text-is('Added'))")
    for text in ("image: a file", "size = 16", "a text of 11 characters"):
        assert text in card
    visit.go("#/entity/Newland/facts")
    assert page.locator(".fact-ends a").all_text_contents() == ["e1", "e3"]
    # The start page counts it.
    visit.go("#/")
    assert "one of the entities added" in visit.text(".subtitle")
    visit.go("#/entity/Newland")
    page.get_by_role("button", name="Remove").click()
    visit.see("dialog >> text=Cancel").click()
    page.wait_for_selector("dialog", state="detached")
    assert run.additions()
    page.get_by_role("button", name="Remove").click()
    page.locator("dialog").get_by_role("button", name="Remove").click()
    visit.see(".home-links")
    assert not run.additions()
    assert "added" not in visit.text(".subtitle")


def test_the_form_works_with_the_keyboard(
    open_visit: Callable[..., Visit], site: Site, run: Run
) -> None:
    visit = open_visit(site)
    page = visit.go("#/")
    page.keyboard.press("g")
    page.keyboard.press("n")
    visit.see("form.add")
    page.get_by_label("Name").focus()
    page.keyboard.type("Ada")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Add a fact":
            break
    page.keyboard.press("Enter")  # the new row gets the focus
    page.keyboard.press("Tab")
    page.keyboard.type("r")
    page.keyboard.press("Tab")
    page.keyboard.type("e2")
    visit.see(".add-fact [role=option]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    visit.see(".tag >> text=added")
    visit.settle()
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert run.additions()[0].facts == (("Ada", "r", "e2"),)


def test_an_error_is_shown_next_to_its_field(
    open_visit: Callable[..., Visit], site: Site, run: Run
) -> None:
    visit = open_visit(site, refusals=True)
    page = visit.go("#/add")
    add = page.get_by_role("button", name="Add entity")
    error_of = lambda field: page.locator(".labelled", has=field).locator(".field-error")  # noqa: E731
    add.click()
    name = page.get_by_label("Name")
    assert error_of(name).text_content() == "Enter a name."
    assert name.evaluate("field => field === document.activeElement")
    name.fill("e1")
    assert error_of(name).text_content() == ""
    assert name.get_attribute("aria-invalid") is None
    pictures = page.get_by_label("Pictures (image)")
    pictures.set_input_files([png_file("no.png", b"no picture")])
    visit.wait_until(lambda: "no picture of a known format" in error_of(pictures).text_content())
    add.click()
    visit.wait_until(lambda: add.is_enabled())
    assert "no.png" in error_of(pictures).text_content()
    page.get_by_role("button", name="Remove: no.png").click()
    page.get_by_role("button", name="Add a number").click()
    page.get_by_role("button", name="Add a fact").click()
    add.click()
    visit.see(".add-number .field-error >> text=Enter a number, or remove this row.")
    visit.see(".add-fact .field-error >> text=Choose a relation and an entity")
    page.get_by_role("button", name="Remove: number").click()
    row = page.locator(".add-fact").first
    row.get_by_label("Relation").select_option("r")
    other = row.get_by_role("combobox", name="Other entity")
    other.fill("e99")
    add.click()  # the server checks the name first
    visit.wait_until(lambda: "is an entity of the graph" in error_of(name).text_content())
    name.fill("Ada")
    add.click()
    visit.wait_until(lambda: "no entity named 'e99'" in row.locator(".field-error").text_content())
    assert other.get_attribute("aria-invalid") == "true"
    result = axe_api.Axe().run(page, options=OPTIONS)
    assert result.violations_count == 0, result.generate_report()
    other.fill("e2")
    add.click()
    visit.see(".tag >> text=added")
    assert len(run.additions()) == 1


def test_an_entity_used_by_another_addition_is_not_removed(
    open_visit: Callable[..., Visit], site: Site, run: Run
) -> None:
    run.add("Ada", [("Ada", "r", "e1")])
    run.add("Bob", [("Bob", "r", "Ada")])
    visit = open_visit(site, refusals=True)
    page = visit.go("#/entity/Ada")
    page.get_by_role("button", name="Remove").click()
    page.locator("dialog").get_by_role("button", name="Remove").click()
    assert "facts of 'Bob' contain 'Ada'" in visit.text(".toast.failed")
    assert len(run.additions()) == 2


def test_additions_are_not_offered_without_the_option(
    open_visit: Callable[..., Visit], run: Run, tmp_path: Path
) -> None:
    run.add("Ada", [("Ada", "r", "e1")])
    with serving([run], tmp_path / "other.sqlite") as site:
        visit = open_visit(site, refusals=True)
        page = visit.go("#/entity/Ada")
        visit.see(".tag >> text=added")
        assert page.get_by_role("button", name="Remove").count() == 0
        visit.go("#/entity/Newland")
        visit.see(".failure")
        page.keyboard.press("/")
        page.keyboard.type("Newland")
        visit.see("#search .error >> text=No entity has a similar name.")
        assert page.get_by_text("Add it as a new entity").count() == 0
        assert not page.locator("#add").is_visible()
        visit.go("#/add")
        assert "mocme serve RUN --additions" in visit.text(".empty")
        visit.go("#/")
        assert page.locator(".home-link").count() == 3


def test_pictures_are_uploaded_with_the_token(
    open_visit: Callable[..., Visit], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "uploads").mkdir()
    with serving([run], tmp_path / "other.sqlite", TOKEN, tmp_path / "uploads") as site:
        visit = open_visit(site, refusals=True)
        page = visit.page
        page.goto(site.url + "#/entity/Ada")
        visit.see("dialog input").fill(TOKEN)
        page.keyboard.press("Enter")
        visit.see("text=Add it as a new entity").click()
        assert page.get_by_label("Name").input_value() == "Ada"
        page.get_by_label("Pictures (image)").set_input_files([png_file("one.png", picture(80))])
        visit.see(".add-pictures >> text=ready")
        page.get_by_role("button", name="Add entity").click()
        visit.see(".tag >> text=added")
    assert "image" in run.additions()[0].vectors


def test_a_hostile_name_is_shown_as_text(
    open_visit: Callable[..., Visit], site: Site, run: Run
) -> None:
    name = "<img src=x onerror=window.hacked=1>/../?a=b&c#d%2F \u202e"
    visit = open_visit(site)
    page = visit.go("#/add")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Add entity").click()
    visit.see(".tag >> text=added")
    visit.settle()
    assert page.locator("h1").text_content() == name
    page.get_by_role("button", name="Remove").click()
    assert name in visit.text("dialog")
    page.locator("dialog").get_by_role("button", name="Remove").click()
    visit.see(".home-links")
    assert not run.additions()
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("view", ["add", "addition", "dialog"])
def test_the_views_of_additions_are_accessible(
    view: str, open_visit: Callable[..., Visit], site: Site, run: Run
) -> None:
    run.add("Ada", [("Ada", "r", "e1")], text="a blue house")
    visit = open_visit(site, viewport={"width": 1280, "height": 900})
    page = visit.go("#/add?name=Newland" if view == "add" else "#/entity/Ada")
    if view == "add":
        page.get_by_label("Pictures (image)").set_input_files(
            [png_file("a picture with quite a long name.png", picture(80))]
        )
        visit.see(".add-pictures >> text=ready")
        page.get_by_role("button", name="Add a number").click()
        add_fact(visit, "head", "r", "e1")
    elif view == "addition":
        visit.see(".notes >> text=not in the run's vocabulary")
    else:
        page.get_by_role("button", name="Remove").click()
        visit.see("dialog")
    assert_accessible(page)
