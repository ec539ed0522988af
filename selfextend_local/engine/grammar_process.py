"""Making a grammar of a JSON schema and trying it: what runs in the child process of grammar.py, since both may hang or crash.

Knows the converter and the native boundary.
"""

from __future__ import annotations

import random

from selfextend_local import native

TRIAL = 300
"""Characters that are drawn at random: enough to walk into what makes a grammar grow with each character."""


_CHAR = r'[^"\\] |'
_JSON_CHAR = r'[^"\\\x00-\x1F] |'
"""A character of a string: the converter lets line ends through, which JSON doesn't take there."""


def grammar(schema: str) -> str:
    """The rules for a schema, which compile, and by which text can be drawn. Raises ValueError."""
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    return tried(json_schema_to_gbnf(schema).replace(_CHAR, _JSON_CHAR))


def tried(rules: str) -> str:
    """Rules that somebody wrote, if they compile and text can be drawn by them. Raises ValueError."""
    # The sampler would take a grammar that doesn't compile for none, and crash.
    if not native.grammar_compiles(rules):
        raise ValueError("it allows nothing, or too much for a grammar")
    for seed in range(3):
        draw = random.Random(seed)
        native.try_grammar(rules, draw.choice, TRIAL)
    return rules


def as_converted(rules: str) -> str:
    """What the converter had made of them."""
    return rules.replace(_JSON_CHAR, _CHAR)
