"""llama-cpp-python's own tests, run with SelfExtendLlama in the place of Llama.

They come from the pinned source distribution, which the build keeps in the cache folder; without it they are skipped. Their models are
on a hub: tiny ones of ours stand in for them, two of which have the words and token ids that are written into the tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support import peer_models
from support.tiny_models import TinyModel

pytestmark = [pytest.mark.native, pytest.mark.process]

ROOT = Path(__file__).parents[2]
PIN = re.match(r"(?P<package>\S+) (?P<version>\S+) ", (ROOT / "patches" / "pin").read_text())
CONFTEST = """
import llama_cpp
from selfextend_local.engine.llama import SelfExtendLlama

llama_cpp.Llama = SelfExtendLlama
"""
HUB = """
import os

def hf_hub_download(repo_id, filename):
    kinds = {"mamba": "recurrent", "Falcon-H1": "hybrid", "stories": "gqa", "Qwen": "completing", "bge": "embedding"}
    return os.environ["TINY_" + next(kind for part, kind in kinds.items() if part in filename)]
"""
SCIPY = """
import numpy as np

def log_softmax(x):
    x = np.asarray(x)
    return x - x.max() - np.log(np.exp(x - x.max()).sum())
"""


def sdist() -> Path | None:
    """The pinned source distribution, if the build has kept it here."""
    from platformdirs import user_cache_path

    assert PIN is not None
    root = Path(os.environ.get("SELFEXTEND_CACHE_DIR") or user_cache_path("selfextend-local", appauthor=False))
    return next((root / "sdists").glob(f"*{PIN['version']}*.tar.gz"), None)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    archive = sdist()
    if archive is None:
        pytest.skip("the source distribution of llama-cpp-python isn't in the cache folder")
    wanted = re.compile(r"[^/]+/(tests/test_\w+\.py|vendor/llama\.cpp/models/ggml-vocab-(?:llama-spm|qwen35|bert-bge)\.gguf)$")
    with tarfile.open(archive) as tar:
        for member in tar:
            if wanted.match(member.name) and (data := tar.extractfile(member)):
                path = tmp_path / member.name.split("/", 1)[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data.read())
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "huggingface_hub.py").write_text(HUB)
    (tmp_path / "scipy").mkdir()
    (tmp_path / "scipy" / "__init__.py").touch()
    (tmp_path / "scipy" / "special.py").write_text(SCIPY)
    return tmp_path


def test_the_peers_tests_pass(suite: Path, tiny_model: TinyModel) -> None:
    models = {f"TINY_{kind}": str(tiny_model(kind)) for kind in ("gqa", "recurrent", "hybrid")}
    vocabularies = suite / "vendor" / "llama.cpp" / "models"
    for kind, vocabulary in {"completing": "qwen35", "embedding": "bert-bge"}.items():
        make = getattr(peer_models, kind)
        models[f"TINY_{kind}"] = str(make((vocabularies / f"ggml-vocab-{vocabulary}.gguf").read_bytes(), suite / f"{kind}.gguf"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests", "-v", "-p", "no:cacheprovider", "--rootdir", str(suite), "--tb=short"],
        cwd=suite,
        env=os.environ | models | {"PYTHONPATH": str(suite)},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    found = dict(re.findall(r"::(\w+(?:\[[^\]]*\])?) (PASSED|FAILED|ERROR|SKIPPED)", done.stdout))
    assert len(found) == 26, done.stdout[-3000:]
    assert {name for name, word in found.items() if word != "PASSED"} == set(), done.stdout[-6000:]
