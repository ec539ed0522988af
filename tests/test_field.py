"""Documents as users of such programs report them; each has a right outcome (tests/data/field/README.md).

A row is a file, what its text has, what it hasn't, and what is said about it.
"""

from __future__ import annotations

import re
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


PDF = (
    Row("pdf-invoices.pdf", ("Invoice 1001", "Invoice 1006", "Customer number: 310", "Customer number: 315"), says="Bank account 12345678"),
    Row("pdf-payslips.pdf", ("Month: 1\n", "Month: 12"), says='"Payslip" (11 more pages)'),
    Row("pdf-articles.pdf", tuple(f"Article {n}" for n in range(1, 9))),
    Row("pdf-questions.pdf", tuple(f"Question {n}." for n in range(1, 9))),
    Row("pdf-running-head-only.pdf", ("Case 12/345, Brandt v. Harbour Board",), says="Case 12/345"),
    Row("pdf-form-filled.pdf", ("applicant:  Ottilie Brandt", "(euros):  48,250", "Married:  [x]", "chosen:  Blue")),
    Row("pdf-form-noappearance.pdf", ("applicant:  Ottilie Brandt", "(euros):  48,250", "Married:  [x]", "chosen:  Blue")),
    Row("pdf-annotations.pdf", ("Approved with a cut to 30000 euros",), says="Reviewer: figure 3 is wrong"),
    Row("pdf-xfa.pdf", says="XFA form"),
    Row("pdf-portfolio.pdf", says="minutes.pdf"),
    Row("pdf-oldstyle-figures.pdf", ("signed in 1957 and costs 2340 euros", "CHAPTER")),
    Row("pdf-chromium-astral.pdf", ("Emoji: 😀 done", "𝐀𝐁 𝑥 = 𝟕𝟓", "x² + y₃, 10⁻⁶")),
    Row("pdf-superscript.pdf", ("10^6 cells", "1950[3] rose", "m^2.")),
    Row("pdf-columns-rowwise.pdf", ("the bearing seized in winter.", "the pump was installed in the north hall and ran for nine years")),
    Row("pdf-table-columnwise.pdf", ("| Notice | Company | Staff | State |", "| 04/11/2024 | River Timber | 23 | closed |")),
    Row("pdf-hyphens.pdf", ("2019-2020", "ISO 9001-2015", "self-propelled", "well-known", "X-ray", "A-1 grade")),
    Row("pdf-bank-statement.pdf", ("\n02.01. field letter the 853\n03.01. court bridge court 187\n",)),
    Row("pdf-watermark.pdf", ("The plaintiff bought a boat from the defendant on the ninth",), ("DRAFT",), says='"DRAFT COPY" (4 pages)'),
    Row("pdf-hidden-layer.pdf", ("The fee is 650 euros.",), ("900",)),
    Row("pdf-outside-crop.pdf", ("Visible sentence on the page.",), ("SLUG", "old draft clause")),
    Row("pdf-chromium-rtl.pdf", ("החוזה נכנס לתוקף ביום החתימה ב-15 במרץ 2024. תקופת החוזה (חמש שנים) תוארך", "Acme Ltd", "48,250",
        "يدخل العقد حيز التنفيذ من تاريخ التوقيع في 15 مارس 2024. مدة العقد (خمس سنوات) تمدد")),
    Row("pdf-rtl-bilingual-crash.pdf", ("החוזה נכנס לתוקף ביום החתימה", "install bolt")),
    Row("pdf-chromium-cjk-vertical.pdf", ("縦書きの文章です。契約期間は五年とする。二〇二四年三月", "第二段落。裁判所は東京地方裁判所")),
    Row("pdf-line-numbers-rowwise.pdf", ("Valve storm pump tower rope letter\nRiver hull",), ("1 Valve", "2 River", "| 3 |")),
    Row("pdf-garbled-layer.pdf", says="--ocr"),
    Row("pdf-no-tounicode.pdf", says="--ocr"),
    Row("pdf-labels-repeated.pdf", says="told apart by their sheet",
        labels=("1 sheet 1", "2 sheet 2", "i", "ii", "1", "2", "3", "4", "5", "6")),
)


@pytest.mark.slow
@pytest.mark.parametrize("row", (*WRITTEN, *PDF), ids=lambda row: row.file)
def test_what_a_person_sees_is_read(row: Row) -> None:
    check(row)


@pytest.mark.slow
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


def test_a_genome_is_read_as_it_is() -> None:
    """What tokenizers do with it is in tests/native/test_tokenizers.py."""
    before, run, after = load_document(FIELD / "run-genome.txt").pages[0].text.split("\n\n")
    assert (before, len(run) > 47_900, after) == ("Sequence of plasmid P7, read on 3 May.", True, "The reading was repeated twice.")


def test_postscript_is_named_with_the_way_out() -> None:
    with pytest.raises(DocumentUnsupported, match="is PostScript: turn it into a PDF first, e.g. ps2pdf"):
        load_document(FIELD / "paper.ps")


def test_paragraphs_drawn_out_of_order_are_read_from_the_top() -> None:
    text = load_document(FIELD / "pdf-zorder.pdf").pages[0].text
    assert text.index("First") < text.index("Second") < text.index("Third")


def test_columns_drawn_row_by_row_are_read_one_after_the_other() -> None:
    text = load_document(FIELD / "pdf-columns-rowwise.pdf").pages[0].text
    assert text.index("two workers from the village") < text.index("Costs were shared by the two villages in equal parts")


def test_a_page_turned_by_a_quarter_reads_as_the_others() -> None:
    one, two, three = (page.text for page in load_document(FIELD / "pdf-rotate90.pdf").pages)
    assert one == two == three and one.startswith("The plaintiff bought a boat")


def test_what_is_left_out_stays_with_keep_headers() -> None:
    document = load_document(FIELD / "pdf-running-head-only.pdf", keep_headers=True)
    assert all("Case 12/345" in page.text for page in document.pages) and document.warnings == ()


def test_every_file_of_the_table_has_a_row_here() -> None:
    listed = set(re.findall(r"`([\w-]+\.\w+)`", (FIELD / "README.md").read_text(encoding="utf-8")))
    here = Path(__file__).read_text(encoding="utf-8")
    others = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_field_*.py"))
    assert {name for name in listed if name not in here and name not in others} == set()
