"""Reading ahead: a slow or hanging document holds nobody up, and a stop ends its reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.bad_documents import hanging_pdf

from selfextend_local.batch.items import Item, from_paths
from selfextend_local.batch.job import Limits
from selfextend_local.batch.runner import ReadAhead

pytestmark = pytest.mark.process


def folder_with_a_hanging_document(folder: Path) -> list[Path]:
    paths = [hanging_pdf(folder / "0.pdf")]
    for number in range(1, 5):
        paths.append(folder / f"{number}.txt")
        paths[-1].write_text(f"Text {number}.")
    return paths


def test_a_hanging_document_holds_nobody_up(tmp_path: Path) -> None:
    items = from_paths(folder_with_a_hanging_document(tmp_path))
    with ReadAhead(items, Limits(read_s=300), lambda: False, readers=2) as ahead:
        names = [got.item.path.name for _ in range(4) if (got := ahead.next(block=True)) and got.item.path]
    assert sorted(names) == ["1.txt", "2.txt", "3.txt", "4.txt"]


def test_leaving_early_ends_the_readers(tmp_path: Path) -> None:
    items = from_paths(folder_with_a_hanging_document(tmp_path))
    before = psutil.Process().children()
    with ReadAhead(items, Limits(read_s=300), lambda: False, readers=2) as ahead:
        assert ahead.next(block=True)
        assert psutil.Process().children() != before
    assert psutil.Process().children() == before


def test_nothing_is_read_beyond_the_window_and_everything_comes_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.txt" for number in range(9)]
    for path in paths:
        path.write_text("Text.")
    taken: list[Item] = []

    class Items(list[Item]):
        def __iter__(self) -> Iterator[Item]:
            return (taken.append(item) or item for item in super().__iter__())  # type: ignore[func-returns-value]

    with ReadAhead(Items(from_paths(paths)), Limits(), lambda: False, readers=1, window=2) as ahead:
        names = []
        while got := ahead.next(block=True):
            names.append(got.item.custom_id)
            assert len(taken) - len(names) <= 2
    assert sorted(names) == sorted(map(str, paths))
