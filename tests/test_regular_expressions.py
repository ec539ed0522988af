"""No regular expression of ours takes a time that grows with the square of its text, or faster: each is tried on texts that are made
from it, every repetition in it a thousandfold, and something behind that doesn't fit.

A new expression is found by itself. One that only ever sees short texts is named here, with what keeps them short.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import selfextend_cli

import selfextend_local

if sys.version_info >= (3, 11):
    from re import _constants as constants
    from re import _parser as parser
else:
    import sre_constants as constants
    import sre_parse as parser

pytestmark = [pytest.mark.process, pytest.mark.slow]

PLUGIN = Path(__file__).parents[1] / "cli" / "llm-selfextend"
sys.path.append(str(PLUGIN))

SHORT, TIMES = 3_000, 4
YARDSTICK, WORTH_MEASURING = re.compile(r"[^\W\d_]+"), 10  # an expression that only goes forwards; ours take up to four times its time
LIKED = ' a1-."[<t'  # characters that a class is tried with, each in turn, if it has them
SHORT_TEXTS: dict[str, tuple[str, ...]] = {
    "the first bytes of a file": ("documents/mail.py _FIRST_LINE", "documents/text.py _DECLARED"),
    "what another expression found, or left": ("documents/citations.py _ITEMS", r"\s+(?=[.,;:!?])"),
    "at most 160 characters in brackets": ("documents/citations.py _NAMED_PAGE",),
    "at most 255 characters": ("documents/office.py _BRACKETED",),
    "a few characters, cut before": (r"[^\W\d_]+$|[\d.,]*\d$", "documents/paragraphs.py _AMOUNT", "documents/paragraphs.py _CONTENTS_ROW",
                                     "documents/paragraphs.py _LAST_PART", "documents/passages.py _ABBREVIATION"),
}  # fmt: skip
EXTRAS = {
    "llm_selfextend": "llm",
    "selfextend_local.batch.dask_runner": "distributed",
    "selfextend_local.evaluation.plots": "matplotlib",
}


def names() -> Iterator[str]:
    for package in (selfextend_local, selfextend_cli):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield found.name
    yield from (path.stem for path in PLUGIN.glob("*.py"))


def modules() -> Iterator[Any]:
    for name in names():
        if not name.endswith("__main__"):
            try:
                yield importlib.import_module(name)
            except ModuleNotFoundError as error:
                assert error.name == EXTRAS.get(name), name


def place(module: Any) -> str:
    return "/".join(Path(module.__file__).parts[-2:])


def expressions() -> dict[str, tuple[Any, str]]:
    """Name -> expression and how it is used: those of modules, and those that are written where they are used."""
    found: dict[str, tuple[Any, str]] = {}
    for module in modules():
        source = Path(module.__file__).read_text(encoding="utf-8")
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern) and re.search(rf"^{name}\b", source, re.MULTILINE):
                anchored = re.search(rf"\b{name}\.(?:fullmatch|match)\(", source) and not re.search(
                    rf"\b{name}(?!\.(?:fullmatch|match)\(| = |\w|:)", source
                )
                found[f"{place(module)} {name}"] = (value, "match" if anchored else "search")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "re" and node.args:
                given = node.args[0]
                if isinstance(given, ast.Constant) and node.func.attr != "compile":
                    how = "match" if node.func.attr in ("match", "fullmatch") else "search"
                    found[str(given.value).encode("ascii", "backslashreplace").decode()] = (re.compile(given.value), how)
    return found


class Writer:
    """Texts that fit an expression, with the characters that are liked."""

    def __init__(self, liked: str, flags: int) -> None:
        self._liked, self._flags = liked, flags
        self.attacks: list[tuple[str, str]] = []  # what begins it, what repeats

    def text(self, parts: Any, before: str = "") -> str:
        written = ""
        for kind, value in parts:
            written += self._one(kind, value, before + written)
        return written

    def _one(self, kind: Any, value: Any, before: str) -> str:
        if kind in (constants.LITERAL,):
            return chr(value)
        if kind in (constants.IN, constants.NOT_LITERAL, constants.ANY):
            return self._of_class(kind, value)
        if kind is constants.BRANCH:
            texts = [self.text(branch, before) for branch in value[1]]
            return texts[ord(self._liked[0]) % len(texts)]
        if kind is constants.SUBPATTERN:
            return self.text(value[3], before)
        if kind in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            least, most, inner = value
            body = self.text(inner, before)
            if most > 1000 and body:
                self.attacks.append((before, body))
            return body * max(least, 1 if most > 1000 else 0)
        return ""

    def _of_class(self, kind: Any, value: Any) -> str:
        if kind is constants.ANY:
            return self._liked[0]
        named = (
            [held if form is constants.LITERAL else held[0] for form, held in value if form in (constants.LITERAL, constants.RANGE)]
            if kind is constants.IN
            else []
        )
        for char in [*self._liked, *map(chr, range(33, 127)), *map(chr, named)]:
            fits = ord(char) != value if kind is constants.NOT_LITERAL else _class(tuple(value), self._flags).match(char) is not None
            if fits:
                return char
        raise AssertionError(f"no character fits {value}")


@cache
def _class(value: tuple[Any, ...], flags: int) -> Any:
    if sys.version_info >= (3, 11):
        from re import _compiler as compiler
    else:
        import sre_compile as compiler
    tree = parser.SubPattern(parser.State(), [(constants.IN, list(value))])
    tree.state.flags, tree.state.str = flags, ""
    return compiler.compile(tree, flags)


def attacks(expression: Any) -> list[Callable[[int], Any]]:
    """Texts of any length, made for the worst: a beginning once or many times, a repetition, an end that doesn't fit."""
    is_bytes = isinstance(expression.pattern, bytes)
    source = expression.pattern.decode("latin-1") if is_bytes else expression.pattern
    flags = expression.flags & ~re.UNICODE & ~re.LOCALE
    made: dict[tuple[str, str, str], None] = {}
    for char in LIKED:
        writer = Writer(char + LIKED.replace(char, ""), flags)
        whole = writer.text(parser.parse(source, flags))
        found = [*writer.attacks, ("", whole), ("", whole[:1]), ("", char), *((before, char) for before, _ in writer.attacks)]
        for before, body in found:
            for end in ("\x00", "x "):
                made[before, body, end] = None
            made["", before + body, "\x00"] = None

    def text(before: str, body: str, end: str) -> Callable[[int], Any]:
        def of(length: int) -> Any:
            written = before + body * (length // max(1, len(body))) + end
            return written.encode("latin-1", "replace") if is_bytes else written

        return of

    return [text(*parts) for parts in made]


def seconds(expression: Any, how: str, text: Any) -> float:
    started = time.process_time()
    if how == "match":
        expression.match(text)
    else:
        for _ in expression.finditer(text):
            pass
    return time.process_time() - started


KNOWN = {name for names in SHORT_TEXTS.values() for name in names}
EXPRESSIONS = {name: found for name, found in expressions().items() if name not in KNOWN}


def what_takes_too_long(expression: Any, how: str) -> Any:
    """The beginning of a text whose time grows faster than its length; nothing if there is none.

    All times are compared with others of the same machine.
    """
    forwards = min(seconds(YARDSTICK, "search", "a b" * (SHORT // 3)) for _ in range(5))
    for of in attacks(expression):
        if seconds(expression, how, of(SHORT)) > WORTH_MEASURING * forwards:
            short, long = (min(seconds(expression, how, of(length)) for _ in range(2)) for length in (SHORT, SHORT * TIMES))
            if long > 2.2 * TIMES * short:
                return of(60)
    return None


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_time_grows_with_the_text(name: str) -> None:
    expression, how = EXPRESSIONS[name]
    assert what_takes_too_long(expression, how) is None, expression.pattern


@pytest.mark.parametrize("bad", [r"a+$", r"x\s*,?\s*y", r"\[[^\]]*\]", r"(a|b)*c.*d", rb"</f>\s*(?:<v>)?\s*</c>", r"(?:.*,){2}x"])
def test_it_finds_what_it_looks_for(bad: Any) -> None:
    assert what_takes_too_long(re.compile(bad), "search") is not None
