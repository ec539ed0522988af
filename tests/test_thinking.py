"""Thoughts told apart from answers, however the pieces are cut."""

from __future__ import annotations

import pytest

from selfextend_local.generation.thinking import opens_thought, parts, split

ANSWERS = [
    ("<think>\nhm, <b> no\n</think>\n\nYes.", False, "Yes.", "hm, <b> no"),
    ("hm</think>Yes.", True, "Yes.", "hm"),
    (" \n<thinking>a</thinking> b", False, "b", "a"),
    ("<think></think>Yes.", False, "Yes.", ""),
    ("<think>never ends", False, "", "never ends"),
    ("Use <think> and </think> as tags.", False, "Use <think> and </think> as tags.", ""),
    ("a < b and </p>", False, "a < b and </p>", ""),
    ("<thin", False, "<thin", ""),
    ("<think>a</think>b <think>c", False, "b <think>c", "a"),
    ("plain", False, "plain", ""),
]


@pytest.mark.parametrize(("text", "open", "answer", "thought"), ANSWERS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_split_over_pieces(text: str, open: bool, answer: str, thought: str, size: int) -> None:
    found = list(parts((text[i : i + size] for i in range(0, len(text), size)), open=open))
    assert "".join(p.text for p in found if not p.thought).strip() == answer
    assert "".join(p.text for p in found if p.thought).strip() == thought
    assert split(text, open=open) == (answer, thought)


def test_ordinary_text_is_not_held_back() -> None:
    assert [p.text for p in parts(["One ", "two", " three"])] == ["One ", "two", " three"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("<|assistant|>\n<think>\n", True), ("<|assistant|>\n<think>\n\n</think>\n\n", False), ("<|assistant|>", False)],
)
def test_templates_that_open_the_block(prompt: str, expected: bool) -> None:
    assert opens_thought(prompt) is expected
