"""Pictures in the terminal, where it shows them: by kitty's protocol, by iTerm2's, or as sixels.

Knows how terminals are asked and how pictures are sent. Must not know what a picture shows. All questions go out at once, and the
last is one that nearly every terminal answers (DA1), so only one that answers nothing costs the wait.
"""

from __future__ import annotations

import base64
import os
import re
import select
import shutil
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from io import BytesIO
from typing import TYPE_CHECKING, Any

from . import output

try:
    import fcntl
    import termios
    import tty
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from PIL.Image import Image

ANSWER_S = 1.5
"""How long a terminal may take to answer; one that says nothing until then shows no pictures."""

_QUESTIONS = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[>q\x1b[c"
_KITTY_ANSWER = re.compile(rb"\x1b_Gi=31;OK\x1b\\")
_NAME_ANSWER = re.compile(rb"\x1bP>\|([^\x1b]*)\x1b\\")
_LAST_ANSWER = re.compile(rb"\x1b\[\?([\d;]*)c")
_SIXELS = b"4"  # among the attributes of DA1
_NAMES_OF_ITERM2 = re.compile(rb"iTerm2|WezTerm|mintty", re.IGNORECASE)
_PRINTING = ("linux", "eterm", "vt", "cons")  # names of terminals without pictures
_CHUNK = 4096  # bytes of base64 that kitty takes at once
_CELL = (10, 20)  # pixels, where the terminal doesn't say
_WIDEST = 100  # cells
_COLOURS = 32  # of sixels: a page of text with a mark


class Protocol(Enum):
    """How a terminal takes pictures."""

    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"


_asked: list[Protocol | None] = []


def protocol() -> Protocol | None:
    """How the terminal at stderr takes pictures; None if it doesn't. It is asked once."""
    if not _asked:
        _asked.append(_protocol())
    return _asked[0]


def _protocol() -> Protocol | None:
    if termios is None or not sys.stdin.isatty() or not output.draws(sys.stderr) or _prints_questions():
        return None
    said = _answers()
    last = _LAST_ANSWER.search(said)
    if _KITTY_ANSWER.search(said):
        return Protocol.KITTY
    name = _NAME_ANSWER.search(said)
    if name and _NAMES_OF_ITERM2.match(name[1]) or (last and not name and _is_iterm2_by_name()):
        return Protocol.ITERM2
    return Protocol.SIXEL if last and _SIXELS in last[1].split(b";") else None


def _prints_questions() -> bool:
    """Whether this is a terminal known to show kitty's question as text."""
    named = os.environ.get("TERM_PROGRAM", ""), os.environ.get("TERMINAL_EMULATOR", "")
    return os.environ.get("TERM", "").startswith(_PRINTING) or "Apple_Terminal" in named or "JetBrains-JediTerm" in named


def _is_iterm2_by_name() -> bool:
    """What the environment says; within tmux or screen it speaks of the terminal around them."""
    inside = os.environ.get("TMUX") or os.environ.get("TERM", "").startswith(("tmux", "screen"))
    return not inside and os.environ.get("TERM_PROGRAM", "") in ("iTerm.app", "WezTerm", "mintty")


def _answers() -> bytes:
    """What the terminal says to our questions, up to the last answer."""
    terminal = output.drawing(sys.stderr)
    said = b""
    with _keys_unread():
        terminal.write(_QUESTIONS.decode())
        terminal.flush()
        end = time.monotonic() + ANSWER_S
        while not _LAST_ANSWER.search(said) and (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([sys.stdin.fileno()], [], [], left)
            data = os.read(sys.stdin.fileno(), 1024) if ready else b""
            if not data:
                break
            said += data
    return said


@contextmanager
def _keys_unread() -> Iterator[None]:
    """Keys and answers come at once, and aren't echoed; Ctrl-C works."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def show(png: bytes, middle: float, how: Protocol) -> None:
    """Show a picture below what was printed, as wide as the terminal allows; of a tall one the part around `middle`, a share of its
    height."""
    from PIL import Image

    columns, rows, (wide, high) = _screen()
    image: Image = Image.open(BytesIO(png)).convert("RGB")  # type: ignore[valid-type]
    part = _part(image, middle, rows * high / (columns * wide))
    across = min(columns, max(1, round(part.width / wide)))
    down = max(1, round(across * wide * part.height / part.width / high))
    sent = {Protocol.KITTY: _kitty, Protocol.ITERM2: _iterm2, Protocol.SIXEL: _sixel}[how]
    terminal = output.drawing(sys.stderr)
    terminal.write(sent(part, across, down, (wide, high)) + "\n")
    terminal.flush()


def _screen() -> tuple[int, int, tuple[int, int]]:
    """Cells across and down that a picture may take, and the pixels of one."""
    size = shutil.get_terminal_size()
    cell = _CELL
    try:
        rows, columns, width, height = struct.unpack("HHHH", fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, bytes(8)))
        if width >= columns > 0 and height >= rows > 0:
            cell = (width // columns, height // rows)
    except (OSError, ValueError):
        pass
    return max(1, min(size.columns - 1, _WIDEST)), max(3, size.lines - 4), cell


def _part(image: Image, middle: float, tallest: float) -> Image:
    """The part of `image` around `middle` whose height is at most `tallest` widths."""
    height = min(image.height, max(1, int(image.width * tallest)))
    top = min(max(0, int(middle * image.height) - height // 2), image.height - height)
    return image.crop((0, top, image.width, top + height))


def _png(image: Image) -> bytes:
    result = BytesIO()
    image.save(result, "PNG")
    return result.getvalue()


def _kitty(image: Image, across: int, down: int, cell: tuple[int, int]) -> str:
    data = base64.b64encode(_png(image)).decode()
    chunks = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
    sent = []
    for i, chunk in enumerate(chunks):
        first = f"a=T,f=100,q=2,c={across},r={down}," if i == 0 else ""
        sent.append(f"\x1b_G{first}m={int(i + 1 < len(chunks))};{chunk}\x1b\\")
    return "".join(sent)


def _iterm2(image: Image, across: int, down: int, cell: tuple[int, int]) -> str:
    data = _png(image)
    return f"\x1b]1337;File=inline=1;size={len(data)};width={across};height={down}:{base64.b64encode(data).decode()}\x07"


def _sixel(image: Image, across: int, down: int, cell: tuple[int, int]) -> str:
    import numpy as np

    small = image.resize((across * cell[0], down * cell[1])).quantize(_COLOURS)
    pixels = np.asarray(small)
    palette = (small.getpalette() or [])[: 3 * _COLOURS]
    parts = [f'\x1bP0;1;0q"1;1;{small.width};{small.height}']
    parts += [f"#{n};2;{';'.join(str(round(v / 2.55)) for v in palette[3 * n : 3 * n + 3])}" for n in range(len(palette) // 3)]
    for top in range(0, small.height, 6):
        band = pixels[top : top + 6]
        parts.append("$".join(f"#{colour}{_sixels(band == colour)}" for colour in np.unique(band).tolist()) + "-")
    return "".join(parts) + "\x1b\\"


def _sixels(dots: Any) -> str:
    """A band of up to six rows of dots (rows, width; bool) as characters, runs of one shortened."""
    import numpy as np

    values = (dots * (1 << np.arange(len(dots)))[:, None]).sum(axis=0)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(values)) + 1))
    counts = np.diff(np.concatenate((starts, [len(values)])))
    runs = zip(values[starts].tolist(), counts.tolist(), strict=True)
    return "".join(f"!{n}{chr(63 + v)}" if n > 3 else chr(63 + v) * n for v, n in runs)


def fit_for_name(label: str) -> str:
    """A page's label as a part of the name of its picture's file."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in label)
