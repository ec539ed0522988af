"""llama-server behind this server: which program, with which arguments, from its start to its end.

It answers whatever is asked without documents, many requests at a time. It has one KV cache for all of them, so it reads far text in
groups of one plan. Knows processes and llama-server's flags. Must not know HTTP beyond "is it ready".
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import httpx
import psutil

from selfextend_local.engine.environment import variables
from selfextend_local.engine.machine import INSTALL_HINT, free_memory
from selfextend_local.engine.peek import ModelPeek
from selfextend_local.engine.plan import MEMORY_SHARE, ContextPlan, Settings, check_settings
from selfextend_local.engine.tuned import with_profile
from selfextend_local.errors import GroupAttentionError, LibraryError, MemoryBudgetError
from selfextend_local.generation.sampling import Sampling
from selfextend_local.positions import MICRO_BATCH
from selfextend_local.storage.folders import chosen, is_ours, program_folder

PROGRAM_VARIABLE = "SELFEXTEND_LLAMA_SERVER"
"""Names a llama-server to take instead of the one that `make llama-server` built."""

_LIBRARIES = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"
_OURS = ("LLAMA_ARG_", "LLAMA_GROUP_ATTN_", "LLAMA_API_KEY")
_SECONDS_TO_END = 10.0
_POLL_S = 0.1
_MIB = 1 << 20


@dataclass(frozen=True)
class SlotsPlan:
    """The context of each slot, and how many there are."""

    context: ContextPlan
    slots: int
    temperature: float

    def describe(self) -> str:
        """One line."""
        size = f", {self.slots * (self.context.kv_bytes or 0) / _MIB:,.0f} MiB" if self.context.kv_bytes else ""
        how = f"{self.context.group_attention.label}, no recall{size}"
        return f"{self.slots} slots without documents, {self.context.capacity:,} tokens each ({how})"


def slots_plan(peek: ModelPeek, settings: Settings, slots: int, documents: ContextPlan) -> SlotsPlan:
    """The plan for so many slots beside the context for documents, each as long as that one, or as groups reach.

    Raises GroupAttentionError if recall is asked for, MemoryBudgetError.
    """
    if settings.recalls:
        raise GroupAttentionError("Recall reads one text at a time: leave --parallel out, or take groups (--ga-mode progressive).")
    settings = with_profile(replace(settings, groups_only="llama-server reads several texts at once"), peek.info.path)
    longest = min(documents.capacity, check_settings(settings, documents.n_ctx_train, peek.info.sliding_window))
    settings = replace(settings, need_tokens=longest, n_ctx=None, kv_type=documents.kv_type, kv_file="off")
    context, free = peek.plan(settings), free_memory()
    each, besides = context.kv_bytes or 0, 0 if documents.in_file else documents.kv_bytes or 0
    needed, room = slots * each + besides, MEMORY_SHARE * (free.gpu if context.gpu_layers else free.host)
    if needed > room:
        fit = max(0, int((room - besides) // each))
        raise MemoryBudgetError(
            f"{slots} slots of {context.capacity:,} tokens and the context for documents need {needed / _MIB:,.0f} MiB of KV cache, "
            f"{room / _MIB:,.0f} MiB are free. Take --parallel {fit}, or a smaller --need-tokens." if fit else
            f"A slot of {context.capacity:,} tokens beside the context for documents needs {needed / _MIB:,.0f} MiB of KV cache, "
            f"{room / _MIB:,.0f} MiB are free. Take a smaller --need-tokens, or leave --parallel out."
        )  # fmt: skip
    return SlotsPlan(context, slots, settings.ga_temperature or 0.0)


def program() -> Path:
    """The llama-server of the library that is installed. Raises LibraryError if there is none."""
    if (named := chosen(PROGRAM_VARIABLE)) is not None:
        if not os.access(named, os.X_OK):
            raise LibraryError(f"{PROGRAM_VARIABLE} names {named}, which is no program: name a llama-server, or unset it.")
        return named
    library = version("llama-cpp-python")
    built = [file for file in program_folder().glob(f"{library}-*/llama-server") if is_ours(file.stat())]
    if not built:
        raise LibraryError(
            f"--parallel needs llama-server, and none is built for {library}: run `make llama-server` in the source folder (minutes), "
            f"or name one built from the same patches with {PROGRAM_VARIABLE}."
        )
    return max(built, key=lambda file: file.stat().st_mtime)


def arguments(model: Path, name: str, plan: SlotsPlan, threads: int | None, max_tokens: int) -> list[str]:
    """The flags for a model that is called `name`: one cache for all slots, no more than the plan says, and the defaults of our own
    answers, of up to `max_tokens` tokens."""
    context = plan.context
    return [
        "--model", str(model), "--alias", name, "--parallel", str(plan.slots), "--kv-unified",
        "--ctx-size", str(plan.slots * context.n_ctx), "--kv-unified-per-slot", str(context.capacity),
        "--batch-size", str(MICRO_BATCH), "--ubatch-size", str(MICRO_BATCH),
        "--threads", str(threads or psutil.cpu_count(logical=False) or 1),
        "--cache-type-k", context.kv_type, "--cache-type-v", context.kv_type, "--flash-attn", "on" if context.flash_attn else "off",
        "--n-gpu-layers", str(context.gpu_layers), "--fit", "off", "--cache-ram", "0", "--metrics", "--no-ui",
        "--temp", str(Sampling().temperature), "--predict", str(max_tokens),
    ]  # fmt: skip


def environment(plan: SlotsPlan) -> dict[str, str]:
    """The variables: this process's, with the library that is installed and no other settings of it than the plan's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    places = [str(library_folder()), *filter(None, [kept.get(_LIBRARIES)])]
    return kept | {_LIBRARIES: os.pathsep.join(places)} | variables(plan.context.group_attention, plan.temperature)


def library_folder() -> Path:
    """Where the shared libraries of llama-cpp-python are. Raises LibraryError."""
    found = find_spec("llama_cpp")
    if found is None or found.origin is None:
        raise LibraryError(f"llama-cpp-python isn't installed. {INSTALL_HINT}")
    return Path(found.origin).parent / "lib"


class LlamaServer:
    """llama-server as a process that listens to a socket file of this user's alone.

    Raises LibraryError.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._command, self._environment = command, environment
        self._folder = tempfile.TemporaryDirectory(prefix="selfextend-")
        self.socket = Path(self._folder.name) / "llama.sock"
        self._log = Path(self._folder.name) / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()

    def start(self, ended: Callable[[LibraryError], None]) -> None:
        """Start it; `ended` is called, in a thread, when it ends by itself."""
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [*self._command, "--host", str(self.socket)],
                    env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            words = f"{self._command[0]} can't be started ({error.strerror}): build it again with `make llama-server`."
            raise LibraryError(words) from error

        def watch() -> None:
            assert self._process is not None
            self._process.wait()
            if not self._closing.is_set():
                ended(self._ended())

        threading.Thread(target=watch, daemon=True).start()

    def wait(self) -> None:
        """Until it has loaded the model, or is to end. Raises LibraryError if it ends by itself."""
        assert self._process is not None
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://llama") as http:
            while not self._closing.is_set():
                if self._process.poll() is not None:
                    raise self._ended()
                try:
                    if http.get("/health").status_code == 200:
                        return
                except httpx.TransportError:
                    pass  # it doesn't listen yet
                time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it."""
        self._closing.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()

    def _ended(self) -> LibraryError:
        assert self._process is not None
        return LibraryError(f"llama-server has ended with code {self._process.returncode}. Its last words: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        errors = [line for line in lines if " E " in line or "error" in line.lower()]
        return " / ".join((errors or lines)[-3:])[-600:] or "none."
