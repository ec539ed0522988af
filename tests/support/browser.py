"""A Chromium without a window, driven by playwright; and what a reader of the page does in it."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PATIENCE_MS = 600_000
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_DROP = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""

_YELLOW = """(picture) => {
  const canvas = document.createElement("canvas");
  canvas.width = picture.naturalWidth; canvas.height = picture.naturalHeight;
  const drawing = canvas.getContext("2d");
  drawing.drawImage(picture, 0, 0);
  const { data } = drawing.getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let i = 0; i < data.length; i += 4) found += data[i] > 240 && data[i + 1] > 200 && data[i + 2] < 120;
  return found;
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser while the block runs; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't there: pip install playwright")
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is there: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def drop(page: Any, name: str, data: bytes, type: str = "application/pdf") -> None:
    """A file dropped on the page."""
    page.evaluate(_DROP, [name, type, base64.b64encode(data).decode()])


def ask(page: Any, question: str) -> None:
    """A question typed and sent with Enter."""
    page.get_by_label("Question", exact=True).fill(question)
    page.keyboard.press("Enter")


def expect(found: Any) -> Any:
    """What playwright says about an element, once it is so."""
    from playwright.sync_api import expect as expecting

    expecting.set_options(timeout=PATIENCE_MS)
    return expecting(found)


def opened(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """The page at `url`, watched: it asks no other host, and breaks neither its policy nor itself."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    context.set_default_timeout(PATIENCE_MS)
    tab = context.new_page()
    asked: list[str] = []
    faults: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
    tab.goto(url)
    yield tab
    assert [other for other in asked if not other.startswith((url, "blob:", "data:"))] == []
    assert faults == []
    context.close()


def marked_pixels(page: Any) -> int:
    """How many pixels of the picture of the page are yellow."""
    found: int = page.locator("#viewer-body img").evaluate(_YELLOW)
    return found
