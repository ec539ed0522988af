"""BABILong (Kuratov et al., arXiv:2406.10149): the sentences of a bAbI story (Weston et al., arXiv:1502.05698) among those of a novel.

qa1: where is somebody, after several moves. qa2: where is a thing that somebody carries. qa3: where was it before that.
The stories are generated here; nothing of the data set is used.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..items import Item, Question, TaskError
from ..prompting import Tokenizer, Wording, fitting
from ..texts import Text
from .haystack import Haystack, planted

PEOPLE = ("Mary", "John", "Daniel", "Sandra")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
THINGS = ("apple", "football", "milk")
INTRODUCTION = (
    "Facts about people and things are hidden in the following text. Answer the question at its end from those facts. "
    "The most recent fact counts."
)


@dataclass
class World:
    """Who is where, who carries what, and where each thing has been; `told` are the sentences so far."""

    rng: random.Random
    told: list[str] = field(default_factory=list)
    at: dict[str, str] = field(default_factory=dict)
    carrier: dict[str, str] = field(default_factory=dict)
    been: dict[str, list[str]] = field(default_factory=dict)

    def move(self, who: str) -> None:
        place = self.rng.choice([p for p in PLACES if p != self.at.get(who)])
        self.at[who] = place
        self.told.append(f"{who} {self.rng.choice(('went to', 'moved to', 'travelled to', 'journeyed to'))} the {place}.")
        for thing, carrier in self.carrier.items():
            if carrier == who:
                self.been.setdefault(thing, []).append(place)

    def take(self, who: str, thing: str) -> None:
        self.carrier[thing] = who
        self.been.setdefault(thing, [])
        if self.been[thing][-1:] != [self.at[who]]:
            self.been[thing].append(self.at[who])
        self.told.append(f"{who} {self.rng.choice(('took', 'picked up', 'got'))} the {thing}.")


@dataclass(frozen=True)
class Story:
    """Sentences in order, a question whose answer is one word, and how the answer begins."""

    told: tuple[str, ...]
    question: str
    cue: str
    wanted: str


def where_is_somebody(rng: random.Random) -> Story:
    world = World(rng)
    for _ in range(rng.randint(2, 10)):
        world.move(rng.choice(PEOPLE))
    who = rng.choice(list(world.at))
    return Story(tuple(world.told), f"Where is {who}?", f"{who} is in the", world.at[who])


def where_is_a_thing(rng: random.Random) -> Story:
    world, thing = _carried(rng, 1)
    return Story(tuple(world.told), f"Where is the {thing}?", f"The {thing} is in the", world.been[thing][-1])


def where_was_a_thing(rng: random.Random) -> Story:
    world, thing = _carried(rng, 3)
    # Before the last place where it came to only once.
    last = world.been[thing][-1]
    while world.been[thing].count(last) > 1:
        world, thing = _carried(rng, 3)
        last = world.been[thing][-1]
    return Story(
        tuple(world.told), f"Where was the {thing} before the {last}?", f"Before the {last} the {thing} was in the", world.been[thing][-2]
    )


def _carried(rng: random.Random, moves: int) -> tuple[World, str]:
    """A world in which somebody has taken a thing through `moves` places or more, and others have moved in between."""
    world, thing = World(rng), rng.choice(THINGS)
    holder = rng.choice(PEOPLE)
    for who in rng.sample(PEOPLE, 3):
        world.move(who)
    if holder not in world.at:
        world.move(holder)
    world.take(holder, thing)
    while len(world.been[thing]) < moves or rng.random() < 0.6:
        who = holder if rng.random() < 0.5 else rng.choice(PEOPLE)
        world.move(who)
        spare = [t for t in THINGS if t not in world.carrier]
        if spare and rng.random() < 0.2:
            world.take(who, rng.choice(spare))
    return world, thing


PARTS: Mapping[str, Callable[[random.Random], Story]] = {
    "qa1": where_is_somebody, "qa2": where_is_a_thing, "qa3": where_was_a_thing,
}


def grade(wanted: str, answer: str) -> dict[str, float]:
    """BABILong's: the answer names the place, and no other."""
    said = {word for word in re.findall(r"[a-z]+", answer.lower()) if word in PLACES}
    return {"score": float(said == {wanted})}


@dataclass(frozen=True)
class BabiLong:
    """`parts` of PARTS, `samples` of each, between the sentences of `text`."""

    text: Text
    parts: tuple[str, ...] = tuple(PARTS)
    samples: int = 8
    form: str = "auto"
    seed: int = 42

    name = "babilong"

    def config(self) -> Mapping[str, Any]:
        return {**self.text.record, "seed": self.seed}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        wording = Wording.of(tokenizer, self.form)
        haystack = Haystack(self.text)
        found: list[Item] = []
        for part in self.parts:
            for number in range(self.samples):
                rng = random.Random(f"{self.seed}/{length}/{part}/{number}")
                story = PARTS[part](rng)
                found.append(self._question(wording, haystack, length, story, rng, {"part": part, "sample": number}))
        return found

    def _question(
        self, wording: Wording, haystack: Haystack, length: int, story: Story, rng: random.Random, labels: Mapping[str, Any]
    ) -> Question:
        depths = sorted(rng.random() for _ in story.told)

        def prompt(lines: int) -> tuple[tuple[int, ...], int]:
            text = planted(haystack.sentences[:lines], story.told, depths)
            return wording.asked(f"{INTRODUCTION}\n\n{text}\n", story.question, story.cue)

        room = 8
        lines = haystack.check(fitting(len(haystack.sentences), length - room, lambda n: prompt(n)[0]), length)
        if lines < 1:
            raise TaskError(f"{length:,} tokens are too short for {labels['part']}. Take longer --lengths.")
        tokens, at = prompt(lines)
        return Question(
            {**labels, "format": wording.form}, tokens, room, lambda answer: grade(story.wanted, answer), wording.stop_tokens, "\n", at
        )
