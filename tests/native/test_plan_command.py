"""`selfextend plan` says how lengths are read, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from selfextend_cli.plan import command

pytestmark = pytest.mark.native

RULER = Path(__file__).parents[1] / "data" / "ruler.gguf"


def test_it_says_how_and_why() -> None:
    done = CliRunner().invoke(command, ["--model", str(RULER), "--tokens", "256,4k,16x", "--why"])
    short, groups, recall = done.stdout.splitlines()
    assert "n=1" in short and "bit for bit" in short
    assert "n=64, w=128, progressive" in groups and "up to 8,192 tokens groups" in groups
    assert "recall of 256, w=128" in recall and "beyond 8,192 tokens recall" in recall


def test_as_json() -> None:
    done = CliRunner().invoke(command, ["--model", str(RULER), "--tokens", "2x", "--ga-mode", "recall", "--json"])
    (row,) = json.loads(done.stdout)["lengths"]
    assert (row["tokens"], row["reads"], row["why"]) == (2048, "recall of 256, w=128", "asked for")
