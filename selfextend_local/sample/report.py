"""The words of the sample report: chapters written by hand, and a log whose entries are drawn from patterns.

All of it stands in report.txt, was invented and was written for this project; a line a paragraph, ASCII, since the PDF's built-in
fonts have little more. The same entries are drawn on every machine. Knows no pages and no fonts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
WEATHER_TABLE_HEAD = ("Month", "Low", "High", "Rain", "Gales")
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MEAN_CELSIUS = (4, 4, 5, 7, 9, 12, 13, 14, 12, 10, 7, 5)
_SEASONS = ("winter", "spring", "summer", "autumn")
_SEED = 411


@dataclass(frozen=True, slots=True)
class Chapter:
    """A title and its paragraphs; starts on a new page."""

    title: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One day of the log."""

    date: str
    text: str


@cache
def sections() -> dict[str, tuple[str, ...]]:
    """The lines of report.txt by the heading above them."""
    found: dict[str, list[str]] = {}
    for line in Path(__file__).with_name("report.txt").read_text(encoding="ascii").splitlines():
        if line.startswith("= "):
            lines = found.setdefault(line[2:], [])
        elif line:
            lines.append(line)
    return {heading: tuple(lines) for heading, lines in found.items()}


def chapters(part: str) -> tuple[Chapter, ...]:
    """Of "opening", "february", "table" or "closing", in the order of the report."""
    marked = ((heading.partition(": "), lines) for heading, lines in sections().items())
    return tuple(Chapter(title, lines) for (first, _, title), lines in marked if first == part and title)


def month_chapter(month: int, entries: int) -> Chapter:
    """The log of a month, 0 = January: its introduction, and so many entries."""
    log = (f"{entry.date}. {entry.text}" for entry in month_entries(month, entries))
    return Chapter(f"The Log for {MONTHS[month]}", (sections()["months"][month], *log))


def month_entries(month: int, count: int) -> tuple[Entry, ...]:
    """`count` entries for `month`, spread over its days. A month depends on its own number alone, so that one can change without
    the others."""
    rng = random.Random(_SEED + month)
    season = (month + 1) % 12 // 3
    decks = [_deck(sections()[name], rng) for name in ("weather", f"birds {_SEASONS[season]}", "work", "evenings")]
    days = sorted(rng.sample(range(1, _DAYS[month] + 1), count))
    return tuple(Entry(f"{day} {MONTHS[month]}", _day_text(decks, rng, month, season)) for day in days)


def log_text(entries: int) -> str:
    """So many entries of each month, a line each."""
    return "\n".join(f"{entry.date}. {entry.text}" for month in range(12) for entry in month_entries(month, entries))


def prose() -> str:
    """The chapters of the beginning and the end, in which no sentence stands twice."""
    return "\n\n".join(paragraph for part in ("opening", "closing") for chapter in chapters(part) for paragraph in chapter.paragraphs)


def _deck(patterns: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Patterns without end, each of them used once before any comes again."""
    while True:
        yield from rng.sample(patterns, len(patterns))


def _day_text(decks: Sequence[Iterator[str]], rng: random.Random, month: int, season: int) -> str:
    weather, birds, work, evening = decks
    chosen = [next(weather), next(birds)]
    if rng.random() < 0.75:
        chosen.append(next(work))
    if rng.random() < 0.6:
        chosen.append(next(evening))
    return " ".join(pattern.format(**_values(rng, month, season)) for pattern in chosen)


def _values(rng: random.Random, month: int, season: int) -> dict[str, str | int]:
    mean = _MEAN_CELSIUS[month] + rng.randint(-2, 2)
    force = rng.randint(2, 8)
    sky, person = rng.choice(sections()[f"skies {_SEASONS[season]}"]), rng.choice(sections()["people"])
    return {
        "wind": rng.choice(sections()["winds"]),
        "force": force,
        "force_word": sections()["force"][min(4, (force - 1) // 2)],
        "sky": sky,
        "sky_up": sky[0].upper() + sky[1:],
        "low": max(2, mean - rng.randint(2, 4)),
        "high": max(5, mean + rng.randint(1, 4)),
        "pressure": rng.randint(974, 1034),
        "rain": rng.randint(2, 21),
        "n": rng.randint(3, 19),
        "many": rng.randint(20, 160),
        "person": person,
        "person_up": person[0].upper() + person[1:],
    }


def month_summary(month: int) -> tuple[str, str, str, str, str]:
    """A row of the weather table: name, mean low and high, rain in mm, days of gale."""
    rng = random.Random(_SEED + 100 + month)
    mean = _MEAN_CELSIUS[month]
    rain = 60 + 9 * abs(6 - month) + rng.randint(0, 30)
    gales = max(0, abs(6 - month) - 1 + rng.randint(-1, 2))
    low, high = mean - rng.randint(1, 2), mean + rng.randint(2, 4)
    return MONTHS[month], str(low), str(high), str(rain), str(gales)
