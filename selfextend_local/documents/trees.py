"""XML as a tree. Knows what Python's parser raises; must not know what the elements mean."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError, fromstring

__all__ = ["ParseError", "outermost", "parse_xml"]


def parse_xml(data: bytes | str) -> Element:
    """The root of a tree. Raises ParseError for all that is wrong: also for an encoding that Python doesn't know, or can't parse."""
    try:
        return fromstring(data)
    except (LookupError, ValueError) as error:
        raise ParseError(str(error)) from error


def outermost(node: Element, *tags: str) -> Iterator[Element]:
    """The elements with these tags below `node`, without those that lie in another of them."""
    waiting = list(reversed(node))
    while waiting:
        child = waiting.pop()
        if child.tag in tags:
            yield child
        else:
            waiting += reversed(child)
