"""JSON schemas as grammars that the sampler obeys."""

from __future__ import annotations

from typing import Any

from selfextend_local import native
from selfextend_local.errors import SelfExtendError


def grammar_of(schema: str | None) -> Any:
    """The grammar of a JSON schema, None for None. Raises SelfExtendError."""
    if schema is None:
        return None
    from llama_cpp.llama_grammar import LlamaGrammar, json_schema_to_gbnf

    try:
        rules = json_schema_to_gbnf(schema)
    except Exception as error:  # A schema can be wrong in any way, and the converter's errors have no common type.
        raise SelfExtendError(f"The JSON schema can't be used ({error}): simplify it.") from error
    # The sampler would take a grammar that doesn't compile for none, and crash.
    if not native.grammar_compiles(rules):
        raise SelfExtendError("The JSON schema can't be used (it allows nothing, or too much for a grammar): simplify it.")
    return LlamaGrammar.from_string(rules, verbose=False)
