"""Setting the sample report as a PDF with fpdf2.

Knows fonts, margins, headers and the contents list. Must not know what the text
says. The bytes are reproducible: fixed dates, no random parts, built-in fonts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from selfextend_local.errors import SelfExtendError
from selfextend_local.sample import report

if TYPE_CHECKING:
    from fpdf import FPDF

# In millimetres; by figures, since what fpdf2 calls "A5" differs between its releases.
_A5 = (148.0, 210.0)
_MARGIN = 18.0
_LINE = 5.45
_ENTRIES_A_MONTH = 11
_CREATED = datetime(1988, 1, 31, tzinfo=timezone.utc)


def report_pdf() -> bytes:
    """The whole report as PDF bytes, the same on every call.

    Raises:
        SelfExtendError: fpdf2 is not installed.
    """
    # Set twice: the contents list needs the page numbers that setting gives.
    first = _Book({})
    first.set_report()
    second = _Book(first.pages)
    second.set_report()
    return bytes(second.pdf.output())


def chapter_pdf(chapter: report.Chapter, password: str | None = None) -> bytes:
    """One chapter as a PDF of its own, encrypted if there is a password."""
    book = _Book({})
    book.pdf.set_title(chapter.title)
    if password is not None:
        book.pdf.set_encryption(owner_password=password, user_password=password)
    book.add(chapter)
    return bytes(book.pdf.output())


def _blank_pdf() -> FPDF:
    try:
        from fpdf import FPDF
    except ImportError as error:
        raise SelfExtendError(
            "the sample document is made with fpdf2, which is not installed: run pip install fpdf2"
        ) from error

    title, subtitle, header, *_ = report.sections()["title"]

    class Report(FPDF):
        """fpdf2 calls header and footer on each page."""

        def header(self) -> None:
            if self.page_no() == 1:
                return
            self.set_font("Times", "I", 9)
            self.set_y(10)
            self.cell(0, 5, header, align="C")
            self.set_y(_MARGIN + 4)

        def footer(self) -> None:
            if self.page_no() == 1:
                return
            self.set_font("Times", "", 9)
            self.set_y(-14)
            self.cell(0, 5, str(self.page_no()), align="C")

    pdf = Report(format=_A5)
    pdf.set_margins(_MARGIN, _MARGIN + 4, _MARGIN)
    pdf.set_auto_page_break(True, _MARGIN + 4)
    pdf.set_creation_date(_CREATED)
    pdf.set_title(f"{title}: {subtitle}")
    pdf.set_author("Tarrow Island Trust")
    pdf.set_producer("selfextend-local sample")
    return pdf


class _Book:
    """A report in the making.

    Attributes:
        pages: the page on which each chapter began, by title, once it is set.
    """

    def __init__(self, contents: Mapping[str, int]) -> None:
        self.pdf = _blank_pdf()
        self.pages: dict[str, int] = {}
        self._contents = contents

    def set_report(self) -> None:
        self._title_page()
        self._contents_page()
        for chapter in report.chapters("opening"):
            self.add(chapter)
        for month, name in enumerate(report.MONTHS):
            self._month(month)
            if name == "February":
                self.add(*report.chapters("february"))
        self._weather_table()
        for chapter in report.chapters("closing"):
            self.add(chapter)

    def _title_page(self) -> None:
        self.pdf.add_page()
        self.pdf.set_y(58)
        title, subtitle, _, *imprint = report.sections()["title"]
        self._centred(title, "B", 24, 11)
        self.pdf.ln(6)
        self._centred(subtitle, "I", 14, 7)
        self.pdf.ln(48)
        for row in imprint:
            self._centred(row, "", 10, 6)

    def _centred(self, text: str, style: str, points: int, line: float) -> None:
        self.pdf.set_font("Times", style, points)
        self.pdf.multi_cell(0, line, text, align="C", new_x="LMARGIN", new_y="NEXT")

    def _contents_page(self) -> None:
        self.pdf.add_page()
        self._heading_row("Contents")
        self.pdf.set_font("Times", "", 11)
        width = self.pdf.epw
        for title, page in self._contents.items():
            room = width - self.pdf.get_string_width(f"{title}  {page}") - 3
            dots = " ." * int(room / self.pdf.get_string_width(" ."))
            self.pdf.cell(width - 8, 6.5, f"{title} {dots}")
            self.pdf.cell(8, 6.5, str(page), align="R", new_x="LMARGIN", new_y="NEXT")

    def add(self, chapter: report.Chapter) -> None:
        self._open(chapter.title)
        for paragraph in chapter.paragraphs:
            self._paragraph(paragraph)

    def _weather_table(self) -> None:
        [chapter] = report.chapters("table")
        before, after = chapter.paragraphs
        self._open(chapter.title)
        self._paragraph(before)
        rows = [report.month_summary(month) for month in range(len(report.MONTHS))]
        for i, row in enumerate([report.WEATHER_TABLE_HEAD, *rows]):
            self.pdf.set_font("Times", "" if i else "B", 11)
            for j, cell in enumerate(row):
                self.pdf.cell(18 if j else 32, 6.4, cell, border="B", align="R" if j else "L")
            self.pdf.ln()
        self.pdf.ln(5)
        self._paragraph(after)

    def _month(self, month: int) -> None:
        self._open(f"The Log for {report.MONTHS[month]}")
        self._paragraph(report.sections()["months"][month])
        for entry in report.month_entries(month, _ENTRIES_A_MONTH):
            self._entry(entry)

    def _open(self, title: str) -> None:
        self.pdf.add_page()
        self.pages[title] = self.pdf.page_no()
        self._heading_row(title)

    def _heading_row(self, title: str) -> None:
        self.pdf.ln(2)
        self.pdf.set_font("Times", "B", 16)
        self.pdf.multi_cell(0, 8, title, new_x="LMARGIN", new_y="NEXT")
        self.pdf.ln(4)

    def _paragraph(self, text: str) -> None:
        self.pdf.set_font("Times", "", 11.5)
        self.pdf.multi_cell(0, _LINE, text, align="J", new_x="LMARGIN", new_y="NEXT")
        self.pdf.ln(3)

    def _entry(self, entry: report.Entry) -> None:
        # The date in bold inside the paragraph, which only the Markdown mode can set.
        self.pdf.set_font("Times", "", 11.5)
        text = f"**{entry.date}.** {entry.text}"
        self.pdf.multi_cell(0, _LINE, text, align="J", markdown=True, new_x="LMARGIN", new_y="NEXT")
        self.pdf.ln(2.4)
