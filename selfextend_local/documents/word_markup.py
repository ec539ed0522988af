"""The markup of a Word document, made plain for a reader that knows runs of text only.

Knows WordprocessingML: numbering of clauses, formulas, hidden and struck text, chunks of other formats (altChunk), and what
stands in headers. Must not know HTML, zip files or how a Document is built. ECMA-376, part 1, §17.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from selfextend_local.documents.formulas import omml
from selfextend_local.documents.numerals import letters, roman
from selfextend_local.documents.trees import outermost

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_OFF = ("0", "false", "off")
# What mammoth doesn't know, as what it knows: wrappers around text that is there (as if inserted) or gone (as if deleted).
_RENAMED = {f"{W}{name}": f"{W}ins" for name in ("moveTo", "fldSimple", "customXml", "dir", "bdo")} | {
    f"{W}moveFrom": f"{W}del",
    f"{W}dstrike": f"{W}strike",
}
_DEEPEST = 20  # styles based on styles
_LEVELS = 9  # of a list
_LEAST_RAISED = 4  # half points
# Boxes, ticks, bullets and arrows of the fonts that Word takes them from.
_SIGNS = {
    "Wingdings": {0x6F: "☐", 0xA8: "☐", 0xFD: "☒", 0xFE: "☑", 0xFB: "✗", 0xFC: "✓", 0xA7: "▪", 0xE0: "→", 0xDF: "←", 0x28: "☎"},
    "Wingdings 2": {0x50: "✓", 0x4F: "✗", 0x52: "☑", 0x53: "☒", 0xA3: "☐", 0x51: "☒"},
    "Symbol": {0xB7: "•", 0xB0: "°", 0xB1: "±", 0xA3: "≤", 0xB3: "≥", 0xB4: "×", 0xAE: "→", 0x6D: "μ", 0x61: "α", 0x62: "β", 0x44: "Δ"},
}

CHUNK = "\ue001"
"""Stands where a chunk of another format stood; its relationship id follows, then the same character again."""


def plain(body: Element, numbering: Numbering, styles: Styles) -> None:
    """Change the tree of word/document.xml in place: no hidden runs, formulas and clause numbers as text, chunks as marks."""
    for parent in list(body.iter()):
        for index, child in reversed(list(enumerate(parent))):
            if child.tag in (f"{_M}oMath", f"{_M}oMathPara"):
                parent[index] = _run(omml(child)) if parent.tag == f"{W}p" or child.tag == f"{_M}oMath" else _paragraph(omml(child))
            elif child.tag == f"{W}altChunk":
                parent[index] = _paragraph(f"{CHUNK}{child.get(f'{_R}id', '')}{CHUNK}")
            elif child.tag == f"{W}r" and _is_hidden(child, styles):
                parent.remove(child)
            elif child.tag == f"{W}r" and _is_raised(child, styles):
                ElementTree.SubElement(child[0], f"{W}vertAlign", {f"{W}val": "superscript"})
            elif child.tag == f"{W}sym" and (sign := _sign(child)):
                parent[index] = _text(sign)
    for node in body.iter():
        node.tag = _RENAMED.get(node.tag, node.tag)
    for paragraph in body.iter(f"{W}p"):
        number = numbering.next(paragraph, styles)
        if number:
            paragraph.insert(0 if paragraph.find(f"{W}pPr") is None else 1, _run(f"{number} "))


def words(part: Element) -> str:
    """The text of a header or footer, without fields such as the page number, a line a paragraph."""
    lines = ("".join(_shown(paragraph)) for paragraph in outermost(part, f"{W}p"))
    return "\n".join(line.strip() for line in lines if any(c.isalnum() for c in line))


def _shown(paragraph: Element) -> Iterator[str]:
    depth = 0
    for node in paragraph.iter():
        if node.tag == f"{W}fldChar":
            kind = node.get(f"{W}fldCharType")
            depth += {"begin": 1, "end": -1}.get(kind or "", 0)
        elif node.tag == f"{W}t" and not depth:
            yield node.text or ""
        elif node.tag in (f"{W}tab", f"{W}br"):
            yield " "


def _is_hidden(run: Element, styles: Styles) -> bool:
    properties = run.find(f"{W}rPr")
    if properties is None:
        return False
    vanish = properties.find(f"{W}vanish")
    if vanish is not None:
        return _on(vanish)
    style = properties.find(f"{W}rStyle")
    return style is not None and styles.hides(style.get(f"{W}val", ""))


def _is_raised(run: Element, styles: Styles) -> bool:
    """Whether a run is raised by its style, or by its place, without being called a superscript itself."""
    properties = run.find(f"{W}rPr")
    if properties is None or properties.find(f"{W}vertAlign") is not None or run[0] is not properties:
        return False
    position = _value(properties, "position") or ""
    if position.isdecimal() and len(position) < 10 and int(position) >= _LEAST_RAISED:
        return True
    style = properties.find(f"{W}rStyle")
    return style is not None and styles.raises(style.get(f"{W}val", ""))


def _sign(node: Element) -> str:
    """What a character of a font of signs shows, "" if it isn't known."""
    code = _hexadecimal(node.get(f"{W}char", ""))
    return _SIGNS.get(node.get(f"{W}font", ""), {}).get(code & 0xFF, "") if code else ""


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _on(switch: Element) -> bool:
    return switch.get(f"{W}val", "1") not in _OFF


def _run(text: str) -> Element:
    run = Element(f"{W}r")
    run.append(_text(text))
    return run


def _text(text: str) -> Element:
    inner = Element(f"{W}t", {"{http://www.w3.org/XML/1998/namespace}space": "preserve"})
    inner.text = text
    return inner


def _paragraph(text: str) -> Element:
    paragraph = Element(f"{W}p")
    paragraph.append(_run(text))
    return paragraph


def _value(parent: Element | None, name: str) -> str | None:
    child = None if parent is None else parent.find(f"{W}{name}")
    return None if child is None else child.get(f"{W}val")


class Styles:
    """word/styles.xml: what a paragraph or a run gets from its style, and that from the one it is based on."""

    def __init__(self, root: Element | None) -> None:
        found = () if root is None else root.iter(f"{W}style")
        self._styles = {style.get(f"{W}styleId", ""): style for style in found}

    def _chain(self, name: str) -> Iterator[Element]:
        for _ in range(_DEEPEST):
            style = self._styles.get(name)
            if style is None:
                return
            yield style
            name = _value(style, "basedOn") or ""

    def numbering(self, name: str) -> tuple[str | None, str | None]:
        """The number and the level of a paragraph's style, each None if it says nothing."""
        number = level = None
        for style in self._chain(name):
            properties = style.find(f"{W}pPr/{W}numPr")
            number = number or _value(properties, "numId")
            level = level or _value(properties, "ilvl")
        return number, level

    def raises(self, name: str) -> bool:
        return any(_value(style.find(f"{W}rPr"), "vertAlign") == "superscript" for style in self._chain(name))

    def hides(self, name: str) -> bool:
        for style in self._chain(name):
            vanish = style.find(f"{W}rPr/{W}vanish")
            if vanish is not None:
                return _on(vanish)
        return False


@dataclass
class _Level:
    """How one level of a list is numbered."""

    start: int
    form: str
    text: str
    restart: int | None
    legal: bool
    style: str | None


@dataclass
class _Counts:
    now: dict[int, int] = field(default_factory=dict)


class Numbering:
    """word/numbering.xml: the number that Word draws in front of a paragraph, which stands nowhere in the text."""

    def __init__(self, root: Element | None) -> None:
        self._levels: dict[str, dict[int, _Level]] = {}
        self._abstract: dict[str, str] = {}
        self._starts: dict[str, dict[int, int]] = {}
        self._overridden: dict[str, dict[int, _Level]] = {}
        self._counts: dict[str, _Counts] = {}
        self._begun: set[str] = set()
        if root is None:
            return
        for abstract in root.iter(f"{W}abstractNum"):
            self._levels[abstract.get(f"{W}abstractNumId", "")] = dict(map(_level, abstract.findall(f"{W}lvl")))
        for number in root.findall(f"{W}num"):
            name = number.get(f"{W}numId", "")
            self._abstract[name] = _value(number, "abstractNumId") or ""
            for override in number.findall(f"{W}lvlOverride"):
                at = _at(override.get(f"{W}ilvl"))
                if (start := _value(override, "startOverride")) is not None:
                    self._starts.setdefault(name, {})[at] = _whole(start, 1)
                for level in override.findall(f"{W}lvl"):
                    self._overridden.setdefault(name, {})[at] = _level(level)[1]

    def next(self, paragraph: Element, styles: Styles) -> str:
        """The number of this paragraph, "" if it has none or a bullet; counts on. A number takes the paragraph out of its list."""
        properties = paragraph.find(f"{W}pPr")
        own = None if properties is None else properties.find(f"{W}numPr")
        style = _value(properties, "pStyle") or ""
        from_style = styles.numbering(style)
        name = _value(own, "numId") or from_style[0]
        abstract = self._abstract.get(name or "", "")
        levels = {**self._levels.get(abstract, {}), **self._overridden.get(name or "", {})}
        if name in (None, "0") or not levels:
            return ""
        linked = next((i for i, level in levels.items() if level.style and level.style == style), 0)
        at = _at(_value(own, "ilvl") or from_style[1], linked)
        level = levels.get(at)
        if level is None or level.form in ("bullet", "none") and not _digits_in(level.text, levels):
            return ""
        counts = self._count(name or "", abstract, at, levels)
        if own is not None and properties is not None:
            properties.remove(own)
        return _label(level, counts, levels)

    def _count(self, name: str, abstract: str, at: int, levels: dict[int, _Level]) -> dict[int, int]:
        now = self._counts.setdefault(abstract, _Counts()).now
        if name not in self._begun:
            self._begun.add(name)
            for level in self._starts.get(name, {}):
                now.pop(level, None)
        for above in range(at):
            now.setdefault(above, self._start(name, above, levels))
        now[at] = now[at] + 1 if at in now else self._start(name, at, levels)
        for below in [i for i in now if i > at]:
            restart = levels[below].restart if below in levels else None
            if restart is None or (restart != 0 and at < restart):
                del now[below]
        return now

    def _start(self, name: str, at: int, levels: dict[int, _Level]) -> int:
        return self._starts.get(name, {}).get(at, levels[at].start if at in levels else 1)


def _whole(text: str | None, default: int) -> int:
    try:
        return max(0, min(int(text or default), 1_000_000))
    except ValueError:
        return default


def _at(text: str | None, default: int = 0) -> int:
    """A level of a list."""
    return min(_whole(text, default), _LEVELS - 1)


def _level(node: Element) -> tuple[int, _Level]:
    restart = _value(node, "lvlRestart")
    legal = node.find(f"{W}isLgl")
    return _at(node.get(f"{W}ilvl")), _Level(
        _whole(_value(node, "start"), 1),
        _value(node, "numFmt") or "decimal",
        _value(node, "lvlText") or "",
        None if restart is None else _whole(restart, 0),
        legal is not None and _on(legal),
        _value(node, "pStyle"),
    )


def _digits_in(text: str, levels: dict[int, _Level]) -> bool:
    return any(f"%{i + 1}" in text and level.form not in ("bullet", "none") for i, level in levels.items())


def _label(level: _Level, counts: dict[int, int], levels: dict[int, _Level]) -> str:
    text = level.text
    for i in sorted(levels, reverse=True):
        form = "decimal" if level.legal else levels[i].form
        text = text.replace(f"%{i + 1}", FORMS.get(form, str)(counts.get(i, levels[i].start)))
    return text.strip()


FORMS: dict[str, Callable[[int], str]] = {
    "decimal": str,
    "decimalZero": lambda n: f"{n:02}",
    "lowerLetter": letters,
    "upperLetter": lambda n: letters(n).upper(),
    "lowerRoman": roman,
    "upperRoman": lambda n: roman(n).upper(),
    "ordinal": lambda n: f"{n}{'th' if 10 <= n % 100 <= 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}",
    "none": lambda n: "",
    "bullet": lambda n: "",
}
"""How a number is written (ST_NumberFormat); others are written as plain numbers."""
