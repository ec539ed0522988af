"""/context as a picture: cells in proportion, nothing wider than the window."""

from __future__ import annotations

import pytest
from selfextend_cli.chat.context_view import Window, picture

from selfextend_local.chat.conversation import Filling
from selfextend_local.positions import GroupAttention


def window(read: int = 6_000, growth: tuple[int, GroupAttention] | None = (9_000, GroupAttention(8))) -> Window:
    filling = Filling(20, (4_000, 1_000), 1_000, read, 12_000)
    return Window(filling, ["A report, 12 pages", "表" * 60], 2, GroupAttention(4, 1024, 512), growth)


@pytest.mark.parametrize("columns", [100, 80, 40, 26])
def test_no_line_is_wider_than_the_window(columns: int) -> None:
    from rich.cells import cell_len

    lines = picture(window(), columns, colour=False)
    assert all(cell_len(line) < columns for line in lines)
    assert len(lines[0]) == min(columns - 1, 76)


def test_the_bar_is_in_proportion() -> None:
    bar, line, grouped, exact, *legend = picture(window(), 81, colour=False)
    assert (bar.count("s"), bar.count("A"), bar.count("B"), bar.count("t")) == (1, 25, 6, 6)
    assert (line.count("╌"), line.count("━")) == (29, 8)
    assert (grouped, exact) == ("╌  4,608  in groups of 4", "━  1,392  exact")
    assert legend[0] == "s     20  system prompt"
    assert legend[4] == ".  5,980  free of 12,000"
    assert legend[5:] == ["n grows from 4 to 8 at 9,000 tokens: 2,980 more", "the window ends at 12,000 tokens: 5,980 more"]


def test_each_size_of_groups_has_its_part() -> None:
    shown = window(read=11_000)
    progressive = GroupAttention(16, 1024, 512, progressive=True)
    lines = picture(Window(shown.filling, shown.documents, 2, progressive, None), 81, colour=False)
    assert lines[2:5] == ["┈  4,096  in groups of 16", "╌  5,632  in groups of 4", "━  1,272  exact"]
    assert sum(int(line[1:8].replace(",", "")) for line in lines[2:5]) == 11_000
    assert "┈" * 20 + "╌" * 20 in lines[1]


def test_no_level_is_left_out() -> None:
    shown = Window(Filling(20, (119_980,), 0, 120_000, 120_000), ["A report"], 0, GroupAttention(256, 512, 512, progressive=True), None)
    lines = [line.split() for line in picture(shown, 81, colour=False)[2:7]]
    assert [line[-1] for line in lines] == ["256", "64", "16", "4", "exact"]
    assert sum(int(line[1].replace(",", "")) for line in lines) == 120_000


def test_what_is_exact_is_called_so() -> None:
    assert picture(window(read=900), 81, colour=False)[2] == "━    900  exact"
    plain = Window(window().filling, window().documents, 2, GroupAttention(), None)
    assert picture(plain, 81, colour=False)[2] == "━  6,000  exact"


def test_before_anything_is_read() -> None:
    lines = picture(window(read=0, growth=None), 81, colour=False)
    assert lines[1].startswith("Nothing is read yet")
    assert "n stays 4 to the end" in lines


def test_colours_stand_for_the_letters() -> None:
    bar = picture(window(), 81, colour=True)[0]
    assert "\x1b[34m" + "█" * 25 in bar
    assert bar.endswith("░" * 38)
