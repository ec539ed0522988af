"""Texts as the tokens of a prompt, with or without the model's chat template, and texts of an exact length in tokens.

Knows a vocabulary and the chat template. It knows no tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from selfextend_local.chat.prompt import SYSTEM_DOCUMENT
from selfextend_local.engine.cuts import common_prefix
from selfextend_local.errors import ModelUnsupported
from selfextend_local.generation.prompts import Prompts, Vocabulary

if TYPE_CHECKING:
    from selfextend_local.engine.peek import ModelPeek


# Where the prompts of two questions part, the question begins.
_OTHER = "?"


class Tokenizer(Vocabulary, Protocol):
    """A vocabulary that also knows what stands in front of a text."""

    def opening_tokens(self) -> list[int]:
        """BOS, if texts begin with one."""


class PeekTokenizer:
    """The vocabulary of a GGUF file that isn't loaded."""

    def __init__(self, peek: ModelPeek) -> None:
        self._peek = peek
        self.metadata = peek.info.metadata

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        return self._peek.tokenize(text, special=special)

    def opening_tokens(self) -> list[int]:
        return self._peek.opening_tokens()


class Wording:
    """Prompts for one model. `chat`: put the text into a user message of the model's own template.

    Raises ModelUnsupported if `chat` is asked of a model without a chat template.
    """

    def __init__(self, tokenizer: Tokenizer, *, chat: bool = False) -> None:
        self._tokenizer, self.chat = tokenizer, chat
        # Many questions are asked about one document: where they begin is found by one other prompt.
        self._other: tuple[tuple[str, str], tuple[int, ...]] = ("", ""), ()
        if chat and self._prompts.warning:
            raise ModelUnsupported("This model has no chat template: take --format plain.")

    @classmethod
    def of(cls, tokenizer: Tokenizer, form: str) -> Wording:
        """`form`: plain, chat, or auto: chat if the model has a template."""
        return cls(tokenizer, chat=form == "chat" or (form == "auto" and cls(tokenizer).has_chat_template))

    @property
    def form(self) -> str:
        """chat or plain, for the record."""
        return "chat" if self.chat else "plain"

    @cached_property
    def _prompts(self) -> Prompts:
        return Prompts(self._tokenizer)

    @property
    def stop_tokens(self) -> frozenset[int]:
        return self._prompts.stop_tokens

    @property
    def has_chat_template(self) -> bool:
        return self._prompts.warning is None

    def tokens(self, text: str) -> list[int]:
        """The tokens of `text` alone."""
        return self._tokenizer.tokenize(text)

    def text(self, text: str) -> list[int]:
        """The tokens of a text from its beginning: with BOS if the model wants one."""
        return [*self._tokenizer.opening_tokens(), *self._tokenizer.tokenize(text)]

    def prompt(self, text: str, cue: str = "") -> tuple[int, ...]:
        """The prompt that asks `text`. `cue`: how the answer begins; in front of it stands the template's header, if any."""
        if not self.chat:
            return tuple(self.text(f"{text} {cue}" if cue else text))
        tokens = self._prompts.tokens([self._prompts.message("user", text)])
        return tuple(tokens + self._begun(cue))

    def asked(self, text: str, question: str, cue: str) -> tuple[tuple[int, ...], int]:
        """The prompt that asks `question` about `text` in front of it, and the place of the question's first token."""
        tokens = self.prompt(f"{text}\n{question}", cue)
        return tokens, common_prefix(tokens, self.prompt(f"{text}\n{_OTHER}"))

    def document(self, title: str, text: str, question: str, cue: str = "") -> tuple[tuple[int, ...], int]:
        """The chat's prompt for `question` about one document without pages, and the place of the question's first token."""
        tokens = self.about(title, text, question, cue)
        if self._other[0] != (title, text):
            self._other = (title, text), self.about(title, text, _OTHER)
        return tokens, common_prefix(tokens, self._other[1])

    def about(self, title: str, text: str, question: str, cue: str = "") -> tuple[int, ...]:
        """The tokens of that prompt alone."""
        user = f"Document: {title}\n\n{text}\n\n{question}"
        if not self.chat:
            return self.prompt(user, cue)
        messages = [self._prompts.message("system", SYSTEM_DOCUMENT), self._prompts.message("user", user)]
        return tuple(self._prompts.tokens(messages) + self._begun(cue))

    def _begun(self, cue: str) -> list[int]:
        return self._tokenizer.tokenize(cue) if cue else []


def fitting(count: int, length: int, build: Callable[[int], Sequence[int]]) -> int:
    """The largest number up to `count` (0 if even 1 is too much) for which build(number) has at most `length` tokens."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        if len(build(middle)) <= length:
            low = middle
        else:
            high = middle - 1
    return low
