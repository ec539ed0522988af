"""Schemas and chat templates that loop, grow, recurse or crash are refused in a sentence, and a child bears it."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from support.gguf_edit import parse
from test_prompts import ByteVocabulary

from selfextend_local import native
from selfextend_local.chat.settings import ChatSettings
from selfextend_local.chat.workspace import Workspace
from selfextend_local.child import Child, ChildFailed
from selfextend_local.engine import grammar, grammar_process
from selfextend_local.errors import ModelUnsupported, SelfExtendError
from selfextend_local.generation import chat_template
from selfextend_local.generation.chat_template import ChatTemplate, TemplateRefused
from selfextend_local.generation.prompts import Prompts

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
    "nothing, raised": "{{ raise_exception('') }}",
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


class Asked:
    """Counts what the child is asked, and may say that it took longer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float | None = None) -> None:
        self.roles: list[list[str] | None] = []
        real = chat_template.shared
        monkeypatch.setattr(chat_template, "shared", lambda *args, **limits: self)
        self._child, self._seconds = real("selfextend_local.generation.template_process:rendered", seconds=10, mib=1024), seconds
        monkeypatch.setattr(chat_template, "_trials", lru_cache(8)(chat_template._Trials))

    def ask(self, request: Any) -> Any:
        messages = request["messages"]
        self.roles.append(messages and [message["role"] for message in messages])
        return self._child.ask(request) | ({} if self._seconds is None or messages is None else {"seconds": self._seconds})


LIPSUM = "{{ lipsum(n=200, html=false) }}" + OK


@pytest.mark.parametrize("template", [LIPSUM, REFUSED["long output"], REFUSED["as long as a book, bit by bit"]])
def test_a_template_that_writes_too_much_is_tried_once(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    for _ in range(3):
        with pytest.raises(ModelUnsupported, match=r"can't be used: it writes more than .+\. Take another GGUF file of this model\."):
            Prompts(ByteVocabulary(template))
    assert asked.roles == [None, ["system", "user"]]


def test_a_chat_renders_such_a_template_once(fixture_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    path = tmp_path / "hostile.gguf"
    path.write_bytes(parse(fixture_model.read_bytes()).set("tokenizer.chat_template", 8, LIPSUM.encode()).dump())
    for _ in range(2):
        with pytest.raises(ModelUnsupported, match="it writes more than"):
            Workspace(settings=ChatSettings(model=path, cache=False))
    assert asked.roles == [None, ["system", "user"]]


@pytest.mark.parametrize(("reason", "said", "times"), [("time", "ran for more", 1), ("memory", "needed more", 1), ("crash", "ended", 3)])
def test_a_template_beyond_the_limits_is_not_tried_again(reason: str, said: str, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may have been ended by something else."""
    asked = []

    def ask(request: Any) -> Any:
        asked.append(request)
        raise ChildFailed(reason)

    monkeypatch.setattr(Asked(monkeypatch), "ask", ask)
    for _ in range(3):
        with pytest.raises(ModelUnsupported, match=f"can't be used: it {said}"):
            Prompts(ByteVocabulary(OK))
    assert len(asked) == times


def test_the_trials_of_a_template_have_one_budget_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would be in time."""
    slow = Asked(monkeypatch, seconds=chat_template.SECONDS * 0.4)
    for _ in range(3):
        with pytest.raises(ModelUnsupported, match="can't be used: it ran for more than"):
            Prompts(ByteVocabulary(OK))
    assert len(slow.roles) == 4
    quick = Asked(monkeypatch, seconds=chat_template.SECONDS * 0.2)
    assert Prompts(ByteVocabulary(OK)).warning is None
    assert len(quick.roles) == 5


NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ 1 / 0 }}{% endif %}" + OK


@pytest.mark.parametrize("template", [OK, "{{ raise_exception('no') }}", NO_SYSTEM])
def test_each_shape_is_tried_once_for_all_who_ask(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    for _ in range(3):
        Prompts(ByteVocabulary(template))
    assert len(asked.roles) == len({str(roles) for roles in asked.roles}) == 5


def test_what_a_trial_found_is_not_what_a_conversation_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template may print the time: each conversation has its own."""
    asked = Asked(monkeypatch)
    template = ChatTemplate(OK)
    assert template.trial(["user"]) == template.pieces(["user"]) == template.trial(["user"])
    assert asked.roles == [None, ["user"], ["user"]]


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


def test_a_trial_looks_at_tokens_of_several_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler follows each to its end: two hundred optional letters were drawn one by one in time, and then took 30 s a token."""
    trials: list[tuple[bytes, list[bytes]]] = []
    real = native.try_grammar

    def noted(rules: str, choose: Any, most: int, words: Any = ()) -> bytes:
        trials.append((real(rules, choose, most, words), list(words)))
        return trials[-1][0]

    monkeypatch.setattr(native, "try_grammar", noted)
    rules = grammar_process.grammar(json.dumps(text(pattern="^(a?){20}a{20}$")))
    *single, (drawn, words) = trials
    assert [given for _, given in single] == [[], [], []]
    assert drawn in {drawn for drawn, _ in single}
    assert b"aaaa" in words and all(len(word) == grammar_process.LONG and word in drawn for word in words)
    assert len(words) <= grammar_process.WORDS
    # They are looked at, and not drawn.
    assert real(rules, min, 300, words) == real(rules, min, 300)


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
