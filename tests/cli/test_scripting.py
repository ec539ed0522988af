"""The chat as a part of scripts: events, schemas, sampling, variables, config.toml, model names, completion in a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from selfextend_cli.chat import command
from selfextend_cli.flags.schema import SchemaFile
from selfextend_cli.main import group
from support.terminal import CHAT

from selfextend_local.errors import ModelNotFound

pytestmark = pytest.mark.process

Once = Callable[..., Any]
GROUP = [sys.executable, "-c", "from selfextend_cli.main import main; main()"]
PERSON = {"type": "object", "properties": {"name": {"enum": ["Ann", "Bob"]}}, "required": ["name"]}


def events(done: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def last(done: Any) -> dict[str, Any]:
    return events(done)[-1]


@pytest.mark.native
def test_events_tell_an_answer_from_plan_to_report(once: Once, paged_document: Path) -> None:
    done = once("--doc", str(paged_document), "-p", "Which key? 1", "--jsonl")
    told = events(done)
    kinds = [e["event"] for e in told]
    assert done.returncode == 0
    assert (kinds[0], kinds[1], kinds[-1]) == ("plan", "prefill", "answer")
    read = [e for e in told if e["event"] == "prefill"]
    assert read[-1]["done"] == read[-1]["total"]
    pieces = [e["text"] for e in told if e["event"] == "token"]
    assert len(pieces) > 2 and "".join(pieces) == told[-1]["answer"] == "The key is **48213** [page 2]."
    (event, *fields) = told[-1]
    assert event == "event"
    assert fields == list(json.loads(once("--doc", str(paged_document), "-p", "Which key? 1", "--json").stdout))


@pytest.mark.native
def test_thoughts_are_events_of_their_own(once: Once) -> None:
    told = events(once("-p", "Think 4", "--jsonl"))
    assert "Let me see." in "".join(e["text"] for e in told if e["event"] == "thinking")
    assert "".join(e["text"] for e in told if e["event"] == "token").strip() == "Forty-two."


@pytest.mark.native
def test_an_error_is_an_event_with_its_exit_code(once: Once) -> None:
    done = once("--doc", "missing.pdf", "-p", "x", "--jsonl")
    (told,) = events(done)
    assert (told["event"], told["exit_code"], done.returncode) == ("error", 1, 1)
    assert "missing.pdf" in told["message"] and told["message"] in done.stderr
    done = once("--pages", "3", "-p", "x", "--jsonl")
    assert (last(done)["exit_code"], done.returncode) == (2, 2)


@pytest.mark.native
def test_lines_of_stdin_are_questions_and_a_bad_one_is_passed_over(once: Once) -> None:
    done = once("--jsonl", "--ga-n", "1", stdin=f"Which key? 1\n\n{'long ' * 9000}\nThink 4\n")
    told = [e for e in events(done) if e["event"] in ("answer", "error")]
    assert [e.get("answer", e["event"]) for e in told] == ["The key is **48213** [page 2].", "error", "Forty-two."]
    assert done.returncode == told[1]["exit_code"] == 1


@pytest.mark.native
@pytest.mark.parametrize("stop", ["[page", "**", "48213** [", " is"])
def test_a_stop_text_ends_the_answer_and_is_not_in_it(once: Once, stop: str) -> None:
    whole = "The key is **48213** [page 2]."
    found = json.loads(once("-p", "Which key? 1", "--json", "--stop", "not there", "--stop", stop).stdout)
    assert (found["answer"], found["stop_reason"]) == (whole[: whole.index(stop)].rstrip(), "stop")


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "person.json"
    path.write_text(json.dumps(PERSON), encoding="utf-8")
    return path


@pytest.mark.native
def test_a_schema_constrains_the_answer_and_json_has_it_parsed(once: Once, schema: Path) -> None:
    found = json.loads(once("-p", "Who? 1", "--schema", str(schema), "--json").stdout)
    assert found["parsed"]["name"] in ("Ann", "Bob")
    assert json.loads(found["answer"]) == found["parsed"]
    assert json.loads(once("-p", "Who? 1", "--schema", str(schema)).stdout) == found["parsed"]


@pytest.mark.native
def test_json_that_is_cut_is_reported(once: Once, schema: Path) -> None:
    done = once("-p", "Who? 1", "--schema", str(schema), "--json", "--max-tokens", "3")
    found = json.loads(done.stdout)
    assert (done.returncode, found["parsed"], found["stop_reason"]) == (1, None, "length")
    assert "error: The answer was cut before its JSON was complete: raise --max-tokens." in done.stderr


@pytest.mark.native
@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "is no JSON"), ('{"type": "poem"}', "Unrecognized schema"), ("[]", "can't be used"), ('{"enum": []}', "allows nothing")],
)
def test_a_bad_schema_is_wrong_usage_and_named(once: Once, tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    done = once("-p", "x", "--schema", str(path))
    assert done.returncode == 2
    assert "bad.json" in done.stderr and reason in done.stderr


def test_ctrl_c_while_a_schema_is_tried_leaves_as_elsewhere(schema: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(schema: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("selfextend_local.engine.grammar.grammar_of", interrupted)
    with pytest.raises(SystemExit) as left:
        SchemaFile().convert(str(schema), None, None)
    assert left.value.code == 130


@pytest.mark.native
def test_the_same_seed_gives_the_same_answer(tiny_model: Any, home: dict[str, str]) -> None:
    def answer(seed: int) -> str:
        arguments = ["--model", str(tiny_model("gqa")), "-p", "a", "--system", "", "--temperature", "0.8", "--max-tokens", "24",
                     "--threads", "1", "--json", "--seed", str(seed)]  # fmt: skip
        done = subprocess.run([*CHAT, *arguments], capture_output=True, text=True, env=home, check=True)
        return str(json.loads(done.stdout)["answer"])

    first = answer(7)
    assert answer(7) == first
    assert answer(8) != first


def wrong(arguments: list[str], env: dict[str, str] | None = None) -> str:
    """What the program says to wrong usage."""
    result = CliRunner().invoke(command.command, arguments, env=env or {})
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


Seen = Callable[..., dict[str, Any]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """seen(*arguments, program=…, env={}) returns the options that the chat would work with."""
    found: list[Any] = []

    def stop_here(options: Any) -> None:
        found.append(options)
        raise SystemExit(0)

    monkeypatch.setattr(command.Options, "check", stop_here)

    def run(*arguments: str, program: Any = command.command, env: dict[str, str] | None = None) -> dict[str, Any]:
        result = CliRunner().invoke(program, arguments, env=env or {})
        assert result.exit_code == 0, result.output
        options = found.pop()
        parts = (options, options.chat, options.chat.engine, options.chat.sampling)
        return {field.name: getattr(part, field.name) for part in parts for field in fields(part)}

    return run


VALUES = {
    "MODEL": "m.gguf", "DOC": f"a b.pdf{os.pathsep}c.pdf", "PAGES": "3-7", "OCR": "1", "OVERFLOW": "trim", "PROMPT": "Why?",
    "SYSTEM": "Be brief.", "CONTINUE": "1", "CACHE": "0", "CITE": "0", "THINK": "hide", "PLAIN": "1", "GA_N": "4", "GA_W": "64",
    "GA_TEMPERATURE": "0.1", "GA_RECALL": "1024", "KEEP_HEADERS": "1", "READ_TIMEOUT": "60", "READ_MEMORY": "900", "GA_MODE": "progressive",
    "KV_TYPE": "q8_0", "KV_FILE": "off", "THREADS": "3", "GPU_LAYERS": "2", "MAX_TOKENS": "9", "TEMPERATURE": "0.5", "TOP_P": "0.4",
    "TOP_K": "3", "MIN_P": "0.1", "REPEAT_PENALTY": "1.2", "DRY": "0", "SEED": "5", "STOP": "END\nthe end", "JSON": "1",
    "JSONL": "1",
}  # fmt: skip


def test_both_spellings_of_the_command_read_a_variable_for_each_flag(seen: Seen) -> None:
    flags = {option.envvar.removeprefix("SELFEXTEND_CHAT_") for option in command.command.params if option.envvar}  # type: ignore[union-attr]
    assert flags == {*VALUES, "PROFILE", "MODELS_DIR", "SCHEMA"}
    for name, value in VALUES.items():
        env = {f"SELFEXTEND_CHAT_{name}": value}
        alone = seen(env=env)
        assert alone != seen(), name
        assert seen("chat", program=group, env=env) == alone, name
    both = seen(env={f"SELFEXTEND_CHAT_{n}": VALUES[n] for n in ("DOC", "STOP")})
    assert (both["doc"], both["stop"]) == (("a b.pdf", "c.pdf"), ("END", "the end"))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("SELFEXTEND_CONFIG", str(path))
        return path

    return write


def test_a_flag_overrides_a_variable_that_a_profile_that_the_chat_table(seen: Seen, config: Callable[[str], Path]) -> None:
    config('[chat]\ntemperature = 0.1\ntop-k = 11\nga_n = 2\nstop = ["END"]\ncite = false\n[profiles.careful]\ntemperature = 0.2\n')
    variable = {"SELFEXTEND_CHAT_TEMPERATURE": "0.3"}
    profile = ("--profile", "careful")
    assert seen()["temperature"] == 0.1
    assert seen(*profile)["temperature"] == 0.2
    assert seen(env={"SELFEXTEND_CHAT_PROFILE": "careful"})["temperature"] == 0.2
    assert seen(*profile, env=variable)["temperature"] == 0.3
    assert seen(*profile, "--temp", "0.4", env=variable)["temperature"] == 0.4
    found = seen(*profile)
    assert (found["top_k"], found["ga_n"], found["stop"], found["cite"]) == (11, 2, ("END",), False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[chat]\ntemprature = 1", "chat.temprature: there is no such flag."),
        ("[chat]\nseeds = 1", "chat.seeds: there is no such flag; did you mean seed?"),
        ('[chat]\ntemperature = "hot"', "chat.temperature: must be a number."),
        ("[chat]\nseed = 0.5", "chat.seed: must be a whole number."),
        ("[chat]\nseed = true", "chat.seed: must be a whole number."),
        ('[chat]\nstop = "END"', 'chat.stop: must be a list of texts, ["…"].'),
        ("[chat]\ncite = 1", "chat.cite: must be true or false."),
        ("[chat]\nmodel = 7", 'chat.model: must be a text in quotes, "…".'),
        ("[chat]\ntop-p = 1.5", "chat.top-p: 1.5 is not in the range"),
        ("[profiles.a]\nkv-type = 'q2'", "profiles.a.kv-type: 'q2' is not one of"),
        ("chat = 3", "chat: must be a table, [chat]."),
        ("[models]\nmistral = 3", "models.mistral: must be the name of a file"),
        ("[chats]", "chats: there is no such table; there are [chat], [profiles], [models]."),
        ("[chat", "is no TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(config: Callable[[str], Path], text: str, said: str) -> None:
    path = config(text)
    told = wrong(["-p", "x"])
    assert str(path) in told and said in told


def test_a_profile_or_file_that_is_not_there(config: Callable[[str], Path], tmp_path: Path) -> None:
    config("[profiles.careful]\n[profiles.quick]\n")
    assert "There is no profile 'fast'" in (told := wrong(["--profile", "fast"])) and "There are: careful, quick." in told
    assert "SELFEXTEND_CONFIG names" in wrong([], {"SELFEXTEND_CONFIG": str(tmp_path / "none.toml")})


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    parts = [f"more/qwen-large-0000{i}-of-00002.gguf" for i in (1, 2)]
    for name in ("Mistral-7B.Q4.gguf", "more/qwen-small.gguf", *parts):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("name", "file"),
    [("mistral", "Mistral-7B.Q4.gguf"), ("QWEN-SMALL", "more/qwen-small.gguf"), ("qwen-small.gguf", "more/qwen-small.gguf"),
     ("large", "more/qwen-large-00001-of-00002.gguf")],
)  # fmt: skip
def test_a_model_by_a_part_of_its_name(seen: Seen, shelf: Path, name: str, file: str) -> None:
    assert seen("--models-dir", str(shelf), "--model", name)["model"] == shelf / file


def test_aliases_are_found_beside_the_file_that_names_them(seen: Seen, config: Callable[[str], Path], shelf: Path) -> None:
    path = config('[chat]\nmodels-dir = "shelf"\n[models]\nbig = "shelf/Mistral-7B.Q4.gguf"\nhome = "~/m.gguf"\n')
    assert seen("--model", "big")["model"] == path.parent / "shelf/Mistral-7B.Q4.gguf"
    assert seen("--model", "home")["model"] == Path("~/m.gguf").expanduser()
    assert seen("--model", "small")["model"] == path.parent / "shelf/more/qwen-small.gguf"
    assert seen("--model", "./big")["model"] == Path("big")


def test_a_name_that_means_several_models_or_none(shelf: Path) -> None:
    from selfextend_cli.flags.model_names import find_model

    with pytest.raises(ModelNotFound, match=r"qwen may be any of these: qwen-large-00001-of-00002\.gguf, qwen-small\.gguf"):
        find_model("qwen", {}, shelf)
    with pytest.raises(ModelNotFound, match=r"no model llama, neither a file nor a name\. Known: big, Mistral-7B\.Q4, "):
        find_model("llama", {"big": shelf}, shelf)


def completed(program: list[str], name: str, words: str, env: dict[str, str], folder: Path) -> list[str]:
    """What a bash completion function gets for the last of `words`, as "type,value" lines."""
    asked = {f"_{name.upper().replace('-', '_')}_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(program, capture_output=True, text=True, env=env | asked, cwd=folder, check=True)
    assert not done.stderr
    return done.stdout.splitlines()


def test_a_shell_completes_commands_flags_models_and_documents(home: dict[str, str], tmp_path: Path, shelf: Path) -> None:
    (tmp_path / "config.toml").write_text('[chat]\nmodels-dir = "shelf"\n[models]\nmine = "m.gguf"\n', encoding="utf-8")
    env = home | {"SELFEXTEND_CONFIG": str(tmp_path / "config.toml")}
    (tmp_path / "mini.gguf").touch()
    (tmp_path / "mini.txt").touch()
    chat_for = ("selfextend-chat", f"selfextend-chat --models-dir {shelf} --model mi")
    assert completed(CHAT, *chat_for, env, tmp_path) == ["dir,mi", "plain,mine", "plain,mini.gguf"]
    assert completed(CHAT, "selfextend-chat", "selfextend-chat --models-dir shelf --model Mis", env, tmp_path)[-1] == "plain,Mistral-7B.Q4"
    assert completed(CHAT, "selfextend-chat", "selfextend-chat --doc mi", env, tmp_path) == ["file,mi"]
    assert "plain,--temperature" in completed(CHAT, "selfextend-chat", "selfextend-chat --temp", env, tmp_path)
    assert completed(GROUP, "selfextend", "selfextend ch", env, tmp_path) == ["plain,chat"]
    assert "plain,mine" in completed(GROUP, "selfextend", "selfextend chat --model mi", env, tmp_path)


REGISTERED = {"bash": "-F _{f}_completion {name}\n", "zsh": "compdef _{f}_completion {name}\n", "fish": "--command {name} "}


@pytest.mark.parametrize("shell", REGISTERED)
def test_the_script_of_each_shell_covers_each_program(shell: str) -> None:
    script = CliRunner().invoke(group, ["completion", shell]).output
    for name in ("selfextend", "selfextend-chat", "selfextend-summarize"):
        function = name.replace("-", "_")
        assert REGISTERED[shell].format(f=function, name=name) in script
        assert f"_{function.upper()}_COMPLETE={shell}_complete" in script


def test_bash_takes_its_script(tmp_path: Path) -> None:
    script = CliRunner().invoke(group, ["completion", "bash"]).output
    done = subprocess.run(["bash", "-c", script + "complete -p selfextend-chat"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("-F _selfextend_chat_completion selfextend-chat")


@pytest.mark.native
def test_models_lists_names_sizes_and_windows(config: Callable[[str], Path], scripted: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    config(f'[chat]\nmodels-dir = "{scripted.parent}"\n[models]\nmine = "broken.gguf"\n')
    alias, listed = CliRunner().invoke(group, ["models"]).output.splitlines()
    assert alias.split(maxsplit=1) == ["mine", f"can't be opened: {tmp_path / 'broken.gguf'}"]
    assert listed.split()[0] == "scripted" and "trained     8,192" in listed and listed.endswith(str(scripted))
