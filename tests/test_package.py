"""The public surface: pinned names, and an import that loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import selfextend_local


def test_public_names() -> None:
    assert sorted(selfextend_local.__all__) == [
        "Chat",
        "ContextPlan",
        "Document",
        "GroupAttention",
        "ModelInfo",
        "ModelPeek",
        "Prefill",
        "SelfExtendError",
        "SelfExtendLlama",
        "Settings",
        "__version__",
        "find_default_model",
        "load_document",
    ]
    for name in selfextend_local.__all__:
        assert getattr(selfextend_local, name) is not None


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys, selfextend_local; print([m for m in ('llama_cpp', 'numpy', 'pypdfium2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
