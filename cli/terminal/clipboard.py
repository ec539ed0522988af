"""Text to the clipboard: by the desktop's own tool where there is one, else through the terminal.

Knows pyperclip and OSC 52. Over SSH the desktop's clipboard is the wrong machine's, so the terminal goes first.
"""

from __future__ import annotations

import base64
import os
import sys

from selfextend_local.errors import CommandError

from . import output

MOST_BYTES = 74_994
"""What terminals take in one OSC 52 sequence (xterm's limit of 100,000 characters of base64)."""


def copy(text: str) -> str:
    """Copy; returns a sentence on what was done. Raises CommandError if nothing can take the text."""
    import pyperclip

    if not (os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY")):
        try:
            pyperclip.copy(text)
            return f"Copied ({len(text):,} characters)."
        except (pyperclip.PyperclipException, OSError):
            pass
    if not sys.stdout.isatty() or output.is_dumb():
        raise CommandError("There is no clipboard here (no xclip, wl-copy or pbcopy, and no terminal). Take /export FILE.")
    data = text.encode("utf-8", "replace")
    if len(data) > MOST_BYTES:
        raise CommandError(f"The answer is too long for the terminal's clipboard ({len(data):,} bytes). Take /export FILE.")
    terminal = output.drawing(sys.stdout)
    terminal.write(f"\x1b]52;c;{base64.b64encode(data).decode()}\x07")
    terminal.flush()
    return f"Sent to the terminal's clipboard ({len(text):,} characters). If it isn't there, the terminal doesn't allow it (OSC 52)."
