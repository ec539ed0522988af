"""Reading HTML: the one module that touches Beautiful Soup and markdownify.

Knows markup: what of a page is text, how paragraphs end where nobody closed them, and how to stay fast on markup made to
hang a parser. Gives out Markdown. Must not know files, encodings of text or how a Document is built. Both libraries are
imported with the first page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from selfextend_local.documents.characters import clean

_DEEPEST = 60  # tags within tags; deeper ones are dropped, their text is not
_PATIENCE = 2e8  # unclosed "<" times characters: each makes the parser look through the rest
_UNCLOSED = re.compile(r"<(?=[^<>]*(?:<|\Z))")
_DECLARATION = re.compile(r"<[!?][^<>]*>")
_BLANKS = re.compile(r"\n{3,}")
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6}\s+(.+)$", re.MULTILINE)

_NOT_TEXT = frozenset(
    "script style noscript template nav svg iframe object canvas audio video button select datalist dialog title rp rt".split()  # noqa: SIM905
)
_PLAIN = ["a", "abbr", "b", "strong", "em", "i", "u", "s", "del", "img", "sub", "sup", "mark", "small", "span"]
_BLOCKS = frozenset(
    """
    address article aside blockquote center dd details div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr
    li main ol p pre section table tbody td tfoot th thead tr ul
    """.split()  # noqa: SIM905
)
# An open tag that ends where one of these begins, as browsers have it.
_ENDED_BY: dict[str, frozenset[str]] = {
    "p": _BLOCKS,
    "li": frozenset({"li"}),
    "dt": frozenset({"dt", "dd"}),
    "dd": frozenset({"dt", "dd"}),
    "td": frozenset({"td", "th", "tr", "tbody"}),
    "th": frozenset({"td", "th", "tr", "tbody"}),
    "tr": frozenset({"tr", "tbody"}),
    "option": frozenset({"option"}),
    "head": frozenset({"body"}),
}
# Between such a tag and what ends it, these may be open too.
_CONTAINERS = _BLOCKS - frozenset(_ENDED_BY) | {"body", "html"}


@dataclass(frozen=True, slots=True)
class Html:
    """What an HTML page holds.

    Attributes:
        title: of its head, or "".
        heading: its first heading, or "".
        text: Markdown, with headings, lists, tables and code; without links, emphasis and pictures.
    """

    title: str
    heading: str
    text: str


def read_html(markup: str) -> Html:
    """The text of an HTML or XHTML page. Takes any markup, also broken; raises nothing of its own."""
    soup = _soup_class()(_harmless(markup), "html.parser")
    title = soup.find("title")
    text = clean(_converter().convert_soup(soup))
    text = _BLANKS.sub("\n\n", "\n".join(row.rstrip() for row in text.split("\n"))).strip()
    heading = _HEADING.search(text)
    return Html(_words(title.get_text()) if title else "", heading[1].strip() if heading else "", text)


def _words(text: str) -> str:
    return " ".join(clean(text).split())


def _harmless(markup: str) -> str:
    """`markup` without comments, declarations and, if there are very many, without "<" that open nothing."""
    kept, at = [], 0
    while (start := markup.find("<!--", at)) >= 0 and (end := markup.find("-->", start + 2)) >= 0:
        kept.append(markup[at:start])
        at = end + 3
    markup = "".join([*kept, markup[at:]]).replace("<![CDATA[", "").replace("]]>", "")
    markup = _DECLARATION.sub("", markup).replace("<!", "&lt;!").replace("<?", "&lt;?")
    if len(_UNCLOSED.findall(markup)) * len(markup) > _PATIENCE:
        markup = _UNCLOSED.sub("&lt;", markup)
    return markup


@lru_cache(maxsize=1)
def _soup_class() -> Any:
    from bs4 import BeautifulSoup

    class Soup(BeautifulSoup):
        """Ends tags that nobody closed, and builds no tree too deep to walk."""

        def handle_starttag(self, name: str, *args: Any, **kwargs: Any) -> Any:
            for tag in reversed(tuple(self.tagStack)):
                if name in _ENDED_BY.get(tag.name, ()):
                    self.handle_endtag(tag.name)
                elif tag.name in _CONTAINERS:
                    break
            return super().handle_starttag(name, *args, **kwargs) if len(self.tagStack) < _DEEPEST else None

    return Soup


@lru_cache(maxsize=1)
def _converter() -> Any:
    from bs4 import Tag
    from markdownify import ATX, MarkdownConverter

    class Converter(MarkdownConverter):
        def process_element(self, node: Any, parent_tags: Any = None) -> str:
            if isinstance(node, Tag) and (node.name in _NOT_TEXT or _is_hidden(node)):
                return ""
            return str(super().process_element(node, parent_tags))  # type: ignore[misc]

    return Converter(
        heading_style=ATX,
        bullets="-",
        strip=_PLAIN,
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
        table_infer_header=True,
        # Lines of the source mean nothing in HTML; no width: none are made.
        wrap=True,
        wrap_width=None,
    )


def _is_hidden(tag: Any) -> bool:
    return "hidden" in tag.attrs or tag.get("aria-hidden") == "true" or bool(_HIDING.search(str(tag.get("style", ""))))
