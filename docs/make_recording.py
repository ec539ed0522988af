"""Records a real session to docs/session.svg for the README: the program at a pseudo-terminal, the screen as rich draws it.

Run from a checkout, with the environment's Python; takes as long as the model takes to read the sample once:

    .venv/bin/python docs/make_recording.py [--model FILE] [--doc FILE] [--question TEXT]...

Needs pexpect and pyte (in the extra `dev`), and the sample document that `make demo` writes. Nothing is made up: the
lines are those of the screen at the end, in their colours.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]

import pyte  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.terminal_theme import MONOKAI  # noqa: E402
from rich.text import Text  # noqa: E402
from support.terminal import CHAT, Terminal  # noqa: E402

COLUMNS, ROWS = 92, 200
COMMANDS = ("/context", "/cite")


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as home:
        folders = {f"SELFEXTEND_{name}_DIR": f"{home}/{name}" for name in ("STATE", "CACHE", "DATA")}
        environment = dict(os.environ) | folders | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        environment.pop("NO_COLOR", None)
        # The folder of the document, so that no path of this machine is in the picture.
        os.chdir(options.doc.parent)
        model = ["--model", str(options.model)] if options.model else []
        talk = Terminal([*CHAT, "--doc", options.doc.name, "--max-tokens", "64", *model], environment, columns=COLUMNS, rows=ROWS)
        talk.patience_s = 1800.0
        talk.wait_idle()
        for line in [*options.question, *COMMANDS]:
            print(line, file=sys.stderr)
            talk.run(line)
        picture = _drawn(talk, f"selfextend-chat --doc {options.doc.name}")
        talk.type("\x04")
        talk.end()
    (ROOT / "docs" / "session.svg").write_text(picture, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--doc", type=lambda path: Path(path).resolve(), default=ROOT / "build" / "sample.pdf")
    parser.add_argument("--question", action="append")
    options = parser.parse_args()
    if not options.question:
        from selfextend_local.sample import SAMPLE_FACTS

        options.question = [fact.question for fact in SAMPLE_FACTS[:2]]
    return options


def _drawn(talk: Terminal, command: str) -> str:
    """The screen as SVG."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w", encoding="utf-8"), force_terminal=True)  # noqa: SIM115
    console.print(Text(f"$ {command}", style="bold"))
    for row in range(len(talk.lines)):
        cells = (talk.cell(row, column) for column in range(COLUMNS))
        line = Text.assemble(*(("".join(cell.data for cell in run), style) for style, run in groupby(cells, _style)))
        line.rstrip()
        console.print(line, crop=True, no_wrap=True)
    picture = console.export_svg(title="selfextend-chat", theme=MONOKAI)
    # Rich's font would be fetched from a server; the reader's own monospace font does.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def _style(cell: pyte.screens.Char) -> str:
    words = (["bold"] if cell.bold else []) + (["italic"] if cell.italics else [])
    if re.fullmatch("[0-9a-f]{6}", cell.fg):
        words.append(f"#{cell.fg}")
    elif cell.fg != "default":
        words.append(cell.fg.replace("brown", "yellow").replace("bright", "bright_"))
    return " ".join(words)


if __name__ == "__main__":
    main()
