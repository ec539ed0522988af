"""The recipes of docs/integrations.md: each tool is lost beyond the trained window; with the library's variables, or with
SelfExtendLlama in place of Llama, it reads on.

A recipe whose tool isn't installed is skipped; `make integrations` has them all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.fixture_model import WINDOW, passkey_prompt

pytestmark = [pytest.mark.process, pytest.mark.native]

RECIPES = Path(__file__).parents[2] / "docs" / "integrations"
N_CTX = str(4 * WINDOW)
NEEDS = {
    "langchain": ("langchain_community",),
    "llamaindex": ("llama_index.llms.llama_cpp",),
    "haystack": ("haystack_integrations.components.generators.llama_cpp",),
    "llm": ("llm_gguf",),
    "outlines": ("outlines",),
    "guidance": ("guidance",),
    "server": ("uvicorn", "openai", "sse_starlette", "starlette_context", "pydantic_settings"),
}
MODULES = {"llm": "llm", "server": "llama_cpp.server"}


def missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except ModuleNotFoundError:
        return True


@pytest.fixture(params=NEEDS)
def tool(request: pytest.FixtureRequest) -> str:
    absent = [module for module in NEEDS[request.param] if missing(module)]
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed: make integrations")
    return str(request.param)


@pytest.fixture
def text(tmp_path: Path) -> tuple[Path, str]:
    """A file of three windows that ends in a question about its pass key, and the key."""
    prompt, key = passkey_prompt(2, 3 * WINDOW, 0.5)
    path = tmp_path / "text.txt"
    path.write_text(prompt.removesuffix(" The pass key is"), encoding="utf-8")
    return path, key


def read(command: list[object], tmp_path: Path, **settings: str) -> str:
    """What the command writes to stdout, in an environment without settings of ours but these."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_GROUP_ATTN")}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}", "LLM_USER_PATH": str(tmp_path), **settings}
    done = subprocess.run(
        [str(word) for word in command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def recipe(tool: str, *arguments: object) -> list[object]:
    if tool == "llm":
        return ["sh", RECIPES / "read_with_llm.sh", *arguments]
    return [sys.executable, RECIPES / f"read_with_{tool}.py", *arguments]


def test_the_plain_model_is_lost(tool: str, text: tuple[Path, str], fixture_model: Path, tmp_path: Path) -> None:
    path, key = text
    assert key not in read(recipe(tool, fixture_model, path, N_CTX), tmp_path)


@pytest.mark.parametrize("mode", ["auto", "two-level", "progressive"])
def test_the_variables_of_the_library_are_enough(
    tool: str, mode: str, text: tuple[Path, str], fixture_model: Path, tmp_path: Path
) -> None:
    path, key = text
    answer = read(recipe(tool, fixture_model, path, N_CTX), tmp_path, LLAMA_GROUP_ATTN_N="auto", LLAMA_GROUP_ATTN_MODE=mode)
    assert key in answer


@pytest.mark.parametrize("how", [{"MODE": "recall"}, {"N": "auto", "TEMPERATURE": "0.3"}], ids=["recall", "temperature"])
def test_recall_and_temperature_by_variables(
    how: dict[str, str], text: tuple[Path, str], fixture_model: Path, tmp_path: Path
) -> None:
    """With a tool that can be told to take flash attention, which recall needs."""
    if absent := [module for module in NEEDS["server"] if missing(module)]:
        pytest.skip(f"{', '.join(absent)} not installed: make integrations")
    path, key = text
    start = [sys.executable, "-m", "llama_cpp.server", "--flash_attn", "true"]
    variables = {f"LLAMA_GROUP_ATTN_{name}": value for name, value in how.items()}
    assert key in read(recipe("server", fixture_model, path, N_CTX, *start), tmp_path, **variables)


def test_with_the_class_in_place_of_llama(tool: str, text: tuple[Path, str], fixture_model: Path, tmp_path: Path) -> None:
    path, key = text
    planned = [sys.executable, RECIPES / "planned.py"]
    arguments = [fixture_model, path, N_CTX]
    # a process of its own is the model's where the tool is a program
    of_module = recipe(tool, *arguments, *planned, "-m", MODULES.get(tool, ""))
    command = of_module if tool in MODULES else [*planned, *recipe(tool, *arguments)[1:]]
    assert key in read(command, tmp_path)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (("-m", "llama_cpp.server", "--n_ctx", "32768", "--model"), "can be read with a trained window of 512, since recall needs flash"),
        ((RECIPES / "read_with_guidance.py",), "missing.gguf"),
    ],
    ids=["a module", "a script"],
)
def test_what_cannot_be_planned_is_a_sentence(program: tuple[object, ...], words: str, fixture_model: Path, tmp_path: Path) -> None:
    if absent := [module for module in (*NEEDS["server"], *NEEDS["guidance"]) if missing(module)]:
        pytest.skip(f"{', '.join(absent)} not installed: make integrations")
    text = tmp_path / "text.txt"
    text.write_text("Who signed?", encoding="utf-8")
    arguments = [fixture_model] if "-m" in program else [tmp_path / "missing.gguf", text, N_CTX]
    command = [str(word) for word in (sys.executable, RECIPES / "planned.py", *program, *arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ") and words in done.stderr
