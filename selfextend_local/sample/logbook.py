"""The dated log entries of the sample report, drawn from sentence patterns.

Knows the seasons and a seeded random generator: the same entries come out on
every machine. Must not know pages or fonts, nor state any fact that the demo
asks for (those are hand-written, in prose.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

YEAR = 1987
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MEAN_CELSIUS = (4, 4, 5, 7, 9, 12, 13, 14, 12, 10, 7, 5)
_SEED = 411

_WINDS = (
    "west", "south-west", "north-west", "south", "north", "south-east", "east", "north-east",
)  # fmt: skip
_PEOPLE = ("Tomas", "Una", "Magnus", "Peter", "the warden")

_WEATHER = (
    "Wind {wind}, force {force}, with {sky}. Low {low} degrees, high {high}.",
    "{sky_up} all day and a {force_word} wind from the {wind}. {high} degrees at noon.",
    "A night of {sky}, then clearing from the {wind}. Pressure {pressure} and rising.",
    "Pressure {pressure} at six, falling slowly. Wind {wind} {force}, {sky} by evening.",
    "Calm at dawn with mist in the geos. The wind rose to force {force} from the {wind}.",
    "Rain gauge {rain} millimetres after {sky}. Wind backing to the {wind}, high {high}.",
    "A {force_word} {wind} wind and {sky}. The glass stood at {pressure}.",
    "Bright morning, {sky} after two. Low {low}, high {high}, wind {wind} force {force}.",
    "The hills of the mainland stood out sharp and near, always a sign of rain; {rain} "
    "millimetres fell by midnight.",
    "Swell from the {wind} without much wind to explain it. {sky_up} and {high} degrees.",
    "The {force_word} wind veered to the {wind} at the change of watch and brought {sky}.",
    "A quiet day. {sky_up}, pressure {pressure}, hardly enough wind to turn the generator.",
    "A ring around the moon last night, and today {sky} from the {wind} as the saying has it.",
    "Low {low} degrees in the screen and {sky}. Wind {wind}, force {force}, easing at dusk.",
)

_WORK = (
    "{person_up} mended {n} yards of the sheep fence above the pier.",
    "The generator was stopped for an hour while {person} cleaned the contacts.",
    "{person_up} patched the long net with tarred twine and a good deal of muttering.",
    "A slate came off in the night and {person} had it back before breakfast.",
    "{n} loads of peat were carried down from the moss, with the pony in a willing mood.",
    "The pump sucked air again. {person_up} found a perished washer and cut a new one from an "
    "old boot.",
    "{person_up} whitewashed the screen and painted the numbers on the boat mooring.",
    "The chimney of the long cottage was swept, which took {person} all morning and used up "
    "every rag we own.",
    "The path to the North Light was cleared of {n} barrows of stones.",
    "{person_up} checked the barometer against the travelling one; they agreed to a tenth.",
    "The radio telephone was silent until {person} thought of looking at the aerial.",
    "{n} new poles were cut from a spar that came ashore in the north geo.",
    "The boat was pumped, scrubbed and turned, and {person} greased the winch.",
    "Stove door cracked. {person_up} bound it with wire until a new one can be sent.",
    "{person_up} sorted the library and dried {n} of the worst books above the stove.",
    "The hens were moved to the upper pen, all but one, which moved itself to the kitchen.",
    "The drain behind the square cottage was dug out and found to be full of roots.",
    "{person_up} baked {n} loaves and let nobody touch them until they were cold.",
)

_WINTER_BIRDS = (
    "{n} purple sandpipers fed along the tide line at the pier.",
    "A flock of {many} snow buntings blew about the lower field like paper.",
    "{n} great northern divers in the sound, and one close under the cliff.",
    "{many} eiders sheltered in the lee of the pier.",
    "An Iceland gull stood among the herring gulls on the roof.",
    "A glaucous gull followed the swell past Gannet Point, with {n} kittiwakes behind it.",
    "{n} wrens went to roost together in the wall of the ruined cottage.",
    "A merlin chased a rock pipit three times around the signal tower and gave it up.",
    "{many} turnstones rattled over the weed and would not be counted twice alike.",
    "A robin came in with the wind and sang from the handle of the pump.",
    "{many} starlings roosted in the chimney of the ruined cottage.",
    "{n} long-tailed ducks were calling in the sound before it was light.",
    "Little auks were moving north, {n} in the hour, low over the water.",
)
_SPRING_BIRDS = (
    "{n} wheatears on the turf, the males very upright and clean.",
    "The first swallow went straight over without looking at us.",
    "{many} meadow pipits on the morning walk, many of them singing.",
    "A ring ouzel in the ditch below the spring was gone by noon.",
    "{n} whimbrels whistled over in the dusk, bound for the north.",
    "{many} guillemots were back on the middle ledges.",
    "A chiffchaff in the nettles behind the kitchen made {n} ringed for the week.",
    "{n} puffins sat on the sea below the slope and thought it over.",
    "{n} skylarks were singing at once above the lower field.",
    "A wryneck crept along the wall of the garden and let itself be admired.",
    "{many} fulmars were back in their places, cackling and bowing.",
    "A short-eared owl quartered the moss and was mobbed by every lapwing there.",
    "{many} golden plovers rested in the lower field until the sun reached them.",
)
_SUMMER_BIRDS = (
    "{n} kittiwake nests on the south face now hold eggs.",
    "{many} storm petrels were caught at the night nets, of which {n} wore rings already.",
    "The eider on the slip hatched {n} ducklings and led them straight to sea.",
    "Arctic terns drew blood from {person} twice on the way to the rain gauge.",
    "{many} puffins wheeled over the slope at sunset with fish in their bills.",
    "{n} young razorbills jumped from the ledges after dark while their fathers called below.",
    "{n} ringed plovers ran about the shingle as if on wheels.",
    "{many} shags dried their wings on the skerry, like washing.",
    "A cuckoo called twice from the signal tower and left by the next wind.",
    "A corncrake rasped in the hay from midnight until three.",
    "{many} gannets were fishing off the point, falling one after another like thrown knives.",
    "A pair of red-throated divers came down to the sound and wailed.",
    "{n} twite chicks were ringed in the wall of the garden.",
)
_AUTUMN_BIRDS = (
    "{many} redwings came in before light and were stripping the last of the berries by eight.",
    "{n} goldcrests in the nets, each of them lighter than a letter.",
    "A yellow-browed warbler fed along the wall beside the pump.",
    "{many} barnacle geese passed over, talking, too high for the naked eye.",
    "{n} sooty shearwaters went west past the point in an hour.",
    "A tired woodcock was picked up at the foot of the North Light and let go at dusk.",
    "{many} fieldfares and a few blackbirds dropped out of low cloud at noon.",
    "{n} robins shared the shelter of the seed sacks without peace.",
    "A little bunting was caught in the smaller trap and much looked at in the hand.",
    "{many} skylarks went over in small parties all morning, heading south.",
    "{n} bramblings were at the seed, with one chaffinch to keep them in order.",
    "A great skua drowned a gull off the pier and ate it, watched by all.",
    "{many} pink-footed geese rested on the moss and were gone in the morning.",
)

_EVENINGS = (
    "Soup for supper, with dumplings.",
    "{person_up} read aloud after supper until the lamp burned low.",
    "A trawler rounded the north end at dusk and sounded her horn.",
    "The Northern Lights were seen faintly at eleven.",
    "Bosun brought in a mouse and was thanked.",
    "The lamp at Port Ellery could be seen, which is not usual.",
    "No crossing possible.",
    "The boat went over and was back by four with post and onions.",
    "A seal watched the evening reading from the water.",
    "{person_up} and the pony are not on speaking terms.",
    "Cards in the evening; {person} lost eleven matches.",
    "Coastguard reports a drifting buoy, which we looked for and did not find.",
    "A letter from the Trust, in three copies.",
    "{n} visitors came ashore, looked at everything and went home wet.",
    "A glass float came ashore in the north geo and now hangs in the window.",
    "Early to bed.",
)

_SKIES = (
    ("steady rain", "drizzle and low cloud", "hail showers", "broken cloud", "sleet", "thin sun"),
    ("passing showers", "broken cloud", "long spells of sun", "a cold haze", "light rain"),
    ("sea fog", "high thin cloud", "long spells of sun", "a soft drizzle", "scattered showers"),
    ("driving rain", "broken cloud", "drizzle and low cloud", "squalls", "pale sunshine"),
)
_FORCE_WORDS = ("light", "gentle", "moderate", "fresh", "strong")


@dataclass(frozen=True, slots=True)
class Entry:
    """One day of the log."""

    date: str
    text: str


def month_entries(month: int, count: int) -> tuple[Entry, ...]:
    """`count` entries for `month` (0 = January), spread over its days.

    A month depends on its own number alone, so that one can change without the
    others.
    """
    rng = random.Random(_SEED + month)
    season = (month + 1) % 12 // 3
    birds = (_WINTER_BIRDS, _SPRING_BIRDS, _SUMMER_BIRDS, _AUTUMN_BIRDS)[season]
    decks = [_deck(patterns, rng) for patterns in (_WEATHER, birds, _WORK, _EVENINGS)]
    days = sorted(rng.sample(range(1, _DAYS[month] + 1), count))
    return tuple(
        Entry(f"{day} {MONTHS[month]}", _day_text(decks, rng, month, season)) for day in days
    )


def _deck(patterns: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Patterns without end, each of them used once before any comes again."""
    while True:
        yield from rng.sample(patterns, len(patterns))


def _day_text(
    decks: Sequence[Iterator[str]], rng: random.Random, month: int, season: int
) -> str:  # fmt: skip
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
    sky, person = rng.choice(_SKIES[season]), rng.choice(_PEOPLE)
    return {
        "wind": rng.choice(_WINDS),
        "force": force,
        "force_word": _FORCE_WORDS[min(4, (force - 1) // 2)],
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
