"""Servers with the OpenAI API as runners: documents are read and cut here, prompts are answered there.

Knows HTTP and what is worth trying again. Must not know tokens: without the server's tokeniser lengths are estimates.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import queue
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from selfextend_local.errors import BatchError, ContextOverflow, Interrupted, SelfExtendError
from selfextend_local.generation.completion import Answer, Progress, Prompt, Sampling, ShouldStop

from .answering import Material, carry_out
from .items import Item
from .job import Job
from .outcome import Failure
from .runner import READERS, Finished, Read, ReadAhead, Watcher

KEY_VARIABLE = "OPENAI_API_KEY"
_CHARS_PER_TOKEN = 3.0  # English has 4 to 5, so that a text is rather cut once more than refused by the server
_TRIES = 5
_FIRST_PAUSE_S = 0.5
_RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
_ANSWER_TIMEOUT_S = 600.0
_DEFAULT_WINDOW = 8192
_POLL_S = 0.1


class ServerError(SelfExtendError):
    """A server refused a request, or didn't answer in any of the tries."""


class Server:
    """One server as a TextModel: `url` with or without /v1 at its end.

    Raises BatchError if it doesn't answer.
    """

    def __init__(self, url: str, model: str, context: int | None, timeout_s: float | None = None) -> None:
        base = url.rstrip("/")
        self.url = base if base.endswith("/v1") else f"{base}/v1"
        self._timeout_s = timeout_s or _ANSWER_TIMEOUT_S
        listed = self._listed()
        chosen = next((entry for entry in listed if not model or entry.get("id") == model), {})
        self.model = model or str(chosen.get("id", "default"))
        self.capacity = context or _window(chosen) or _DEFAULT_WINDOW

    def count(self, text: str) -> int:
        return int(len(text) / _CHARS_PER_TOKEN) + 1

    def size(self, prompt: Prompt) -> int:
        return sum(self.count(text) + 8 for _, text in prompt.messages)

    def answer(
        self, prompt: Prompt, sampling: Sampling, *, progress: Progress | None = None, should_stop: ShouldStop | None = None
    ) -> Answer:
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
            choice, usage = data["choices"][0], data.get("usage") or {}
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            counts = int(usage.get("prompt_tokens", 0)), int(cached), int(usage.get("completion_tokens", 0))
            finish = "length" if choice.get("finish_reason") == "length" else "stop"
            text = str(choice["message"]["content"] or "").strip()
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerError(f"{self.url} gave an answer of another form than OpenAI's ({error}): check the address.") from error
        return Answer(text, "length" if finish == "length" else "stop", *counts, decode_s=time.monotonic() - started)

    def _listed(self) -> list[dict[str, Any]]:
        try:
            answer = self._send("/models", None)
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise BatchError(f"{self.url} refuses us ({error.code}): put the key into {KEY_VARIABLE}.") from error
            return []  # not every server lists its models
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BatchError(f"No server answers at {self.url} ({error}): start it, or correct --endpoint.") from error
        data = answer.get("data") if isinstance(answer, dict) else None
        return [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []

    def _post(self, body: dict[str, Any], should_stop: ShouldStop | None) -> Any:
        for attempt in itertools.count(1):
            if should_stop and should_stop():
                raise Interrupted("Stopped before the server was asked.", 0)
            try:
                return self._send("/chat/completions", body)
            except urllib.error.HTTPError as error:
                reason = _reason(error)
                if error.code not in _RETRIED:
                    if error.code == 400 and "context" in reason:
                        raise ContextOverflow(f"{self.url}: {reason} Give its window with --context.", 0, self.capacity) from error
                    raise ServerError(f"{self.url} refused the request ({error.code}): {reason}") from error
                pause = error.headers.get("Retry-After", "")
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason, pause = str(error) or type(error).__name__, ""
            if attempt >= _TRIES:
                raise ServerError(f"{self.url} gave no answer in {_TRIES} tries ({reason}): run again with --retry-errors.")
            _pause(float(pause) if pause.isdigit() else _FIRST_PAUSE_S * 2 ** (attempt - 1) * (0.5 + random.random()), should_stop)

    def _send(self, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
            return json.load(response)


def _window(entry: dict[str, Any]) -> int | None:
    # vLLM says max_model_len; llama.cpp's server says under meta how long its slots are.
    for place, name in ((entry, "max_model_len"), (entry.get("meta") or {}, "n_ctx")):
        if isinstance(place.get(name), int) and place[name] > 0:
            return int(place[name])
    return None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(4096).decode("utf-8", "replace")
        found = json.loads(text)["error"]
        return str(found["message"] if isinstance(found, dict) else found)
    except (ValueError, KeyError, TypeError, OSError):
        return str(error.reason)


def _pause(seconds: float, should_stop: ShouldStop | None) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (should_stop and should_stop()):
        time.sleep(min(0.1, seconds))


class EndpointRunner:
    """Items spread over servers, `jobs` requests to each at a time; the server with the fewest under way is next.

    Raises BatchError if a server doesn't answer, or if two serve different models.
    """

    def __init__(self, job: Job, urls: Sequence[str], *, jobs: int = 1) -> None:
        self._job = job
        name = "" if str(job.model.path) == "." else str(job.model.path)
        self._servers = [Server(url, name, job.model.context, job.limits.answer_s) for url in urls]
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
