"""The tasks, by name. A task is a frozen dataclass that makes the items for one length; it knows no methods and no models.

A new task is a module here and a line in TASKS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from selfextend_local.evaluation.items import Item
from selfextend_local.evaluation.prompting import Tokenizer


class Task(Protocol):
    """What the runner asks of a task."""

    @property
    def name(self) -> str:
        """Of TASKS."""

    def config(self) -> Mapping[str, Any]:
        """All parameters that change what is asked, in JSON's types."""

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        """The items for texts of `length` tokens, in an order in which neighbours share long prefixes.

        Raises TaskError if there are none for that length.
        """


@dataclass(frozen=True)
class Kind:
    """How the results of a task are read: the main metric, whether more is better, the label that a heatmap shows; `also`: a
    second metric, whose mean stands beside it."""

    metric: str
    more_is_better: bool
    title: str
    across: str = ""
    also: str = ""


TASKS: Mapping[str, Kind] = {
    "passkey": Kind("exact", True, "Pass keys found", "depth"),
    "ppl": Kind("nll", False, "Nats per token"),
    "copy": Kind("gain", True, "Nats per token saved by a passage read before", "depth"),
    "ruler": Kind("score", True, "Share of the wanted values named"),
    "babilong": Kind("score", True, "Places named, among those of a novel"),
    "gap": Kind("score", True, "Needles found that share no word with the question", "depth"),
    "planted": Kind("said", True, "Keys and facts said, all planted in one text", "depth"),
    "facts": Kind("said", True, "Facts in prose said", "depth", also="nats"),
    "qa": Kind("f1", True, "F1 of answers"),
}
