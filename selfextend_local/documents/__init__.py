"""Documents: a file in, pages of clean text with citable labels out.

    load_document                    PDF, EPUB, DOCX, HTML, Markdown, text, or standard input
    select_pages                     "3-7,12,iv"
    PassageIndex                     search                                     (documents.search)
    find_citations, check_citations  page references of an answer               (documents.citations)
    select_passages, trim            what fits a budget of tokens               (documents.selection)

The other modules here are private to this package. Must not know models, tokenisers or the terminal. Importing this loads
no library that reads files, and no database.
"""

from selfextend_local.documents.document import Document, Page, page_marker
from selfextend_local.documents.labels import select_pages
from selfextend_local.documents.load import load_document

__all__ = ["Document", "Page", "load_document", "page_marker", "select_pages"]
