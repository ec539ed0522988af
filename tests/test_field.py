"""Documents as users of such programs report them; each has a right outcome (tests/data/field/README.md).

A row is a file, what its text has, what it hasn't, and what is said about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from selfextend_local.documents import Document, load_document
from selfextend_local.errors import DocumentUnsupported

FIELD = Path(__file__).parent / "data" / "field"


@dataclass(frozen=True)
class Row:
    file: str
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    says: str = ""
    labels: tuple[str, ...] = ()


WRITTEN = (
    Row("docx-altchunk.docx", ("The pump failed on Tuesday.",)),
    Row("docx-document2.docx", ("The board chose the green roof.",)),
    Row("docx-equation.docx", ("5wL/384EI", "V=42")),
    Row("docx-numbered-clauses.docx", ("# 1. Definitions", "1.1 Goods", "# 2. Delivery", "2.1 Delivery takes", "3.2 Late payment")),
    Row("docx-superscript-strike.docx", ("10^6 cells", "~~900 euros~~ 650 euros"), ("SECRETHIDDEN",)),
    Row("html-superscript.html", ("10^6", "10^-3", "x^2", "CO2", "1950[3]", "~~900~~ 650", "~~Old rule applies.~~"), ("106", "19503")),
    Row("html-body-hidden.html", ("The bridge opens on Monday.",)),
    Row("html-katex.html", (r"is E=\frac{7}{8}q^2 here",), ("E=78q2",)),
    Row("html-wikimath.html", ("The energy is E=7q^2 for every cell.",), ("displaystyle",)),
    Row("epub-notes.epub", ("1843[1]", "Some say 1844."), labels=("One", "Two")),
    Row("epub-undeclared-prefix.epub", ("burned down[1]",), labels=("One", "Two")),
    Row("epub-bare-ampersand.epub", ("burned down[1]",), labels=("One", "Two")),
    Row("epub-case-mismatch.epub", ("burned down[1]", "in stone"), labels=("One", "Two")),
    Row("epub-backslash.epub", ("burned down[1]", "in stone"), labels=("One", "Two")),
    Row("epub-one-file.epub", labels=("Chapter One", "Chapter Two", "Chapter Three")),
    Row("epub-calibre-split.epub", labels=("Chapter One", "Chapter One 2", "Chapter Two", "Chapter Two 2")),
    Row("mail.eml", ("Subject: Prüfbericht", "inspected on 3 May and failed."), ("juzurp",), says="Attached, and not read: a PDF"),
    Row("page.mhtml", ("The café opens at nine.", "broken here by"), ("2u0uq8",)),
    Row("book.ipynb", ("The mean is 4.2", "print(1)"), ("UIvRmGe",)),
    Row("novel.fb2", ("The mill burned down.",), ("Zvspaer",), labels=("One",)),
    Row("text-cut-in-character.txt", ("“It’s ready,” she said — the café’s menu cost 5 €.",), ("\ufffd", "â"), says="isn't UTF-8"),
    Row("text-stray-byte.txt", ("“It’s ready,” she said — the café’s menu cost 5 €.",), ("\ufffd", "â"), says="isn't UTF-8"),
    Row("text-ru-cp1251.txt", ("Договор вступает в силу с момента подписания",), says="Windows-1251, which is a guess"),
    Row("text-ru-koi8.txt", ("Договор вступает в силу с момента подписания",), says="KOI8-R, which is a guess"),
    Row("text-zh-gb18030.txt", ("本合同自双方签字之日起生效。合同期限为五年。",), says="guess"),
    Row("text-zh-big5.txt", ("本合同自雙方簽字之日起生效。合同期限為五年。",), says="guess"),
    Row("text-ja-sjis.txt", ("本契約は双方が署名した日から効力を生じる。", "カタカナも含む"), says="Shift-JIS, which is a guess"),
    Row("text-ja-eucjp.txt", ("本契約は双方が署名した日から効力を生じる。",), says="guess"),
    Row("text-ko-euckr.txt", ("이 계약은 서명한 날부터 효력이 발생한다.",), says="guess"),
    Row("text-pl-cp1250.txt", ("Umowa wchodzi w życie", "wynosi pięć lat, źródło: księga"), says="Windows-1250, which is a guess"),
    Row("text-el-cp1253.txt", ("Η σύμβαση τίθεται σε ισχύ από την υπογραφή.",), says="guess"),
    Row("text-ar-cp1256.txt", ("يدخل العقد حيز التنفيذ من تاريخ التوقيع.",), says="guess"),
    Row("text-he-cp1255.txt", ("החוזה נכנס לתוקף ביום החתימה.",), says="guess"),
    Row("text-macroman.txt", ("Le contrat a été signé à Orléans.",), says="Mac Roman, which is a guess"),
)


def check(row: Row) -> Document:
    document = load_document(FIELD / row.file)
    text = "\n\n".join(page.text for page in document.pages)
    assert [words for words in row.has if words not in text] == []
    assert [words for words in row.lacks if words in text] == []
    assert row.says in " ".join(document.warnings)
    if not row.says:
        assert document.warnings == ()
    if row.labels:
        assert tuple(page.label for page in document.pages) == row.labels
    return document


@pytest.mark.parametrize("row", WRITTEN, ids=lambda row: row.file)
def test_what_a_person_sees_is_read(row: Row) -> None:
    check(row)


def test_a_footnote_belongs_to_its_page() -> None:
    document = load_document(FIELD / "docx-footnote-pages.docx")
    assert [page.text for page in document.pages] == [
        "First page text[1] goes on.\n\n[1] The audit found nine errors.",
        "Second page text without notes.",
        "Third page ends.",
    ]


def test_chapters_in_one_file_part_at_their_anchors() -> None:
    one, two, three = load_document(FIELD / "epub-one-file.epub").pages
    assert "burned" in one.text and "stone" not in one.text
    assert "stone" in two.text and "burned" not in two.text and "froze" not in two.text
    assert "froze" in three.text and "stone" not in three.text


def test_postscript_is_named_with_the_way_out() -> None:
    with pytest.raises(DocumentUnsupported, match="is PostScript: turn it into a PDF first, e.g. ps2pdf"):
        load_document(FIELD / "paper.ps")
