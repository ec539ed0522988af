"""The page of `selfextend serve` in a browser: from a dropped file to the marked page, and what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="starlette isn't there: pip install 'selfextend-local[serve]'")

from support.browser import PATIENCE_MS, ask, drop, expect, marked_pixels, opened
from support.fake_page_server import Answer, FakeServer, fake_page_server

from selfextend_local.sample.book import report_pdf

pytestmark = pytest.mark.process

QUOTE = "The pass key of the north vault is 48213."
FACT = Answer(
    pieces=("The pass key is ", "**48213** ", "[page 3]."),
    citations=({"page": 3, "label": "3", "quote": QUOTE, "verified": True},),
)
LOOKED = replace(FACT, looked_at=({"page": 3, "label": "3", "weight": 0.6}, {"page": 12, "label": "12", "weight": 0.3}))
HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'
ARABIC = "رمز الخزنة الشمالية هو 48213."


@pytest.fixture(scope="module")
def pdf() -> bytes:
    return report_pdf()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with fake_page_server(tmp_path) as fake:
        yield fake


@pytest.fixture
def page(browser: Any, server: FakeServer) -> Iterator[Any]:
    yield from opened(browser, server.url)


def _read(page: Any, name: str, data: bytes) -> None:
    drop(page, name, data)
    page.get_by_role("button", name=name, exact=True).wait_for()


def test_from_the_drop_to_the_marked_page(page: Any, server: FakeServer, pdf: bytes) -> None:
    server.upload_waits = True
    server.answers = [Answer(FACT.pieces, FACT.citations, waits_before=2)]
    expect(page.get_by_role("heading", name="Ask a long document")).to_be_visible()
    drop(page, "report.pdf", pdf)
    rows = page.get_by_role("list", name="Documents of this conversation")
    expect(rows).to_contain_text("Reading the pages: 3 of 12 pages")
    server.go.set()
    expect(rows).to_contain_text("about 31 s left")
    expect(rows.get_by_role("progressbar")).to_have_accessible_name("Reading report.pdf")
    server.go.set()
    expect(page.get_by_role("checkbox", name="Ask report.pdf")).to_be_checked()
    expect(page.get_by_label("Question", exact=True)).to_be_focused()

    server.go.clear()
    ask(page, "What is the pass key?")
    log = page.get_by_role("log")
    expect(log).to_contain_text("The pass key is 48213")
    expect(log).not_to_contain_text("[page 3]")
    server.go.set()
    reference = log.get_by_role("button", name="page 3", exact=True)
    reference.wait_for()
    source = page.get_by_role("region", name="Pages named in the answer").get_by_role("button")
    expect(source).to_contain_text("The page says so")
    expect(log).to_contain_text("9,000 tokens in view, 50 of them new")

    reference.click()
    viewer = page.get_by_role("region", name="report.pdf")
    picture = viewer.get_by_role("img")
    expect(picture).to_have_accessible_name("Page 3 of 40 of report.pdf, with the passage marked")
    assert marked_pixels(page) > 500
    expect(viewer.get_by_role("heading")).to_be_focused()
    viewer.get_by_role("button", name="Page after").click()
    expect(picture).to_have_accessible_name("Page 4 of 40 of report.pdf")
    viewer.get_by_role("button", name="Page before").click()
    viewer.get_by_role("button", name="Text").click()
    expect(viewer.locator("mark")).to_have_text(QUOTE.rstrip("."))
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(reference).to_be_focused()
    [asked] = server.asked
    assert asked["messages"] == [{"role": "user", "content": "What is the pass key?"}]
    assert asked["document_ids"] == list(server.documents)
    assert asked["stream"] and asked["return_progress"]


def test_the_next_question_carries_the_conversation_and_a_reload_keeps_it(page: Any, server: FakeServer, pdf: bytes) -> None:
    server.answers = [FACT, Answer(("In the vault.",))]
    _read(page, "report.pdf", pdf)
    ask(page, "What is the pass key?")
    page.get_by_role("button", name="page 3", exact=True).wait_for()
    page.reload()
    page.get_by_role("button", name="page 3", exact=True).wait_for()
    ask(page, "Where are the logbooks?")
    expect(page.get_by_role("log")).to_contain_text("In the vault.")
    assert [message["content"] for message in server.asked[1]["messages"]] == [
        "What is the pass key?",
        "The pass key is **48213** [page 3].",
        "Where are the logbooks?",
    ]
    assert server.asked[1]["document_ids"] == list(server.documents)
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_role("log")).to_be_empty()


def test_the_pages_that_the_model_looked_at_stand_in_a_line_and_open(page: Any, server: FakeServer, pdf: bytes) -> None:
    server.answers = [LOOKED, FACT]
    _read(page, "report.pdf", pdf)
    ask(page, "What is the pass key?")
    line = page.locator("#log .looked")
    expect(line).to_have_text("For this question the model looked at page 3, page 12")
    page.reload()
    line.get_by_role("button", name="page 12", exact=True).click()
    picture = page.get_by_role("region", name="report.pdf").get_by_role("img")
    expect(picture).to_have_accessible_name("Page 12 of 40 of report.pdf")
    page.keyboard.press("Escape")
    _read(page, "minutes.txt", b"The trustees met in May.")
    page.get_by_role("button", name="Ask again").click()
    page.locator("#log .reference").wait_for()
    expect(line).to_have_count(0)


def test_stop_ends_the_request_and_keeps_what_came(page: Any, server: FakeServer) -> None:
    server.answers = [Answer(("It begins ", "and never ends."), waits_before=1), Answer(("Done.",))]
    ask(page, "Tell me all")
    log = page.get_by_role("log")
    expect(log).to_contain_text("It begins")
    page.get_by_role("button", name="Stop the answer").click()
    assert server.left.wait(PATIENCE_MS / 1000)
    expect(log).to_contain_text("You stopped this answer.")
    expect(log).to_contain_text("It begins")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    page.get_by_role("button", name="Ask again").click()
    expect(log).to_contain_text("Done.")
    assert [body["messages"][-1]["content"] for body in server.asked] == ["Tell me all"] * 2


def test_a_document_that_is_being_read_can_be_stopped(page: Any, server: FakeServer, pdf: bytes) -> None:
    server.upload_waits = True
    drop(page, "report.pdf", pdf)
    expect(page.locator("#reading")).to_contain_text("3 of 12 pages")
    page.get_by_role("button", name="Stop", exact=True).click()
    assert server.left.wait(PATIENCE_MS / 1000)
    expect(page.get_by_role("button", name="Choose a file")).to_be_focused()
    assert server.documents == {}


def test_hostile_names_and_answers_stay_text(page: Any, server: FakeServer, pdf: bytes) -> None:
    server.more_notes = (f"left out: {HOSTILE}",)
    name = HOSTILE.replace("/", ":").replace('"', "'") + ".pdf"
    said = (
        f"{HOSTILE}\n\n- {HOSTILE}\n\n| a | b |\n|---|---|\n| {HOSTILE} | `{HOSTILE}` |\n\n```\n{HOSTILE}\n```\n\n"
        f"**{HOSTILE}** [x](javascript:hit=1) [page 3]"
    )
    server.answers = [
        Answer((said,), ({"page": 3, "label": "3", "quote": HOSTILE, "verified": False},)),
        Answer(error=(400, HOSTILE)),
    ]
    drop(page, name, pdf)
    expect(page.get_by_role("list", name="Documents of this conversation")).to_contain_text(name)
    page.get_by_text("notes on the reading").click()
    ask(page, HOSTILE)
    page.get_by_role("button", name="page 3", exact=True).click()
    expect(page.locator("#viewer blockquote")).to_have_text(HOSTILE)
    expect(page.locator("#viewer-title")).to_have_text(name)
    page.get_by_role("button", name="Close the page").click()
    ask(page, "And now?")
    expect(page.get_by_role("alert")).to_contain_text(HOSTILE)
    page.get_by_role("button", name=f"Delete {name}").click()
    expect(page.get_by_role("dialog")).to_contain_text(name)
    assert page.locator("#log img, #log script, #log a, #documents img, dialog img, body script").count() == 0
    assert page.locator("#log").inner_text().count(HOSTILE) >= 7
    assert page.evaluate("window.hit") is None


def test_the_text_of_an_answer(page: Any, server: FakeServer) -> None:
    said = (
        "# Findings\n\nOne *line*\nand **another**.\n\n1. first\n   - inner `a*b*`\n2. second\n\n"
        "| Who | When |\n|---|---|\n| Ann | 1987 |\n\n> told\n\n```py\nprint('<b>')\n```\n2 * 3 * 4 = 24\n\nein_wort_mit_strichen"
    )
    server.answers = [Answer(tuple(said[at : at + 3] for at in range(0, len(said), 3)))]
    ask(page, "All?")
    page.get_by_role("button", name="Ask again").wait_for()
    assert page.locator(".answer > .text").inner_html().replace(' dir="auto"', "") == (
        "<h3>Findings</h3><p>One <em>line</em>\nand <strong>another</strong>.</p>"
        "<ol><li>first<ul><li>inner <code>a*b*</code></li></ul></li><li>second</li></ol>"
        '<div class="wide" tabindex="0" role="region" aria-label="Table"><table><thead><tr><th>Who</th><th>When</th></tr></thead>'
        "<tbody><tr><td>Ann</td><td>1987</td></tr></tbody></table></div>"
        "<blockquote>told</blockquote>"
        '<pre tabindex="0" dir="ltr"><code>print(\'&lt;b&gt;\')</code></pre><p>2 * 3 * 4 = 24</p><p>ein_wort_mit_strichen</p>'
    )


def test_errors_stand_where_they_happened_and_can_be_tried_again(page: Any, server: FakeServer, pdf: bytes) -> None:
    too_long = "The prompt has 41,000 tokens, 32,768 fit: start the server with --need-tokens 41000."
    broken = {"error": {"message": "The model stopped: see the log."}}
    server.upload_errors = ["report.pdf is locked with a password: remove it first."]
    server.answers = [Answer(error=(400, too_long)), Answer(("Half ", broken)), FACT]
    drop(page, "report.pdf", pdf)
    row = page.get_by_role("list", name="Documents of this conversation")
    expect(row.get_by_role("alert")).to_contain_text("report.pdf is locked with a password: remove it first.")
    row.get_by_role("button", name="Try again").click()
    page.get_by_role("checkbox", name="Ask report.pdf").wait_for()
    ask(page, "What is the pass key?")
    log = page.get_by_role("log")
    expect(log.get_by_role("alert")).to_contain_text(too_long)
    log.get_by_role("button", name="Try again").click()
    expect(log.get_by_role("alert")).to_contain_text("The model stopped: see the log.")
    expect(log).to_contain_text("Half")
    log.get_by_role("button", name="Try again").click()
    log.get_by_role("button", name="page 3", exact=True).wait_for()
    assert log.get_by_role("alert").count() == 0
    assert [len(body["messages"]) for body in server.asked] == [1, 1, 1]


def test_what_failed_long_ago_cant_take_later_answers_with_it(page: Any, server: FakeServer) -> None:
    server.answers = [Answer(error=(500, "A fault.")), Answer(("Later.",))]
    ask(page, "First?")
    page.get_by_role("alert").wait_for()
    ask(page, "Second?")
    page.get_by_role("button", name="Ask again").wait_for()
    for _ in range(2):
        expect(page.get_by_role("log")).to_contain_text("A fault.")
        expect(page.get_by_role("button", name="Try again")).to_have_count(0)
        page.reload()
        page.get_by_role("button", name="Ask again").wait_for()


def test_a_server_that_is_gone_is_named(browser: Any, tmp_path: Path) -> None:
    with fake_page_server(tmp_path) as server:
        tabs = opened(browser, server.url)
        page = next(tabs)
        expect(page.locator("#model")).to_have_text("mistral-7b-q4")
    ask(page, "Are you there?")
    expect(page.get_by_role("alert")).to_contain_text("Is selfextend serve still running?")


@pytest.mark.parametrize(
    ("finish", "reason", "said"),
    [("length", "length", "greatest length"), ("stop", "loop", "round in circles"), ("length", "context", "full")],
)
def test_an_answer_that_was_cut_says_so(page: Any, server: FakeServer, finish: str, reason: str, said: str) -> None:
    server.answers = [Answer(("Word " * 5,), finish=finish, stop_reason=reason)]
    ask(page, "All?")
    expect(page.get_by_role("log")).to_contain_text(said)


def test_those_documents_are_asked_that_are_ticked(page: Any, server: FakeServer, pdf: bytes) -> None:
    _read(page, "report.pdf", pdf)
    _read(page, "minutes.txt", b"The trustees met in May.")
    expect(page.get_by_label("Question", exact=True)).to_have_attribute("placeholder", "Ask 2 documents")
    page.get_by_role("checkbox", name="Ask report.pdf").uncheck()
    ask(page, "When?")
    expect(page.get_by_role("log")).to_contain_text("Yes.")
    [minutes] = [id for id, document in server.documents.items() if document["filename"] == "minutes.txt"]
    assert server.asked[0]["document_ids"] == [minutes]
    page.get_by_role("checkbox", name="Ask minutes.txt").uncheck()
    ask(page, "And without?")
    expect(page.get_by_role("log").get_by_text("Yes.")).to_have_count(2)
    assert "document_ids" not in server.asked[1]


def test_kept_documents_are_opened_and_deleted(browser: Any, server: FakeServer, pdf: bytes) -> None:
    server.keep("report.pdf", pdf)
    server.keep("minutes.txt", b"The trustees met in May.")
    for page in opened(browser, server.url):
        kept = page.get_by_role("list", name="Documents kept by the server, to open again")
        expect(kept.get_by_role("listitem")).to_have_count(2)
        kept.get_by_role("button", name="Open report.pdf").click()
        expect(page.get_by_role("checkbox", name="Ask report.pdf")).to_be_checked()
        delete = page.get_by_role("button", name="Delete minutes.txt")
        delete.click()
        page.get_by_role("dialog").get_by_role("button", name="Keep").click()
        assert len(server.documents) == 2
        delete.click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(delete).to_have_count(0)
        assert [document["filename"] for document in server.documents.values()] == ["report.pdf"]
        page.get_by_role("button", name="Take report.pdf out of the conversation").click()
        expect(kept.get_by_role("button", name="Open report.pdf")).to_be_visible()


def test_the_key_is_asked_for_once_and_kept_for_the_tab(browser: Any, tmp_path: Path) -> None:
    with fake_page_server(tmp_path, key="right") as server:
        server.keep("minutes.txt", b"The trustees met in May.")
        for page in opened(browser, server.url):
            field = page.get_by_label("API key")
            field.fill("wrong")
            page.keyboard.press("Enter")
            expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("doesn't take this key")
            field.fill("right")
            page.get_by_role("button", name="Use the key").click()
            page.get_by_role("button", name="Open minutes.txt").click()
            page.reload()
            ask(page, "When?")
            expect(page.get_by_role("log")).to_contain_text("Yes.")
            assert page.evaluate("Object.keys(localStorage)") == []


def test_a_model_that_is_being_loaded_is_waited_for(browser: Any, server: FakeServer) -> None:
    server.loading = True
    for page in opened(browser, server.url):
        expect(page.locator("#model")).to_have_text("The model is being loaded…")
        ask(page, "Early?")
        server.loading = False
        expect(page.get_by_role("log")).to_contain_text("Yes.")


def test_an_arabic_document_is_set_from_right_to_left_with_its_passage_marked(page: Any, server: FakeServer) -> None:
    server.answers = [Answer((f"{ARABIC} [page 1]",), ({"page": 1, "label": "1", "quote": ARABIC, "verified": True},))]
    _read(page, "تقرير.txt", f"مقدمة\n\n{ARABIC}\n".encode())
    ask(page, "ما هو الرمز؟")
    reference = page.get_by_role("button", name="page 1", exact=True)
    reference.click()
    expect(page.locator("#viewer-body mark")).to_have_text(ARABIC.rstrip("."))
    directions = "(nodes) => nodes.map((node) => getComputedStyle(node).direction)"
    texts = page.locator("#log .question, #log .text p, #viewer-body p, #viewer blockquote, #opened .name bdi")
    assert set(texts.evaluate_all(directions)) == {"rtl"}


def test_what_was_left_out_can_be_read(page: Any, server: FakeServer, pdf: bytes) -> None:
    _read(page, "report.pdf", pdf)
    notes = server.documents[next(iter(server.documents))]["notes"]
    assert notes
    page.locator("#opened summary").click()
    for note in notes:
        expect(page.locator("#opened .notes")).to_contain_text(note)


_NAMELESS = """() => [...document.querySelectorAll("button, input, textarea, summary, progress, meter, img, dialog, section, aside")]
  .filter((e) => e.checkVisibility() && !(
    e.getAttribute("aria-label")?.trim() || e.alt?.trim() || e.labels?.length || e.textContent.trim() && /BUTTON|SUMMARY/.test(e.tagName)
    || document.getElementById(e.getAttribute("aria-labelledby"))?.textContent.trim()))
  .map((e) => e.outerHTML.slice(0, 120))"""

_FAINT = """() => {
  const rgb = (c) => (c.match(/[\\d.]+/g) ?? []).map(Number);
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => {
    const v = c[i] / 255; return sum + part * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length === 3) return c; }
    return [255, 255, 255]; };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode()); ) {
    const e = node.parentElement;
    if (!node.data.trim() || !e.checkVisibility() || e.closest(".unseen, svg, .skip, :disabled")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`${node.data.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_all_has_a_name_and_can_be_seen(browser: Any, server: FakeServer, pdf: bytes, scheme: str, width: int) -> None:
    server.answers = [LOOKED, Answer(error=(400, "Too long."))]
    server.keep("minutes.txt", b"The trustees met in May.")
    for page in opened(browser, server.url, color_scheme=scheme, viewport={"width": width, "height": 800}):
        _check(page)
        drop(page, "report.pdf", pdf)
        page.get_by_label("Question", exact=True).wait_for()
        expect(page.locator("#opened input")).to_have_count(1)
        ask(page, "What is the pass key?")
        page.locator("#log .reference").wait_for()
        ask(page, "And more?")
        page.get_by_role("alert").wait_for()
        _check(page)
        page.locator("#log .reference").click()
        page.locator("#viewer-body img").wait_for()
        _check(page)
        page.keyboard.press("Escape")
        if width < 900:
            page.get_by_role("button", name="1 document").click()
            _check(page)
        page.get_by_role("button", name="Delete report.pdf").click()
        _check(page)


def _check(page: Any) -> None:
    assert page.evaluate(_NAMELESS) == []
    assert page.evaluate(_FAINT) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_landmarks_and_the_way_by_keyboard(page: Any, server: FakeServer, pdf: bytes) -> None:
    server.answers = [FACT]
    for role in ("banner", "main", "log", "status"):
        assert page.get_by_role(role).count() == 1, role
    _read(page, "report.pdf", pdf)
    assert page.get_by_role("complementary", name="Documents").count() == 1
    page.reload()
    page.get_by_role("checkbox").wait_for()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("What is the pass key?")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="page 3", exact=True).wait_for()
    for _ in range(30):
        if page.evaluate("document.activeElement.classList.contains('reference')"):
            break
        page.keyboard.press("Shift+Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="report.pdf").get_by_role("heading")).to_be_focused()
    expect(page.get_by_role("status")).to_have_text("Page 3 of 40, the passage is marked")


def test_on_a_phone_what_is_covered_is_out_of_reach(browser: Any, server: FakeServer, pdf: bytes) -> None:
    server.answers = [FACT]
    for page in opened(browser, server.url, viewport={"width": 360, "height": 700}, has_touch=True):
        page.get_by_role("button", name="Choose a file").wait_for()
        drop(page, "report.pdf", pdf)
        expect(page.locator("#opened input")).to_have_count(1)
        ask(page, "What is the pass key?")
        page.get_by_role("button", name="page 3", exact=True).tap()
        page.locator("#viewer-body img").wait_for()
        assert page.locator("#viewer").bounding_box() == {"x": 0, "y": 0, "width": 360, "height": 700}
        assert page.evaluate("['#conversation', '#documents', 'header'].every((q) => document.querySelector(q).inert)")
        page.get_by_role("button", name="Close the page").tap()
        assert not page.evaluate("document.querySelector('#conversation').inert")
        page.get_by_role("button", name="1 document").tap()
        page.get_by_role("checkbox", name="Ask report.pdf").wait_for()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="1 document")).to_be_focused()
