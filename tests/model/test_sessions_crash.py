"""kill -9 at any instant: every session is the old one or the new one, and a killed prefill goes on where it was saved."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.session_worker import CACHE_BYTES, EXPECT, LENGTHS, document, open_tiny

from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.sessions import ChatRecord, ChatStore, Entry, StateCache
from selfextend_local.sessions.state_file import verify_state

pytestmark = pytest.mark.model

ROUNDS = 30  # with two writers each: 60 kills
TESTS = Path(__file__).parents[1]


@contextmanager
def worker(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "support.session_worker", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def is_being_written(folder: Path) -> bool:
    return folder.is_dir() and any(name.endswith(".tmp") for name in os.listdir(folder))


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def rest_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.read()


def logits_behind(llm: SelfExtendLlama, entry: Entry, cache: StateCache | None) -> np.ndarray:
    """Of the tokens that follow a state, which is restored, or computed as the writer did."""
    owner, number = (int(t) - 3 for t in entry.tokens[:2])
    text = [*document(owner, number)[: entry.n_tokens], *[7] * 5]
    llm.reset()  # type: ignore[no-untyped-call]
    if cache is None:
        for length in LENGTHS[: LENGTHS.index(entry.n_tokens) + 1]:
            llm.prefill(text[:length], expect=EXPECT)
    else:
        assert cache.restore(llm, text, expect=EXPECT) == entry.n_tokens
    llm.prefill(text, expect=EXPECT)
    return np.array(llm.scores[entry.n_tokens : len(text)])


def test_two_writers_killed_sixty_times(tiny_model: Any, tmp_path: Path) -> None:
    model, dice = tiny_model("gqa"), random.Random(0)
    llm = open_tiny(model)
    states, store = tmp_path / "states", ChatStore(tmp_path / "chats")
    said = [0, 0]
    cut_short = checked = 0
    for round_ in range(ROUNDS):
        with worker("save", model, tmp_path, 0) as a, worker("save", model, tmp_path, 1) as b:
            assert [line_of(p) for p in (a, b)] == ["ready\n"] * 2
            started = time.monotonic()
            turns = dice.randint(1, 2)
            for _ in range(turns):
                said[:] = [int(line_of(process)) for process in (a, b)]
            end = time.monotonic() + dice.random() * (time.monotonic() - started) / turns
            while is_being_written(states) != bool(round_ % 2) if round_ % 4 else time.monotonic() < end:
                pass  # at a random moment of a turn, or while nothing is written, or where it hurts
            for process in (a, b):
                process.kill()
            for owner, process in enumerate((a, b)):
                said[owner] = int(([str(said[owner])] + rest_of(process).split())[-1])
        cut_short += sum(p.suffix == ".tmp" for p in states.iterdir())
        cache = StateCache(states, CACHE_BYTES)
        entries = cache.entries()
        assert cache.notes == []
        assert sorted(states.iterdir()) == sorted(e.path for e in entries)
        assert cache.total_bytes() <= CACHE_BYTES
        for entry in entries:
            verify_state(entry)
        for entry in dice.sample(entries, min(2, len(entries))):
            assert np.array_equal(logits_behind(llm, entry, cache), logits_behind(llm, entry, None))
            checked += 1
        for owner in (0, 1):
            if said[owner]:
                assert len(store.load(f"chat {owner}").messages) - said[owner] in (0, 1)
                said[owner] = len(store.load(f"chat {owner}").messages)
        assert store.notes == []
    store.save(ChatRecord(str(model), "tiny"), "last")  # sweeps
    assert {p.name for p in store.root.iterdir()} == {"chat 0.json", "chat 1.json", "last.json"}
    assert checked >= ROUNDS
    print(f"{2 * ROUNDS} kills, {cut_short} of them in the midst of writing a state; {checked} states restored and compared")
    llm.close()


def test_a_killed_prefill_goes_on_from_its_checkpoint(default_model: Path, story: str, tmp_path: Path) -> None:
    question = tmp_path / "question.txt"
    question.write_text(story[:9000] + "\n\nWho is this about?", encoding="utf-8")
    with worker("ask", default_model, tmp_path / "killed", question) as process:
        entries, done = 0, 0
        while not entries or done < 1024:
            done, entries = map(int, line_of(process).split()[1:])
        process.kill()
    assert len(StateCache(tmp_path / "killed").entries()) == 1
    restored, evaluated, total, answer = outcome(default_model, tmp_path / "killed", question)
    assert restored >= 512
    assert restored + evaluated == total
    assert outcome(default_model, tmp_path / "fresh", question) == (0, total, total, answer)


def outcome(model: Path, folder: Path, question: Path) -> tuple[int, int, int, str]:
    with worker("ask", model, folder, question) as process:
        line = rest_of(process).splitlines()[-1]
    _, restored, evaluated, total, answer = line.split(" ", 4)
    return int(restored), int(evaluated), int(total), answer
