"""The pages that a model looked at for a question: what the layers fetched, held against where pages stand in the prompt."""

from __future__ import annotations

from pathlib import Path

from test_chat import FakeLlama, start

from selfextend_local.chat.conversation import Chat
from selfextend_local.documents import Document, Page
from selfextend_local.native import Fetched
from selfextend_local.positions import RECALL_SPAN, GroupAttention

WORDS = "über den Bergen "  # a letter of two bytes, each a token of its own here


def document(name: str = "A") -> Document:
    pages = tuple(Page(n, label, f"{WORDS * 20}{label}") for n, label in enumerate(("i", "ii", "1", "2"), start=1))
    return Document(Path(f"{name}.pdf"), name, pages, (), paged=True)


class Recalling(FakeLlama):
    """Each layer fetches the spans that begin with one of `wanted`, with a share each."""

    wanted: dict[str, float] = {}

    def fetched(self) -> list[Fetched]:
        text = bytes(token if token < 256 else 0 for token in self.cache)
        spans = {-(-self.cache_index(text, words) // RECALL_SPAN) * RECALL_SPAN: share for words, share in self.wanted.items()}
        return [Fetched(tuple(spans), tuple(spans.values())), Fetched((), ())]

    def cache_index(self, text: bytes, words: str) -> int:
        return text.index(words.encode()) + len(words)


def asked(wanted: dict[str, float], *documents: Document, recall: int = 2048) -> Chat:
    fake = Recalling([b"Beyond the mountains, and so on."])
    fake.group_attention = GroupAttention(1, recall=recall)
    fake.wanted = wanted
    chat = start(fake, documents=list(documents))
    "".join(chat.ask("Where?"))
    return chat


def page(label: str) -> str:
    return f"[page {label}]\n{WORDS * 4}"


def test_the_pages_of_what_was_fetched_most() -> None:
    chat = asked({page("ii"): 1.0, page("1"): 0.95, page("2"): 0.2}, document())
    assert [one.page.label for one in chat.looked()] == ["ii", "1"]
    assert [round(one.weight, 2) for one in chat.looked()] == [0.51, 0.46]


def test_of_the_right_document() -> None:
    chat = asked({f"Document: B\n\n{page('i')}": 1.0}, document("A"), document("B"))
    assert [(one.document.title, one.page.label) for one in chat.looked()] == [("B", "i")]


def test_what_is_no_page_is_not_named() -> None:
    assert asked({"Where?": 1.0}, document()).looked() == ()


def test_a_question_that_is_asked_again_keeps_what_was_seen_when_it_was_read() -> None:
    """Of its prompt only the last token is read again, and what that fetches says nothing."""
    chat = asked({page("ii"): 1.0}, document())
    chat._llm.wanted = {page("i"): 1.0}  # type: ignore[attr-defined]
    chat._llm.scripts += [b"Again.", b"Nowhere."]  # type: ignore[attr-defined]
    "".join(chat.ask_again())
    assert [one.page.label for one in chat.looked()] == ["ii"]
    "".join(chat.ask("And where else?"))
    assert [one.page.label for one in chat.looked()] == ["i"]


def test_none_without_recall_or_pages_or_an_answer() -> None:
    assert asked({page("ii"): 1.0}, document(), recall=0).looked() == ()
    assert start(Recalling([])).looked() == ()
    unpaged = Document(Path("a.txt"), "A", (Page(1, "1", WORDS * 30),), (), paged=False)
    assert asked({WORDS: 1.0}, unpaged).looked() == ()
