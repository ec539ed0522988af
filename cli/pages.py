"""`selfextend pages`: a page of a PDF as a picture, with a passage marked.

Knows flags and files. What is drawn and found is in selfextend_local.documents.marking, imported when the command runs.
"""

from __future__ import annotations

import json
import os
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfextend_local.chat.settings import ChatSettings

from .errors import boundary
from .flags.reading import read_limits
from .terminal import interrupts, output, progress
from .terminal.pictures import fit_for_name

if TYPE_CHECKING:
    from selfextend_local.documents.marking import Marked

_MOST_NAMED = 12


@click.command("pages", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("document", type=click.Path(path_type=Path))
@click.option("--page", metavar="12|iv", help="Its label, or its number from 1. Default: the first page that has the text.")
@click.option("--find", "text", metavar="TEXT", help="Mark each place of it. Hyphens, accents, case and line breaks don't matter.")
@click.option("-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png",
              help="Default: the document's name and the page, here; with --json none.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the page and the boxes, in points from its upper left corner.")
@read_limits(ChatSettings.read_timeout, ChatSettings.read_memory)
@boundary
def command(
    document: Path, page: str | None, text: str | None, target: Path | None, as_json: bool, read_timeout: float, read_memory: int
) -> None:
    """Draw a page of a PDF, with the places of a text marked.

    \b
    Examples:
      selfextend pages report.pdf --page 12 --find "the north vault" -o p12.png
      selfextend pages report.pdf --find "the north vault"
      selfextend pages report.pdf --page iv --json

    Exit codes: 0 done, 1 the page or the text isn't there, 2 wrong usage, 130 interrupted.
    """
    if page is None and text is None:
        raise click.UsageError("Say which page: add --page 12, or --find TEXT.")
    if target is not None and target.resolve() == document.resolve():
        raise click.UsageError("-o names the document itself: give the picture another name.")
    from selfextend_local.documents.reader import ReadLimits, mark_page

    texts = () if text is None else (text,)
    limits = ReadLimits(read_timeout, read_memory)
    with interrupts.StopOnInterrupt() as stop, progress.progress(f"Searching {document.name}", "pages", quiet=as_json) as update:
        found = mark_page(Path(os.path.expanduser(document)), page, texts, limits, progress=update, should_stop=stop)
    if target is None and not as_json:
        target = Path(f"{document.stem}-p{fit_for_name(found.label)}.png")
    if target is not None:
        _write(target, found.png)
    if as_json:
        click.echo(json.dumps(_report(document, found, target), ensure_ascii=False))
    else:
        output.say(_said(found, target, marks=text is not None))


def _write(target: Path, png: bytes) -> None:
    from selfextend_local.storage.disk import replacing

    try:
        with replacing(target, mode=0o666) as temporary:
            temporary.write_bytes(png)
    except OSError as error:
        raise click.ClickException(f"{target} can't be written ({error.strerror}): name another place with -o.") from error


def _said(found: Marked, target: Path | None, *, marks: bool) -> str:
    places = f", {len(found.hits)} place{'s' if len(found.hits) != 1 else ''} marked" if marks else ""
    more = ", ..." if len(found.elsewhere) > _MOST_NAMED else ""
    others = f" It also stands on page {', '.join(found.elsewhere[:_MOST_NAMED])}{more}." if found.elsewhere else ""
    return f"{target}: page {found.label}{places}.{others}"


def _report(document: Path, found: Marked, target: Path | None) -> dict[str, Any]:
    return {
        "document": str(document),
        "page": found.number,
        "label": found.label,
        "width": round(found.width, 2),
        "height": round(found.height, 2),
        "hits": [{"boxes": [[round(side, 2) for side in astuple(box)] for box in hit]} for hit in found.hits],
        "also_on": list(found.elsewhere),
        "picture": str(target) if target else None,
        "pixels_per_point": found.scale,
    }
