"""Results as lines of JSON: appended one by one, on the disk before the next begins, never computed twice.

Knows a file. It knows no models and no tasks. A row is {"key", "config", "result", "seconds", "made_with"}; the key is a
hash of the configuration, which holds all that the result depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfextend_local.errors import SelfExtendError
from selfextend_local.storage.disk import append, mend

Row = dict[str, Any]

_BEGINNING = b'{"key":"'


class ResultsError(SelfExtendError):
    """A results file can't be read or written."""


def key_of(config: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that name a configuration."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Results:
    """The rows of one file. Raises ResultsError if it can't be read, or holds something else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, Row] = {}
        try:
            self._read()
        except OSError as error:
            raise ResultsError(f"{self.path} can't be read ({error.strerror}). Name another file with --out.") from error

    def _read(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            with self.path.open("r+b") as file:
                mend(file.fileno(), _BEGINNING)
            data = self.path.read_bytes()
        for number, line in enumerate(data.splitlines(), 1):
            try:
                row = json.loads(line)
                self._rows[row["key"]] = row
            except (ValueError, KeyError, TypeError):
                raise ResultsError(
                    f"Line {number} of {self.path} is no result of selfextend eval. Name another file with --out."
                ) from None

    def get(self, config: Mapping[str, Any]) -> Row | None:
        """The row for this configuration, if it is done."""
        return self._rows.get(key_of(config))

    def add(self, config: Mapping[str, Any], result: Mapping[str, Any], **more: Any) -> Row:
        """Append a row; it is on the disk when this returns."""
        row: Row = {"key": key_of(config), "config": dict(config), "result": dict(result), **more}
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                append(file.fileno(), line.encode())
        except OSError as error:
            raise ResultsError(f"{self.path} can't be written ({error.strerror}). Name another file with --out.") from error
        self._rows[row["key"]] = row
        return row

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())
