"""Draws docs/distances.svg: at which distance the last of 2,048 tokens sees each one before it, with a trained window of 512.
`python docs/distances_picture.py`. The spans that recall fetches are made up for the picture; all else is computed."""

from __future__ import annotations

import random
from pathlib import Path

from selfextend_local.positions import RECALL_SINKS, RECALL_SPAN, GroupAttention, choose, fetching

N_TOKENS, WINDOW = 2048, 512
WIDTH, HEIGHT, GAP, LEFT, TOP = 300, 150, 44, 40, 86
HIGHEST = 3 * WINDOW // 2  # distance at the upper edge
NEAR, FAR, BEYOND = "#f59e0b", "#1d4ed8", "#b91c1c"


def grouped(ga: GroupAttention) -> list[tuple[int, int, str]]:
    """(token, distance, colour) for each token that the last one sees."""
    last, border = N_TOKENS - 1, ga.boundary(N_TOKENS - 1)
    found = [(j, ga.relative_position(last, j)) for j in range(N_TOKENS)]
    return [(j, d, BEYOND if d >= WINDOW else NEAR if j >= border else FAR) for j, d in found]


def recalled(ga: GroupAttention) -> list[tuple[int, int, str]]:
    last, border = N_TOKENS - 1, ga.boundary(N_TOKENS - 1)
    spans = random.Random(3).sample(range(RECALL_SINKS // RECALL_SPAN, border // RECALL_SPAN), ga.recall // RECALL_SPAN)
    far = [*range(RECALL_SINKS), *(t for span in sorted(spans) for t in range(span * RECALL_SPAN, (span + 1) * RECALL_SPAN))]
    start = last - border + len(far)
    return [(j, start - k, FAR) for k, j in enumerate(far)] + [(j, last - j, NEAR) for j in range(border, N_TOKENS)]


def panel(place: int, title: str, points: list[tuple[int, int, str]]) -> str:
    x0, bottom = LEFT + place % 2 * (WIDTH + GAP), TOP + HEIGHT + place // 2 * (HEIGHT + GAP)
    line = bottom - WINDOW * HEIGHT / HIGHEST
    dots = [
        f'<rect x="{x0 + j * WIDTH / N_TOKENS:.1f}" y="{bottom - d * HEIGHT / HIGHEST - 2:.1f}" width="3" height="3" fill="{colour}"/>'
        for j, d, colour in points
        if j % 8 == 0 and d < HIGHEST
    ]
    frame = f'<rect x="{x0}" y="{bottom - HEIGHT}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#9ca3af"/>'
    dashes = f'<line x1="{x0}" y1="{line}" x2="{x0 + WIDTH}" y2="{line}" stroke="#6b7280" stroke-dasharray="4 3"/>'
    return "\n".join([f'<text x="{x0}" y="{bottom - HEIGHT - 8}" font-size="14">{title}</text>', frame, dashes, *dots])


def picture() -> str:
    two, progressive, recall = choose(N_TOKENS, WINDOW), choose(N_TOKENS, WINDOW, progressive=True), fetching(None, None, WINDOW)
    panels = [
        ("plain", grouped(GroupAttention())),
        (two.label, grouped(two)),
        (progressive.label, grouped(progressive)),
        (recall.label, recalled(recall)),
    ]
    width, height = LEFT + 2 * (WIDTH + GAP), TOP + 2 * (HEIGHT + GAP)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            f'<text x="{LEFT}" y="24" font-size="16">At which distance the last of {N_TOKENS:,} tokens sees each one before it</text>',
            f'<text x="{LEFT}" y="48">Dashed: the trained window, {WINDOW} tokens. <tspan fill="{NEAR}">■</tspan> exact '
            f'<tspan fill="{FAR}">■</tspan> grouped or fetched <tspan fill="{BEYOND}">■</tspan> never trained</text>',
            *(panel(place, title, points) for place, (title, points) in enumerate(panels)),
            f'<text x="{LEFT}" y="{height - 20}">place in the text →</text>',
            f'<text transform="translate({LEFT - 12} {TOP + HEIGHT}) rotate(-90)">distance →</text>',
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    (Path(__file__).parent / "distances.svg").write_text(picture(), encoding="utf-8")
