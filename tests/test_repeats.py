"""What an answer shouldn't say again: words of letters, not tokens, and each time that it was said."""

from __future__ import annotations

import pytest

from selfextend_local.engine.repeats import ALLOWED, BASE, COUNTED, LONGEST, Repeats

PIECES = [
    " The", " story", " of", " the", " key", " is", " I", "rene", " Ad", "ler", " Norton", " there", " 4", "8", "213", ".", " Remember",
    "故", "事", "的", "", "\n", "-", " |", " never", " don", "'t", "'", "t",
]  # fmt: skip
STRENGTH = 1.0


def said(*pieces: str) -> Repeats:
    made = Repeats(PIECES.__getitem__, STRENGTH)
    for piece in pieces:
        made.drawn(PIECES.index(piece))
    return made


def costs(*pieces: str) -> dict[str, float]:
    return {PIECES[token]: cost for token, cost in said(*pieces).costs().items()}


def test_nothing_costs_before_anything_is_said_again() -> None:
    assert costs() == costs(" The") == costs(" The", " story", " of", " the", " key") == {}


def test_going_on_as_before_costs_from_so_many_words_on() -> None:
    again = (" story", " of", " the")
    assert costs(*again, " key", " is", again[0]) == {}
    assert costs(*again, " key", " is", *again[:ALLOWED]) == {" the": STRENGTH}


def test_each_word_more_costs_more_up_to_a_length() -> None:
    phrase = [" story", " of", " the", " key", " is", " there", " never", " don", "故", "事"]
    found = [costs(*phrase, *phrase[:count])[phrase[count]] for count in range(ALLOWED, len(phrase))]
    assert found == [pytest.approx(STRENGTH * BASE ** (min(count, LONGEST) - ALLOWED)) for count in range(ALLOWED, len(phrase))]


def test_each_time_that_it_was_said_counts() -> None:
    phrase = (" story", " of", " the")
    told = [piece for before in (" is", " key", " there") for piece in (*phrase, before)]
    assert [costs(*told[: 4 * times], " Remember", *phrase[:2])[" the"] for times in (1, 2, 3)] == [STRENGTH, 2 * STRENGTH, 3 * STRENGTH]


def test_one_word_over_and_over() -> None:
    assert set(costs(*[" the"] * 6)) == {" the"}


def test_a_name_may_be_ended_as_it_was_begun_and_goes_on_with_names() -> None:
    name = (" I", "rene", " Ad", "ler", " Norton", " there")
    for end in (2, 3, 4):
        assert costs(*name, " is", " the", " key", " of", *name[:end]) == {}
    assert set(costs(*name, " is", " the", " key", " of", *name[:5])) == {" there"}


@pytest.mark.parametrize("end", [("'t",), ("'", "t")])
def test_an_apostrophe_ends_no_word(end: tuple[str, ...]) -> None:
    told = (" I", " never", " don", *end, " story", " is")
    assert [costs(*told, *told[:count]) for count in range(3, 3 + len(end))] == [{}] * len(end)


def test_numbers_and_what_follows_them_cost_nothing() -> None:
    told = (" The", " key", " is", " 4", "8", "213", " of", " the", " story")
    for end in (3, 4, 5, 6, 7):
        assert costs(*told, *told[:end]) == {}
    assert set(costs(*told, *told[:8])) == {" story"}


def test_lists_and_tables_stay_as_they_are() -> None:
    line = ("\n", "-", " The", " key", ".")
    assert [costs(*line * 8, *line[:end]) for end in range(len(line))] == [{}] * len(line)
    row = ("\n", " |", " key", " |", " story", " |")
    assert [costs(*row * 8, *row[:end]) for end in range(len(row))] == [{}] * len(row)


def test_line_ends_and_full_stops_change_nothing() -> None:
    assert set(costs(" story", "\n", " of", " the", ".", " story", " of")) == {" the"}
    assert set(costs(" story", " of", " the", ".", " story", " of", "\n")) == {" the"}
    assert set(costs(" story", ".", " of", " the", ".", " story", " of")) == {" the"}


def test_scripts_without_spaces_count_each_token() -> None:
    assert set(costs("故", "事", "的", ".", "故", "事")) == {"的"}


def test_tokens_without_text_are_part_of_a_word() -> None:
    assert costs(" I", "", " Norton", " is", ".", " I", "") == {}


def test_a_word_without_end_is_known_by_its_beginning() -> None:
    endless = (" never", *["t"] * 500)
    assert set(costs(*endless, " is", " the", ".", *endless, " is")) == {" the"}


def test_a_word_that_was_said_very_often_costs_as_its_last_places_do() -> None:
    assert costs(*[" the"] * 500) == {" the": pytest.approx(COUNTED * STRENGTH * BASE ** (LONGEST - ALLOWED))}
