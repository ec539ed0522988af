"""Draws docs/attention.svg: which distance each query sees each key at, with n=4, w=8, r=4. `python docs/attention_picture.py`."""

from __future__ import annotations

from pathlib import Path

from selfextend_local.positions import GroupAttention

N_TOKENS, CELL, LEFT, TOP = 28, 20, 70, 64
GROUPED = ("#dbeafe", "#bfdbfe")


def picture(ga: GroupAttention) -> str:
    width, height = LEFT + N_TOKENS * CELL + 20, TOP + N_TOKENS * CELL + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="9">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">Distance at which each query sees each key (n={ga.n}, w={ga.w}, steps of {ga.r})</text>',
        f'<rect x="{LEFT}" y="32" width="12" height="12" fill="#fed7aa"/><text x="{LEFT + 18}" y="42" font-size="12">exact</text>',
        f'<rect x="{LEFT + 70}" y="32" width="12" height="12" fill="{GROUPED[1]}"/>'
        f'<text x="{LEFT + 88}" y="42" font-size="12">in groups of {ga.n}: one shade a group</text>',
        f'<text x="{LEFT}" y="{TOP - 6}" font-size="11">keys →</text>',
        f'<text x="8" y="{TOP + 14}" font-size="11">queries ↓</text>',
    ]
    for i in range(N_TOKENS):
        boundary = ga.boundary(i)
        for j in range(i + 1):
            fill = "#fed7aa" if j >= boundary else GROUPED[j // ga.n % 2]
            x, y = LEFT + j * CELL, TOP + i * CELL
            parts.append(f'<rect x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" fill="{fill}"/>')
            parts.append(f'<text x="{x + CELL / 2 - 0.5}" y="{y + 13}" text-anchor="middle">{ga.relative_position(i, j)}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    (Path(__file__).parent / "attention.svg").write_text(picture(GroupAttention(4, 8, 4)), encoding="utf-8")
