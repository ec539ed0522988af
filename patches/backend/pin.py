"""Which llama-cpp-python is patched: the grammar of the one-line file `pin`.

Knows names and numbers. Must not know where the source comes from or how it is built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError

_LINE = re.compile(
    r"(?P<package>[A-Za-z0-9][A-Za-z0-9._-]*) (?P<version>[0-9][A-Za-z0-9.]*) "
    r"sha256:(?P<sha256>[0-9a-f]{64}) selfextend\.(?P<revision>[1-9][0-9]*)"
)


@dataclass(frozen=True)
class Pin:
    package: str
    version: str
    sha256: str
    revision: int

    @property
    def patched_version(self) -> str:
        return f"{self.version}+selfextend.{self.revision}"

    @property
    def sdist_stem(self) -> str:
        return f"{re.sub(r'[-_.]+', '_', self.package).lower()}-{self.version}"

    @property
    def sdist_name(self) -> str:
        return f"{self.sdist_stem}.tar.gz"

    @property
    def patched_stem(self) -> str:
        return f"{re.sub(r'[-_.]+', '_', self.package).lower()}-{self.patched_version}"


def read_pin(file: Path) -> Pin:
    """The pin in `file`; raises BuildError unless it is one line `PACKAGE VERSION sha256:HEX selfextend.N`."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{file} cannot be read ({error}); restore it from git.") from None
    match = _LINE.fullmatch(text.strip())
    if match is None:
        raise BuildError(
            f"{file} is malformed: write one line "
            '"PACKAGE VERSION sha256:<64 hex digits> selfextend.<number>", for example '
            f'"llama-cpp-python 0.3.36 sha256:{"0" * 8}... selfextend.1".'
        )
    return Pin(match["package"], match["version"], match["sha256"], int(match["revision"]))
