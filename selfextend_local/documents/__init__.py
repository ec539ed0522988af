"""Documents: a file in, pages of clean text with citable numbers out.

The other modules here are private to this package, but for `errors`. Must not
know models, tokens or the terminal. Importing this loads no PDF library.
"""

from selfextend_local.documents.document import Document, Page, page_marker
from selfextend_local.documents.load import load_document

__all__ = ["Document", "Page", "load_document", "page_marker"]
