"""PEP 517 backend of the patched llama-cpp-python: pin, fetch, patch, compile once, keep the wheel.

This module is the only one that knows the order of those steps, and the only place where an error becomes
one printed sentence. What each step does is its own module's: `pin`, `sdist`, `series` and `diff`, `tree`,
`skbuild`, `key`, `cache`.
"""

from __future__ import annotations

import functools
import io
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from .cache import cache_root, find_wheel, store_wheel, writable
from .errors import BuildError
from .key import ConfigSettings, configured_arguments, wheel_key
from .pin import read_pin
from .portable import portable_settings, portable_tree, variants
from .sdist import fetch_sdist
from .series import read_series
from .skbuild import call_hook, lean_settings
from .toolchain import require_compilers
from .tree import metadata_files, own_sources, patched_files, write_files

FOLDER = Path(__file__).resolve().parent.parent

Result = TypeVar("Result")


def _hook(function: Callable[..., Result]) -> Callable[..., Result]:
    """A BuildError leaves as one line on stderr and exit status 1: front ends show that instead of a traceback."""

    @functools.wraps(function)
    def wrapper(*arguments: object, **named: object) -> Result:
        try:
            return function(*arguments, **named)
        except BuildError as error:
            sentence = str(error)
        except OSError as error:
            name, reason = error.filename or "a file", error.strerror or error
            sentence = f"the build cannot use {name} ({reason}); free disk space or mend its permissions and try again."
        print(f"error: {sentence}", file=sys.stderr, flush=True)
        raise SystemExit(1)

    return wrapper


@_hook
def get_requires_for_build_wheel(config_settings: ConfigSettings | None = None) -> list[str]:
    """What scikit-build-core asks for (cmake, ninja), or nothing when the wheel is in the cache."""
    if find_wheel(wheel_key(FOLDER, config_settings)) is not None:
        return []
    arguments = [_settings(config_settings)]
    requires: list[str] = call_hook("get_requires_for_build_wheel", FOLDER, arguments, _log("requires"))
    return requires


@_hook
def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: ConfigSettings | None = None) -> str:
    cached = find_wheel(wheel_key(FOLDER, config_settings))
    if cached is not None:
        return _unpack_metadata(cached, Path(metadata_directory))
    pin = read_pin(FOLDER / "pin")
    sdist = fetch_sdist(pin)
    with tempfile.TemporaryDirectory(prefix="selfextend-") as tree:
        write_files(metadata_files(sdist, pin), Path(tree))
        arguments = [str(Path(metadata_directory).absolute()), _settings(config_settings)]
        name: str = call_hook("prepare_metadata_for_build_wheel", Path(tree), arguments, _log("metadata"))
    return name


@_hook
def build_wheel(
    wheel_directory: str,
    config_settings: ConfigSettings | None = None,
    metadata_directory: str | None = None,
) -> str:
    key = wheel_key(FOLDER, config_settings)
    wheel = find_wheel(key)
    if wheel is None:
        wheel = _compile(key, config_settings)
    else:
        print(f"using the finished wheel {wheel}", flush=True)
    shutil.copyfile(wheel, Path(wheel_directory) / wheel.name)
    return wheel.name


@_hook
def build_sdist(sdist_directory: str, config_settings: ConfigSettings | None = None) -> str:
    """This folder as it is; the pinned source is fetched when a wheel is built from it."""
    pin = read_pin(FOLDER / "pin")
    stem = pin.patched_stem
    info = f"Metadata-Version: 2.1\nName: {pin.package}\nVersion: {pin.patched_version}\n".encode()
    with tarfile.open(Path(sdist_directory) / f"{stem}.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for file in _sdist_files():
            tar.add(file, f"{stem}/{file.relative_to(FOLDER).as_posix()}", recursive=False)
        member = tarfile.TarInfo(f"{stem}/PKG-INFO")
        member.size = len(info)
        tar.addfile(member, io.BytesIO(info))
    return f"{stem}.tar.gz"


@_hook
def get_requires_for_build_editable(config_settings: ConfigSettings | None = None) -> list[str]:
    raise BuildError('the patched llama-cpp-python cannot be editable; run "pip install ./patches" without -e.')


@_hook
def build_editable(
    wheel_directory: str,
    config_settings: ConfigSettings | None = None,
    metadata_directory: str | None = None,
) -> str:
    raise BuildError('the patched llama-cpp-python cannot be editable; run "pip install ./patches" without -e.')


def _compile(key: str, settings: ConfigSettings | None) -> Path:
    require_compilers(configured_arguments(settings))
    pin, patches, log = read_pin(FOLDER / "pin"), read_series(FOLDER), _log(key)
    sdist = fetch_sdist(pin)
    with tempfile.TemporaryDirectory(prefix="selfextend-") as scratch:
        tree, finished = Path(scratch) / "tree", Path(scratch) / "wheel"
        files = patched_files(sdist, pin, patches, own_sources(FOLDER / "src"))
        chosen = variants(settings)
        write_files(portable_tree(files, chosen, FOLDER) if chosen else files, tree)
        print(f"applied {len(patches)} patches to {pin.package} {pin.version}; compiling takes minutes", flush=True)
        name = call_hook("build_wheel", tree, [str(finished), _settings(settings), None], log)
        return store_wheel(key, finished / name)


def _settings(given: ConfigSettings | None) -> dict[str, str | list[str]]:
    if variants(given):
        return portable_settings(given or {}, lean_settings(None, FOLDER / "lean.cmake"), FOLDER)
    return lean_settings(given, FOLDER / "lean.cmake")


def _log(name: str) -> Path:
    folder = cache_root() / "logs"
    with writable(folder):
        folder.mkdir(exist_ok=True)
        log = folder / f"{name}.log"
        log.touch()
    return log


def _unpack_metadata(wheel: Path, target: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.partition("/")[0].endswith(".dist-info")]
        archive.extractall(target, [name for name in names if not name.endswith("/RECORD")])
    return names[0].partition("/")[0]


def _sdist_files() -> Iterator[Path]:
    for file in sorted(FOLDER.rglob("*")):
        folders = file.relative_to(FOLDER).parts[:-1]
        if file.is_file() and not any(name == "__pycache__" or name.startswith(".") for name in folders):
            yield file
