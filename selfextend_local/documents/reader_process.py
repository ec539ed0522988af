"""The child's side of `reader`: reads a document or draws a page, and says what came of it as values of JSON.

Knows the readers. Must not know processes, limits or who asks. It handles data that nobody vouches for, so whatever goes wrong
is an answer.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from selfextend_local.child import report
from selfextend_local.documents.load import load_bytes, load_document
from selfextend_local.documents.marking import mark
from selfextend_local.errors import DocumentError

with suppress(ImportError):  # said in a sentence when a PDF is to be read
    import_module("pypdfium2")  # at the start, which counts against no document

_LONGEST_ANSWER = 512 << 20  # bytes; `load` reads texts of 256 MiB at most


def answered(request: dict[str, Any]) -> dict[str, Any]:
    """{"document": ...} or {"marked": ...} for a request of `Reader`, or {"error": its class, "message": ...}."""
    progress = report if request.pop("reports") else None
    try:
        if request.pop("do") == "mark":
            return {"marked": _marked(request, progress)}
        return {"document": _document(request, progress)}
    except DocumentError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        raise
    except Exception as error:
        return {"error": "ReaderFailed", "message": f"{type(error).__name__}: {error}"}


def _document(request: dict[str, Any], progress: Any) -> dict[str, Any]:
    path, data, how = request["path"], request["data"], request["how"]
    if data is None:
        document = load_document(path, progress=progress, **how)
    else:
        document = load_bytes(Path(data).read_bytes(), progress=progress, **how)
    if sum(len(page.text) for page in document.pages) > _LONGEST_ANSWER:
        raise MemoryError
    return document.for_json()


def _marked(request: dict[str, Any], progress: Any) -> dict[str, Any]:
    marked = mark(Path(request["path"]), request["page"], request["texts"], progress=progress, **request["how"])
    return asdict(marked) | {"png": base64.b64encode(marked.png).decode()}
