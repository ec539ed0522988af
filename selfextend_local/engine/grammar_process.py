"""Making a grammar of a JSON schema and trying it: what runs in the child process of grammar.py, since both may hang or crash.

Knows the converter and the native boundary.
"""

from __future__ import annotations

import random
import time

from selfextend_local import native

TRIAL = 300
"""Characters that are drawn at random: enough to walk into what makes a grammar grow with each character."""

LONG, WORDS = 4, 8
"""Characters of a token, and how many tokens there are besides single characters: parts of what was drawn."""


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
    took = []
    for seed in range(3):
        started = time.process_time()
        text = native.try_grammar(rules, random.Random(seed).choice, TRIAL)
        took.append((time.process_time() - started, seed, text))
    _, seed, text = max(took)
    # A sampler follows each token to its end, through all that the grammar allows with each of its characters.
    words = sorted({text[at : at + LONG] for at in range(len(text) - LONG + 1)})
    native.try_grammar(rules, random.Random(seed).choice, TRIAL, words[:: len(words) // WORDS + 1])
    return rules


def as_converted(rules: str) -> str:
    """What the converter had made of them."""
    return rules.replace(_JSON_CHAR, _CHAR)
