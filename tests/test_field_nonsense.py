"""Text layers of nonsense: which pages are named so, which aren't, and what --ocr makes of them."""

from __future__ import annotations

import random
import string
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from selfextend_local.documents import hidden_layers, load_document, ocr
from selfextend_local.documents.legibility import is_nonsense

FIELD = Path(__file__).parent / "data" / "field"
PROSE = (
    "The water board keeps the pumps of the valley, and its engineers read the gauges each morning before the sluices open. "
    "In the dry years the board sells less water than it bought, so the price per bucket rises with the summer. "
)


def transliterated() -> str:
    return "kāna ʾAbu ’l-Huḏayli ʾahdā ʾilā Muwaysin daǧāǧatan wa-kānat daǧāǧatu-hu ’llatī ʾahdāhā dūna mā kāna yuttaḫaḏu " * 4


def elements() -> str:
    names = ("Praseodymium", "Neodymium", "Promethium", "Samarium", "Europium", "Gadolinium", "Terbium", "Dysprosium", "Holmium", "Erbium")
    rows = enumerate(names * 2)
    return "\n".join(f"| {n} | {name[:2]} | {name} | 1s^22s^22p^63s^23p^63d^104s^24p^64d^104f^{n % 14} |" for n, name in rows)


def mixed() -> str:
    english = "Permission is hereby granted, free of charge, to any person obtaining a copy. "
    return "本软件按原样提供，不附带任何形式的保证。" * 20 + english * 12


@pytest.mark.parametrize("text", [transliterated(), elements(), mixed(), PROSE * 4], ids=["transliterated", "elements", "mixed", "prose"])
def test_what_can_be_said_aloud_is_no_nonsense(text: str) -> None:
    assert not is_nonsense(text)


def test_letters_that_a_font_shifts_or_changes_are_nonsense() -> None:
    shifted = "".join(chr(ord(c) - 29) if ord(c) > 61 else c for c in PROSE * 3)
    assert is_nonsense(shifted)
    found = 0
    for seed in range(20):
        letters = list(string.ascii_lowercase)
        random.Random(seed).shuffle(letters)
        found += is_nonsense((PROSE * 3).lower().translate(str.maketrans(string.ascii_lowercase, "".join(letters))))
    assert found >= 10  # of alphabets changed at random some happen to look like a language


@dataclass
class Seen:
    """What RapidOCR answers."""

    boxes: Any
    txts: tuple[str, ...]
    scores: tuple[float, ...]


@pytest.mark.parametrize("file", ["pdf-garbled-layer.pdf", "pdf-no-tounicode.pdf"])
def test_ocr_takes_pages_of_nonsense(monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    box = [(100, 100), (900, 100), (900, 130), (100, 130)]
    pictures = []

    def engine(pixels: Any) -> Seen:
        pictures.append(pixels.shape)
        return Seen([box], ("The water board keeps the pumps.",), (0.99,))

    monkeypatch.setattr(ocr, "_engine", lambda: engine)
    before, after = load_document(FIELD / file), load_document(FIELD / file, ocr=True)
    assert any("can't be read" in note for note in before.notes)
    assert [page.text for page in after.pages] == ["The water board keeps the pumps."] * len(after.pages)
    assert len(pictures) == len(after.pages)
    assert not any("can't be read" in note for note in after.notes)
    assert any("Recognised from pictures (OCR)" in note for note in after.notes)


def test_ocr_leaves_pages_that_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "_engine", lambda: pytest.fail("nothing to recognise"))
    assert load_document(FIELD / "pdf-superscript.pdf", ocr=True).notes == ()


def test_the_real_engine_reads_what_the_layer_garbles() -> None:
    pytest.importorskip("rapidocr")
    text = load_document(FIELD / "pdf-garbled-layer.pdf", ocr=True).pages[0].text
    assert "water" in text or "the" in text.casefold().split()


@pytest.mark.parametrize("packed", [b"<< /Type /Catalog /OCProperties 9 0 R >>", b"<< /Type /Catalog >>" + b" " * 40000])
def test_layers_are_found_in_packed_objects(packed: bytes) -> None:
    data = b"%PDF-1.5\n1 0 obj << /Type /ObjStm /N 1 /First 4 >> stream\r\n" + zlib.compress(packed) + b"\nendstream endobj"
    assert hidden_layers._speaks_of_layers(data) is (b"/OCProperties" in packed)


def test_what_cannot_be_unpacked_may_have_layers() -> None:
    assert hidden_layers._speaks_of_layers(b"1 0 obj << /Type /ObjStm /N 1 >> stream\nnot zlib endstream")
    assert hidden_layers._speaks_of_layers(b"trailer << /Encrypt 4 0 R >>")
    assert not hidden_layers._speaks_of_layers(b"trailer << /Root 4 0 R >>")
