"""Reading mails (.eml) and web pages saved as one file (.mhtml): the one module that knows MIME.

Must not know HTML (html.py does), other files or how a Document is built. What is attached is named, not opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from selfextend_local.documents.characters import clean
from selfextend_local.documents.html import read_html

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_FIRST_LINE = re.compile(rb"(?:[!-9;-~]+:[ \t][^\n]*\n(?:[ \t][^\n]*\n)*){2,}", re.DOTALL)
_TELLING = re.compile(rb"^(mime-version|message-id|received|return-path|snapshot-content-location|from)\s*:", re.IGNORECASE | re.MULTILINE)
_NAMED = 8
_DEEPEST = 8  # mails within mails
_LONGEST_HEADER = 20_000


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail or a saved page: its subject or "", its text, and remarks."""

    title: str
    text: str
    notes: tuple[str, ...]


def is_mail(head: bytes, suffix: str) -> bool:
    """Whether a file that begins with `head` is a mail or a saved page."""
    begins = _FIRST_LINE.match(head.lstrip(b"\xef\xbb\xbf\r\n").replace(b"\r\n", b"\n"))
    if begins is None:
        return False
    telling = {name.lower() for name in _TELLING.findall(begins[0])}
    return len(telling) > 1 or bool(telling) and suffix in (".eml", ".mht", ".mhtml")


class _ShortHeaders(policy.EmailPolicy):
    """The standard library's work on a header grows with the square of its length."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        short = value if len(value) <= _LONGEST_HEADER else f"{value[:_LONGEST_HEADER]} ..."
        return super().header_fetch_parse(name, short)


def read_mail(data: bytes) -> Mail:
    """The text of a mail under its headers, or of the page that a browser saved. Takes any bytes; raises what the standard library does
    for odd headers."""
    message = message_from_bytes(data, policy=_ShortHeaders())
    assert isinstance(message, EmailMessage)
    return _read(message, 0)


def _read(message: EmailMessage, depth: int) -> Mail:
    saved_page = "Snapshot-Content-Location" in message or message.get_content_type() == "multipart/related"
    body, title = _body(message)
    subject = _header(message, "Subject")
    if not saved_page:
        body = "\n".join([f"{name}: {value}" for name in _HEADERS if (value := _header(message, name))] + ["", body])
    forwarded = [_read(inner, depth + 1) for inner in _forwarded(message)] if depth < _DEEPEST else []
    body = "\n\n".join([body.strip(), *(f"Forwarded:\n{mail.text}" for mail in forwarded)])
    return Mail(subject or title, body.strip(), _attached(message))


def _own(message: EmailMessage) -> Iterator[EmailMessage]:
    """The parts of a mail, without those of mails that it forwards."""
    yield message
    if message.get_content_type() != "message/rfc822" and message.is_multipart():
        for part in message.iter_parts():
            assert isinstance(part, EmailMessage)
            yield from _own(part)


def _forwarded(message: EmailMessage) -> Iterator[EmailMessage]:
    for part in _own(message):
        if part.get_content_type() == "message/rfc822":
            yield from (inner for inner in part.get_payload() if isinstance(inner, EmailMessage))


def html_of(data: bytes) -> str:
    """The HTML of a saved page, or ""."""
    with suppress(Exception):  # as in _header
        for part in message_from_bytes(data, policy=policy.default).walk():
            if part.get_content_type() == "text/html":
                return _decoded(part)
    return ""


def _body(message: EmailMessage) -> tuple[str, str]:
    texts = [part for part in _own(message) if part.get_content_maintype() == "text" and part.get_content_disposition() != "attachment"]
    for kind in ("text/plain", "text/html"):
        found = [_decoded(part) for part in texts if part.get_content_type() == kind]
        if any(text.strip() for text in found):
            if kind == "text/plain":
                return clean("\n\n".join(found).replace("\r\n", "\n")), ""
            pages = [read_html(text) for text in found]
            return "\n\n".join(page.text for page in pages), pages[0].title
    return "", ""


def _decoded(part: object) -> str:
    assert isinstance(part, EmailMessage)
    try:
        data = part.get_payload(decode=True)
    except (LookupError, ValueError):
        return ""
    if not isinstance(data, bytes):
        return ""
    for encoding in (part.get_content_charset() or "utf-8", "utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except (LookupError, UnicodeDecodeError):
            continue
    return data.decode("latin-1")


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(clean(str(message.get(name, ""))).split())
    except Exception:  # the standard library raises many kinds for odd headers
        return ""


def _attached(message: EmailMessage) -> tuple[str, ...]:
    names = []
    for part in message.walk():
        if part.get_content_disposition() == "attachment" or (part.get_filename() and part.get_content_maintype() == "application"):
            names.append(" ".join(clean(part.get_filename() or part.get_content_type()).split()))
        elif part.get_content_type() == "application/pdf":
            names.append("a PDF")
    if not names:
        return ()
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return (f"Attached, and not read: {shown}. Save what you need, and give it with a --doc of its own.",)
