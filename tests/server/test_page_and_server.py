"""The page in a browser on the server itself: a real PDF, from the drop to the marked page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("starlette", reason="starlette isn't there: pip install 'selfextend-local[serve]'")

from support.browser import ask, drop, expect, marked_pixels, opened
from support.scripted_model import make_scripted_model
from support.served import Served, served

from selfextend_local.sessions import StateCache

pytestmark = [pytest.mark.native, pytest.mark.process]

FACT = "The key of the north vault is 48213."
FILLER = "Nothing happened on this day, and nobody wrote a word of it. "
SCRIPTS = {
    "1": ["\U0001f511 ", "The key of the north vault", " is **48213**", " [page ii]", "."],
    "2": ["The key of the north vault is 48213. ", "It is well kept."],
    "3": ["Somebody said so [page 99]."],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("home")
    model = make_scripted_model(folder / "scripted.gguf", SCRIPTS, trained_window=8192)
    with served(model, shelf=folder / "documents", cache=StateCache(folder / "states")) as running:
        yield running


@pytest.fixture(scope="module")
def pdf() -> bytes:
    from fpdf import FPDF

    report = FPDF()
    report.set_font("Helvetica", size=11)
    for text in (FILLER * 6, FILLER * 3 + FACT + " " + FILLER * 3, FILLER * 6):
        report.add_page(label_style="r")
        report.multi_cell(0, 6, text)
    return bytes(report.output())


@pytest.fixture
def page(browser: Any, server: Served, pdf: bytes) -> Iterator[Any]:
    for tab in opened(browser, server.url):
        drop(tab, "report.pdf", pdf)
        expect(tab.get_by_role("checkbox", name="Ask report.pdf")).to_be_checked()
        yield tab


def test_from_the_drop_to_the_marked_page(page: Any) -> None:
    ask(page, "The key? 1")
    log = page.get_by_role("log")
    reference = log.get_by_role("button", name="page ii", exact=True)
    reference.wait_for()
    assert log.locator(".answer > .text").inner_text() == "\U0001f511 The key of the north vault is 48213 page ii."
    reference.click()
    picture = page.get_by_role("region", name="report.pdf").get_by_role("img")
    expect(picture).to_have_accessible_name("Page ii (2 of 3) of report.pdf, with the passage marked")
    assert marked_pixels(page) > 500
    page.get_by_role("button", name="Text", exact=True).click()
    expect(page.locator("#viewer-body mark")).to_have_text(FACT.rstrip("."))


def test_a_sentence_without_a_page_gets_the_one_that_bears_it_out(page: Any) -> None:
    ask(page, "The key? 2")
    text = page.locator("#log .answer > .text")
    expect(text).to_have_text("The key of the north vault is 48213. page ii It is well kept.")
    expect(text.get_by_role("button", name="page ii")).to_have_class("reference true")


def test_a_page_that_isnt_there_is_said_not_linked(page: Any) -> None:
    ask(page, "The key? 3")
    log = page.get_by_role("log")
    expect(log.get_by_role("region")).to_contain_text("There is no such page")
    expect(log.locator(".answer > .text")).to_have_text("Somebody said so page 99.")
    assert log.get_by_role("button", name="page 99").count() == 0


def test_a_document_of_before_is_opened_asked_and_deleted(browser: Any, page: Any, server: Served) -> None:
    for tab in opened(browser, server.url):
        tab.get_by_role("button", name="Open report.pdf").click()
        ask(tab, "The key? 1")
        tab.get_by_role("button", name="page ii", exact=True).wait_for()
        tab.get_by_role("button", name="Delete report.pdf").click()
        tab.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(tab.get_by_role("button", name="Delete report.pdf")).to_have_count(0)
        assert server.http.get("/v1/documents").json()["data"] == []


def test_what_cant_be_read_says_why_in_place(browser: Any, server: Served) -> None:
    for tab in opened(browser, server.url):
        drop(tab, "broken.pdf", b"%PDF-1.7 and nothing more")
        alert = tab.get_by_role("list", name="Documents of this conversation").get_by_role("alert")
        expect(alert).to_contain_text("broken.pdf")
        tab.get_by_role("button", name="Put broken.pdf away").click()
        expect(tab.get_by_role("heading", name="Ask a long document")).to_be_visible()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, server: Served, pdf: bytes, scheme: str, width: int) -> None:
    """The page empty, with an answer, with a marked page, and on a phone the list of documents, by the rules of axe-core."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe isn't there: pip install axe-playwright-python").Axe()

    def violations(tab: Any) -> list[str]:
        found = axe.run(tab).response["violations"]
        return [f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}" for one in found]

    for tab in opened(browser, server.url, color_scheme=scheme, viewport={"width": width, "height": 800}):
        assert violations(tab) == []
        drop(tab, "report.pdf", pdf)
        expect(tab.locator("#opened input")).to_be_checked()
        ask(tab, "The key? 1")
        reference = tab.get_by_role("log").get_by_role("button", name="page ii", exact=True)
        expect(reference).to_be_visible()
        assert violations(tab) == []
        reference.click()
        expect(tab.locator("#viewer-body img")).to_be_visible()
        assert violations(tab) == []
        tab.keyboard.press("Escape")
        if width < 900:
            tab.get_by_role("button", name="1 document").click()
            assert violations(tab) == []
