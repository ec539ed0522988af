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
from selfextend_local.storage.plain_json import loads
from selfextend_local.storage.results import Form, ResultsFile

Row = dict[str, Any]


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
        self._file = ResultsFile(path, _FORM)
        self._rows = self._file.newest()

    def get(self, config: Mapping[str, Any]) -> Row | None:
        """The row for this configuration, if it is done."""
        return self._rows.get(key_of(config))

    def add(self, config: Mapping[str, Any], result: Mapping[str, Any], **more: Any) -> Row:
        """Append a row; it is on the disk when this returns."""
        row: Row = {"key": key_of(config), "config": dict(config), "result": dict(result), **more}
        with self._file as file:
            file.append(row)
        self._rows[row["key"]] = row
        return row

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())


def _parse(line: str) -> Row:
    try:
        row: Row = loads(line)
        return row if isinstance(row["key"], str) else _parse("")
    except (ValueError, KeyError, TypeError):
        raise ValueError("no result of selfextend eval") from None


_FORM = Form(
    b'{"key":"',
    _parse,
    lambda row: json.dumps(row, ensure_ascii=False, separators=(",", ":")),
    lambda row: str(row["key"]),
    ResultsError,
    "name another file with --out",
    wait_s=10,
)
