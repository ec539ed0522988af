"""What the ruler model practises: RULER's tasks, BABILong's, facts in prose, a needle without its words, and what the fixture
model practises, all inside one window.

A document is a list of parts, each a text and the weight of its tokens in the loss, as in `fixture_model.tasks`. The samples
come from the very modules that `selfextend eval` takes them from, with other seeds. Knows texts and random numbers. Must not
know tensors.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from fixture_model.tasks import CLOSE, CONTEXT, END, OPEN, TEXT, Filler, Part, copying, document_chat, fact_list, passkey, plain_text
from tokenizers import Tokenizer

from selfextend_local.chat.prompt import SYSTEM_DOCUMENT
from selfextend_local.evaluation.tasks import babilong, gap
from selfextend_local.evaluation.tasks.facts import FORMS
from selfextend_local.evaluation.tasks.haystack import planted
from selfextend_local.evaluation.tasks.ruler.needles import Needles
from selfextend_local.evaluation.tasks.ruler.samples import Material, Sample
from selfextend_local.evaluation.tasks.ruler.task import PARTS

WINDOW = 1024
ANSWER = 30
_TOLD = re.compile(r"One of the special magic (?:numbers|uuids) for (\S+) is: (\S+)\.")
_SHOWN = re.compile(r"(?:they are:|the list are:|above list are:)")

Task = Callable[[random.Random, "Practice", int], list[Part]]


class Practice:
    """Makes rows for one model. `rates`: tokens of a document as a line over the units of its filler, by task."""

    def __init__(self, filler: Filler, tokenizer: Tokenizer, seed: int) -> None:
        self.filler, self.tokenizer = filler, tokenizer
        self._rates = {name: self._rate(name, random.Random(f"{seed}/{name}")) for name in PARTS}

    def essay(self, rng: random.Random, count: int) -> tuple[str, ...]:
        at = rng.randrange(len(self.filler.sentences) - count)
        return tuple(text for text, _ in self.filler.sentences[at : at + count])

    def sentences(self, rng: random.Random, budget: int) -> list[str]:
        """Sentences that follow each other, together at most `budget` tokens."""
        at = rng.randrange(len(self.filler.sentences) - 120)
        taken = []
        for text, length in self.filler.sentences[at : at + 120]:
            budget -= length + 1
            if budget < 0:
                break
            taken.append(text)
        return taken

    def count(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def sample(self, rng: random.Random, name: str, size: int) -> Sample:
        # Word counts as those of a length between the half and the whole of the window.
        return PARTS[name](rng, size, Material(self.essay(rng, 100), rng.choice((WINDOW // 2, WINDOW))))

    def _rate(self, name: str, rng: random.Random) -> tuple[float, float]:
        few, many = (
            sum(self.count(s.text + s.question + s.cue) + 10 for s in (self.sample(rng, name, size) for _ in range(12))) / 12
            for size in (4, 24)
        )
        slope = max(0.5, (many - few) / 20)
        return few - 4 * slope, slope

    def size(self, name: str, budget: int) -> int:
        start, slope = self._rates[name]
        return max(1, min(95, int((budget - start) / slope)) if name != "fwe" else int((budget - start) / slope))


def ruler(name: str) -> Task:
    def make(rng: random.Random, practice: Practice, budget: int) -> list[Part]:
        size = practice.size(name, budget - 50)
        sample = practice.sample(rng, name, rng.randint(max(1, size // 2), size) if rng.random() < 0.3 else size)
        parts = _asked(rng, sample, sample.text, sample.question, sample.cue, _answer(sample))
        make_needles = PARTS[name]
        if isinstance(make_needles, Needles) and make_needles.asked == make_needles.values == 1:
            others = [pair for pair in _TOLD.findall(sample.text) if pair[1] not in sample.wanted]
            for key, value in rng.sample(others, min(len(others), rng.choice((0, 1, 2)))):
                again = make_needles._sample("", [key], [value])
                parts += _turn(parts, again.question, again.cue, f" {value}")
        return [*parts, ("\n", CONTEXT)]

    return make


def _answer(sample: Sample) -> str:
    if sample.joined == "numbered":
        return " " + " ".join(f"{i}. {word}" for i, word in enumerate(sample.wanted, 1))
    if len(sample.wanted) == 1:
        return f" {sample.wanted[0]}"
    if sample.joined == " ":
        return " " + " ".join(sample.wanted)
    return " " + ", ".join(sample.wanted[:-1]) + f", and {sample.wanted[-1]}"


def _asked(rng: random.Random, sample: Sample | None, text: str, question: str, cue: str, answer: str) -> list[Part]:
    """In the plain form or in the chat's; a worked example's answer counts as one."""
    pieces: list[Part] = []
    shown = _SHOWN.search(text) if sample else None
    if shown:
        end = text.index("\n\n", shown.end())
        pieces = [(text[: shown.end()], CONTEXT), (text[shown.end() : end], ANSWER), (text[end:], CONTEXT)]
    else:
        pieces = [(text, CONTEXT)]
    if rng.random() < 0.5:
        turn = f"\n{question}{CLOSE}\n{OPEN}assistant\n{cue}"
        return [(f"{OPEN}user\n", CONTEXT), *pieces, (turn, CONTEXT), (f"{answer}.{CLOSE}", ANSWER)]
    return [*pieces, (f"\n{question} {cue}", CONTEXT), (f"{answer}.", ANSWER)]


def _turn(before: list[Part], question: str, cue: str, answer: str) -> list[Part]:
    if before[0][0].startswith(OPEN):
        return [(f"\n{OPEN}user\n{question}{CLOSE}\n{OPEN}assistant\n{cue}", CONTEXT), (f"{answer}.{CLOSE}", ANSWER)]
    return [(f"\n{question} {cue}", CONTEXT), (f"{answer}.", ANSWER)]


def story(rng: random.Random, practice: Practice, budget: int) -> list[Part]:
    made = rng.choice(list(babilong.PARTS.values()))(rng)
    room = budget - 80 - sum(practice.count(told) for told in made.told)
    text = planted(practice.sentences(rng, max(0, room)), made.told, sorted(rng.random() for _ in made.told))
    return [
        *_asked(rng, None, f"{babilong.INTRODUCTION}\n\n{text}\n", made.question, made.cue, f" {made.wanted}"), ("\n", CONTEXT),
    ]


def by_meaning(rng: random.Random, practice: Practice, budget: int) -> list[Part]:
    told, question, who, others = gap.case(rng, rng.randrange(len(gap.PAIRS)))
    text = planted(practice.sentences(rng, budget - 80), [told, *others], [rng.random() for _ in range(3)])
    return [*_asked(rng, None, text + "\n", question, gap.CUE, f" {who}"), ("\n", CONTEXT)]


def prose_facts(rng: random.Random, practice: Practice, budget: int) -> list[Part]:
    """Several facts, some of them asked, one turn each, in the chat's own words."""
    count = rng.randint(1, max(1, min(20, (budget - 120) // 35)))
    words = practice.filler.words
    people = [f"{rng.choice(words).capitalize()} {rng.choice(words).capitalize()}" for _ in range(count)]
    forms = [rng.choice(FORMS) for _ in people]
    numbers = [str(rng.randrange(10 ** (form.digits - 1), 10**form.digits)) for form in forms]
    told = [form.told.format(who, n=n) for form, who, n in zip(forms, people, numbers, strict=True)]
    asked = rng.sample(range(count), min(count, rng.randint(1, 3)))
    room = budget - 70 - sum(practice.count(t) for t in told) - 40 * len(asked)
    text = planted(practice.sentences(rng, max(0, room)), told, sorted(rng.random() for _ in told))
    title = f"{rng.choice(words)}.txt"
    begin = f"{OPEN}system\n{SYSTEM_DOCUMENT}{CLOSE}\n" if rng.random() < 0.8 else ""
    parts: list[Part] = [(f"{begin}{OPEN}user\nDocument: {title}\n\n{text}\n\n", CONTEXT)]
    for turn, i in enumerate(asked):
        opened = f"\n{OPEN}user\n" if turn else ""
        parts += [
            (f"{opened}{forms[i].question.format(people[i])}{CLOSE}\n{OPEN}assistant\n{forms[i].cue.format(people[i])}", CONTEXT),
            (f" {numbers[i]}.{CLOSE}", ANSWER),
        ]
    return [*parts, ("\n", CONTEXT)]


def _of_fixture(task: Callable[[random.Random, Filler, int], list[Part]]) -> Task:
    return lambda rng, practice, budget: [
        (text, ANSWER if weight > TEXT else weight) for text, weight in task(rng, practice.filler, budget)
    ]


TASKS: tuple[tuple[Task, float], ...] = (
    *((ruler(name), weight) for name, weight in {
        "niah_single_1": 1, "niah_single_2": 1, "niah_single_3": 2, "niah_multikey_1": 1.5, "niah_multikey_2": 2, "niah_multikey_3": 3,
        "niah_multivalue": 2, "niah_multiquery": 2, "vt": 3, "cwe": 5, "fwe": 3,
    }.items()),
    (story, 4), (by_meaning, 1), (prose_facts, 2.5),
    (_of_fixture(document_chat), 2), (_of_fixture(fact_list), 0.7), (_of_fixture(passkey), 1), (_of_fixture(copying), 1),
    (_of_fixture(plain_text), 2),
)
_MAKERS, _WEIGHTS = zip(*TASKS, strict=True)
_PLAIN = _of_fixture(plain_text)


def row(rng: random.Random, practice: Practice, length: int, progress: float) -> tuple[list[int], list[int]]:
    """`length` token ids and the weight of each. Documents are short at first and may fill the row from a quarter of the run on."""
    longest = int(256 + (length - 256) * min(1.0, 0.1 + progress / 0.25))
    tokens: list[int] = []
    weights: list[int] = []
    while len(tokens) < length:
        room = length - len(tokens)
        budget = min(room - 1, int(200 + (longest - 200) * max(rng.random(), rng.random())))
        made = _encoded(practice, rng.choices(_MAKERS, _WEIGHTS)[0](rng, practice, budget)) if room > 220 else None
        if made is None or len(made[0]) > room:
            made = _encoded(practice, _PLAIN(rng, practice, min(room, 150)))
        tokens += made[0]
        weights += made[1]
    return tokens[:length], weights[:length]


def _encoded(practice: Practice, parts: list[Part]) -> tuple[list[int], list[int]]:
    tokens: list[int] = []
    weights: list[int] = []
    for encoding, (_, weight) in zip(
        practice.tokenizer.encode_batch([text for text, _ in parts] + [END], add_special_tokens=False), [*parts, ("", CONTEXT)], strict=True
    ):
        tokens += encoding.ids
        weights += [weight] * len(encoding.ids)
    return tokens, weights
