"""`selfextend` with other stretches and steps of progressive groups, for the table in docs/results/notes.md.

    FORM=3:8:0:8:2 python docs/results/other_forms.py eval passkey --lengths 32k --methods selfextend --out x.jsonl

FORM: the tokens that the stretches of 4 and of 16 take, as times w; the step of the border behind the first as times w (0: no such bound)
and at most as times r; each later step as times the one before.
"""

import os

from selfextend_cli.main import main

import selfextend_local.positions as positions
from selfextend_local.positions import GroupAttention, Level

four, sixteen, step_w, step_r, growth = map(int, os.environ["FORM"].split(":"))


def levels(ga: GroupAttention) -> tuple[Level, ...]:
    if not ga.progressive:
        return (Level(ga.n, ga.w, ga.r),)
    n, start = min(4, ga.n), ga.w
    found = [Level(n, start, ga.r)]
    step = min(max(1, step_w * ga.w // ga.r), step_r) * ga.r if step_w else step_r * ga.r
    while n < ga.n:
        start += (four if n == 4 else sixteen) * ga.w
        n = min(4 * n, ga.n)
        found.append(Level(n, start, step))
        step *= growth
    return tuple(found)


positions._levels = levels
main()
