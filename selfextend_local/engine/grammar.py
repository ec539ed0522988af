"""JSON schemas as grammars that the sampler obeys.

A schema is somebody else's: its sizes are checked first, then a child process with limits converts it and draws text by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from selfextend_local.child import ChildFailed, shared
from selfextend_local.errors import SelfExtendError

from .grammar_process import as_converted

SECONDS, MIB = 10.0, 4_096
"""What converting a schema and drawing a text by it may take."""

LONGEST = 1 << 20  # characters of a schema
MOST_VALUES = 20_000  # in it
DEEPEST = 200
MOST_REPEATED = 1_000
"""The parser of grammars refuses some 1,500, recurses for each, and ends the process at 20,000."""

_REPETITIONS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


def schema_of(response_format: Any) -> str | None:
    """The JSON schema that OpenAI's `response_format` asks for, None for text. Raises SelfExtendError."""
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        schema = response_format.get("schema")
        return json.dumps(schema if isinstance(schema, dict) else {"type": "object"})
    described = response_format.get("json_schema") if kind == "json_schema" else None
    if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
        raise SelfExtendError('response_format is none of {"type": "text"}, {"type": "json_object"} and '
                              '{"type": "json_schema", "json_schema": {"schema": {…}}}.')  # fmt: skip
    return json.dumps(described["schema"])


def grammar_of(schema: str | None) -> Any:
    """The grammar of a JSON schema, None for None. Raises SelfExtendError."""
    return None if schema is None else _grammar(_rules(schema))


class ToolGrammars:
    """Grammars for the arguments of tools, where llama-cpp-python makes them itself, of a schema whose size it doesn't look at.

    Raises SelfExtendError for a schema of which `grammar_of` makes none: llama-cpp-python takes any JSON then, or hangs.
    """

    def __init__(self, schemas: Iterable[Any] = ()) -> None:
        rules = [_rules(json.dumps(schema)) for schema in schemas]
        self._ours = {as_converted(text): text for text in rules}

    def ours(self, grammar: Any) -> Any:
        """Our grammar for one that llama-cpp-python has made; another as it is."""
        known = self._ours.get(getattr(grammar, "_grammar", ""))
        return grammar if known is None else _grammar(known)


def _grammar(rules: str) -> Any:
    from llama_cpp.llama_grammar import LlamaGrammar

    return LlamaGrammar.from_string(rules, verbose=False)


def check_grammar(rules: str) -> None:
    """Raises SelfExtendError for a grammar (GBNF) that doesn't compile, or is too much for the sampler."""
    if len(rules) > LONGEST:
        raise SelfExtendError(f"The grammar has {len(rules):,} characters, and {LONGEST:,} are the most: simplify it.")
    try:
        shared("selfextend_local.engine.grammar_process:tried", seconds=SECONDS, mib=MIB).ask(rules)
    except (ChildFailed, ValueError) as error:
        raise SelfExtendError("The grammar can't be used: it doesn't compile, or is too much for the sampler. Simplify it.") from error


@lru_cache(64)
def _rules(schema: str) -> str:
    try:
        _check_sizes(schema)
        converter = shared("selfextend_local.engine.grammar_process:grammar", seconds=SECONDS, mib=MIB)
        rules: str = converter.ask(schema)
    except ChildFailed as error:
        limits = {"time": f"it takes more than {SECONDS:g} s", "memory": f"it takes more than {MIB:,} MiB"}
        raise _refusal(limits.get(error.reason, "it is too much for a grammar")) from error
    except (ValueError, RecursionError) as error:
        raise _refusal(str(error)) from error
    return rules


def _refusal(reason: str) -> SelfExtendError:
    return SelfExtendError(f"The JSON schema can't be used ({reason}): simplify it.")


def _check_sizes(schema: str) -> None:
    """Raises ValueError if the schema is no JSON, or larger than any grammar."""
    if len(schema) > LONGEST:
        raise ValueError(f"it has {len(schema):,} characters, and {LONGEST:,} are the most")
    values, left = 0, [(json.loads(schema), 0)]
    while left:
        value, depth = left.pop()
        values += 1
        if values > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values")
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        if isinstance(value, dict):
            for name in _REPETITIONS:
                if isinstance(value.get(name), (int, float)) and value[name] > MOST_REPEATED:
                    raise ValueError(f"{name} is {value[name]:,}, and {MOST_REPEATED:,} is the most: leave it out to allow any number")
            left += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            left += [(inner, depth + 1) for inner in value]
