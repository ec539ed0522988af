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
