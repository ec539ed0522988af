"""A workspace from Python: asking, streaming, states, overflow, stops; and what it does once only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from selfextend_cli.chat.command import command
from support.scripted_model import make_scripted_model

from selfextend_local import Workspace, native
from selfextend_local.batch.defaults import BATCH
from selfextend_local.batch.job import Job, ModelSettings
from selfextend_local.batch.worker import ModelWorker
from selfextend_local.chat.listener import Listener
from selfextend_local.chat.settings import ChatSettings
from selfextend_local.documents import load_document
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.engine.plan import ContextPlan, Settings
from selfextend_local.errors import ContextOverflow, Interrupted
from selfextend_local.sessions.turn import Turn
from selfextend_local.summarize import Instruction

pytestmark = pytest.mark.native

PHRASE = "The warden of the north vault"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scripts = {"1": ["The ", "key ", "is ", "48213", " [page 2]", "."]}
    return make_scripted_model(tmp_path_factory.mktemp("models") / "scripted.gguf", scripts, trained_window=8192)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.txt"
    path.write_text(f"{PHRASE} writes. {'Nothing happened. ' * 60}\fThe key is 48213.\fThe last page.", encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE", "CACHE", "DATA"):
        monkeypatch.setenv(f"SELFEXTEND_{name}_DIR", str(tmp_path / name))


def settings(model: Path, n: int | str = "auto", **others: Any) -> ChatSettings:
    return ChatSettings(model=model, engine=Settings(ga_n=n, threads=1), **others)  # type: ignore[arg-type]


class Recorder(Listener):
    """Keeps what it hears."""

    def __init__(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.said: list[str] = []
        self.plans: list[ContextPlan] = []
        self.work: list[str] = []
        self._should_stop = should_stop

    def say(self, text: str) -> None:
        self.said.append(text)

    def planned(self, plan: ContextPlan) -> None:
        self.plans.append(plan)

    @contextmanager
    def progress(self, what: str, unit: str = "tokens") -> Iterator[Callable[[int, int], None]]:
        self.work.append(what)
        yield lambda done, total: None

    def stopping(self) -> AbstractContextManager[Callable[[], bool]]:
        return nullcontext(self._should_stop)


@pytest.mark.slow
def test_three_lines(model: Path, report: Path) -> None:
    workspace = Workspace([report], settings(model))
    reply = workspace.ask("What is the key? 1")
    workspace.close()
    assert str(reply) == "The key is 48213 [page 2]."
    assert [(c.label, c.status.name) for c in reply.citations] == [("2", "VERIFIED")]
    assert reply.stats is not None and reply.stats.stop_reason == "stop" and not reply.stopped


@pytest.mark.slow
def test_an_answer_in_pieces(model: Path, report: Path) -> None:
    with Workspace([str(report)], settings(model)) as workspace:
        pieces = list(workspace.stream("What is the key? 1"))
        assert len(pieces) > 3 and "".join(pieces) == "The key is 48213 [page 2]."
        assert [turn.question for turn in workspace.chat.history] == ["What is the key? 1"]


@pytest.mark.slow
def test_what_was_read_is_on_disk(model: Path, report: Path) -> None:
    for restored in (False, True):
        with Workspace([report], settings(model)) as workspace:
            stats = workspace.ask("What is the key? 1").stats
            assert stats is not None and (stats.restored_tokens > 512) is restored


@pytest.mark.slow
def test_a_listener_hears_how_it_goes(model: Path, report: Path) -> None:
    heard = Recorder()
    with Workspace([report], settings(model), heard) as workspace:
        workspace.ask("Who? 1")
    assert heard.work == ["Reading report.txt", "Loading the model", "Reading the prompt"]
    assert len(heard.plans) == 1 and heard.said == []


def test_a_stop_while_a_document_is_read(model: Path, report: Path) -> None:
    with pytest.raises(Interrupted, match="Stopped while reading"):
        Workspace([report], settings(model), Recorder(lambda: True))


def long_document(folder: Path) -> Path:
    path = folder / "long.txt"
    path.write_text("\f".join(f"Page {i}. {PHRASE} slept. " * 20 for i in range(30)), encoding="utf-8")
    return path


@pytest.mark.slow
def test_what_does_not_fit_is_refused_or_cut_as_wished(model: Path, tmp_path: Path) -> None:
    path = long_document(tmp_path)
    with pytest.raises(ContextOverflow, match="--overflow trim"):
        Workspace([path], settings(model, 1))
    heard = Recorder()
    with Workspace([path], settings(model, 1, overflow="trim"), heard) as workspace:
        assert workspace.documents[0].page_count < 30
    assert any(line.startswith("overflow: ") for line in heard.said)


@pytest.mark.slow
def test_reading_in_parts_draws_as_the_flags_say(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, Any]] = []
    seeds: list[int] = []
    generate, set_seed = SelfExtendLlama.generate, SelfExtendLlama.set_seed

    def recorded(self: SelfExtendLlama, tokens: list[int], **how: Any) -> Any:
        drawn.append(how)
        return generate(self, tokens, **how)

    monkeypatch.setattr(SelfExtendLlama, "generate", recorded)
    monkeypatch.setattr(SelfExtendLlama, "set_seed", lambda self, seed: (seeds.append(seed), set_seed(self, seed)))
    flags = {"temperature": 0.7, "top_p": 0.5, "top_k": 7, "min_p": 0.2, "repeat_penalty": 1.3, "dry": 0.5, "seed": 5}
    named = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    asked = ["--model", str(model), "--threads", "1", "--ga-n", "1", "--doc", str(long_document(tmp_path)), "--overflow", "summarize"]
    result = CliRunner().invoke(command, [*asked, "-p", "Which key? 1", "--max-tokens", "16", *named])
    assert result.exit_code == 0, result.output
    assert len(drawn) > 2
    for how in drawn:
        assert {name: how["temp" if name == "temperature" else name] for name in flags if name != "seed"} == {
            name: value for name, value in flags.items() if name != "seed"
        }
    assert set(seeds) == {5}


@pytest.fixture
def tokenised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts with PHRASE in them that were tokenised, by whatever way."""
    seen: list[str] = []
    tokenize = native.tokenize

    def recorded(model: Any, text: str | bytes, special: bool, **options: Any) -> list[int]:
        words = text if isinstance(text, str) else text.decode()
        seen.extend([words] * (PHRASE in words))
        return tokenize(model, text, special, **options)

    monkeypatch.setattr(native, "tokenize", recorded)
    return seen


@pytest.mark.slow
def test_a_document_is_tokenised_once(model: Path, report: Path, tokenised: list[str]) -> None:
    with Workspace([report], settings(model)) as workspace:
        workspace.ask("What is the key? 1")
        workspace.chat.filling()
        workspace.ask("And again? 1")
    assert len(tokenised) == 1


@pytest.mark.slow
def test_so_is_one_of_a_batch(model: Path, report: Path, tokenised: list[str]) -> None:
    engine = ModelWorker(Job(Instruction(max_tokens=8), ModelSettings(model, BATCH)))
    engine.run(load_document(report))
    engine.close()
    assert len(tokenised) == 1


@pytest.mark.slow
def test_a_long_chat_is_continued_with_one_loading(model: Path, report: Path) -> None:
    heard = Recorder()
    answer = "words and more " * 250
    turn = Turn("Tell me all.", answer, tuple(3 + byte for byte in answer.encode()))
    with Workspace([report], settings(model), heard, history=[turn]) as workspace:
        workspace.ask("What is the key? 1")
        assert len(workspace.chat.history) == 2
    assert len(heard.plans) == 1
