"""Messages in, tokens out, so that neither a document nor a user can break out of its role.

Template text is tokenised with special tokens, contents without: `<|im_end|>` in a document is seven harmless
characters' worth of text. A turn only ever appends tokens, so that what the cache holds stays valid. Knows vocabularies
and templates. Must not know documents, how tokens are evaluated or sampled, nor the terminal.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Protocol

from selfextend_local.errors import ModelUnsupported

from .chat_template import (
    PLAIN_TEMPLATE,
    ChatTemplate,
    Content,
    Mark,
    Piece,
    Role,
    TemplateRefused,
)
from .markers import Markers
from .thinking import opens_thought

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama
    from selfextend_local.engine.peek import ModelPeek

NO_TEMPLATE = (
    "This model has no chat template: it is probably a base model, which continues text and doesn't answer. "
    "Take an instruction-tuned GGUF file (its name often ends in Instruct or it)."
)

_SHORT = 1000  # characters: questions, and what templates write
_TURNS = 16_384  # short texts that are tokenised once: the questions of a long chat, which each of its prompts has
_CONVERSATIONS: tuple[tuple[Role, ...], ...] = (("system", "user", "assistant", "user"), ("user", "assistant", "user"), ("user",))
_LARGEST_ID = 2**31 - 1  # of what llama.cpp calls a token
_END_IDS = ("eos_token_id", "eot_token_id", "eom_token_id")


class Vocabulary(Protocol):
    """What this module asks of a model."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Of the GGUF file."""

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """The tokens of `text`, no BOS added; names of special tokens count as such only if `special`."""


@dataclass(frozen=True)
class PeekVocabulary:
    """The vocabulary of a model that isn't loaded."""

    peek: ModelPeek

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.peek.info.metadata

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        return self.peek.tokenize(text, special=special)


@dataclass(frozen=True)
class ModelVocabulary:
    """The vocabulary of a loaded model."""

    llm: SelfExtendLlama

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.llm.info.metadata

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        return list(self.llm.tokenize(text.encode(), add_bos=False, special=special))


@dataclass(frozen=True, slots=True)
class Message:
    """One message; its content is held as the tokens that the model reads or has written. `parts`: how many of them there are at the
    end of each part but the last."""

    role: Role
    tokens: tuple[int, ...]
    parts: tuple[int, ...] = ()


class TokenMemo:
    """The tokens of long texts that were asked for lately, for all who make prompts of one model: a document is tokenised
    once, however often it is counted and read. Holds the last `max_texts`, of together at most `max_characters`."""

    def __init__(self, max_characters: int = 32 << 20, max_texts: int = 4096) -> None:
        self._max_characters, self._max_texts = max_characters, max_texts
        self._characters = 0
        self._held: dict[str, array[int]] = {}

    def tokens(self, text: str, tokenize: Callable[[], Sequence[int]]) -> Sequence[int]:
        """The tokens of `text`, which `tokenize` makes if they aren't held."""
        if len(text) < _SHORT:
            return tokenize()
        found = self._held.pop(text, None)
        if found is None:
            found = array("i", tokenize())
            self._characters += len(text)
        self._held[text] = found
        while (self._characters > self._max_characters and len(self._held) > 1) or len(self._held) > self._max_texts:
            oldest = next(iter(self._held))
            del self._held[oldest]
            self._characters -= len(oldest)
        return found


class _Rendered:
    """What a template writes in one conversation, rendered once for each turn, however many follow.

    A prompt needs the rendering up to each of its turns. All of them for each question would be as many as the square of the turns.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._roles: list[Role] = []
        self._held: dict[tuple[int, int | None], list[Piece]] = {}

    def keep(self, roles: Sequence[Role]) -> None:
        """From now on a conversation of these roles; what it shares with the last one at its beginning stays."""
        same = next((i for i, (old, new) in enumerate(zip(self._roles, roles, strict=False)) if old != new), None)
        if same is not None:
            self._held = {(end, after): pieces for (end, after), pieces in self._held.items() if end <= same}
        if same is not None or len(roles) > len(self._roles):
            self._roles = list(roles)

    def pieces(self, end: int, after: int | None) -> list[Piece]:
        """The first `end` messages rendered; only what comes after the content of message `after`, if it isn't None."""
        if (end, after) not in self._held:
            pieces = self._template.pieces(self._roles[:end])
            self._held[end, after] = pieces if after is None else _after(pieces, after)
        return self._held[end, after]


class Prompts:
    """The prompts of one model. With a `memo`, long texts are tokenised once for all that share it.

    Attributes:
        warning: a sentence to show loudly when the model has no chat template, else None.
        stop_tokens: tokens that end an answer: those that the file names, and the one that the template writes after
            an assistant's message.
        stop_texts: what ends an answer when the template has no token for it.
        opens_thought: whether the template opens a reasoning block, so that an answer begins inside it.

    Raises ModelUnsupported if the template is broken, takes too long or writes too much.
    """

    def __init__(self, vocabulary: Vocabulary, memo: TokenMemo | None = None) -> None:
        self._vocabulary = vocabulary
        self._memo = memo
        self._tokens_of_short = lru_cache(_TURNS)(self._tokens_of)
        source = vocabulary.metadata.get("tokenizer.chat_template")
        self.warning = None if source else NO_TEMPLATE
        self._template = ChatTemplate(source or PLAIN_TEMPLATE)
        self._rendered = _Rendered(self._template)
        self._takes_system = self._check_system()
        self._markers = Markers([source or PLAIN_TEMPLATE, *self._written()], self._forged)
        self.stop_tokens, self.stop_texts = self._stops()
        self.opens_thought = self._opens_thought()

    def message(self, role: Role, *parts: str) -> Message:
        """A message whose content is the `parts`, one after the other, as plain characters; outer white space is removed.
        Each part is tokenised by itself, a long one once."""
        contents = [self._content(part) for part in _trimmed(parts)]
        return Message(role, tuple(chain.from_iterable(contents)), tuple(accumulate(map(len, contents[:-1]))))

    def _content(self, text: str) -> Sequence[int]:
        if self._memo is None:
            return self._plain(text)
        return self._memo.tokens(text, lambda: self._plain(text))

    def _plain(self, text: str) -> list[int]:
        parts = self._markers.cut(text)
        return [token for part in parts for token in self._tokenize(part, special=False, first=False)]

    def _forged(self, mark: str) -> int:
        plain = self._tokenize(mark, special=False, first=False)
        return len(plain) if plain == self._tokenize(mark, special=True, first=False) else 0

    def _written(self) -> list[str]:
        """What the template writes around contents."""
        for roles in _CONVERSATIONS:
            try:
                return ["".join(piece for piece in self._template.trial(roles) if isinstance(piece, str))]
            except TemplateRefused:
                continue
        return []

    def count(self, text: str) -> int:
        """Tokens of `text` as content."""
        return len(self.message("user", text).tokens)

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """The prompt for the answer to `messages`.

        For any longer conversation that starts with `messages` and an answer, the prompt starts with these tokens and
        the answer's: what the template would rewrite in earlier turns stays as the model saw it.

        Raises:
            ModelUnsupported: the template refuses or drops the messages.
        """
        return self.laid_out(messages)[0]

    def laid_out(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """The prompt as `tokens` has it, and its stops: how many tokens there are where a part of a message ends, or an answer or what
        it answers."""
        messages = self._folded(messages)
        self._rendered.keep([m.role for m in messages])
        answers = [i for i, m in enumerate(messages) if m.role == "assistant"]
        tokens, stops = self._filled(messages[: answers[0]] if answers else messages)
        n_filled = len(tokens)
        tokens = self._with_bos(tokens)
        stops = [stop + len(tokens) - n_filled for stop in stops]
        for i, end in zip(answers, [*answers[1:], len(messages)], strict=False):
            stops.append(len(tokens))
            tokens += messages[i].tokens
            stops.append(len(tokens))
            more, within = self._filled(messages[:end], after=i)
            stops += [len(tokens) + stop for stop in within]
            tokens += more
        return tokens, stops

    def _filled(self, messages: Sequence[Message], after: int | None = None) -> tuple[list[int], list[int]]:
        """The tokens of the rendered `messages`, or of what comes after the content of message `after`, and where parts end there."""
        try:
            pieces = self._rendered.pieces(len(messages), after)
        except TemplateRefused as error:
            raise ModelUnsupported(f"The model's chat template refuses this conversation: {error}") from error
        needed = range(0 if after is None else after + 1, len(messages))
        if missing := [i for i in needed if Content(i) not in pieces]:
            raise ModelUnsupported(
                f"The model's chat template drops the {messages[missing[0]].role} message: take another GGUF file."
            )
        tokens: list[int] = []
        stops: list[int] = []
        for piece in pieces:
            if isinstance(piece, Content):
                stops += [len(tokens) + end for end in messages[piece.index].parts]
                tokens += messages[piece.index].tokens
            elif isinstance(piece, Mark):
                tokens += self._marked(piece)
            else:
                tokens += self._tokenize(piece, special=True, first=not tokens and after is None)
        return tokens, stops

    def _marked(self, mark: Mark) -> list[int]:
        token = self._id(f"{mark.value}_token_id")
        return [] if token is None else [token]

    def _with_bos(self, tokens: list[int]) -> list[int]:
        """`tokens` with exactly one BOS in front if the vocabulary wants one; never two."""
        bos = self._id("bos_token_id")
        if bos is None:
            return tokens
        flag = self._vocabulary.metadata.get("tokenizer.ggml.add_bos_token")
        wanted = self._is_sentencepiece() if flag is None else flag == "true"
        if tokens[:2] == [bos, bos]:
            return tokens[1:]
        return [bos, *tokens] if wanted and tokens[:1] != [bos] else tokens

    def _folded(self, messages: Sequence[Message]) -> list[Message]:
        """`messages`, the system text moved into the first user message if the template has no place for it."""
        if self._takes_system or not messages or messages[0].role != "system":
            return list(messages)
        system, *rest = messages
        gap = self._tokenize("\n\n", special=False, first=False)
        i = next((i for i, m in enumerate(rest) if m.role == "user"), None)
        if i is not None:
            front = (*system.tokens, *gap)
            rest[i] = Message("user", (*front, *rest[i].tokens), tuple(len(front) + end for end in rest[i].parts))
        return rest

    def _check_system(self) -> bool:
        try:
            return Content(0) in self._template.trial(["system", "user"])
        except TemplateRefused:
            return False

    def _stops(self) -> tuple[frozenset[int], tuple[str, ...]]:
        tokens = {id for key in _END_IDS if (id := self._id(key)) is not None}
        try:
            end = _after(self._template.trial(["user", "assistant", "user"]), 1)[:1]
        except TemplateRefused:
            end = []
        for piece in end:
            if isinstance(piece, str):
                first = self._tokenize(piece, special=True, first=False)[:1]
                if first != self._tokenize(piece, special=False, first=False)[:1]:
                    tokens.update(first)
                elif piece.strip():
                    return frozenset(tokens), ("\n" + piece.strip(),)
        return frozenset(tokens), ()

    def _opens_thought(self) -> bool:
        try:
            pieces = self._template.trial(["user"])
        except TemplateRefused:
            return False
        return opens_thought("".join(p for p in _after(pieces, 0) if isinstance(p, str)))

    def _tokenize(self, text: str, *, special: bool, first: bool) -> tuple[int, ...]:
        """The tokens of `text`; within a prompt (not `first`), without the space that SentencePiece puts in front."""
        return (self._tokens_of_short if len(text) < _SHORT else self._tokens_of)(text, special, first)

    def _tokens_of(self, text: str, special: bool, first: bool) -> tuple[int, ...]:
        if first or not self._is_sentencepiece() or not self._adds_space():
            return tuple(self._vocabulary.tokenize(text, special=special))
        line = self._vocabulary.tokenize("\n")
        tokens = self._vocabulary.tokenize("\n" + text, special=special)
        if tokens[: len(line)] != line:
            return tuple(self._vocabulary.tokenize(text, special=special))
        return tuple(tokens[len(line) :])

    def _is_sentencepiece(self) -> bool:
        return self._vocabulary.metadata.get("tokenizer.ggml.model") == "llama"

    def _adds_space(self) -> bool:
        return self._vocabulary.metadata.get("tokenizer.ggml.add_space_prefix", "true") == "true"

    def _id(self, key: str) -> int | None:
        value = self._vocabulary.metadata.get(f"tokenizer.ggml.{key}")
        return int(value) if value is not None and value.isdecimal() and len(value) < 11 and int(value) <= _LARGEST_ID else None


def _trimmed(parts: Sequence[str]) -> list[str]:
    """The parts less the white space around all of them. Lone surrogates come from undecodable bytes on the command line;
    tokenisers want valid UTF-8."""
    clean = [part.encode("utf-8", "replace").decode() for part in parts]
    while clean and not clean[0].strip():
        del clean[0]
    while clean and not clean[-1].strip():
        del clean[-1]
    if clean:
        clean[0] = clean[0].lstrip()
        clean[-1] = clean[-1].rstrip()
    return clean


def _after(pieces: Sequence[Piece], index: int) -> list[Piece]:
    """What follows the content of message `index`; everything if the template dropped it."""
    place = Content(index)
    return list(pieces[pieces.index(place) + 1 :]) if place in pieces else list(pieces)
