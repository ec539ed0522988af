#!/bin/sh
# Build the Vulkan backend and run the native tests on it, in a checkout with an installed .venv. No GPU is needed: Mesa's
# software driver (lavapipe) will do. Logs go to OUT.
#
#   docs/benchmarks/vulkan.sh OUT [STEP...]      steps: build test (both without an argument)
#
# Debian: mesa-vulkan-drivers libvulkan-dev glslc spirv-headers cmake ninja-build. Debian 12's libvulkan-dev is too old.
# VULKAN_HEADERS: the folder that has vulkan/vulkan.h, /usr/include by default; unpack Debian 13's libvulkan-dev for it (dpkg-deb -x).
# GGML_VK_VISIBLE_DEVICES: which device, 0 by default; ggml uses a CPU device only when it is named here.
# WORK: source, build and libraries, /tmp/selfextend-vulkan by default. JOBS: compile jobs, 2 by default.
set -eu
cd "$(dirname "$0")/../.."
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
steps=${*:-build test}
work=${WORK:-/tmp/selfextend-vulkan}
headers=${VULKAN_HEADERS:-/usr/include}
python=$PWD/.venv/bin/python
export GGML_VK_VISIBLE_DEVICES="${GGML_VK_VISIBLE_DEVICES:-0}"

log() { echo "$(date +%T) $*"; }

build() {
    if ! grep -q VK_EXT_layer_settings "$headers/vulkan/vulkan_core.h"; then
        echo "$headers/vulkan lacks VK_EXT_layer_settings, which llama.cpp needs; set VULKAN_HEADERS to newer headers." >&2
        exit 1
    fi
    "$python" patches/tool.py prepare "$work/source"
    log "configure"
    cmake -S "$work/source" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAVA_BUILD=OFF -DGGML_VULKAN=ON -DVulkan_INCLUDE_DIR="$headers" \
        -DCMAKE_PROJECT_llama.cpp_INCLUDE="$PWD/patches/lean.cmake" >"$out/configure.log" 2>&1 || { tail -20 "$out/configure.log"; exit 1; }
    # libllama knows no backend: the one of the installed wheel is the same, and compiling it anew would take as long as the shaders
    log "compile"
    nice -n 19 cmake --build "$work/build" --target ggml --parallel "${JOBS:-2}" >"$out/build.log" 2>&1 || { tail -40 "$out/build.log"; exit 1; }
    rm -rf "$work/lib"
    cp -r "$("$python" -c 'import importlib.util as i; print(i.find_spec("llama_cpp").submodule_search_locations[0])')/lib" "$work/lib"
    find "$work/build" -name 'libggml*.so*' -exec cp -a {} "$work/lib/" \;
    log "built: $(ls "$work/lib" | tr '\n' ' ')"
}

run_tests() {
    log "native tests"
    # a driver on the CPU uses all of it by itself
    OMP_NUM_THREADS=1 LLAMA_CPP_LIB_PATH="$work/lib" SELFEXTEND_TEST_GPU_LAYERS=99 nice -n 10 "$python" -m pytest tests/native -q \
        -p no:cacheprovider --tb=short -rfEs --durations=20 ${PYTEST_ARGUMENTS:-} >"$out/tests.log" 2>&1 || true
    tail -40 "$out/tests.log"
}

for step in $steps; do
    case $step in
    build) build ;;
    test) run_tests ;;
    *) echo "unknown step $step" >&2; exit 2 ;;
    esac
done
log done
