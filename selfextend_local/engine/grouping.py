"""Which group attention a text of a given length is read with in one context, and which saved keys may serve it.

Pure arithmetic over the plan's rules; knows no library.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfextend_local.errors import ContextOverflow
from selfextend_local.positions import GroupAttention

from .plan import Settings, group_attention_for, next_growth, overflow


@dataclass(frozen=True)
class Grouping:
    """The choice for one context: `window` is the trained one, `capacity` what the context can hold, all in tokens.

    `pinned`: use this one whatever the length.
    """

    settings: Settings
    window: int
    sliding_window: int
    capacity: int
    pinned: GroupAttention | None = None

    @property
    def mode(self) -> str:
        """How n is chosen: "auto", a number, or "pinned". Keys of different modes don't stand for each other."""
        return "pinned" if self.pinned else str(self.settings.ga_n)

    def for_length(self, n_tokens: int) -> GroupAttention:
        """The (n, w, r) that a text of `n_tokens` is read with."""
        if self.pinned is not None:
            return self.pinned
        return group_attention_for(self.settings, n_tokens, self.window, self.sliding_window)

    def next_growth(self, now: GroupAttention, n_tokens: int) -> tuple[int, GroupAttention] | None:
        """(length, group attention) at which a text of `n_tokens`, read with `now`, is regrouped, and how; None if it stays."""
        if self.pinned is not None:
            return None
        return next_growth(self.settings, now, n_tokens, self.capacity, self.window, self.sliding_window)

    def accepts(self, ga: GroupAttention, n_tokens: int) -> bool:
        """Whether keys that were read with `ga` may serve a text of `n_tokens`: read with what it would be read with;
        with what it goes over from in a conversation, to a larger n or to recall; with recall of more or less than it
        would fetch, where no number was given; or with the next larger n, which a text gets that was read with room for
        a conversation. Reading again for minutes is worse than a group a step too coarse."""
        wanted = self.for_length(n_tokens)
        if ga == wanted:
            return True
        if self.mode != "auto" or ga.w != wanted.w:
            return False
        if wanted.recall:
            return not ga.recall or self.settings.ga_recall is None
        alike = (ga.progressive, ga.recall) == (wanted.progressive, wanted.recall)
        return alike and (ga.n < wanted.n or (wanted.enabled and ga.n == 2 * wanted.n))

    def overflow(self, n_tokens: int) -> ContextOverflow:
        """The error for a text of `n_tokens`, with the setting that would fit it."""
        return overflow(self.settings, n_tokens, self.capacity, self.window, self.sliding_window)
