"""Formulas as one line of text: from TeX, MathML and Word's own markup (OMML).

Knows the elements of the two markups that carry structure; a reader sees "5wL/384EI", "q^2", "√(x+1)". Trees are any that
have `tag`, `text`, iteration and `get`, as ElementTree's do. Must not know files, HTML or what a formula stands in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

_WRAPPED = re.compile(r"^\s*\{\s*\\(?:displaystyle|textstyle|scriptstyle)(.*)\}\s*$", re.DOTALL)
_ONE_CHARACTER = re.compile(r"([\^_])\{(\w|-?\d+)\}")
_PLAIN = re.compile(r"[\w.,'′″∞]*|\(.*\)", re.DOTALL)
_SPACES = re.compile(r"\s+")
_WRAPPERS = 8  # around one formula
_NEAR = 40  # characters before a raised figure that tell what it is


def tex(source: str) -> str:
    """TeX as it was written, without the wrappers that programs put around it."""
    for _ in range(_WRAPPERS):
        inner = _WRAPPED.match(source)
        source = source if inner is None else inner[1]
    return _SPACES.sub(" ", _ONE_CHARACTER.sub(r"\1\2", source)).strip()


def raised(before: str, text: str) -> str:
    """Raised `text` (a power, the number of a note, the end of an ordinal) as it reads on the line behind `before`.

    "10", "6" -> "^6"; "1950", "3" -> "[3]"; "1", "st" -> "st".
    """
    text = _SPACES.sub(" ", text).strip()
    bare = text.strip("[]()").strip()
    if not text or text[0] in "^[":
        return text
    if len(bare) > 1 and bare.isalpha() or not any(c.isalnum() for c in bare) and bare not in ("+", "-", "−"):
        return text  # 1st, Mme, TM, * and †
    if text != bare or re.fullmatch(r"\d{1,3}([,;–-]\s?\d{1,3})*", bare) and _ends_a_word(before):
        return f"[{bare}]"
    return f"^{text}" if re.fullmatch(r"[-−+]?\w+|[-−+]", text) else f"^({text})"


def _ends_a_word(before: str) -> bool:
    """Whether a number raised behind `before` is that of a note: behind a word, a year or a mark, not behind 10, x or cm."""
    before = before[-_NEAR:].rstrip("\u200b")
    last = re.search(r"[^\W\d_]+$|[\d.,]*\d$", before)
    if last is None:
        return bool(before.strip()) and before[-1:] in ".,;:!?\"'”’»)]"
    word = last[0]
    if word[0].isdigit():
        return len(word) >= 4 and word.isdigit() and not word.startswith("10")
    return len(word) > 2 and word.lower() not in _UNITS


_UNITS = frozenset("mol rad bar min sec ohm log sin cos tan exp det lim".split())  # noqa: SIM905


def lowered(before: str, text: str) -> str:
    """Lowered `text` behind `before`: CO2 stays together, 10 with a base of 2 doesn't become 102."""
    text = _SPACES.sub(" ", text).strip()
    if text and before[-1:].isdigit() and text[:1].isalnum():
        return f"_{text}"
    return text


def _grouped(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else f"({text})"


def _fraction(over: str, under: str) -> str:
    return f"{_grouped(over)}/{_grouped(under)}"


def _scripts(base: str, below: str = "", above: str = "") -> str:
    low = f"_{_grouped(below)}" if below else ""
    return f"{base}{low}{f'^{_grouped(above)}' if above else ''}"


def _name(node: Element) -> str:
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def mathml(node: Element) -> str:
    """A MathML element as text; the TeX that it carries, if it does."""
    for part in node.iter():
        if _name(part) == "annotation" and "tex" in (part.get("encoding") or "").lower() and part.text:
            return tex(part.text)
    if node.get("alttext"):
        return tex(node.get("alttext") or "")
    return _SPACES.sub(" ", _mathml(node)).strip()


def _mathml(node: Element) -> str:
    name, parts = _name(node), [_mathml(child) for child in node]
    if name in ("annotation", "annotation-xml"):
        return ""
    if name == "mfrac" and len(parts) == 2:
        return _fraction(*parts)
    if name in ("msup", "mover") and len(parts) == 2:
        return _scripts(parts[0], "", parts[1])
    if name in ("msub", "munder") and len(parts) == 2:
        return _scripts(*parts)
    if name in ("msubsup", "munderover") and len(parts) == 3:
        return _scripts(*parts)
    if name == "msqrt":
        return f"√{_grouped(''.join(parts))}"
    if name == "mroot" and len(parts) == 2:
        return f"{_grouped(parts[1])}√{_grouped(parts[0])}"
    if name == "mtable":
        return "[" + "; ".join(parts) + "]"
    if name == "mtr":
        return ", ".join(parts)
    return (node.text or "").strip() + "".join(parts)


_OMML_PROPERTIES = frozenset({"rPr", "fPr", "sSupPr", "sSubPr", "sSubSupPr", "radPr", "naryPr", "dPr", "funcPr", "accPr", "barPr", "mPr",
    "eqArrPr", "limLowPr", "limUppPr", "groupChrPr", "ctrlPr", "boxPr", "sPrePr", "oMathParaPr", "argPr"})  # fmt: skip


def omml(node: Element) -> str:
    """An OMML element (m:oMath, m:oMathPara) as text."""
    return _SPACES.sub(" ", _omml(node)).strip()


def _omml(node: Element) -> str:
    name = _name(node)
    if name in _OMML_PROPERTIES:
        return ""
    if name == "t":
        return node.text or ""
    part = {_name(child): child for child in node}

    def of(key: str) -> str:
        return _omml(part[key]) if key in part else ""

    if name == "f":
        return _fraction(of("num"), of("den"))
    if name in ("sSup", "sSub", "sSubSup", "sPre"):
        return _scripts(of("e"), of("sub"), of("sup"))
    if name in ("limLow", "limUpp"):
        return _scripts(of("e"), *((of("lim"), "") if name == "limLow" else ("", of("lim"))))
    if name == "rad":
        degree = of("deg")
        return f"{_grouped(degree) if degree else ''}√{_grouped(of('e'))}"
    if name == "nary":
        return f"{_scripts(_property(part.get('naryPr'), 'chr', '∫'), of('sub'), of('sup'))} {_grouped(of('e'))}"
    if name == "d":
        inner = _property(part.get("dPr"), "sepChr", "|").join(_omml(e) for e in node if _name(e) == "e")
        return f"{_property(part.get('dPr'), 'begChr', '(')}{inner}{_property(part.get('dPr'), 'endChr', ')')}"
    if name == "func":
        argument = of("e")
        return f"{of('fName')}{' ' if _PLAIN.fullmatch(argument) else ''}{_grouped(argument)}"
    if name == "m":
        return "[" + "; ".join(_omml(row) for row in node if _name(row) == "mr") + "]"
    if name in ("mr", "eqArr"):
        return (", " if name == "mr" else "; ").join(_cells(node))
    return "".join(map(_omml, node))


def _cells(node: Iterable[Element]) -> Sequence[str]:
    return [_omml(child) for child in node if _name(child) == "e"]


def _property(properties: Element | None, name: str, default: str) -> str:
    for child in () if properties is None else properties:
        if _name(child) == name:
            return next((value for key, value in child.attrib.items() if key.rpartition("}")[2] == "val"), "")
    return default
