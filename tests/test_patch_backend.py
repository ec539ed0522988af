"""The build backend of `patches/` without compiling: its errors, its wheel cache, and its diff applier.

A source distribution of a few lines stands in for llama-cpp-python, and a fake for scikit-build-core.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

PATCHES = Path(__file__).resolve().parent.parent / "patches"
sys.path.insert(0, str(PATCHES))

import backend  # noqa: E402
import prove  # noqa: E402
import tool  # noqa: E402
import try_wheels  # noqa: E402
from backend import cache, diff, key, portable, sdist, skbuild, toolchain  # noqa: E402
from backend.errors import BuildError  # noqa: E402
from backend.pin import Pin, read_pin  # noqa: E402
from backend.series import read_series  # noqa: E402
from backend.tree import own_sources  # noqa: E402
from devel import index  # noqa: E402

STEM = "llama_cpp_python-0.3.36"
SOURCE = "vendor/llama.cpp/src/llama.cpp"
WHEEL = "llama_cpp_python-0.3.36+selfextend.1-py3-none-any.whl"
FILES = {
    "llama_cpp/__init__.py": b'__version__ = "0.3.36"\n',
    "pyproject.toml": b"",
    "README.md": b"",
    SOURCE: b"one\ntwo\nthree\n",
    "vendor/llama.cpp/docs/big.md": b"not for the compiler",
}
PATCH = f"""Subject: two is 2

--- a/{SOURCE}
+++ b/{SOURCE}
@@ -1,3 +1,3 @@
 one
-two
+2
 three
"""


def make_sdist(file: Path, files: dict[str, bytes], stem: str = STEM) -> str:
    """Write a tar.gz and return its SHA-256."""
    with tarfile.open(file, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{stem}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return hashlib.sha256(file.read_bytes()).hexdigest()


@dataclass
class Workplace:
    """A copy in miniature of `patches/`, with a cache folder, a source distribution and a record of compilations."""

    folder: Path
    sdist: Path
    cache: Path
    out: Path
    trees: list[dict[str, bytes]] = field(default_factory=list)

    def repin(self, files: dict[str, bytes] | None = None) -> None:
        sha256 = make_sdist(self.sdist, {**FILES, **(files or {})})
        (self.folder / "pin").write_text(f"llama-cpp-python 0.3.36 sha256:{sha256} selfextend.1\n")

    def call_hook(self, hook: str, tree: Path, arguments: list[Any], log: Path) -> Any:
        if hook == "get_requires_for_build_wheel":
            return ["ninja"]
        assert hook == "build_wheel"
        self.trees.append({f.relative_to(tree).as_posix(): f.read_bytes() for f in tree.rglob("*") if f.is_file()})
        wheel = Path(arguments[0]) / WHEEL
        wheel.parent.mkdir()
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("llama_cpp/lib/libllama.so", b"\x7fELF" * 100)
            for name in ("METADATA", "WHEEL", "RECORD"):
                archive.writestr(f"llama_cpp_python-0.3.36+selfextend.1.dist-info/{name}", name)
        return wheel.name

    def build(self) -> Path:
        self.out.mkdir(exist_ok=True)
        return self.out / backend.build_wheel(str(self.out))

    def error(self, capsys: pytest.CaptureFixture[str]) -> str:
        """What a failing build prints, which must be one sentence, with exit status 1 and no wheel."""
        with pytest.raises(SystemExit) as stop:
            self.build()
        assert stop.value.code == 1
        assert not list(self.out.iterdir())
        assert not list(self.cache.glob("wheels/*/*"))
        printed = capsys.readouterr().err
        assert printed.startswith("error: ") and printed.endswith(".\n") and printed.count("\n") == 1
        return printed[len("error: ") : -1]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    folder = tmp_path / "patches"
    (folder / "src" / "ggml-cpu").mkdir(parents=True)
    (folder / "series").write_text("0001-two.patch\n")
    (folder / "0001-two.patch").write_text(PATCH)
    (folder / "src" / "selfextend.cpp").write_text("// ours\n")
    (folder / "lean.cmake").write_text("\n")
    place = Workplace(folder, tmp_path / f"{STEM}.tar.gz", tmp_path / "cache", tmp_path / "out")
    place.repin()
    for name in [name for name in os.environ if name.startswith(("CMAKE_", "SKBUILD_")) or name in ("CC", "CXX")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(place.cache))
    monkeypatch.setenv(sdist.SDIST_VARIABLE, str(place.sdist))
    monkeypatch.setattr(backend, "FOLDER", folder)
    monkeypatch.setattr(backend, "call_hook", place.call_hook)
    monkeypatch.setattr(toolchain, "_version", lambda command: f"{command[0]} 1.0" if command else "")
    monkeypatch.setattr(toolchain, "_command", lambda variable: [os.environ.get(variable) or variable.lower()])
    return place


def test_the_tree_is_patched_versioned_and_stripped(place: Workplace) -> None:
    assert place.build().name == WHEEL
    (tree,) = place.trees
    assert tree[SOURCE] == b"one\n2\nthree\n"
    assert tree["vendor/llama.cpp/src/selfextend.cpp"] == b"// ours\n"
    assert tree["llama_cpp/__init__.py"] == b'__version__ = "0.3.36+selfextend.1"\n'
    assert "vendor/llama.cpp/docs/big.md" not in tree


# --- the wheel cache


def test_second_build_compiles_nothing(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.get_requires_for_build_wheel() == ["ninja"]
    first = place.build().read_bytes()
    monkeypatch.setenv(sdist.SDIST_VARIABLE, "gone.tar.gz")
    assert place.build().read_bytes() == first
    assert len(place.trees) == 1
    assert backend.get_requires_for_build_wheel() == []


def test_metadata_comes_from_the_cached_wheel(place: Workplace, tmp_path: Path) -> None:
    place.build()
    name = backend.prepare_metadata_for_build_wheel(str(tmp_path / "meta"))
    assert sorted(file.name for file in (tmp_path / "meta" / name).iterdir()) == ["METADATA", "WHEEL"]


def truncate(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes()[:-40])


def alter(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes().replace(b"ELF", b"FLE", 1))


def orphan(wheel: Path) -> None:
    wheel.with_name(wheel.name + ".sha256").unlink()


def test_a_wheel_of_another_user_is_not_installed(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be run, whatever its hash beside it says."""
    place.build()
    (kept,) = place.cache.glob("wheels/*/*.whl")
    assert cache.find_wheel(kept.parent.name) == kept
    if os.getuid() == 0:
        os.chown(kept, 65534, 65534)
    else:
        monkeypatch.setattr(os, "getuid", lambda: os.stat(kept).st_uid + 1)
    with pytest.raises(BuildError, match="belongs to another user"):
        cache.find_wheel(kept.parent.name)


@pytest.mark.parametrize("damage", [truncate, alter, orphan])
def test_a_damaged_wheel_is_built_again(place: Workplace, damage: Callable[[Path], None]) -> None:
    good = place.build().read_bytes()
    (kept,) = place.cache.glob("wheels/*/*.whl")
    damage(kept)
    assert place.build().stat().st_size == len(good)
    assert len(place.trees) == 2
    assert cache.find_wheel(kept.parent.name) == kept


@pytest.mark.parametrize("name", ["0001-two.patch", "src/selfextend.cpp", "src/new.h", "src/ggml-cpu/new.h", "series", "pin", "lean.cmake"])
def test_key_changes_with_each_source_file(place: Workplace, name: str) -> None:
    before = key.wheel_key(place.folder, None)
    with (place.folder / name).open("a") as file:
        file.write("\n")
    assert key.wheel_key(place.folder, None) != before


@pytest.mark.parametrize("name", ["CMAKE_ARGS", "CFLAGS", "CXXFLAGS", "CC", "CXX", "CMAKE_GENERATOR"])
def test_key_changes_with_each_flag(place: Workplace, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key.wheel_key(place.folder, None)
    monkeypatch.setenv(name, "-DGGML_CUDA=on")
    assert key.wheel_key(place.folder, None) != before


def test_key_changes_with_settings_compiler_and_cpu(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {key.wheel_key(place.folder, None), key.wheel_key(place.folder, {"cmake.build-type": "Debug"})}
    monkeypatch.setattr(key, "cpu_features", lambda: "another cpu")
    keys.add(key.wheel_key(place.folder, None))
    monkeypatch.setattr(toolchain, "_version", lambda command: "2.0")
    keys.add(key.wheel_key(place.folder, None))
    monkeypatch.setattr(key, "BACKEND_VERSION", key.BACKEND_VERSION + 1)
    keys.add(key.wheel_key(place.folder, None))
    assert len(keys) == 5


def test_key_ignores_what_cannot_matter(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key.wheel_key(place.folder, None)
    monkeypatch.setenv("CMAKE_BUILD_PARALLEL_LEVEL", "7")
    (place.folder / "README.md").write_text("words")
    assert key.wheel_key(place.folder, {}) == before


# --- one sentence for each failure


def test_no_compiler(place: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_command", lambda variable: [])
    monkeypatch.setattr(toolchain.sys, "platform", "linux")
    assert place.error(capsys).startswith("no C compiler was found; install one (Debian and Ubuntu: apt install")


def test_a_named_compiler_that_does_not_run(
    place: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(toolchain, "_version", lambda command: "" if "no-such" in command[0] else "1.0")
    monkeypatch.setattr(toolchain.sys, "platform", "linux")
    assert place.error(capsys).startswith("no C++ compiler was found (CXX=no-such-compiler does not run); install")


def fake_pip(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sdist.SDIST_VARIABLE)
    failed = subprocess.CompletedProcess([], 1, stdout=output)
    monkeypatch.setattr(sdist.subprocess, "run", lambda *_, **__: failed)


def test_no_index(place: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip("Looking\nERROR: No matching distribution found for llama-cpp-python==0.3.36\n", monkeypatch)
    assert place.error(capsys) == (
        "pip could not download llama-cpp-python 0.3.36 (No matching distribution found for llama-cpp-python==0.3.36); "
        "check the network and the package index pip is configured with, or set SELFEXTEND_LLAMA_SDIST to a local "
        "llama_cpp_python-0.3.36.tar.gz."
    )


def test_pip_is_not_told_of_the_backend_that_calls_it(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip runs us with the folder of this backend in its environment; the pip that we run would look for scikit-build-core there."""
    monkeypatch.delenv(sdist.SDIST_VARIABLE)
    monkeypatch.setenv("_PYPROJECT_HOOKS_BACKEND_PATH", str(PATCHES))
    given: dict[str, str] = {}

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        given.update(env)
        Path(command[command.index("--dest") + 1], place.sdist.name).write_bytes(place.sdist.read_bytes())
        return subprocess.CompletedProcess(command, 0, stdout="")

    monkeypatch.setattr(sdist.subprocess, "run", run)
    sdist.fetch_sdist(read_pin(place.folder / "pin"))
    assert given["PATH"] == os.environ["PATH"]
    assert not [name for name in given if name.startswith("_PYPROJECT")]


def test_the_index_has_another_file(
    place: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(f"ERROR: THESE PACKAGES DO NOT MATCH THE HASHES ...\n   Got        {'ab' * 32}\n", monkeypatch)
    wanted = read_pin(place.folder / "pin").sha256
    assert place.error(capsys).startswith(
        f"the {STEM}.tar.gz that pip downloaded has SHA-256 {'ab' * 32}, but patches/pin demands {wanted}; check"
    )


def test_the_named_sdist_is_another_file(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    make_sdist(place.sdist, {"other": b""})
    assert re.fullmatch(
        r".+ has SHA-256 [0-9a-f]{64}, but patches/pin demands [0-9a-f]{64}; point SELFEXTEND_LLAMA_SDIST at an .+\.",
        place.error(capsys),
    )


def test_the_named_sdist_is_missing(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    place.sdist.unlink()
    assert "which is not a file; point it at" in place.error(capsys)


def test_a_damaged_kept_sdist_is_downloaded_again(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sdist.SDIST_VARIABLE)
    pin = read_pin(place.folder / "pin")
    kept = place.cache / "sdists" / pin.sdist_name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(place.sdist.read_bytes()[:-9])
    monkeypatch.setattr(sdist, "_download", lambda pin, folder: place.sdist)
    assert sdist.fetch_sdist(pin).read_bytes() == place.sdist.read_bytes()


def test_a_patch_that_does_not_apply(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    place.repin({SOURCE: b"zero\none\ntwo\nthree\n"})
    assert place.error(capsys).startswith(
        f"0001-two.patch does not apply to the pinned source: {SOURCE}, hunk 1 (line 5 of the patch): line 6 of the "
        "patch expects 'one' at line 1 of the file, which is 'zero'; restore the patch"
    )


def test_a_patch_cut_short(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    (place.folder / "0001-two.patch").write_text(PATCH[:-7])
    assert "0001-two.patch is malformed: the hunk at line 5 breaks off at line 9; " in place.error(capsys)


def test_a_patch_header_with_a_stray_line(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    (place.folder / "0001-two.patch").write_text("nothing\n" + PATCH)
    assert "is malformed: header line 1 must be " in place.error(capsys)


@pytest.mark.parametrize("text", ["", "llama-cpp-python 0.3.36\n", "llama-cpp-python 0.3.36 sha256:12 selfextend.1\n"])
def test_a_malformed_pin(place: Workplace, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (place.folder / "pin").write_text(text)
    assert "pin is malformed: write one line " in place.error(capsys)


def test_a_missing_pin(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    (place.folder / "pin").unlink()
    assert "restore it from git." in place.error(capsys)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("../evil.patch\n", "entry 1 must be a name like 0001-what.patch, not '../evil.patch'."),
        ("0001-two.patch\n0001-two.patch\n", "it names 0001-two.patch twice; keep one of the two lines."),
        ("0001-two.patch\n0002-no.patch\n", "names 0002-no.patch, which does not exist; add the file or remove"),
    ],
)
def test_a_malformed_series(place: Workplace, capsys: pytest.CaptureFixture[str], text: str, sentence: str) -> None:
    (place.folder / "series").write_text(text)
    assert sentence in place.error(capsys)


def test_an_own_source_that_exists_upstream(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    (place.folder / "src" / "llama.cpp").write_text("")
    assert place.error(capsys).startswith(f"patches/src would overwrite {SOURCE} of the pinned source; rename")


def test_a_source_of_another_version(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    place.repin({"llama_cpp/__init__.py": b'__version__ = "0.3.37"\n'})
    assert 'does not say __version__ = "0.3.36" once; check that the version' in place.error(capsys)


def test_a_cache_folder_that_cannot_be_written(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    place.cache.write_text("a file in its place")
    sentence = place.error(capsys)
    assert sentence.startswith(f"the cache folder {place.cache} cannot be written (")
    assert sentence.endswith("or set SELFEXTEND_CACHE_DIR to a folder that can.")


def test_a_full_disk(place: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def write_files(files: dict[str, bytes], folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/tree/x.cpp")

    monkeypatch.setattr(backend, "write_files", write_files)
    assert place.error(capsys).startswith("the build cannot use /tmp/tree/x.cpp (No space left on device); free disk")


@pytest.mark.parametrize("hook", [backend.get_requires_for_build_editable, backend.build_editable])
def test_editable_is_refused(hook: Callable[[str], object], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        hook("")
    assert capsys.readouterr().err.endswith('run "pip install ./patches" without -e.\n')


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("CMake Error: No CMAKE_CXX_COMPILER could be found.", r"CMake found no C\+\+ compiler; install one .+\."),
        (
            "src/x.cpp:1:1: error: expected ';'",
            r"llama.cpp did not build: it says \"src/x.cpp:1:1: error: expected ';'\"; read the whole log in .+\.",
        ),
        (
            "CMake Error at ggml/CMakeLists.txt:258 (message):\n  CUDA Toolkit not found\n\n",
            r"llama.cpp did not build: it says 'CMake Error at .+ \(message\): CUDA Toolkit not found'; read .+\.",
        ),
        ("Killed", r"llama.cpp did not build: it says nothing of an error; read the whole log in .+\."),
    ],
)
def test_a_failed_build_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, sentence: str) -> None:
    monkeypatch.setattr(skbuild, "_RUN", f"print({said!r}); raise SystemExit(1)")
    with pytest.raises(BuildError) as caught:
        skbuild.call_hook("build_wheel", tmp_path, [], tmp_path / "log")
    assert re.fullmatch(sentence, str(caught.value))
    assert said in (tmp_path / "log").read_text()


def test_progress_is_printed_in_tenths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import json, sys\nfor n in range(137): print(f'[{n}/136] Building')\n"
    monkeypatch.setattr(skbuild, "_RUN", code + "open(json.loads(sys.argv[1])[2], 'w').write('[]')")
    assert skbuild.call_hook("build_wheel", tmp_path, [], tmp_path / "log") == []
    assert capsys.readouterr().out.splitlines() == [f"compiling llama.cpp: {n} %" for n in range(10, 101, 10)]


def test_settings_of_the_caller_win() -> None:
    settings = skbuild.lean_settings({"cmake.build-type": "Debug"}, Path("lean.cmake"))
    assert settings["cmake.build-type"] == "Debug"
    json.dumps(settings)


def test_the_sdist_of_this_folder_holds_every_patch(tmp_path: Path) -> None:
    name = backend.build_sdist(str(tmp_path))
    with tarfile.open(tmp_path / name) as tar:
        inside = {member.partition("/")[2] for member in tar.getnames()}
    assert {"pyproject.toml", "pin", "series", "PKG-INFO", "backend/__init__.py"} <= inside
    assert {patch.name for patch in read_series(PATCHES)} <= inside


def test_the_pin_names_its_files() -> None:
    pin = Pin("llama-cpp-python", "0.3.36", "0" * 64, 2)
    assert (pin.sdist_name, pin.patched_stem) == (f"{STEM}.tar.gz", f"{STEM}+selfextend.2")


# --- the patch writer's tools


@pytest.fixture
def workshop(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.setattr(tool, "FOLDER", place.folder)
    (place.folder / "README.md").write_text(f"{index.BEGIN}\n{index.END}\n")
    return place


def git(repository: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e", *arguments], check=True)


@pytest.mark.slow
def test_edits_in_a_repository_become_patches(workshop: Workplace, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    assert tool.main(["checkout", str(tree)]) == 0
    (tree / SOURCE).write_bytes(b"one\n2\n3\n")
    own = "vendor/llama.cpp/ggml/src/ggml-cpu/quick.cpp"
    (tree / own).parent.mkdir(parents=True)
    (tree / own).write_bytes(b"// quick\n")
    git(tree, "add", "-A")
    fields = "Patch: 0002-three\nTested-By: tests/x.py::test_x\nOwn: ggml-cpu/quick.cpp"
    git(tree, "commit", "-qm", f"Three is 3\n\nOf the kinds of three.\n\n{fields}")
    assert tool.main(["export", str(tree)]) == 0
    first, second = read_series(workshop.folder)
    assert (first.header_text, first.body) == (b"Subject: two is 2\n\n", PATCH[19:].encode())
    assert (second.name, second.paths, second.tested_by) == ("0002-three.patch", [SOURCE], ["tests/x.py::test_x"])
    assert second.header["Subject"] == "Three is 3\nOf the kinds of three."
    assert own_sources(workshop.folder / "src")[own] == b"// quick\n"
    assert second.name in (workshop.folder / "README.md").read_text()
    again = tmp_path / "again"
    assert tool.main(["checkout", str(again)]) == 0
    written = {file.name: file.read_bytes() for file in workshop.folder.glob("*.patch")}
    assert tool.main(["export", str(again)]) == 0
    assert {file.name: file.read_bytes() for file in workshop.folder.glob("*.patch")} == written


@pytest.mark.parametrize("conflict", [False, True])
def test_the_pin_moves_by_a_rebase(workshop: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conflict: bool) -> None:
    tree, new = tmp_path / "tree", tmp_path / "new.tar.gz"
    assert tool.main(["checkout", str(tree)]) == 0
    source = b"zero\n" + (b"one\nTWO\nthree\n" if conflict else b"one\ntwo\nthree\n")
    sha256 = make_sdist(new, {**FILES, SOURCE: source}, STEM.replace("36", "37"))
    monkeypatch.setattr(tool, "fetch_sdist", lambda pin: new)
    assert tool.main(["rebase", str(tree), "0.3.37", sha256]) == int(conflict)
    assert read_pin(workshop.folder / "pin") == Pin("llama-cpp-python", "0.3.37", sha256, 1)
    if conflict:
        (tree / SOURCE).write_bytes(b"zero\none\n2\nthree\n")
        git(tree, "add", "-A")
        git(tree, "-c", "core.editor=true", "rebase", "--continue")
        assert tool.main(["export", str(tree)]) == 0
    (patch,) = read_series(workshop.folder)
    assert b"+2\n" in patch.body
    assert patch.body.startswith(b"--- a/" + SOURCE.encode() + b"\n+++ b/" + SOURCE.encode() + b"\n@@ -1,4 +1,4 @@\n zero\n one\n")


@pytest.mark.parametrize(
    ("code", "failures", "errors", "skipped", "tests", "result"),
    [
        (0, 0, 0, 0, 1, "passed"),
        (1, 1, 0, 0, 1, "failed"),
        (1, 0, 1, 0, 1, "error"),
        (0, 0, 0, 1, 1, "skipped"),
        (1, 1, 0, 0, 2, "1 of 2 failed (exit 1)"),
        (4, 0, 0, 0, 0, "did not run (exit 4)"),
        (-6, 0, 0, 0, 0, "crashed (exit -6)"),
    ],
)
def test_a_proof_tells_failures_from_accidents(
    code: int, failures: int, errors: int, skipped: int, tests: int, result: str
) -> None:
    counts = {"tests": tests, "failures": failures, "errors": errors, "skipped": skipped}
    assert prove.verdict(code, {name: str(count) for name, count in counts.items()}) == result


@pytest.mark.process
def test_a_proof_runs_the_test_on_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove, "FOLDER", tmp_path / "patches")
    (tmp_path / "test_it.py").write_text(
        "import os\ndef test_lib(): assert os.environ['LLAMA_CPP_LIB_PATH'] == 'new'\n"
    )
    result = prove.run_test("test_it.py::test_lib", Path("old"))
    assert result == "failed"
    assert prove.Row("0001-x.patch", "test_lib", result, "passed").proven
    assert prove.Row("0001-x.patch", "test_lib", "crashed (exit -6)", "passed").proven
    assert not prove.Row("0001-x.patch", "test_lib", "failed", "crashed (exit -6)").proven
    assert not prove.Row("0001-x.patch", "test_lib", "error", "passed").proven


# --- the diff applier

texts = st.none() | st.lists(st.sampled_from([b"a", b"b", b"\r", b"- x", b"", b"\x0c@@"]), max_size=30).flatmap(
    lambda lines: st.sampled_from([b"\n".join(lines), b"".join(line + b"\n" for line in lines)])
)


def rendered(old: bytes | None, new: bytes | None) -> bytes:
    """The diff of a file f, None for one that doesn't exist."""
    names = (b"/dev/null" if old is None else b"a/f", b"/dev/null" if new is None else b"b/f")
    lines = difflib.diff_bytes(
        difflib.unified_diff, diff.split_lines(old or b""), diff.split_lines(new or b""), *names, lineterm=b"\n"
    )
    return b"".join(line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in lines)


@pytest.mark.slow
@given(texts, texts)
def test_a_diff_turns_old_into_new(old: bytes | None, new: bytes | None) -> None:
    body = rendered(old, new)
    if not body:
        assert (old or b"") == (new or b"")
        return
    (parsed,) = diff.parse(body)
    assert diff.apply(parsed, old) == new


@pytest.mark.parametrize(
    "moved", [b"new\none\ntwo\nthree\n", b"two\nthree\n", b"one\ntwo \nthree\n", b"one\ntwo\nthree"]
)
def test_neither_fuzz_nor_offset(moved: bytes) -> None:
    (parsed,) = diff.parse(b"--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n")
    with pytest.raises(diff.DiffError):
        diff.apply(parsed, moved)


def test_git_headers_are_read() -> None:
    body = b"diff --git a/f b/f\nnew file mode 100644\nindex 0000000..1\n--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+x\n"
    (created,) = diff.parse(body)
    assert diff.apply(created, None) == b"x\n"
    with pytest.raises(diff.DiffError, match="exists already"):
        diff.apply(created, b"")


@pytest.mark.parametrize(
    "body",
    [
        b"--- a/../f\n+++ b/../f\n@@ -1 +1 @@\n-a\n+b\n",
        b"--- a//etc/f\n+++ b//etc/f\n@@ -1 +1 @@\n-a\n+b\n",
        b"--- a/f\n+++ b/g\n@@ -1 +1 @@\n-a\n+b\n",
        b"diff --git a/f b/g\nrename from f\nrename to g\n",
        b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\nleft over\n",
        b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n a\n+b\n",
        b"--- a/f\n+++ b/f\n",
    ],
)
def test_a_malformed_diff_is_refused(body: bytes) -> None:
    with pytest.raises(diff.DiffError):
        diff.parse(body)


VARIANTS = b"""if (GGML_SYSTEM_ARCH STREQUAL "x86")
    ggml_add_cpu_backend_variant(x64)
        ggml_add_cpu_backend_variant(haswell            SSE42 AVX F16C FMA AVX2 BMI2)
    ggml_add_cpu_backend_variant(sse42              SSE42)
endif()
"""
LOADS = b"_lib = load_shared_library(_lib_base_name, _base_path)\n"
PORTABLE_TREE = {"vendor/llama.cpp/ggml/src/CMakeLists.txt": VARIANTS, "llama_cpp/llama_cpp.py": b"import x\n" + LOADS + b"\nrest = 1\n"}


def test_a_portable_wheel_loads_the_library_of_this_cpu() -> None:
    tree = portable.portable_tree(PORTABLE_TREE, "all", PATCHES)
    assert tree["vendor/llama.cpp/ggml/src/CMakeLists.txt"] == VARIANTS
    module = tree["llama_cpp/llama_cpp.py"].decode()
    assert module.index("_lib = ") < module.index("load_backends(_base_path)") < module.index("rest = 1")
    compile(tree["llama_cpp/_backends.py"], "_backends.py", "exec")
    with pytest.raises(BuildError, match="loads its library otherwise"):
        portable.portable_tree({**PORTABLE_TREE, "llama_cpp/llama_cpp.py": b""}, "all", PATCHES)


def test_a_portable_wheel_may_have_some_kinds_of_cpu_only() -> None:
    cmake = portable.portable_tree(PORTABLE_TREE, "haswell,sse42", PATCHES)["vendor/llama.cpp/ggml/src/CMakeLists.txt"].decode()
    assert "(haswell " in cmake and "(sse42 " in cmake and "(x64)" not in cmake and cmake.startswith("if (") and cmake.endswith("endif()\n")
    with pytest.raises(BuildError, match="no variant zen9; it has haswell, sse42, x64"):
        portable.portable_tree(PORTABLE_TREE, "zen9", PATCHES)


def test_the_settings_of_a_portable_wheel() -> None:
    own = skbuild.lean_settings(None, Path("lean.cmake"))
    settings = portable.portable_settings({"portable": "all", "cmake.build-type": "Debug"}, own, Path("patches"))
    assert "portable" not in settings and settings["cmake.build-type"] == "Debug"
    assert settings["cmake.define.GGML_NATIVE"] == settings["cmake.define.GGML_OPENMP"] == "OFF"
    assert settings["cmake.define.GGML_CPU_ALL_VARIANTS"] == "ON"
    assert settings["cmake.define.CMAKE_PROJECT_llama.cpp_INCLUDE"] == "patches/portable/portable.cmake"


def test_a_wheel_with_a_file_twice_or_without_types_is_told(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    contents = {"a/__init__.py": "", "a/lib/libggml.so": "one", "a/lib/libggml.so.0": "one", "a/lib/libllama.so": "two"}
    for more, said in (({}, 2), ({"a/py.typed": ""}, 1)):
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in {**contents, **more}.items():
                archive.writestr(name, data)
        told = try_wheels.doubtful(wheel)
        assert len(told) == said and told[0].endswith("a/lib/libggml.so.0 is a/lib/libggml.so again")


@pytest.mark.skipif(sys.platform != "linux", reason="for wheels for Linux")
def test_zigs_compilers_are_named_by_what_they_are(tmp_path: Path) -> None:
    """The wrapper calls the zig of its own environment, for glibc 2.28."""
    programs, zig = tmp_path / "bin", tmp_path / "lib" / "python3.11" / "site-packages" / "ziglang" / "zig"
    for folder in (programs, zig.parent):
        folder.mkdir(parents=True)
    zig.write_text('#!/bin/sh\necho "$@"\n')
    zig.chmod(0o755)
    for name in ("cc", "c++"):
        shutil.copy(PATCHES / "portable" / "zig-cc", programs / f"zig-{name}")
        target = f"-target {platform.machine()}-linux-gnu.2.28 "
        for asked, said in (("-c", f"{name} {target}-c\n"), ("--version", f"{name} --version\n")):  # zig knows no version of that target
            assert subprocess.run([programs / f"zig-{name}", asked], capture_output=True, text=True, check=True).stdout == said


def test_only_a_portable_wheel_depends_on_its_files(place: Workplace) -> None:
    (place.folder / "portable").mkdir()
    file = place.folder / "portable" / "portable.cmake"
    keys = []
    for text in ("one", "two"):
        file.write_text(text)
        keys.append((key.wheel_key(place.folder, None), key.wheel_key(place.folder, {"portable": "all"})))
    assert keys[0][0] == keys[1][0] and len({*keys[0], keys[1][1]}) == 3


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loader finds no missing name")
def test_a_proof_stands_in_for_functions_of_later_patches(tmp_path: Path) -> None:
    library = tmp_path / "libllama.so"
    source = "int llama_recall(void); int llama_now(void) { return llama_recall() + 1; }"
    subprocess.run(["cc", "-x", "c", "-shared", "-fPIC", "-", "-o", str(library)], input=source, text=True, check=True)
    prove.write_later(library)
    script = f"import ctypes; print(ctypes.CDLL({str(library)!r}).llama_now())"
    environment = {**os.environ, "LD_PRELOAD": str(tmp_path / prove.LATER)}
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
    assert said == "1\n"
