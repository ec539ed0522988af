"""llama.cpp's own tests of its server, on ours: `python patches/server/gate.py MODEL [PYTEST ARGUMENT ...]` after `make llama-server`.

MODEL, such as tests/data/fixture.gguf, stands for the models that the tests would download. What it says isn't looked at, but many a test
knows how many tokens those make of a text, and fails. So they run twice, without groups and with: exit code 1 if one that passes
without fails with. Needs aiohttp, filelock, openai, prometheus-client, pytest and requests. Changes nothing in the repository.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.cache import cache_root
from backend.pin import read_pin
from backend.sdist import fetch_sdist
from llama_server import FOLDER, LLAMA, NAME, key, libraries

TESTS = "tools/server/tests"
FILES = ("basic", "chat_completion", "compat_anthropic", "compat_gcp", "compat_oai_responses", "completion", "ctx_shift", "ignore_eos",
         "kv_keep_only_active", "metrics", "security", "sleep", "slot_save", "stream", "template", "tokenize")  # fmt: skip
GROUPS = {"LLAMA_GROUP_ATTN_N": "4", "LLAMA_GROUP_ATTN_MODE": "progressive"}
SUBSTITUTE = """
def _substitute(self, *args, _start=ServerProcess.start, **kwargs):
    self.model_hf_repo = self.model_hf_file = None
    self.model_file = os.environ["SUBSTITUTE"]
    self.kv_unified = True
    return _start(self, *args, **kwargs)


ServerProcess.start = _substitute
match_regex = lambda regex, text: True
ServerPreset.load_all = staticmethod(lambda: None)
"""


def unpack(folder: Path) -> Path:
    """The tests, with the model in place of theirs, and the templates that they read; the folder of the tests."""
    pin = read_pin(FOLDER / "pin")
    root = f"{pin.sdist_stem}/{LLAMA}/"
    with tarfile.open(fetch_sdist(pin)) as tar:
        for member in tar:
            path = member.name.removeprefix(root)
            if member.isfile() and path.startswith((TESTS, "models/templates/")) and ".." not in path:
                file = folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
    utils = folder / TESTS / "utils.py"
    utils.write_text(utils.read_text().replace("import wget\n", "") + SUBSTITUTE)
    return folder / TESTS


def outcomes(tests: Path, model: Path, settings: dict[str, str], arguments: Sequence[str]) -> dict[str, str]:
    pin = read_pin(FOLDER / "pin")
    program = cache_root() / "programs" / f"{pin.patched_version}-{key()}" / NAME
    environment = os.environ | settings | {
        "LLAMA_SERVER_BIN_PATH": str(program), "LD_LIBRARY_PATH": str(libraries(pin)), "SUBSTITUTE": str(model.resolve()),
    }  # fmt: skip
    files = [f"unit/test_{name}.py" for name in FILES]
    report = tests / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", f"--junitxml={report}", *(arguments or files)]
    subprocess.run(command, cwd=tests, env=environment, stdout=subprocess.DEVNULL)
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {part.tag for part in case} & {"failure", "error", "skipped"}
        found[f"{case.get('classname')}::{case.get('name')}"] = min(kinds, default="passed")
    return found


def main(model: str, *arguments: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tests = unpack(Path(folder))
        plain, grouped = (outcomes(tests, Path(model), settings, arguments) for settings in ({}, GROUPS))
    passed = {test for test, outcome in plain.items() if outcome == "passed"}
    lost = sorted(test for test in passed if grouped.get(test) != "passed")
    print(*(f"fails with groups: {test}\n" for test in lost), sep="", end="")
    print(f"{len(passed)} of {len(plain)} pass without groups; {len(lost)} of those fail with them")
    return 1 if lost or not passed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
