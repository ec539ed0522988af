"""A child process for what may hang, grow or crash: each request has limits of time and memory, and an end of it is an answer.

`Child` is the parent's side; `python -m selfextend_local.child MODULE:FUNCTION MIB SECONDS` the child's: a request on each line of its
stdin, an answer on each line of its stdout, in JSON. It knows neither models nor documents nor templates.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

_POLL_S = 0.1
_START_S = 600.0
_READY = b"ready\n"
_LAST_WORDS = 2_000  # bytes of stderr that are kept of a child that crashed
_PROGRESS = b'{"done":'
_SECONDS_BETWEEN_REPORTS = 0.05


class ChildFailed(Exception):
    """The child didn't answer. `reason` is one of "time", "memory", "crash", "stopped"; `words` the last that a crash said, `code` its
    exit code, negative for a signal."""

    def __init__(self, reason: str, words: str = "", code: int = 0) -> None:
        super().__init__(reason, words, code)
        self.reason = reason
        self.words = words
        self.code = code


class Child:
    """One child that answers requests with `MODULE:FUNCTION`; started when it is needed, and anew when one has ended it.

    seconds: for a request, or after its last report of progress. mib: of memory beyond what it takes before the first request, 0 =
    without a limit; without an effect on macOS and Windows. requests: after so many a child is replaced, and what libraries leak goes
    with it; None = never.
    """

    def __init__(self, function: str, *, seconds: float, mib: int, requests: int | None = None) -> None:
        self._function, self._seconds, self._mib, self._requests = function, seconds, mib, requests
        self._asked = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the child)
        self._lock = threading.Lock()

    def ask(
        self, request: object, should_stop: Callable[[], bool] | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Any:
        """The answer, a value of JSON. `progress` hears what the function reports. Raises ChildFailed; ValueError with the words of
        an error that the function raised."""
        with self._lock:
            line = self._answer(json.dumps(request).encode() + b"\n", should_stop, progress)
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """End the child, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def _answer(
        self, request: bytes, should_stop: Callable[[], bool] | None, progress: Callable[[int, int], None] | None
    ) -> bytes:
        fresh = self._process is None or self._process.poll() is not None or self._asked == self._requests
        if fresh:
            self.close()
            self._start()
        assert self._process is not None and self._process.stdin is not None
        self._asked += 1
        with suppress(OSError):  # it has died; the end of its answers will say so
            self._process.stdin.write(request)
            self._process.stdin.flush()
        deadline = time.monotonic() + (_START_S if fresh else self._seconds)
        while True:
            try:
                line = self._answers.get(timeout=_POLL_S)
            except queue.Empty:
                line = b""
                if time.monotonic() > deadline:
                    self.close()
                    raise ChildFailed("time") from None
            else:
                if not line.endswith(b"\n"):
                    raise self._ended()
            if line == _READY or line.startswith(_PROGRESS):
                deadline = time.monotonic() + self._seconds
                if progress is not None and line != _READY:
                    progress(*json.loads(line)["done"])
            elif line:
                return line
            if should_stop is not None and should_stop():
                self.close()
                raise ChildFailed("stopped")

    def _ended(self) -> ChildFailed:
        code = self._end()
        reason = {_OUT_OF_MEMORY: "memory", -getattr(signal, "SIGALRM", 0): "time"}.get(code, "crash")
        return ChildFailed(reason, self._last_words(), code)

    def _start(self) -> None:
        self._words.truncate(0)
        self._words.seek(0)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self._function, str(self._mib), str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            # Nothing in the working folder may be imported in place of a library.
            env=os.environ | {"PYTHONSAFEPATH": "1", "GGML_NO_BACKTRACE": "1"},
            start_new_session=True,
        )
        self._asked = 0
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_pump, args=(self._process, self._answers), daemon=True).start()

    def _end(self) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        return process.wait()

    def _last_words(self) -> str:
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _LAST_WORDS))
        return self._words.read().decode("utf-8", "replace").strip()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


def shared(function: str, *, seconds: float, mib: int) -> Child:
    """The one child of this process for such requests; a fork has its own."""
    return _shared(os.getpid(), function, seconds, mib)


@cache
def _shared(process: int, function: str, seconds: float, mib: int) -> Child:
    return Child(function, seconds=seconds, mib=mib)


def _pump(process: subprocess.Popen[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    assert process.stdout is not None
    with process.stdout:
        while True:
            line = process.stdout.readline()
            answers.put(line)
            if not line.endswith(b"\n"):
                return


_OUT_OF_MEMORY = 77
_GRACE_S = 5


def _limit(mib: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if mib:
            # A sanitizer has set terabytes of addresses aside before the first line runs.
            most = (mib << 20) + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, ValueError, OSError):
        return


_reporter: Callable[[int, int], None] = lambda done, total: None  # noqa: E731 (replaced in a child)


def report(done: int, total: int) -> None:
    """In a child: tell the parent how far the function is. Its time begins anew."""
    _reporter(done, total)


def _loaded(name: str) -> Callable[[Any], Any]:
    module, _, function = name.partition(":")
    found: Callable[[Any], Any] = getattr(import_module(module), function)
    return found


def _answered(function: Callable[[Any], Any], request: bytes) -> bytes:
    try:
        return json.dumps({"value": function(json.loads(request))}).encode()
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
    except Exception as error:  # It handles what nobody vouches for: whatever goes wrong is the answer.
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:2_000]}).encode()


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    seconds = int(float(sys.argv[3])) + _GRACE_S
    # Should the parent be killed, nobody else would end a child that hangs.
    alarm = getattr(signal, "alarm", lambda seconds: None)
    reported = 0.0

    def write(line: bytes) -> None:
        answers.write(line + b"\n")
        answers.flush()

    def tell(done: int, total: int) -> None:
        nonlocal reported
        if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS or done == total:
            reported = time.monotonic()
            alarm(seconds)
            write(_PROGRESS + b" [%d, %d]}" % (done, total))

    # This file runs under another name than the one that the function imports.
    import_module("selfextend_local.child").__dict__["_reporter"] = tell
    function = _loaded(sys.argv[1])
    _limit(int(sys.argv[2]))
    write(_READY.rstrip())
    for line in sys.stdin.buffer:
        alarm(seconds)
        answer = _answered(function, line)
        alarm(0)
        write(answer)


if __name__ == "__main__":
    main()
