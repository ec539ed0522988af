"""JSON schemas as grammars that the sampler obeys.

A schema is somebody else's: its sizes are checked first, then a child process with limits converts it and draws text by it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from selfextend_local.child import ChildFailed, shared
from selfextend_local.errors import SelfExtendError

SECONDS, MIB = 10.0, 4_096
"""What converting a schema and drawing a text by it may take."""

LONGEST = 1 << 20  # characters of a schema
MOST_VALUES = 20_000  # in it
DEEPEST = 200
MOST_REPEATED = 1_000
"""The parser of grammars refuses some 1,500, recurses for each, and ends the process at 20,000."""

_REPETITIONS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


def grammar_of(schema: str | None) -> Any:
    """The grammar of a JSON schema, None for None. Raises SelfExtendError."""
    if schema is None:
        return None
    from llama_cpp.llama_grammar import LlamaGrammar

    return LlamaGrammar.from_string(_rules(schema), verbose=False)


@lru_cache(64)
def _rules(schema: str) -> str:
    try:
        _check_sizes(schema)
        converter = shared("selfextend_local.generation.grammar_process:grammar", seconds=SECONDS, mib=MIB)
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
