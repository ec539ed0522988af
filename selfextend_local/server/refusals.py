"""What is refused, in OpenAI's shape: {"error": {"message", "type", "code", "param"}}.

Knows our exceptions and HTTP's status codes. Must not know routes.
"""

from __future__ import annotations

from typing import Any

from selfextend_local.errors import ContextOverflow, DocumentError, DocumentNotFound, Interrupted, ModelUnsupported, SelfExtendError

TOO_LONG = "context_length_exceeded"


class Refused(SelfExtendError):
    """A request that isn't answered.

    Attributes:
        status: of HTTP.
        code: for programs.
        param: the field of the request that is wrong, or None.
    """

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(status, code, message, param)
        self.status, self.code, self.message, self.param = status, code, message, param

    def __str__(self) -> str:
        return self.message


def wrong(param: str, message: str) -> Refused:
    """A field that can't be used."""
    return Refused(400, "invalid_value", message, param)


def refusal(error: BaseException) -> Refused:
    """What an error means to a client."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ContextOverflow):
        return Refused(400, TOO_LONG, str(error), "messages")
    if isinstance(error, DocumentNotFound):
        return Refused(404, "not_found", str(error))
    if isinstance(error, DocumentError):
        return Refused(400, "invalid_document", str(error), "file")
    if isinstance(error, ModelUnsupported):
        return Refused(400, "unsupported", str(error), "messages")
    if isinstance(error, Interrupted):
        return Refused(503, "interrupted", str(error))
    if isinstance(error, SelfExtendError):
        return Refused(400, "invalid_request", str(error))
    return Refused(500, "internal_error", f"unexpected {type(error).__name__}: {error}. This is a bug: please report it.")


def body(refused: Refused) -> dict[str, Any]:
    """The JSON of a refusal."""
    kind = "server_error" if refused.status >= 500 else "invalid_request_error"
    message = refused.message.encode("utf-8", "replace").decode()  # what is cited of a request may hold lone surrogates
    return {"error": {"message": message, "type": kind, "code": refused.code, "param": refused.param}}
