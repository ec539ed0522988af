"""/cite draws the pages that an answer names, as the terminal at hand takes pictures. Each terminal is a pty that answers like it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fpdf import FPDF
from PIL import Image
from support.terminal import CHAT, Terminal

pytestmark = [pytest.mark.process, pytest.mark.native]

QUESTIONS = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[>q\x1b[c"
KITTY, NAME, ATTRIBUTES = "\x1b_Gi=31;OK\x1b\\", "\x1bP>|{}\x1b\\", "\x1b[?62;{}c"
STRING = re.compile(r"\x1b(?:_G|P|\]1337;)[^\x1b\x07]*(?:\x1b\\|\x07)")


class Answering(Terminal):
    """A terminal that answers our questions with a fixed text, and shows what it was sent but for pictures."""

    def __init__(self, command: list[str], environment: Mapping[str, str], answer: str) -> None:
        super().__init__(command, environment)
        self.pictures: list[str] = []
        self.asked = 0
        self._answer, self._held, self._feed = answer, "", self._stream.feed
        self._stream.feed = self._take  # type: ignore[method-assign]

    def _take(self, data: str) -> None:
        held = self._held + data
        if QUESTIONS in held:
            self.asked += 1
            held = held.replace(QUESTIONS, "")
            self.child.send(self._answer)
        self.pictures += STRING.findall(held)
        held = STRING.sub("", held)
        begun = re.search(r"\x1b(?:_|P|\]1337)|\x1b\]?$", held)
        at = begun.start() if begun else len(held)
        self._held = held[at:]
        self._feed(held[:at])


@dataclass
class Case:
    answer: str
    env: dict[str, str]


INLINE = {
    "kitty": Case(KITTY + NAME.format("kitty(0.32)") + ATTRIBUTES.format("0"), {}),
    "iterm2": Case(NAME.format("iTerm2 3.5.0") + ATTRIBUTES.format("4"), {}),
    "iterm2-by-name": Case(ATTRIBUTES.format("4"), {"TERM_PROGRAM": "iTerm.app"}),
    "sixel": Case(NAME.format("foot(1.16.2)") + ATTRIBUTES.format("4;22"), {}),
    "tmux": Case(NAME.format("tmux 3.4") + ATTRIBUTES.format("4"), {"TERM_PROGRAM": "iTerm.app", "TMUX": "/tmp/x"}),
}
FILES = {
    "no-pictures": Case(NAME.format("XTerm(379)") + ATTRIBUTES.format("22"), {}),
    "kitty-refuses": Case("\x1b_Gi=31;ENOTSUP:no\x1b\\" + ATTRIBUTES.format("22"), {}),
    "silent": Case("", {}),
    "half-an-answer": Case("\x1b[?62", {}),
}
UNASKED = {
    "no-colour": Case(ATTRIBUTES.format("4"), {"NO_COLOR": "1"}),
    "apple": Case(ATTRIBUTES.format("4"), {"TERM_PROGRAM": "Apple_Terminal"}),
    "console": Case(ATTRIBUTES.format("4"), {"TERM": "linux"}),
}


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    path = tmp_path / "vault.pdf"
    pdf = FPDF(unit="pt", format=(400, 400))
    pdf.set_font("helvetica", size=12)
    for text in ("The first page.", "The key is 48213, says the warden.", "The last page of all."):
        pdf.add_page()
        pdf.text(40, 100, text)
        pdf.text(40, 300, "The warden counts the keys of the vault each evening.")
    pdf.output(str(path))
    return path


@pytest.fixture
def start(scripted: Path, home: dict[str, str], vault: Path) -> Iterator[Any]:
    opened: list[Answering] = []

    def begin(case: Case) -> Answering:
        ours = {k: v for k, v in home.items() if k not in ("TMUX", "TERM_PROGRAM", "LC_TERMINAL", "TERMINAL_EMULATOR")}
        command = [*CHAT, "--model", str(scripted), "--threads", "1", "--doc", str(vault)]
        opened.append(Answering(command, ours | case.env, case.answer))
        opened[-1].wait_idle()
        opened[-1].run("Which key? 1")
        return opened[-1]

    yield begin
    for talk in opened:
        talk.close()


def is_marked(image: Image.Image) -> bool:
    """Whether there is yellow on it."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    return bool(((pixels[:, :, 0] > 200) & (pixels[:, :, 1] > 200) & (pixels[:, :, 2] < 140)).any())


def kitty_picture(sent: list[str]) -> Image.Image:
    chunks = [re.fullmatch(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", part) for part in sent]
    assert all(chunks)
    keys, data = zip(*(chunk.groups() for chunk in chunks if chunk), strict=True)
    assert keys[0].startswith("a=T,f=100,q=2,c=") and [key[-3:] for key in keys] == ["m=1"] * (len(keys) - 1) + ["m=0"] or len(keys) == 1
    assert all(len(part) <= 4096 for part in data)
    return Image.open(BytesIO(base64.b64decode("".join(data))))


def iterm2_picture(sent: list[str]) -> Image.Image:
    (match,) = (re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);width=\d+;height=\d+:([^\x07]*)\x07", part) for part in sent)
    assert match
    data = base64.b64decode(match[2])
    assert len(data) == int(match[1])
    return Image.open(BytesIO(data))


def sixel_picture(sent: list[str]) -> Image.Image:
    (match,) = (re.fullmatch(r'\x1bP0;1;0q"1;1;(\d+);(\d+)(.*)\x1b\\', part, re.DOTALL) for part in sent)
    assert match
    width, height = int(match[1]), int(match[2])
    pixels = np.zeros((height + 6, width, 3), np.uint8)
    palette: dict[int, list[float]] = {}
    colour = row = column = 0
    for token in re.finditer(r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|([$-])", match[3]):
        if token[1]:
            palette[int(token[1])] = [int(token[i]) * 2.55 for i in (2, 3, 4)]
        elif token[5]:
            colour = int(token[5])
        elif token[9]:
            row, column = row + 6 * (token[9] == "-"), 0
        else:
            count, bits = int(token[6] or 1), ord(token[7] or token[8]) - 63
            for bit in range(6):
                if bits >> bit & 1:
                    pixels[row + bit, column : column + count] = palette[colour]
            column += count
            assert column <= width
    return Image.fromarray(pixels[:height])


DECODERS = {
    "kitty": kitty_picture,
    "iterm2": iterm2_picture,
    "iterm2-by-name": iterm2_picture,
    "sixel": sixel_picture,
    "tmux": sixel_picture,
}


@pytest.mark.parametrize("name", INLINE)
def test_a_terminal_with_pictures_shows_the_marked_page(start: Any, name: str) -> None:
    talk = start(INLINE[name])
    said = talk.run("/cite")
    assert said[:3] == ["[page 2] verified", "[page 2]", "  The key is 48213, says the warden."]
    assert not any(".png" in line for line in said)
    assert is_marked(DECODERS[name](talk.pictures))


@pytest.mark.parametrize("name", FILES)
def test_another_terminal_gets_a_file_whose_path_is_said(start: Any, home: dict[str, str], name: str) -> None:
    talk = start(FILES[name])
    said = "".join("".join(talk.run("/cite")).split())
    (picture,) = (Path(home["SELFEXTEND_CACHE_DIR"]) / "pictures").glob("vault-*-p2.png")
    assert "Page2,marked:" in said and said.endswith(picture.name)
    assert picture.stat().st_mode & 0o077 == 0
    assert is_marked(Image.open(picture))
    assert (talk.asked, talk.pictures) == (1, [])
    talk.run("/cite 1")
    assert talk.asked == 1  # once for a program


@pytest.mark.parametrize("name", UNASKED)
def test_a_terminal_that_would_print_the_question_is_not_asked(start: Any, name: str) -> None:
    talk = start(UNASKED[name])
    assert any("Page 2, marked:" in line for line in talk.run("/cite"))
    assert (talk.asked, talk.pictures) == (0, [])


def test_a_place_is_chosen_by_its_number(start: Any) -> None:
    talk = start(INLINE["kitty"])
    assert talk.run("/cite 1")[0] == "[page 2] verified"
    assert talk.run("/cite 2") == ["error: The last answer names 1 place: type /cite, or /cite and its number."]


def test_a_pdf_that_is_gone_is_said(start: Any, vault: Path) -> None:
    talk = start(INLINE["kitty"])
    vault.unlink()
    said = " ".join(talk.run("/cite"))
    assert "No picture of the page:" in said and "does not exist" in said


def test_without_a_terminal_the_picture_is_a_file(once: Any, vault: Path) -> None:
    said = once("--doc", str(vault), stdin="Which key? 1\n/cite\n").stderr
    assert "Page 2, marked: " in said and "-p2.png" in said
