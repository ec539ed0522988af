"""Chat against a scripted model: streaming, history, interrupts, overflow, figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from selfextend_local.chat.conversation import Chat, Sampling, count_prompt_tokens
from selfextend_local.documents import Document, Page
from selfextend_local.errors import ContextOverflow, Interrupted, NothingAsked
from selfextend_local.positions import GroupAttention

END = 1000
CHATML = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def _tokenize(text: str, special: bool) -> list[int]:
    parts = text.split("<|end|>") if special else [text]
    tokens: list[int] = []
    for i, part in enumerate(parts):
        tokens += [END] * (i > 0) + list(part.encode())
    return tokens


@dataclass(frozen=True)
class FakePrefill:
    """The fields of selfextend_local.engine.llama.Prefill, which can't be imported without the library."""

    n_prompt: int
    n_reused: int
    n_evaluated: int
    seconds: float


@dataclass
class FakeLlama:
    """A token a byte. Answers with the scripts in turn, then END for ever; its cache is a list."""

    scripts: list[bytes]
    template: str | None = CHATML
    capacity: int = 10_000
    interrupt_prefill: bool = False

    def n_vocab(self) -> int:
        return 1 << 20

    def __post_init__(self) -> None:
        self.cache: list[int] = []
        self.prompts: list[list[int]] = []
        self.expected: list[int] = []
        self.seeds: list[int] = []
        self.group_attention = GroupAttention(4, 128, 64)
        metadata = {"tokenizer.ggml.eos_token_id": str(END)}
        if self.template:
            metadata["tokenizer.chat_template"] = self.template
        self.info = SimpleNamespace(metadata=metadata)

    @property
    def n_tokens(self) -> int:
        return len(self.cache)

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        assert not add_bos
        return _tokenize(text.decode(), special)

    def ends_answers(self, token: int) -> bool:
        return False

    def detokenize(self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None) -> bytes:
        return bytes(t for t in tokens if t < 256)

    def group_attention_for(self, n_tokens: int) -> GroupAttention:
        return GroupAttention(4, n_tokens, 64)

    def next_growth(self, coming: int = 0) -> tuple[int, GroupAttention] | None:
        return coming + 1, GroupAttention(8)

    def set_seed(self, seed: int) -> None:
        self.seeds.append(seed)

    def prefill(
        self,
        tokens: Sequence[int],
        *,
        progress: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        expect: int | None = None,
        stops: Sequence[int] = (),
    ) -> FakePrefill:
        wanted = list(tokens)
        self.parts = [bytes(t for t in wanted[a:b] if t < 256) for a, b in pairwise([0, *stops, len(wanted)])]
        self.expected.append(expect or 0)
        reused = 0
        while reused < min(len(wanted), len(self.cache)) and wanted[reused] == self.cache[reused]:
            reused += 1
        if self.interrupt_prefill:
            self.cache = wanted[: len(wanted) // 2]
            raise Interrupted("stopped", len(self.cache))
        self.cache = list(wanted)
        if progress:
            progress(len(wanted), len(wanted))
        self.prompts.append(wanted)
        return FakePrefill(len(wanted), reused, len(wanted) - reused, 0.5)

    def generate(self, tokens: Sequence[int], **sampling: Any) -> Iterator[int]:
        assert list(tokens) == self.cache
        script = self.scripts.pop(0) if self.scripts else b""
        for token in [*script, END]:
            yield token
            # As llama-cpp-python: a token is evaluated when the next one is asked for.
            self.cache.append(token)


def start(fake: FakeLlama, **options: Any) -> Chat:
    return Chat(cast(Any, fake), **options)


def test_a_reading_is_told_where_documents_questions_and_answers_end() -> None:
    fake = FakeLlama([b"Seven.", b"Eight."])
    chat = start(fake, documents=[document()])
    "".join(chat.ask("Which key?"))
    front, question = fake.parts
    assert front.rstrip().endswith(document().pages[-1].text.encode())
    assert question.strip().startswith(b"Which key?")
    "".join(chat.ask("And then?"))
    assert fake.parts[0] == front
    assert fake.parts[1:3] == [question, b"Seven."]
    assert b"And then?" in fake.parts[3]


def test_the_grouping_of_a_text_is_known_before_it_is_read() -> None:
    fake = FakeLlama([b"Seven."])
    chat = start(fake, documents=[document()], sampling=Sampling(max_tokens=100), reserve=50)
    group, growth = chat.grouping(chat.filling().total)
    assert growth == (group.w + 1, GroupAttention(8))
    "".join(chat.ask("Which key?"))
    assert fake.expected == [group.w + len("\n\nWhich key?")]
    assert chat.grouping(chat.filling().total) == (fake.group_attention, (1, GroupAttention(8)))


def document(text: str = "The key is 7.") -> Document:
    return Document(Path("a.pdf"), "A", (Page(1, "1", text),), (), paged=True)


def test_an_answer_streams_and_ends_at_the_end_token() -> None:
    chat = start(FakeLlama([b"Hello there"]))
    assert list(chat.ask("Hi")) == list("Hello there")
    stats = chat.last_stats
    assert stats is not None
    assert (stats.completion_tokens, stats.stop_reason) == (11, "stop")
    assert (stats.group_attention.n, stats.group_attention.w, stats.capacity) == (4, 128, 10_000)
    assert stats.prefill_tps == stats.evaluated_tokens / 0.5


def test_nothing_happens_before_the_first_piece_is_asked_for() -> None:
    fake = FakeLlama([b"x"])
    start(fake).ask("Hi")
    assert fake.prompts == []


def test_characters_are_never_cut() -> None:
    pieces = list(start(FakeLlama(["naïve 🙂".encode()])).ask("Hi"))
    assert "".join(pieces) == "naïve 🙂"
    assert "🙂" in pieces


def test_a_character_that_never_completes_is_replaced() -> None:
    assert "".join(start(FakeLlama([b"ok \xf0\x9f"])).ask("Hi")) == "ok \ufffd"


@pytest.mark.parametrize("limit", [4, 5, 6])
def test_a_character_that_the_limit_cuts_is_left_out(limit: int) -> None:
    chat = start(FakeLlama(["ok 🙂 and more".encode()]), sampling=Sampling(max_tokens=limit))
    assert "".join(chat.ask("Hi")) == "ok "


def test_white_space_in_front_of_the_answer_is_not_shown_but_remembered() -> None:
    fake = FakeLlama([b" \n Yes", b"No"])
    chat = start(fake)
    assert "".join(chat.ask("Hi")) == "Yes"
    list(chat.ask("More"))
    assert b"<assistant> \n Yes" in bytes(t for t in fake.prompts[1] if t < 256)


def test_the_second_turn_evaluates_only_what_is_new() -> None:
    fake = FakeLlama([b"one", b"two"])
    chat = start(fake, documents=[document()])
    list(chat.ask("First?"))
    list(chat.ask("Second?"))
    first, second = fake.prompts
    assert second[: len(first) + 3] == [*first, *b"one"]
    assert chat.last_stats is not None
    assert chat.last_stats.evaluated_tokens == len(second) - len(first) - 3
    assert bytes(t for t in second if t < 256).count(b"The key is 7.") == 1


def test_the_length_limit() -> None:
    chat = start(FakeLlama([b"abcdef"]), sampling=Sampling(max_tokens=4))
    assert "".join(chat.ask("Hi")) == "abcd"
    assert chat.last_stats is not None
    assert chat.last_stats.stop_reason == "length"


def test_a_full_context_ends_the_answer() -> None:
    prompt = len(b"<user>Hi<assistant>") + 1
    chat = start(FakeLlama([b"abcdef"], capacity=prompt + 2))
    assert "".join(chat.ask("Hi")) == "ab"
    assert chat.last_stats is not None
    assert chat.last_stats.stop_reason == "context"


def test_overflow_changes_nothing() -> None:
    fake = FakeLlama([b"yes"], capacity=40)
    chat = start(fake)
    with pytest.raises(ContextOverflow, match="59 too many") as caught:
        list(chat.ask("x" * 80))
    assert (caught.value.n_tokens, caught.value.capacity) == (98, 40)
    assert fake.prompts == []
    assert chat.last_stats is None
    assert "".join(chat.ask("Hi")) == "yes"
    assert b"xxx" not in bytes(t for t in fake.prompts[0] if t < 256)


def test_an_interrupted_prefill_drops_the_question_and_keeps_the_chat() -> None:
    fake = FakeLlama([b"yes"], interrupt_prefill=True)
    chat = start(fake, documents=[document("long " * 50)])
    with pytest.raises(Interrupted):
        list(chat.ask("Forgotten?"))
    fake.interrupt_prefill = False
    assert "".join(chat.ask("Asked?")) == "yes"
    text = bytes(t for t in fake.prompts[0] if t < 256)
    assert b"Forgotten" not in text
    assert b"Asked?" in text
    assert chat.last_stats is not None
    assert chat.last_stats.evaluated_tokens < chat.last_stats.prompt_tokens


@pytest.mark.parametrize("how", ["should_stop", "close"])
def test_a_partial_answer_stays_in_the_history(how: str) -> None:
    fake = FakeLlama([b"abcdef", b"next"])
    chat = start(fake)
    seen: list[str] = []
    answer = chat.ask("Hi", should_stop=(lambda: len(seen) >= 3) if how == "should_stop" else None)
    for piece in answer:
        seen.append(piece)
        if how == "close" and len(seen) == 3:
            cast(Any, answer).close()
            break
    assert seen == ["a", "b", "c"]
    assert chat.last_stats is not None
    assert chat.last_stats.stop_reason == "interrupted"
    list(chat.ask("Go on"))
    assert b"<assistant>abc<user>" in bytes(t for t in fake.prompts[1] if t < 256)


def test_a_base_model_ends_where_it_begins_to_speak_for_the_user() -> None:
    fake = FakeLlama([b" Yes.\n\nUser: And then?", b"No"], template=None)
    chat = start(fake)
    assert chat.warning is not None
    assert "".join(chat.ask("Hi")).rstrip() == "Yes."
    assert chat.last_stats is not None
    assert chat.last_stats.stop_reason == "stop"
    list(chat.ask("More"))
    assert bytes(fake.prompts[1]).count(b"User:") == 2


def test_what_looks_like_the_beginning_of_a_stop_text_is_shown_in_the_end() -> None:
    assert "".join(start(FakeLlama([b"a\nUse"], template=None)).ask("Hi")) == "a\nUse"


def text_of(prompt: Sequence[int]) -> bytes:
    return bytes(t for t in prompt if t < 256)


def test_undo_forgets_the_last_turn_and_reads_only_the_next_question() -> None:
    fake = FakeLlama([b"one", b"two", b"three"])
    chat = start(fake, documents=[document("long " * 50)])
    list(chat.ask("First?"))
    list(chat.ask("Second?"))
    assert chat.undo().question == "Second?"
    assert [t.question for t in chat.history] == ["First?"]
    list(chat.ask("Third?"))
    assert chat.last_stats is not None
    assert chat.last_stats.evaluated_tokens <= len(b"Third?<end><assistant>")
    assert b"Second?" not in text_of(fake.prompts[-1])


def test_without_a_turn_there_is_nothing_to_undo_or_repeat() -> None:
    chat = start(FakeLlama([]))
    with pytest.raises(NothingAsked):
        chat.undo()
    with pytest.raises(NothingAsked):
        list(chat.ask_again())


def test_asking_again_replaces_the_last_turn() -> None:
    fake = FakeLlama([b"one", b"two", b"three"])
    chat = start(fake)
    list(chat.ask("Hi"))
    assert "".join(chat.ask_again()) == "two"
    assert "".join(chat.ask_again("Ho")) == "three"
    assert [(t.question, t.answer) for t in chat.history] == [("Ho", "three")]


def test_asking_again_in_vain_keeps_the_turn() -> None:
    fake = FakeLlama([b"one"])
    chat = start(fake)
    list(chat.ask("Hi"))
    fake.interrupt_prefill = True
    with pytest.raises(Interrupted):
        list(chat.ask_again())
    assert [(t.question, t.answer) for t in chat.history] == [("Hi", "one")]


def test_documents_change_and_the_turns_stay() -> None:
    fake = FakeLlama([b"one", b"two"])
    first, second = document("First text."), document("Second text.")
    chat = start(fake, documents=[first])
    list(chat.ask("Hi"))
    chat.documents = [first, second]
    list(chat.ask("More"))
    text = text_of(fake.prompts[-1])
    assert text.index(b"First text.") < text.index(b"Second text.") < text.index(b"Hi") < text.index(b"one") < text.index(b"More")
    assert chat.last_stats is not None
    kept = chat.last_stats.prompt_tokens - chat.last_stats.evaluated_tokens
    assert kept >= text.index(b"First text.") + len(b"First text.")


def test_a_document_with_pages_beside_one_without_reads_nothing_again() -> None:
    fake = FakeLlama([b"one", b"two"])
    plain = Document(Path("b.txt"), "B", (Page(1, "1", "plain " * 50),), (), paged=False)
    chat = start(fake, documents=[plain])
    list(chat.ask("Hi"))
    chat.documents = [plain, document()]
    list(chat.ask("More"))
    assert chat.last_stats is not None
    assert chat.last_stats.prompt_tokens - chat.last_stats.evaluated_tokens > 300


def test_the_system_prompt_changes_and_comes_back() -> None:
    fake = FakeLlama([b"one", b"two"])
    chat = start(fake, documents=[document()])
    ours = chat.system
    chat.system = "Be brief."
    list(chat.ask("Hi"))
    assert text_of(fake.prompts[-1]).startswith(b"<system>Be brief.")
    chat.system = None
    assert chat.system == ours


def test_a_history_is_resumed_token_for_token() -> None:
    fake = FakeLlama([b"one", b"two"])
    chat = start(fake)
    list(chat.ask("Hi"))
    again = start(fake)
    again.resume(chat.history)
    list(again.ask("More"))
    assert again.last_stats is not None
    assert again.last_stats.prompt_tokens - again.last_stats.evaluated_tokens > len(b"<user>Hi<assistant>one")


def test_the_filling_adds_up() -> None:
    fake = FakeLlama([b"answer"])
    chat = start(fake, documents=[document(), document("Other.")])
    before = chat.filling()
    assert (before.read, before.documents) == (0, tuple(len(f"Document: A\n\n[page 1]\n{t}") for t in ("The key is 7.", "Other.")))
    list(chat.ask("Hi"))
    after = chat.filling()
    assert after.total == after.system + sum(after.documents) + after.turns
    assert after.total + after.free == chat.capacity
    assert after.total == len(fake.prompts[0]) + len(b"answer")


def test_a_decode_step_that_is_stopped_ends_the_answer() -> None:
    class Stops(FakeLlama):
        def generate(self, tokens: Sequence[int], **how: Any) -> Iterator[int]:
            assert how["should_stop"] is not None
            yield from b"ab"
            raise Interrupted("stopped", 2)

    chat = start(Stops([]))
    assert "".join(chat.ask("Hi", should_stop=lambda: False)) == "ab"
    assert chat.last_stats is not None
    assert chat.last_stats.stop_reason == "interrupted"
    assert chat.history[-1].answer == "ab"


def test_the_group_size_is_planned_for_the_conversation_once() -> None:
    fake = FakeLlama([b"a", b"b"])
    chat = start(fake, sampling=Sampling(max_tokens=100), reserve=1000)
    list(chat.ask("Hi"))
    list(chat.ask("Hi"))
    assert fake.expected == [len(fake.prompts[0]) + 1100] * 2


@pytest.mark.parametrize("forget", [Chat.clear, Chat.undo])
def test_what_was_forgotten_makes_no_group_larger(forget: Callable[[Chat], object]) -> None:
    fake = FakeLlama([b"a", b"b"])
    chat = start(fake, sampling=Sampling(max_tokens=100))
    list(chat.ask("long " * 200))
    forget(chat)
    list(chat.ask("Hi"))
    assert fake.expected == [len(prompt) + 100 for prompt in fake.prompts]
    assert fake.expected[1] < fake.expected[0] - 500


def test_another_answer_is_given_with_the_same_groups() -> None:
    fake = FakeLlama([b"a", b"b"])
    chat = start(fake, sampling=Sampling(max_tokens=100), reserve=1000)
    list(chat.ask("Hi"))
    list(chat.ask("And now?"))
    list(chat.ask_again())
    assert len(set(fake.expected)) == 1


def test_each_answer_starts_from_the_same_seed() -> None:
    fake = FakeLlama([b"a", b"b"])
    chat = start(fake, sampling=Sampling(seed=7))
    list(chat.ask("Hi"))
    list(chat.ask("Hi"))
    assert fake.seeds == [7, 7]


def test_the_size_is_known_before_the_model_is_loaded() -> None:
    fake = FakeLlama([b"a"])
    peek = SimpleNamespace(info=fake.info, tokenize=lambda text, special=False: _tokenize(text, special))
    size = count_prompt_tokens(cast(Any, peek), [document()], None, "Why?")
    list(start(fake, documents=[document()]).ask("Why?"))
    assert size.prompt == len(fake.prompts[0])
    assert size.documents == (len(b"Document: A\n\n[page 1]\nThe key is 7."),)
