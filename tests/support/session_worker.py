"""Programs that tests start in order to kill them: `python -m support.session_worker save|ask ...`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

from selfextend_local.chat.conversation import Chat, Sampling
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.sessions import ChatMessage, ChatRecord, ChatStore, StateCache, autosave

LENGTHS = (300, 600, 900, 1200)
EXPECT = 1500
CACHE_BYTES = 8 << 20  # six or so states of 1,200 tokens: eviction is part of what is interrupted
WORDS = [int(t) for t in np.random.default_rng(3).integers(3, 250, LENGTHS[-1])]


def document(owner: int, number: int) -> list[int]:
    """The tokens of a document; the first two say which, so that a state can be held against it."""
    return [3 + owner, 3 + number % 240, *WORDS[2:]]


def open_tiny(model: Path) -> SelfExtendLlama:
    return SelfExtendLlama(model, n_ctx=2048, n_threads=1, logits_all=True)


def save(model: Path, folder: Path, owner: int) -> None:
    """Save states and a chat for ever, each state continued and replaced a few times."""
    llm = open_tiny(model)
    cache, store = StateCache(folder / "states", CACHE_BYTES), ChatStore(folder / "chats")
    record = store.load(f"chat {owner}") if store.has(f"chat {owner}") else ChatRecord(str(model), "tiny")
    first = len(record.messages)
    print("ready", flush=True)
    for number in itertools.count(first):
        for length in LENGTHS:
            llm.prefill(document(owner, number)[:length], expect=EXPECT)
            assert cache.save(llm), cache.notes
        messages = (*record.messages, ChatMessage("user", f"turn {number} " + "x" * 200))
        record = store.save(ChatRecord(**{**vars(record), "messages": messages}), f"chat {owner}")
        print(len(messages), flush=True)


def ask(model: Path, folder: Path, question: Path) -> None:
    """Ask once, with a checkpoint every second; say where the prefill is, and then what came out."""
    autosave.CHECKPOINT_SECONDS = 1.0
    autosave.CHECKPOINT_SHARE = 0.5
    llm = SelfExtendLlama(model, need_tokens=4096)
    cache = StateCache(folder)
    chat = Chat(llm, sampling=Sampling(max_tokens=16), cache=cache)

    def progress(done: int, total: int) -> None:
        print("at", done, len(cache.entries()), flush=True)

    answer = "".join(chat.ask(question.read_text(), progress=progress))
    chat.flush()
    stats = chat.last_stats
    assert stats is not None
    print("done", stats.restored_tokens, stats.evaluated_tokens, stats.prompt_tokens, repr(answer), flush=True)


if __name__ == "__main__":
    mode, model_path, root, last = sys.argv[1:]
    if mode == "save":
        save(Path(model_path), Path(root), int(last))
    else:
        ask(Path(model_path), Path(root), Path(last))
