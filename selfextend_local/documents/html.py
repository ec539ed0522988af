"""Reading HTML: the one module that touches Beautiful Soup and markdownify.

Knows markup: what of a page is text, how paragraphs end where nobody closed them, and how to stay fast on markup made to
hang a parser. Gives out Markdown. Must not know files, encodings of text or how a Document is built. Both libraries are
imported with the first page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from selfextend_local.documents.characters import clean
from selfextend_local.documents.formulas import lowered, mathml, raised, tex
from selfextend_local.documents.numerals import counted
from selfextend_local.documents.trees import ParseError, parse_xml

_DEEPEST = 60  # tags within tags; deeper ones are dropped, their text is not
_PATIENCE = 2e8  # unclosed "<" times characters: each makes the parser look through the rest
_UNCLOSED = re.compile(r"<(?=[^<>]*(?:<|\Z))")
_DECLARATION = re.compile(r"<[!?][^<>]*>")
_BLANKS = re.compile(r"\n{3,}")
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_STRIKING = re.compile(r"(?:^|;)\s*text-decoration[\w-]*\s*:[^;]*line-through", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)
_PREFIX = re.compile(r"<(/?)[\w-]+:")
_LONG_NUMBER = re.compile(r"&#x?[0-9a-f]{9,};?", re.IGNORECASE)  # no character has so large a number
_ODD_HEADING = re.compile(r"h\d\d")
_COUNTS, _COUNT = ("colspan", "start"), re.compile("[0-9]{1,6}")
_LETTERED = re.compile(r"^[aAiI]$")
_NO_VALUES = frozenset("hidden password submit button image file reset".split())  # noqa: SIM905
_NEAR = 50  # nodes before a raised figure, or beside a formula, that are looked at
_VISIBLE_SHARE = 0.05  # a page that shows less than this of its text waits for a script to show it

_NOT_TEXT = frozenset(
    "script style noscript template nav svg iframe object canvas audio video button select datalist dialog title rp rt".split()  # noqa: SIM905
)
_PLAIN = ["a", "abbr", "b", "strong", "em", "i", "u", "img", "sub", "sup", "mark", "small", "span"]
# What renderers of TeX draw beside the formula itself: it would come twice.
_DRAWN_FORMULAS = frozenset({"katex-html", "MathJax", "MathJax_Display", "MathJax_Preview", "MathJax_SVG", "MJX_Assistive_MathML",
    "mwe-math-fallback-image-inline", "mwe-math-fallback-image-display"})  # fmt: skip
_NOTES = ("footnote", "endnote", "rearnote", "doc-footnote", "doc-endnote")
_NOTE_REFERENCES = ("noteref", "doc-noteref")
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
    _put_in_line(soup)
    text = _converted(soup, hidden=False)
    if len(text) < _VISIBLE_SHARE * len(soup.get_text()):
        whole = _converted(soup, hidden=True)
        text = whole if len(text) < _VISIBLE_SHARE * len(whole) else text
    heading = _HEADING.search(text)
    return Html(_words(title.get_text()) if title else "", heading[1].strip() if heading else "", text)


def _converted(soup: Any, *, hidden: bool) -> str:
    """The tree as Markdown; with what is `hidden`, too, or without it."""
    text = clean(_converter(hidden).convert_soup(soup))
    return _BLANKS.sub("\n\n", "\n".join(row.rstrip() for row in text.split("\n"))).strip()


def _put_in_line(soup: Any) -> None:
    """Formulas, and what is raised or lowered, as text that can't be taken for something else; notes are brought to light."""
    for tag in soup.find_all(lambda t: not _DRAWN_FORMULAS.isdisjoint(t.get("class") or ())):
        if not tag.decomposed and tag.find("math") is None:
            tag.decompose()
    for script in soup.find_all("script", type=re.compile("^math/tex")):
        script.replace_with(tex(script.get_text()))
    for math in soup.find_all("math"):
        if not math.decomposed and math.find_parent("math") is None:
            _outermost_hidden(math).replace_with(_formula(math))
    for tag in soup.find_all(["sup", "sub"]):
        if not tag.decomposed:
            _set_on_line(tag)
    for tag in soup.find_all(lambda t: _kinds(t) & {*_NOTES, *_NOTE_REFERENCES}):
        if _kinds(tag) & set(_NOTES):
            for hiding in ("hidden", "aria-hidden", "style"):
                tag.attrs.pop(hiding, None)
        elif tag.find("sup") is None and (number := tag.get_text().strip("[] ")):
            tag.string = f"[{number}]"
    for tag in soup.find_all(["input", "select", "summary"]):
        _put_field(tag)
    for tag in soup.find_all(lambda t: _ODD_HEADING.match(t.name) or any(name in t.attrs for name in _COUNTS)):
        _make_usual(tag)
    for tag in soup.find_all("ol", type=_LETTERED):
        _letter(tag)
    for tag in soup.find_all(["strike", lambda t: bool(_STRIKING.search(str(t.get("style", ""))))]):
        tag.name = "s"


def _make_usual(tag: Any) -> None:
    """Levels of headings, and numbers in attributes, as the converter takes them."""
    tag.name = "h6" if _ODD_HEADING.match(tag.name) else tag.name
    for name in _COUNTS:
        if name in tag.attrs and not _COUNT.fullmatch(str(tag[name])):
            del tag[name]


def _put_field(tag: Any) -> None:
    """A field of a form as what it shows."""
    if tag.name == "summary":
        tag.name = "p"
    elif tag.name == "select":
        options = tag.find_all("option")
        chosen = [option for option in options if option.has_attr("selected")] or options[: not tag.has_attr("multiple")]
        tag.replace_with(", ".join(_words(option.get_text()) for option in chosen))
    elif tag.get("type", "text").lower() in ("checkbox", "radio"):
        tag.replace_with("[x]" if tag.has_attr("checked") else "[ ]")
    elif tag.get("type", "text").lower() not in _NO_VALUES and not _is_hidden(tag):
        tag.replace_with(_words(tag.get("value", "")))


def _letter(tag: Any) -> None:
    """A list that counts in letters or Roman numerals as paragraphs that begin with those."""
    form, at = tag["type"], 1
    for item in tag.find_all("li", recursive=False):
        given = str(item.get("value", tag.get("start", "") if at == 1 else ""))
        at = int(given) if given.isdecimal() and len(given) < 6 else at
        item.insert(0, f"{counted(at, form)}. ")
        item.name = "p"
        at += 1
    tag.name = "div"


def _kinds(tag: Any) -> set[str]:
    return {*str(tag.get("epub:type", "")).split(), *str(tag.get("role", "")).split()}


def _outermost_hidden(math: Any) -> Any:
    """`math`, or the outermost hidden element that holds nothing beside it: the formula is shown as a picture then."""
    found, text, most = math, math.get_text().split(), sum(1 for _ in math.descendants) + _NEAR
    for parent in math.parents:
        if parent.name in (None, "[document]", "body", "html"):
            break
        if len(list(islice(parent.descendants, most + 1))) > most or parent.get_text().split() != text:
            break
        if _is_hidden(parent):
            found = parent
    return found


def _formula(math: Any) -> str:
    try:
        tree = parse_xml(_PREFIX.sub(r"<\1", str(math)))
    except ParseError:
        return str(math.get_text(" "))
    return mathml(tree)


def _set_on_line(tag: Any) -> None:
    before = ""
    for node in islice(tag.previous_elements, _NEAR):
        if isinstance(node, str) and type(node).__name__ == "NavigableString":
            before = node + before
            if len(before) > 12 or "\n" in node:
                break
        elif getattr(node, "name", None) in _BLOCKS:
            break
    text = tag.get_text()
    link = tag.find("a", href=re.compile("#")) or (tag.parent if tag.parent is not None and tag.parent.name == "a" else None)
    if tag.name == "sub":
        tag.string = lowered(before, text)
    elif link is not None and (number := text.strip("[]() \n")) and len(number) <= 4:
        tag.string = f"[{number}]"
    else:
        tag.string = raised(before, text)


def _words(text: str) -> str:
    return " ".join(clean(text).split())


def _harmless(markup: str) -> str:
    """`markup` without comments, declarations and, if there are very many, without "<" that open nothing."""
    kept, at = [], 0
    while (start := markup.find("<!--", at)) >= 0 and (end := markup.find("-->", start + 2)) >= 0:
        kept.append(markup[at:start])
        at = end + 3
    markup = "".join([*kept, markup[at:]]).replace("<![CDATA[", "").replace("]]>", "")
    markup = _LONG_NUMBER.sub("", _DECLARATION.sub("", markup)).replace("<!", "&lt;!").replace("<?", "&lt;?")
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


@lru_cache(maxsize=2)
def _converter(hidden: bool) -> Any:
    from bs4 import Tag
    from markdownify import ATX, MarkdownConverter

    class Converter(MarkdownConverter):
        def process_element(self, node: Any, parent_tags: Any = None) -> str:
            if isinstance(node, Tag) and (node.name in _NOT_TEXT or not hidden and _is_hidden(node)):
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
    if tag.get("hidden", "until-found") != "until-found" or tag.get("aria-hidden") == "true":
        return True
    return bool(_HIDING.search(str(tag.get("style", ""))))
