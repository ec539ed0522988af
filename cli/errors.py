"""The one error boundary: what a user did wrong is a sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

import click

from selfextend_local.errors import Interrupted, SelfExtendError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130

P = ParamSpec("P")


def boundary(function: Callable[P, int | None]) -> Callable[P, None]:
    """Run a command; its return value is the exit code (None = 0)."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = function(*args, **kwargs)
        except BrokenPipeError:
            # The reader of stdout has gone; Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_ERROR)
        except (click.ClickException, click.exceptions.Exit, click.Abort, SystemExit):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("SELFEXTEND_DEBUG") and not isinstance(error, (SelfExtendError, KeyboardInterrupt)):
                raise
            message, code = explain(error)
            _leave("" if isinstance(error, KeyboardInterrupt) else f"error: {message}", code)
        sys.exit(code or 0)

    return run


def explain(error: BaseException) -> tuple[str, int]:
    """What an error means to the user, in words and as an exit code."""
    if isinstance(error, click.ClickException):
        return error.format_message(), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "Stopped.", EXIT_INTERRUPTED
    if isinstance(error, SelfExtendError):
        return str(error), EXIT_INTERRUPTED if isinstance(error, Interrupted) else EXIT_ERROR
    found = f"unexpected {type(error).__name__}: {error}. This is a bug; run again with SELFEXTEND_DEBUG=1 and report what it prints."
    return found, EXIT_ERROR


def _leave(message: str, code: int) -> NoReturn:
    if message:
        click.echo(message, err=True)
    sys.exit(code)
