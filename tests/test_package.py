"""The public surface: pinned names, and an import that loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import selfextend_local

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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
        "Workspace",
        "__version__",
        "find_default_model",
        "load_document",
    ]
    for name in selfextend_local.__all__:
        assert getattr(selfextend_local, name) is not None


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys, selfextend_local; print([m for m in ('llama_cpp', 'numpy', 'pypdfium2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_version_is_the_same_everywhere() -> None:
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"\nversion: {project['version']}\n" in (root / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {project['version']}\n" in (root / "CHANGELOG.md").read_text(encoding="utf-8")
    plugin = tomllib.loads((root / "cli" / "llm-selfextend" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert plugin["version"] == project["version"] and f"selfextend-local=={project['version']}" in plugin["dependencies"]
    assert project["license"] in (root / "LICENSE").read_text(encoding="utf-8").splitlines()[0]


def test_every_folder_of_code_is_installed() -> None:
    root = Path(__file__).parents[1]
    listed = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    tops = {"selfextend_local": root / "selfextend_local", "selfextend_cli": root / "cli"}
    folders = {name: [path.parent.relative_to(top) for path in top.rglob("__init__.py")] for name, top in tops.items()}
    assert sorted(listed) == sorted(".".join([name, *folder.parts]) for name, found in folders.items() for folder in found)
