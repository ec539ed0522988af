"""Recognising text on pages that are pictures: the one module that touches RapidOCR.

Knows the engine, whose models come in its wheel, so nothing is downloaded. Gives out lines with boxes, as a PDF would.
Must not know how pages become paragraphs. The engine is imported with the first page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from selfextend_local.documents.layout import Line, RawPage, rows_of
from selfextend_local.documents.pdf import PageImage, page_images
from selfextend_local.errors import DocumentUnsupported

_SURE = 0.5  # below this score a line is more likely dirt than text


def recognised(
    path: Path,
    pages: Sequence[RawPage],
    numbers: Sequence[int],
    *,
    data: bytes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[RawPage]:
    """`pages` of a PDF, those with these `numbers` (from 1) replaced by what can be read in their pictures.

    Args:
        path, data: as for `read_pdf`.
        progress: called as ``progress(done, len(numbers))`` after each page, which takes seconds.

    Raises:
        DocumentUnsupported: the engine isn't installed.
        DocumentDamaged: a page can't be drawn.
    """
    engine = _engine()
    found = list(pages)
    for done, image in enumerate(page_images(path, numbers, data=data), start=1):
        found[image.number - 1] = _page(engine, image, pages[image.number - 1].label)
        if progress is not None:
            progress(done, len(numbers))
    return found


@lru_cache(maxsize=1)
def _engine() -> Any:
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise DocumentUnsupported("Text recognition isn't installed: run pip install 'selfextend-local[ocr]'") from error
    return RapidOCR(params={"Global.log_level": "critical"})


def _page(engine: Any, image: PageImage, label: str) -> RawPage:
    result = engine(image.pixels)
    height, width = (side / image.scale for side in image.pixels.shape[:2])
    lines = []
    if result.boxes is not None:
        for box, text, score in zip(result.boxes, result.txts, result.scores, strict=True):
            if score >= _SURE and text.strip():
                xs, ys = ([float(point[axis]) / image.scale for point in box] for axis in (0, 1))
                lines.append(Line(text.strip(), min(xs), max(xs), min(ys), max(ys)))
    page = RawPage(tuple(lines), width, height, label, measured=True)
    return replace(page, lines=tuple(page.lines[i] for row in rows_of(page) for i in row))
