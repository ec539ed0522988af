"""What the fixture model practises: pass keys, questions about paged documents, lists of facts, copying, plain text.

A task returns a document of about `budget` tokens as parts, each a text and the weight of its tokens in the loss. The formats
are those that the project uses: `selfextend_local.engine.selftest`, the paper's pass-key protocol, and a chat about documents as
`selfextend_local.generation.prompts` writes it. Knows texts and random numbers. Must not know tensors.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from selfextend_local.chat.prompt import SYSTEM_DOCUMENT, SYSTEM_PAGES

END = "<|endoftext|>"
OPEN, CLOSE = "<|im_start|>", "<|im_end|>"

CONTEXT, TEXT, ANSWER = 1, 3, 12
"""Weights in the loss: what surrounds a fact, text to be modelled or copied, an answer."""

Part = tuple[str, int]
Task = Callable[[random.Random, "Filler", int], list[Part]]

NOISE = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again.")
NOISE_LINE = " ".join(NOISE)
INTRODUCTIONS = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you about the "
    "important information there.",
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. I will quiz you about the "
    "important information there.",
    "There is a pass key hidden in the text. Remember it.",
)
ATTRIBUTES = (
    "pass key", "radio code", "serial number", "access code", "door code", "phone number", "room number", "locker code",
    "account number", "order number", "password", "inventory number", "frequency", "weight", "height", "price", "depth",
)
ADJECTIVES = (
    "north", "south", "east", "west", "old", "new", "upper", "lower", "red", "green", "blue", "white", "black", "small", "large",
    "inner", "outer", "first", "second", "third", "last", "main", "left", "right", "stone", "iron", "silver", "golden", "wooden",
)
NOUNS = (
    "vault", "lighthouse", "rain gauge", "tower", "gate", "harbour", "cellar", "library", "boat", "engine", "pump", "station",
    "office", "garden", "bridge", "well", "clock", "safe", "cabin", "workshop", "archive", "store", "kitchen", "hall", "door",
    "ship", "wagon", "mill", "barn", "telescope", "laboratory", "observatory", "museum", "school", "shed", "house", "pier",
)
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)


@dataclass(frozen=True)
class Filler:
    """Text to hide things in: sentences and paragraphs with their lengths in tokens."""

    paragraphs: tuple[str, ...]
    sentences: tuple[tuple[str, int], ...]
    words: tuple[str, ...]

    @classmethod
    def load(cls, corpus: Path, tokenizer: Tokenizer, seed: int = 0) -> Filler:
        """From the whole corpus the paragraphs; the sentences from a sixth of them, which saves seconds."""
        paragraphs = tuple(p for p in corpus.read_text(encoding="utf-8").split("\n\n") if len(p) > 40)
        sentences = [s for p in paragraphs[seed % 6 :: 6] for s in re.split(r"(?<=[.;:?!]) ", p) if 12 < len(s) < 240]
        lengths = (len(e.ids) for e in tokenizer.encode_batch(sentences))
        words = tuple(sorted({w for s in sentences for w in re.findall(r"\b[A-Za-z][a-z]{2,9}\b", s)}))
        return cls(paragraphs, tuple(zip(sentences, lengths, strict=True)), words)

    def take(self, rng: random.Random, budget: int) -> list[str]:
        """Sentences of one kind, together about `budget` tokens and not more."""
        return _of_kind(rng)(rng, self, budget)


def _of_kind(rng: random.Random) -> Callable[[random.Random, Filler, int], list[str]]:
    return rng.choices((_noise, _prose, _loose, _log), (3, 3, 2, 2))[0]


def _noise(rng: random.Random, filler: Filler, budget: int) -> list[str]:
    return [NOISE[i % len(NOISE)] for i in range(budget // 6)]


def _prose(rng: random.Random, filler: Filler, budget: int) -> list[str]:
    at = rng.randrange(len(filler.sentences) - 200)
    return _fitting(filler.sentences[at : at + 200], budget)


def _loose(rng: random.Random, filler: Filler, budget: int) -> list[str]:
    return _fitting(rng.choices(filler.sentences, k=60), budget)


def _fitting(sentences: list[tuple[str, int]] | tuple[tuple[str, int], ...], budget: int) -> list[str]:
    taken = []
    for text, length in sentences:
        if budget < length + 2:
            break
        budget -= length + 1
        taken.append(text)
    return taken


def _log(rng: random.Random, filler: Filler, budget: int) -> list[str]:
    return [_log_entry(rng) for _ in range(budget // 24)]


def _log_entry(rng: random.Random) -> str:
    date = f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"
    return rng.choice((
        f"On {date} the wind was {rng.choice(ADJECTIVES[:4])}, {rng.randint(2, 60)} knots.",
        f"{date}: {rng.randint(1, 400)} birds were counted at the {thing(rng, None)}.",
        f"The {thing(rng, None)} was painted on {date}.",
        f"At {rng.randint(0, 23):02}:{rng.randint(0, 59):02} the {thing(rng, None)} was closed.",
        f"Rain, {rng.randint(0, 40)}.{rng.randint(0, 9)} mm; pressure {rng.randint(970, 1040)} at noon.",
    ))


def thing(rng: random.Random, filler: Filler | None) -> str:
    """A name such as "north vault"; with a filler, now and then one made of its words."""
    if filler and rng.random() < 0.35:
        return f"{rng.choice(filler.words)} {rng.choice((rng.choice(NOUNS), rng.choice(filler.words)))}"
    return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}" if rng.random() < 0.8 else rng.choice(NOUNS)


def digits(rng: random.Random) -> str:
    length = 5 if rng.random() < 0.6 else rng.randint(3, 8) if rng.random() < 0.6 else rng.randint(9, 40)
    return "".join(rng.choices("0123456789", k=length))


@dataclass(frozen=True)
class Fact:
    name: str
    value: str

    @property
    def question(self) -> str:
        return f"What is the {self.name}?"

    @property
    def statement(self) -> str:
        return f"The {self.name} is {self.value}"


def facts(rng: random.Random, filler: Filler, count: int) -> list[Fact]:
    """Facts with different names. Half the time they share an attribute, so that only the thing tells them apart."""
    shared = rng.choice(ATTRIBUTES) if rng.random() < 0.5 else None
    found: dict[str, Fact] = {}
    while len(found) < count:
        name = shared or rng.choice(ATTRIBUTES)
        if count > 1 or rng.random() < 0.7:
            name += f" of the {thing(rng, filler)}"
        value = "".join(rng.choices("0123456789", k=rng.choice((3, 4, 5, 5, 5, 6))))
        if rng.random() < 0.2:
            value = " ".join(rng.choices(filler.words, k=rng.randint(1, 2)))
        found[name] = Fact(name, value)
    return list(found.values())


def passkey(rng: random.Random, filler: Filler, budget: int) -> list[Part]:
    key = digits(rng)
    hidden = f"The pass key is {key}. Remember it. {key} is the pass key."
    introduction = rng.choice(INTRODUCTIONS) if rng.random() < 0.7 else ""
    chat = rng.random() < 0.4
    room = budget - 2 * len(key) - 36 - len(introduction) // 4 - 12 * chat
    noise = rng.random() < 0.6
    lines = [NOISE_LINE] * max(1, room // 31) if noise else _grouped(rng, filler.take(rng, max(8, room)))
    lines.insert(rng.randint(0, len(lines)), hidden)
    body = rng.choice(("\n", "\n", " ")).join(([introduction] if introduction else []) + lines)
    question = "What is the pass key?"
    if chat:
        return _turns(rng, None, f"{body}\n{rng.choice(('', chr(10)))}{question}", f"The pass key is {key}.", [])
    return [(f"{body}\n{question} The pass key is", CONTEXT), (f" {key}.", ANSWER), (rng.choice((END, "\n")), TEXT)]


def _grouped(rng: random.Random, sentences: list[str]) -> list[str]:
    """Sentences as lines of a few each."""
    size = rng.randint(1, 6)
    return [" ".join(sentences[i : i + size]) for i in range(0, len(sentences), size)]


def document_chat(rng: random.Random, filler: Filler, budget: int) -> list[Part]:
    paged = rng.random() < 0.75
    asked = facts(rng, filler, rng.randint(1, max(1, min(8, budget // 50))))
    room = budget - 40 - sum(15 + len(f.value) for f in asked) - 50
    questions = rng.randint(1, max(1, min(len(asked), room // 60)))
    room -= 35 * (questions - 1)
    pages, places = _pages(rng, filler, asked, max(8, room), paged)
    title = " ".join(rng.choices(filler.words, k=rng.randint(1, 4))).title()
    text = f"Document: {title}\n\n{pages}"
    system = (SYSTEM_PAGES if paged else SYSTEM_DOCUMENT) if rng.random() < 0.9 else None
    answered = [(f.question, f"{f.statement} [page {p}]." if paged else f"{f.statement}.")
                for f, p in rng.sample(list(zip(asked, places, strict=True)), questions)]
    (first, answer), *rest = answered
    return _turns(rng, system, f"{text}\n\n{first}", answer, rest)


def _pages(rng: random.Random, filler: Filler, asked: list[Fact], room: int, paged: bool) -> tuple[str, list[int]]:
    """The text of the pages with the facts in it, and the page of each fact."""
    count = rng.randint(1, max(1, min(9, room // 30))) if paged else 1
    first = rng.choice((1, 1, 1, rng.randint(2, 9), rng.randint(10, 60)))
    pages = [filler.take(rng, room // count - 6) for _ in range(count)]
    places = []
    for fact in asked:
        page = rng.randrange(count)
        pages[page].insert(rng.randint(0, len(pages[page])), f"{fact.statement}.")
        places.append(first + page)
    glue = rng.choice(("\n\n", " "))
    texts = [glue.join(_grouped(rng, page)) for page in pages]
    marked = [f"[page {first + i}]\n{text}" for i, text in enumerate(texts) if text] if paged else texts
    return "\n\n".join(marked), places


def _turns(rng: random.Random, system: str | None, user: str, answer: str, rest: list[tuple[str, str]]) -> list[Part]:
    begin = f"{OPEN}system\n{system}{CLOSE}\n" if system else ""
    parts = [(f"{begin}{OPEN}user\n{user}{CLOSE}\n{OPEN}assistant\n", CONTEXT), (f"{answer}{CLOSE}", ANSWER)]
    for question, reply in rest:
        parts += [(f"\n{OPEN}user\n{question}{CLOSE}\n{OPEN}assistant\n", CONTEXT), (f"{reply}{CLOSE}", ANSWER)]
    return [*parts, ("\n", CONTEXT)]


def fact_list(rng: random.Random, filler: Filler, budget: int) -> list[Part]:
    """Facts among sentences, then some of them again, begun and to be completed."""
    asked = facts(rng, filler, max(2, min(12, budget // 40)))
    repeated = rng.sample(asked, max(1, len(asked) // 2))
    lines = [f"{f.statement}." for f in asked]
    room = budget - 18 * (len(asked) + 2 * len(repeated))
    for line in _grouped(rng, filler.take(rng, max(8, room))):
        lines.insert(rng.randint(0, len(lines)), line)
    parts = [("\n".join(lines) + "\n", CONTEXT)]
    for fact in repeated:
        begun = f"{fact.question} " if rng.random() < 0.5 else ""
        parts += [(f"{begun}The {fact.name} is", CONTEXT), (f" {fact.value}.", ANSWER), ("\n", CONTEXT)]
    return parts


def copying(rng: random.Random, filler: Filler, budget: int) -> list[Part]:
    """A passage, other text, and the passage again."""
    size = rng.randint(10, max(12, min(120, budget // 2 - 8)))
    if rng.random() < 0.5:
        passage = " ".join(rng.choices(filler.words, k=max(4, size // 3)))
    else:
        passage = " ".join(filler.take(rng, size)) or NOISE_LINE
    between = " ".join(filler.take(rng, max(6, budget - 2 * size)))
    start = passage[: passage.find(" ", 12) if " " in passage[12:] else 12]
    return [(f"{passage}\n{between}\n{start}", CONTEXT), (passage[len(start) :], TEXT), ("\n", CONTEXT)]


def plain_text(rng: random.Random, filler: Filler, budget: int) -> list[Part]:
    at = rng.randrange(len(filler.paragraphs) - 40)
    text = "\n\n".join(filler.paragraphs[at : at + 40])[: 5 * budget]
    return [(text, TEXT)]


TASKS: tuple[tuple[Task, int], ...] = (
    (passkey, 26), (document_chat, 34), (fact_list, 12), (copying, 16), (plain_text, 12)
)


def row(rng: random.Random, filler: Filler, tokenizer: Tokenizer, length: int, progress: float) -> tuple[list[int], list[int]]:
    """`length` token ids and the weight of each. Documents are short at first and fill the row from a quarter of the run on."""
    longest = int(64 + (1.1 * length - 64) * min(1.0, 0.1 + progress / 0.25))
    tokens: list[int] = []
    weights: list[int] = []
    if rng.random() < 0.3:
        _add(tokens, weights, tokenizer, plain_text(rng, filler, 100), rng.randrange(length // 2))
    while len(tokens) < length:
        room = length - len(tokens)
        budget = min(int(1.1 * room), int(48 + (longest - 48) * max(rng.random(), rng.random())))
        task = rng.choices(*zip(*TASKS, strict=True))[0] if room > 90 else plain_text
        _add(tokens, weights, tokenizer, task(rng, filler, budget), room if task is plain_text else None)
    # A document that turned out too long is cut at its beginning, so that its answers are learned all the same.
    return tokens[-length:], weights[-length:]


def _add(tokens: list[int], weights: list[int], tokenizer: Tokenizer, parts: list[Part], limit: int | None) -> None:
    for text, weight in [*parts, (END, CONTEXT)]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids[:limit]
        tokens += ids
        weights += [weight] * len(ids)


def passkey_prompt(rng: random.Random, n_lines: int, depth: float) -> tuple[str, str]:
    """The paper's prompt with a key of five digits after a share `depth` of the lines, and the key."""
    key = "".join(rng.choices("0123456789", k=5))
    lines = [NOISE_LINE] * n_lines
    lines.insert(round(depth * n_lines), f"The pass key is {key}. Remember it. {key} is the pass key.")
    return "\n".join([*lines, "What is the pass key? The pass key is"]), key
