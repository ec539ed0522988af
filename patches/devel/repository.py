"""The series as a git repository: the pinned source under a tag, then one commit a patch.

A commit's message is the header of its patch; the files named in its `Own` go to `patches/src`, all else into the diff.
Knows git and the series. Must not know the command line.
"""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path

from backend.errors import BuildError
from backend.pin import Pin
from backend.sdist import members
from backend.series import Patch, Tree, apply_patch, parse_header, read_patch, read_series
from backend.tree import own_place, own_sources, write_files

FIELDS = ("Subject", "Origin", "Forwarded", "Retire-When", "Tested-By")
_FIELD = re.compile(r"^(Patch|Origin|Forwarded|Retire-When|Tested-By|Own): ", re.MULTILINE)
_NAME = re.compile(r"^Patch: *([0-9]{4}-[A-Za-z0-9._-]+)$", re.MULTILINE)


def tag(pin: Pin) -> str:
    return f"pin-{pin.version}"


def checkout(folder: Path, pin: Pin, sdist: Path, target: Path, only: Collection[str] | None = None) -> None:
    """Make `target` a repository of the pinned source (of the paths in `only`) and the patches of `folder` as commits."""
    files: Tree = {path: data for path, data in members(sdist, pin) if only is None or path in only}
    own = own_sources(folder / "src")
    write_files({path: data for path, data in files.items() if data is not None}, target)
    git(target, "init", "-q", "-b", "series")
    _commit(target, f"{pin.package} {pin.version}")
    git(target, "tag", tag(pin))
    for patch in read_series(folder):
        apply_patch(patch, files)
        write_files({path: data for path in patch.paths if (data := files[path]) is not None}, target)
        for path in (path for path in patch.paths if files[path] is None):
            (target / path).unlink()
        write_files({path: own[path] for path in map(own_place, patch.own) if path in own}, target)
        _commit(target, message_of(patch))


def export(folder: Path, pin: Pin, repository: Path) -> list[str]:
    """Write every commit after the pin as a patch of `folder`, and the own sources; returns the patches' names."""
    written: dict[str, bytes] = {}
    for revision in git(repository, "rev-list", "--reverse", f"{tag(pin)}..HEAD").split():
        message = git(repository, "log", "-1", "--format=%B", revision).strip()
        named = _NAME.search(message)
        if named is None:
            raise BuildError(f"commit {revision[:10]} has no line like Patch: 0001-what-it-does; git rebase -i can add it.")
        written[f"{named[1]}.patch"] = header_of(message) + body_of(repository, revision)
    if not written:
        raise BuildError(f"{repository} has no commit after {tag(pin)}; commit one change a patch.")
    for file in folder.glob("*.patch"):
        if file.name not in written:
            file.unlink()
    for name, data in written.items():
        (folder / name).write_bytes(data)
    for name in (name for patch in map(read_patch, map(folder.joinpath, written)) for name in patch.own):
        file = folder / "src" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((repository / own_place(name)).read_bytes())
    (folder / "series").write_text("".join(f"{name}\n" for name in written), encoding="utf-8")
    return list(written)


def rebase(old: Pin, new: Pin, sdist: Path, repository: Path) -> None:
    """Put the commits of a repository of `old` onto the source of `new`. Raises BuildError where git stops at a conflict."""
    if git(repository, "status", "--porcelain"):
        raise BuildError(f"{repository} has changes that are in no commit; commit or drop them.")
    series = git(repository, "rev-parse", "HEAD").strip()
    git(repository, "checkout", "-q", tag(old))
    git(repository, "rm", "-q", "-r", ".")
    write_files(dict(members(sdist, new)), repository)
    _commit(repository, f"{new.package} {new.version}")
    git(repository, "tag", "-f", tag(new))
    git(repository, "checkout", "-q", "-B", "series", series)
    git(repository, "rebase", "-q", "--onto", tag(new), tag(old))


def message_of(patch: Patch) -> str:
    """The commit message that stands for a patch's header."""
    subject, _, text = patch.header["Subject"].partition("\n")
    fields = _FIELD.search(patch.header_text.decode())
    rest = patch.header_text.decode()[fields.start() :].strip() if fields else ""
    return f"{subject}\n\n{text}\n\nPatch: {patch.name.removesuffix('.patch')}\n{rest}\n"


def header_of(message: str) -> bytes:
    """The header that a commit message stands for."""
    subject, _, rest = message.partition("\n")
    fields = _FIELD.search(rest)
    text, trailer = (rest[: fields.start()], rest[fields.start() :]) if fields else (rest, "")
    lines = textwrap.indent(text.strip(), " ", lambda line: bool(line.strip()))
    trailer = _NAME.sub("", trailer).strip()
    return "\n".join(part for part in (f"Subject: {subject}", lines, trailer) if part).encode() + b"\n\n"


def body_of(repository: Path, revision: str) -> bytes:
    """The diff of a commit in the one canonical form, without own sources."""
    message = git(repository, "log", "-1", "--format=%B", revision).strip()
    header = parse_header(header_of(message), repository)
    own = [f":(exclude){own_place(name)}" for name in Patch("", b"", header, b"", ()).own]
    text = git(
        repository, "-c", "core.quotePath=false", "diff", "--no-ext-diff", "--no-color", "--no-renames", "--unified=3",
        "--diff-algorithm=histogram", "--indent-heuristic", "--src-prefix=a/", "--dst-prefix=b/", f"{revision}^", revision, "--", ".", *own,
    )  # fmt: skip
    # what depends on git's version and its settings, and upstream's lines beyond the context
    text = re.sub(r"^(?:diff --git|index) .*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^(@@ [^@]* @@).*$", r"\1", text, flags=re.MULTILINE).encode()


def canonical_bodies(folder: Path, pin: Pin, sdist: Path, scratch: Path) -> Mapping[str, bytes]:
    """The diff of each patch of the series as `export` would write it."""
    patches = read_series(folder)
    checkout(folder, pin, sdist, scratch, only={path for patch in patches for path in patch.paths})
    revisions = git(scratch, "rev-list", "--reverse", f"{tag(pin)}..HEAD").split()
    return {patch.name: body_of(scratch, revision) for patch, revision in zip(patches, revisions, strict=True)}


def git(repository: Path, *arguments: str) -> str:
    """What git prints, run in `repository` with no configuration but the repository's own."""
    settings = ["-c", "core.autocrlf=false", "-c", "commit.gpgsign=false"]
    who = {f"GIT_{role}_{what}": "selfextend" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_EDITOR": "true"}
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *settings, *arguments], capture_output=True, check=True, env={**os.environ, **who, **alone}
        )
    except FileNotFoundError:
        raise BuildError("git was not found; the tools for patch writers need it, so install git.") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).decode("utf-8", "replace").strip()
        raise BuildError(f"git {arguments[0]} stopped in {repository}:\n{said}\nGo on there with git, then with export.") from None
    return done.stdout.decode("utf-8", "surrogateescape")


def _commit(repository: Path, message: str) -> None:
    git(repository, "add", "-A", "-f")
    git(repository, "commit", "-q", "--allow-empty", "--cleanup=verbatim", "-m", message)
