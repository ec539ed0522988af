"""`selfextend env`: what it prints makes a program that knows nothing of us read as the plan says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.tiny_models import TinyModel

from selfextend_local.engine.environment import variables
from selfextend_local.engine.tuned import Profile, save_profile
from selfextend_local.errors import GroupAttentionError
from selfextend_local.positions import GroupAttention
from selfextend_local.storage.folders import PROFILES_VARIABLE
from selfextend_local.storage.identity import model_identity

pytestmark = [pytest.mark.native, pytest.mark.process]

LEVELS = "import sys; from support.driver import Engine; print(Engine(sys.argv[1]).get_levels())"
PROGRAM = Path(sys.executable).parent / "selfextend"


def run(command: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **settings}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def planned(model: Path, *flags: str, **settings: str) -> dict[str, Any]:
    done = run([str(PROGRAM), "env", "--model", str(model), "--json", *flags], **settings)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def levels_of_a_program(model: Path, *flags: str, **settings: str) -> str:
    """The levels of a context that nobody set groups for, in a shell that took what `selfextend env` prints."""
    shell = 'made=$("$1" env --model "$2" $4) && eval "$made" && "$3" -c "$LEVELS" "$2"'
    done = run(
        ["sh", "-c", shell, "sh", str(PROGRAM), str(model), sys.executable, " ".join(flags)],
        LEVELS=LEVELS,
        LLAMA_GROUP_ATTN_TEMPERATURE="0.5",
        **settings,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def expected(plan: dict[str, Any]) -> str:
    ga = GroupAttention(**plan["plan"]["group_attention"])
    return str([(level.n, level.w, level.r) for level in ga.levels] if ga.enabled else [(1, 0, 1)])


@pytest.mark.parametrize(
    "flags", [("--need-tokens", "1000"), ("--need-tokens", "300", "--ga-mode", "two-level"), ("--ga-n", "8", "--ga-w", "32")]
)
def test_a_program_gets_the_groups_of_the_plan(tiny_model: TinyModel, flags: tuple[str, ...]) -> None:
    plan = planned(tiny_model("gqa"), *flags)
    assert plan["variables"]["LLAMA_GROUP_ATTN_N"] != "1" and plan["n_ctx"] >= 256
    assert levels_of_a_program(tiny_model("gqa"), *flags) == expected(plan)


def test_a_short_text_needs_none(tiny_model: TinyModel) -> None:
    plan = planned(tiny_model("gqa"), "--need-tokens", "40")
    assert plan["variables"] == {"LLAMA_GROUP_ATTN_N": "1"}
    assert levels_of_a_program(tiny_model("gqa"), "--need-tokens", "40") in ("[]", "[(1, 0, 1)]", "[(1, 1, 1)]", "[(1, 0, 0)]")


def test_what_was_tuned_is_in_it(tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, profiles = tiny_model("gqa"), str(tmp_path / "profiles")
    monkeypatch.setenv(PROFILES_VARIABLE, profiles)
    save_profile(model, Profile(model_identity(model), 0.7, 24, 1000, "2026", ga_temperature=0.25))
    plan = planned(model, "--need-tokens", "300", **{PROFILES_VARIABLE: profiles})
    assert plan["plan"]["tuned"] and plan["variables"]["LLAMA_GROUP_ATTN_W"] == "24"
    assert plan["variables"]["LLAMA_GROUP_ATTN_TEMPERATURE"] == "0.25"


def test_recall_is_told(fixture_model: Path) -> None:
    done = run([str(PROGRAM), "env", "--model", str(fixture_model), "--ga-mode", "recall", "--need-tokens", "1024"])
    assert done.returncode == 0
    told = {"unset LLAMA_GROUP_ATTN_N", "export LLAMA_GROUP_ATTN_MODE=recall", "export LLAMA_GROUP_ATTN_RECALL=96"}
    assert told <= set(done.stdout.splitlines())


def test_what_no_variable_says_is_refused() -> None:
    with pytest.raises(GroupAttentionError, match="variable"):
        variables(GroupAttention(3, 32, 48))
