"""Servers with the OpenAI API as runners: documents are read and cut here, prompts are answered there.

Knows OpenAI's forms and what is worth trying again. Must not know tokens: without the server's tokeniser lengths are estimates.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import httpx

from selfextend_local.errors import BatchError, ContextOverflow, Interrupted, SelfExtendError
from selfextend_local.generation.completion import Completion, Progress, Prompt, ShouldStop
from selfextend_local.generation.sampling import Sampling
from selfextend_local.storage.plain_json import loads

from .answering import Material, carry_out
from .exchange import ExchangeError, Reply, exchange
from .items import Item
from .job import Job
from .outcome import Failure
from .runner import READERS, Finished, Read, ReadAhead, Watcher

KEY_VARIABLE = "OPENAI_API_KEY"
_CHARS_PER_TOKEN = 3.0  # English has 4 to 5, so that a text is rather cut once more than refused by the server
TRIES = 5
FIRST_PAUSE_S = 0.5
_RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
LONGEST_PAUSE_S = 60.0  # whatever a server wishes
_ANSWER_TIMEOUT_S = 600.0
_LIST_TIMEOUT_S = 30.0
MOST_BYTES = 16 << 20
_MOST_TOKENS = 1 << 31
_DEFAULT_WINDOW = 8192
_POLL_S = 0.1


class ServerError(SelfExtendError):
    """A server refused a request, or didn't answer in any of the tries."""


class Server:
    """One server as a TextModel: `url` with or without /v1 at its end.

    Raises BatchError if it doesn't answer.
    """

    def __init__(
        self, url: str, model: str, context: int | None, timeout_s: float | None = None, should_stop: ShouldStop | None = None
    ) -> None:
        base = url.rstrip("/")
        self.url = base if base.endswith("/v1") else f"{base}/v1"
        self._timeout_s = timeout_s or _ANSWER_TIMEOUT_S
        listed = self._listed(should_stop)
        chosen = next((entry for entry in listed if not model or entry.get("id") == model), {})
        name = chosen.get("id", "default")
        if not isinstance(name, str):
            raise BatchError(f"{self.url} lists a model without a name: name one with --model.")
        self.model = model or name
        self.capacity = context or _window(chosen) or _DEFAULT_WINDOW

    def count(self, text: str) -> int:
        return int(len(text) / _CHARS_PER_TOKEN) + 1

    def size(self, prompt: Prompt) -> int:
        return sum(self.count(text) + 8 for _, text in prompt.messages)

    def answer(
        self, prompt: Prompt, sampling: Sampling, *, progress: Progress | None = None, should_stop: ShouldStop | None = None
    ) -> Completion:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in prompt.messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        if sampling.schema:
            schema = {"name": "answer", "schema": json.loads(sampling.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        started = time.monotonic()
        data = self._post(body, should_stop)
        try:
            choice = data["choices"][0]
            finish = "length" if choice.get("finish_reason") == "length" else "stop"
            content = choice["message"]["content"] or ""
            text = content.encode("utf-8", "replace").decode().strip()
        except (LookupError, TypeError, AttributeError) as error:
            raise ServerError(f"{self.url} gave an answer of another form than OpenAI's ({error}): check the address.") from error
        usage = _table(data.get("usage"))
        cached = _table(usage.get("prompt_tokens_details")).get("cached_tokens")
        counts = _count(usage.get("prompt_tokens")), _count(cached), _count(usage.get("completion_tokens"))
        return Completion(text, "length" if finish == "length" else "stop", *counts, decode_s=time.monotonic() - started)

    def _listed(self, should_stop: ShouldStop | None) -> list[dict[str, Any]]:
        try:
            reply = self._send("/models", None, _LIST_TIMEOUT_S, should_stop)
            if reply.status in (401, 403):
                raise BatchError(f"{self.url} refuses us ({reply.status}): put the key into {KEY_VARIABLE}.")
            if reply.status != 200:
                return []  # not every server lists its models
            data = _table(_parsed(reply)).get("data")
        except (ExchangeError, httpx.InvalidURL, ValueError) as error:
            raise BatchError(f"No server answers at {self.url} ({error}): start it, or correct --endpoint.") from error
        return [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []

    def _post(self, body: dict[str, Any], should_stop: ShouldStop | None) -> Any:
        for attempt in itertools.count(1):
            if should_stop and should_stop():
                raise Interrupted("Stopped before the server was asked.", 0)
            pause = ""
            try:
                reply = self._send("/chat/completions", body, self._timeout_s, should_stop)
                if reply.status == 200:
                    return _parsed(reply)
                reason, pause = _reason(reply), reply.headers.get("Retry-After", "")
                if reply.status not in _RETRIED:
                    if reply.status == 400 and "context" in reason:
                        raise ContextOverflow(f"{self.url}: {reason} Give its window with --context.", 0, self.capacity)
                    raise ServerError(f"{self.url} refused the request ({reply.status}): {reason}")
            except (ExchangeError, ValueError) as error:
                reason = str(error)
            if attempt >= TRIES:
                raise ServerError(f"{self.url} gave no answer in {TRIES} tries ({reason}): run again with --retry-errors.")
            _pause(attempt, pause, should_stop)

    def _send(self, path: str, body: dict[str, Any] | None, limit_s: float, should_stop: ShouldStop | None) -> Reply:
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return exchange(self.url + path, body, headers, most_bytes=MOST_BYTES, limit_s=limit_s, should_stop=should_stop)


def _parsed(reply: Reply) -> Any:
    """Raises ValueError."""
    return loads(reply.content)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < _MOST_TOKENS else 0


def _window(entry: dict[str, Any]) -> int | None:
    # vLLM says max_model_len; llama.cpp's server says under meta how long its slots are.
    stated = (_count(entry.get("max_model_len")), _count(_table(entry.get("meta")).get("n_ctx")))
    return next((tokens for tokens in stated if tokens), None)


def _reason(reply: Reply) -> str:
    if 300 <= reply.status < 400:
        return f"it redirects to {reply.headers.get('Location', 'nowhere')[:200]}; name that address if you trust it"
    try:
        found = _table(_parsed(reply)).get("error", "")
        return str(found.get("message") if isinstance(found, dict) else found)[:1000]
    except ValueError:
        return "it doesn't say why"


def _pause(attempt: int, wish: str, should_stop: ShouldStop | None) -> None:
    """Before the next try: as long as the server wishes, within reason, else longer each time."""
    seconds = float(wish) if wish.isascii() and wish.isdigit() else FIRST_PAUSE_S * 2 ** (attempt - 1) * (0.5 + random.random())
    end = time.monotonic() + min(seconds, LONGEST_PAUSE_S)
    while time.monotonic() < end and not (should_stop and should_stop()):
        time.sleep(min(_POLL_S, seconds))


class EndpointRunner:
    """Items spread over servers, `jobs` requests to each at a time; the server with the fewest under way is next.

    Raises BatchError if a server doesn't answer, or if two serve different models.
    """

    def __init__(self, job: Job, urls: Sequence[str], *, jobs: int = 1, should_stop: ShouldStop | None = None) -> None:
        self._job = job
        name = "" if str(job.model.path) == "." else str(job.model.path)
        self._servers = [Server(url, name, job.model.settings.n_ctx, job.limits.answer_s, should_stop) for url in urls]
        self._jobs = jobs
        self._busy = dict.fromkeys(range(len(self._servers)), 0)
        self._lock = threading.Lock()
        names = {server.model for server in self._servers}
        if len(names) > 1:
            raise BatchError(f"The servers have different models ({', '.join(sorted(names))}): choose one with --model.")
        self.model_name = names.pop()
        self.fingerprint = f"served:{self.model_name}"

    def run(self, items: Sequence[Item], watcher: Watcher, should_stop: ShouldStop) -> Iterator[Finished]:
        width = self._jobs * len(self._servers)
        answers: queue.SimpleQueue[Finished | None] = queue.SimpleQueue()
        running = 0
        with ReadAhead(items, self._job.limits, should_stop, readers=READERS, window=2 * width) as ahead:
            while True:
                while running < width and (got := ahead.next(block=not running)):
                    if isinstance(got.material, Failure):
                        yield Finished(got.item, got.material, seconds=got.seconds)
                        continue
                    watcher.begin(got.item, 0)
                    work = (got, got.material, answers, should_stop)
                    # A daemon: a request that the server sits on must not keep us at the end.
                    threading.Thread(target=self._one, args=work, daemon=True).start()
                    running += 1
                if not running or should_stop():
                    return
                # Not for ever: a document may be ready, or a stop wanted, while all requests are still under way.
                with suppress(queue.Empty):
                    done = answers.get(timeout=_POLL_S)
                    running -= 1
                    if done:
                        yield done

    def _one(self, got: Read, material: Material, answers: queue.SimpleQueue[Finished | None], should_stop: ShouldStop) -> None:
        with self._lock:
            index = min(self._busy, key=lambda i: self._busy[i])
            self._busy[index] += 1
        started = time.monotonic()
        try:
            outcome = carry_out(self._servers[index], self._job, material, None, should_stop)
            answers.put(Finished(got.item, outcome, got.title, got.seconds + time.monotonic() - started))
        except Interrupted:
            answers.put(None)
        finally:
            with self._lock:
                self._busy[index] -= 1

    def close(self) -> None:
        """Nothing is held between requests."""
