"""A hook of mkdocs. What the pages link to outside docs/ becomes part of the site: Markdown as pages, the rest as text. And nothing in the
site may be loaded from other hosts.

Knows mkdocs' events. Changes no page but for such links.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]+src=["']?(?:https?:)?//|<link(?![^>]+rel="?canonical)[^>]+href=["']?(?:https?:)?//"""
    r"""|@import\s*["'(]|url\(["']?(?:https?:)?//"""
)


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside docs/ that pages link to, and those that these link to."""
    waiting = [DOCS / file.src_uri for file in files.documentation_pages()]
    while waiting:
        for target in _targets(waiting.pop()):
            name = site_name(target)
            if files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, content=target.read_bytes()))
                waiting += [target] if target.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to where their files are in the site. A link to a folder without a README is left as words."""
    source, here = source_of(page.file.src_uri), os.path.dirname(page.file.src_uri) or "."

    def pointed(match: re.Match[str]) -> str:
        target = target_of(source, match[2])
        if target is None:
            return match[1] if (source.parent / match[2]).is_dir() else match[0]
        return f"[{match[1]}]({os.path.relpath(site_name(target), here)}{match[3] or ''})"

    return _LINK.sub(pointed, markdown)


def on_post_build(config: Any) -> None:
    """Raises PluginError if a page, a style sheet or a picture would load something from another host."""
    site = Path(config.site_dir)
    pages = [path for kind in ("html", "css", "svg") for path in site.rglob(f"*.{kind}")]
    for path in pages:
        if found := _LOADED.search(path.read_text(encoding="utf-8")):
            raise PluginError(f"{path.relative_to(site)} loads something from another host: {found[0]}")


def target_of(page: Path, link: str) -> Path | None:
    """The file that a link of a page leads to; of a folder its README."""
    target = (page.parent / link).resolve()
    target = target / "README.md" if target.is_dir() else target
    return target if target.is_file() else None


def site_name(path: Path) -> str:
    """Where a file of the repository is in the site: docs/ is its root, all else keeps its path, and browsers show it as text."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = path.relative_to(ROOT).as_posix()
    return name if path.suffix in (".md", ".svg", ".png") else f"{name}.txt"


def source_of(name: str) -> Path:
    """The file that a page of the site is made of."""
    return DOCS / name if (DOCS / name).is_file() else ROOT / name


def _targets(page: Path) -> list[Path]:
    links = (match[2] for match in _LINK.finditer(page.read_text(encoding="utf-8")))
    return [target for link in links if (target := target_of(page, link)) is not None]
