"""Build llama-server for `selfextend serve --parallel`: `make llama-server`.

It is llama.cpp's own from the patched source, with the patches of `server/` on top, and runs on the libraries of the wheel that is
installed: what those don't have is compiled. The program goes to the cache folder, into `programs/VERSION-KEY`; its path is printed.
Built once for each KEY. CMAKE_ARGS goes to CMake.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shlex
import sys
import tempfile
from pathlib import Path

from backend.cache import cache_root, replace_file
from backend.errors import BuildError
from backend.key import wheel_key
from backend.pin import Pin, read_pin
from backend.sdist import fetch_sdist
from backend.series import read_series, series_names
from backend.toolchain import cpu_count, require_compilers, run
from backend.tree import own_sources, patched_files, write_files

FOLDER = Path(__file__).resolve().parent
SERVER = FOLDER / "server"
NAME = "llama-server"
LLAMA = "vendor/llama.cpp"


def key() -> str:
    """Changes whenever the program might."""
    inputs = [wheel_key(FOLDER, None), os.environ.get("CMAKE_ARGS", "")]
    files = [Path(__file__), SERVER / "CMakeLists.txt", SERVER / "series", *(SERVER / name for name in series_names(SERVER))]
    return hashlib.sha256("\0".join(inputs + [file.read_text(encoding="utf-8") for file in files]).encode()).hexdigest()[:16]


def unpack(pin: Pin, folder: Path) -> Path:
    """The source of the program, below `folder`."""
    patches = [*read_series(FOLDER), *read_series(SERVER)]
    sources = patched_files(fetch_sdist(pin), pin, patches, own_sources(FOLDER / "src"), everything=True)
    sources[f"{LLAMA}/CMakeLists.txt"] = (SERVER / "CMakeLists.txt").read_bytes()
    write_files({path: data for path, data in sources.items() if path.startswith(f"{LLAMA}/")}, folder)
    return folder / LLAMA


def libraries(pin: Pin) -> Path:
    """The folder of the installed libraries. Raises BuildError if they aren't those of this source."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None or importlib.metadata.version(pin.package) != pin.patched_version:
        raise BuildError(f"{pin.package} {pin.patched_version} isn't installed; run `pip install ./patches`, then the command again.")
    return Path(found.origin).parent / "lib"


def compile_program(source: Path, built: Path, libraries: Path) -> Path:
    arguments = [f"-DSELFEXTEND_LIBRARIES={libraries}", *shlex.split(os.environ.get("CMAKE_ARGS", ""))]
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(cpu_count()))
    failed = f"{NAME} did not build; read the compiler's words above, mend their cause and run the command again."
    run("cmake", "-S", str(source), "-B", str(built), "-G", "Ninja", *arguments, failed=failed)
    run("cmake", "--build", str(built), "--target", NAME, "--parallel", jobs, failed=failed)
    return built / "bin" / NAME


def main() -> int:
    try:
        require_compilers(os.environ.get("CMAKE_ARGS", ""))
        pin = read_pin(FOLDER / "pin")
        target = cache_root() / "programs" / f"{pin.patched_version}-{key()}" / NAME
        if not target.is_file():
            with tempfile.TemporaryDirectory(prefix="selfextend-") as scratch:
                source = unpack(pin, Path(scratch) / "tree")
                replace_file(compile_program(source, Path(scratch) / "build", libraries(pin)), target)
            target.chmod(0o755)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
