"""Schemas and chat templates that loop, grow, recurse or crash are refused in a sentence, and a child bears it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfextend_local.child import Child, ChildFailed
from selfextend_local.engine import grammar
from selfextend_local.errors import ModelUnsupported, SelfExtendError
from selfextend_local.generation import chat_template
from selfextend_local.generation.chat_template import ChatTemplate, TemplateRefused

pytestmark = [pytest.mark.native, pytest.mark.process]

OK = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"

ENDLESS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}" + OK,
    "a power": "{% set n = namespace(x=10) %}{% for i in range(30) %}{% set n.x = n.x * n.x %}{% endfor %}" + OK,
}
LARGE = {
    "a product": "{{ 'a' * 2**31 }}" + OK,
    "a list": "{{ ([1] * 2**30)|length }}" + OK,
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(31) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}" + OK,
    "a width": "{{ '{:>2000000000}'.format(1) }}" + OK,
    "an indent": "{{ 'a\na'|indent(2000000000) }}" + OK,
    "growth": "{{ ('a' * 100000).replace('a', 'a' * 100000) }}" + OK,
}
BROKEN = {
    "deep parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}" + OK,
    "deep ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000 + OK,
    "deep loops": "{% for i in [1] %}" * 200 + "{% endfor %}" * 200 + OK,
    "a long sum": "{{ " + "1+" * 30000 + "1 }}" + OK,
    "an escape": "{{ \x1b]0;owned\x07 }}",
}
REFUSED = {
    "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}" + OK,
    "long output": "{{ 'word ' * 1000000 }}" + OK,
    "as long as a book, at once": "{{ 'word ' * 5000 }}" + OK,
    "as long as a book, bit by bit": "{% for i in range(5000) %}word {% endfor %}" + OK,
    "a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}" + OK,
    "globals": "{{ cycler.__init__.__globals__.os.system('touch pwned') }}" + OK,
    "an include": "{% include '/etc/passwd' %}" + OK,
    "what it raises": "{{ raise_exception('no') }}",
    "a range": "{% for i in range(10**9) %}{% endfor %}" + OK,
}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children with less time, for what would never end."""
    monkeypatch.setattr(chat_template, "SECONDS", 1.0)
    monkeypatch.setattr(grammar, "SECONDS", 2.0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_never_ends_is_ended(name: str) -> None:
    with pytest.raises(ModelUnsupported, match="ran for more than|needed more than"):
        ChatTemplate(ENDLESS[name]).pieces(["user"])


@pytest.mark.parametrize("name", LARGE)
def test_a_template_that_grows_is_ended(name: str) -> None:
    with pytest.raises(ModelUnsupported, match="needed more than"):
        ChatTemplate(LARGE[name]).pieces(["user"])


@pytest.mark.parametrize("name", BROKEN)
def test_a_template_that_does_not_compile_is_an_error_of_the_model(name: str) -> None:
    with pytest.raises(ModelUnsupported, match="can't be read"):
        ChatTemplate(BROKEN[name])


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_reaches_too_far_refuses(name: str) -> None:
    with pytest.raises(TemplateRefused):
        ChatTemplate(REFUSED[name]).pieces(["user"])


def test_a_template_may_write_what_templates_write() -> None:
    pieces = ChatTemplate("{{ 'You are a careful assistant. ' * 400 }}" + OK).pieces(["user", "assistant"] * 200)
    assert len(pieces) > 400


def test_after_a_child_has_ended_the_next_template_is_rendered() -> None:
    with pytest.raises(ModelUnsupported):
        ChatTemplate(LARGE["a list"]).pieces(["user"])
    assert "".join(piece for piece in ChatTemplate(OK).pieces(["user"]) if isinstance(piece, str)).startswith("<|im_start|>user\n")


def text(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


SCHEMAS: dict[str, Any] = {
    "maxLength 20000": text(maxLength=20_000),
    "maxLength 1e9": text(maxLength=10**9),
    "minLength 1e5": text(minLength=10**5),
    "maxItems 1e6": {"type": "array", "items": {"type": "integer"}, "maxItems": 10**6},
    "maxLength text": text(maxLength="x"),
    "repetition": text(pattern="^(ab){0,1000000}$"),
    "deep pattern": text(pattern="^" + "(" * 5000 + "a" + ")" * 5000 + "$"),
    "left recursion": text(pattern="^(()*)*$"),
    "bracket": text(pattern="^[a"),
    "enum of 300,000": {"enum": [f"x{i}" for i in range(300_000)]},
    "20,000 alike": {"enum": ["a"] * 20_000},
    "3,000 optional": {"type": "object", "properties": {f"k{i}": text() for i in range(3000)}},
    "an empty enum": {"enum": []},
    "an empty oneOf": {"oneOf": []},
    "false": False,
    "null": None,
    "a ref to itself": {"$ref": "#"},
    "a ref to the web": {"$ref": "https://localhost/x.json"},
    "a ref to a file": {"$ref": "file:///etc/passwd"},
    "odd names": {"type": "object", "properties": {'a"\n::= b': text(), "x" * 10**6: text()}},
}
TEXTS = {name: json.dumps(schema) for name, schema in SCHEMAS.items()} | {
    "deep": "[" * 100_000,
    "nested": '{"type":"array","items":' * 400 + "{}" + "}" * 400,
    "a large number": '{"minimum": ' + "9" * 5000 + "}",
    "no JSON": "{",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_hostile_schema_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(SelfExtendError, match=r"The JSON schema can't be used \(.+\): simplify it\.") as refused:
        grammar.grammar_of(TEXTS[name])
    assert len(str(refused.value)) < 2_500


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("pattern", ["^(a?){200}a{200}$", "^((a?){40}){40}$", "^a{1000000000}$"])
def test_a_pattern_that_never_ends_is_ended(pattern: str) -> None:
    with pytest.raises(SelfExtendError, match="takes more than"):
        grammar.grammar_of(json.dumps(text(pattern=pattern)))


@pytest.mark.parametrize("schema", [text(maxLength=1000), text(pattern="^(a|b)*$"), {"type": "object", "properties": {"who": text()}}])
def test_a_good_schema_is_a_grammar(schema: Any) -> None:
    assert grammar.grammar_of(json.dumps(schema)) is not None


@pytest.mark.native
def test_no_string_of_an_answer_holds_a_bare_line_end() -> None:
    """The converter's strings did, and such an answer is no JSON."""
    from selfextend_local.engine.grammar_process import grammar as rules_of
    from selfextend_local.native.model import _FIRST_BYTE, try_grammar

    offered: set[int] = set()

    def choose(allowed: list[int]) -> int:
        offered.update(token - _FIRST_BYTE for token in allowed)
        return allowed[0]

    for schema in (text(), text(maxLength=40)):
        try_grammar(rules_of(json.dumps(schema)), choose, 4)
    assert ord("a") in offered and not offered & set(range(32))


def test_a_child_that_dies_is_an_answer_and_the_next_one_answers() -> None:
    child = Child("os:_exit", seconds=600, mib=1024)
    for _ in range(2):
        with pytest.raises(ChildFailed, match="crash"):
            child.ask(3)
    other = Child("json:dumps", seconds=600, mib=1024)
    assert other.ask({"a": 1}) == '{"a": 1}'
    child.close()
    other.close()


def test_a_limit_of_memory_counts_what_a_child_takes_for_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library may have set more addresses aside than that, as AddressSanitizer does."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    child = Child("support.sets_aside:length", seconds=600, mib=64)
    assert child.ask(1 << 20) == 1 << 20
    with pytest.raises(ChildFailed, match="memory"):
        child.ask(128 << 20)
    child.close()


def test_a_child_can_be_stopped() -> None:
    child = Child("time:sleep", seconds=6000, mib=1024)
    with pytest.raises(ChildFailed, match="stopped"):
        child.ask(3000, should_stop=lambda: True)
