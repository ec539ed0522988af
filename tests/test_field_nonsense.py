"""Text layers of nonsense: which pages are named so, which aren't, and what --ocr makes of them."""

from __future__ import annotations

import random
import re
import string
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import selfextend_local
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


def speaks_of_layers(data: bytes) -> bool:
    return hidden_layers._speaks_of_layers(BytesIO(data))


@pytest.mark.parametrize("piece", [1, 2, 13, 1 << 22])
@pytest.mark.parametrize("packed", [b"<< /Type /Catalog /OCProperties 9 0 R >>", b"<< /Type /Catalog >>" + b" " * 40000])
def test_layers_are_found_in_packed_objects(monkeypatch: pytest.MonkeyPatch, packed: bytes, piece: int) -> None:
    monkeypatch.setattr(hidden_layers, "_LOOKED_THROUGH", piece)
    data = b"%PDF-1.5\n1 0 obj << /Type /ObjStm /N 1 /First 4 >> stream\r\n" + zlib.compress(packed) + b"\nendstream endobj"
    assert speaks_of_layers(data) is (b"/OCProperties" in packed)
    assert speaks_of_layers(data[:9] + packed) is (b"/OCProperties" in packed)


def test_what_cannot_be_unpacked_may_have_layers() -> None:
    assert speaks_of_layers(b"1 0 obj << /Type /ObjStm /N 1 >> stream\nnot zlib endstream")
    assert speaks_of_layers(b"trailer << /Encrypt 4 0 R >>")
    assert not speaks_of_layers(b"trailer << /Root 4 0 R >>")


def test_no_document_is_mapped() -> None:
    """A file that gets shorter while it is mapped ends the process by SIGBUS."""
    files = (Path(str(selfextend_local.__file__)).parent / "documents").rglob("*.py")
    assert [path.name for path in files if re.search(r"\b(import mmap|from mmap|memmap)\b", path.read_text(encoding="utf-8"))] == []
