"""The page with the server behind it: a PDF dropped, a question asked, the cited page seen with its passage marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.browser import PATIENCE_MS, ask, chromium, drop
from support.scripted_model import make_scripted_model
from support.served import served

from selfextend_local.sessions import StateCache

pytestmark = [pytest.mark.process, pytest.mark.native]

SCRIPTS = {"1": ["The pass key of the north ", "vault is 48213", " [page 3]."]}


def _pdf() -> bytes:
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_font("Helvetica", size=12)
    for text in ("A first page.", "Another page.", "The pass key of the north vault is 48213."):
        pdf.add_page()
        pdf.multi_cell(0, 8, text)
    return bytes(pdf.output())


def test_from_a_dropped_file_to_the_marked_page(tmp_path: Path) -> None:
    model = make_scripted_model(tmp_path / "scripted.gguf", SCRIPTS, trained_window=4096)
    home: dict[str, Any] = {"shelf": tmp_path / "documents", "cache": StateCache(tmp_path / "states")}
    faults: list[str] = []
    with chromium() as browser:
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        with served(model, **home) as running:
            page.goto(running.url)
            drop(page, "report.pdf", _pdf())
            page.get_by_role("button", name="report.pdf", exact=True).wait_for()
            ask(page, "What is the pass key? 1")
            page.get_by_role("log").get_by_role("button", name="3").first.click()
            picture = page.locator("#viewer-body img")
            picture.wait_for()
            assert picture.evaluate("(picture) => picture.naturalWidth") > 300
    assert faults == []
