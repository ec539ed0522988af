"""The results file of a batch, in the form of OpenAI's batch results: a line for each item."""

from __future__ import annotations

from pathlib import Path

from selfextend_local.errors import BatchError
from selfextend_local.storage.results import Form, ResultsFile

from .outcome import Result, from_line

_FORM = Form(b'{"id": "batch_req_', from_line, Result.to_line, lambda result: result.custom_id, BatchError, "choose another output")


def results_file(path: Path) -> ResultsFile[Result]:
    """Results by their custom_id. Raises BatchError when it is used."""
    return ResultsFile(path, _FORM)
