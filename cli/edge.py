"""The one error boundary: what a user did wrong is a sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

import click

from selfextend_local.errors import SelfExtendError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130

P = ParamSpec("P")


def boundary(function: Callable[P, int | None]) -> Callable[P, None]:
    """Run a command; its return value is the exit code (None = 0)."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = function(*args, **kwargs)
        except SelfExtendError as error:
            _leave(f"error: {error}", EXIT_ERROR)
        except KeyboardInterrupt:
            _leave("", EXIT_INTERRUPTED)
        except BrokenPipeError:
            # The reader of stdout has gone; Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_ERROR)
        except (click.ClickException, click.exceptions.Exit, click.Abort, SystemExit):
            raise
        except Exception as error:
            if os.environ.get("SELFEXTEND_DEBUG"):
                raise
            _leave(
                f"error: unexpected {type(error).__name__}: {error}. This is a bug; run again with SELFEXTEND_DEBUG=1 "
                "and report what it prints.",
                EXIT_ERROR,
            )
        sys.exit(code or 0)

    return run


def _leave(message: str, code: int) -> NoReturn:
    if message:
        click.echo(message, err=True)
    sys.exit(code)
