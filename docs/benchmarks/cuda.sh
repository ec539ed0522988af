#!/bin/sh
# Build the patched library for the GPU of this machine, test it and measure it. Results and libraries go to OUT.
#
#   sh cuda.sh OUT [STEP...]      steps: build test bench together (the first three without an argument)
#
# BACKEND: cuda (default) or cpu, which rehearses everything on a machine without a GPU.
# LIBRARIES: a folder with libraries of an earlier build, instead of the step build.
# Needs cmake, ninja, a compiler, nvcc, Python >= 3.10 with numpy and pytest. Fetches nothing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
steps=${*:-build test bench}
backend=${BACKEND:-cuda}
work=${WORK:-/tmp/selfextend-gpu}
models=$work/models
site=$work/site
libraries=${LIBRARIES:-$work/lib}
[ "$backend" = cuda ] && layers=99 || layers=0

log() { echo "$(date +%T) $*"; }

unpack() {
    [ -d "$site" ] && return
    mkdir -p "$work/checkout" "$site" "$models"
    tar -C "$work" -xJf "$here/llama.tar.xz"
    tar -C "$work/checkout" -xzf "$here/checkout.tar.gz"
    tar -C "$site" -xzf "$here/llama_cpp.tar.gz"
    mkdir -p "$site/llama_cpp/lib"
    ln -s "$work/checkout/selfextend_local" "$site/selfextend_local"
    ln -s "$work/checkout/cli" "$site/selfextend_cli"
    for wheel in "$here"/wheels/*.whl; do
        python3 -m zipfile -e "$wheel" "$site"
    done
}

build() {
    if [ "$backend" = cuda ]; then
        arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
        set -- -DGGML_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$arch-real" -DGGML_CUDA_NCCL=OFF -DGGML_CUDA_COMPRESSION_MODE=none
    fi
    log "configure $*"
    cmake -S "$work/llama" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAVA_BUILD=OFF \
        -DCMAKE_PROJECT_llama.cpp_INCLUDE="$work/checkout/patches/lean.cmake" "$@" >"$out/configure.log" 2>&1 ||
        { tail -20 "$out/configure.log"; exit 1; }
    log "compile"
    cmake --build "$work/build" --target llama --parallel >"$out/build.log" 2>&1 || { tail -40 "$out/build.log"; exit 1; }
    mkdir -p "$libraries"
    find "$work/build" -name 'lib*.so*' -exec cp -a {} "$libraries/" \;
    log "built: $(du -sh "$libraries" | cut -f1)"
    # a static copy of libstdc++ in a library shadows the system's in Python, and std::regex crashes
    for library in "$libraries"/lib*.so; do
        echo "$(basename "$library") exports $(nm -D --defined-only "$library" | grep -c ' _ZNSt\| _ZNKSt\| _ZSt' || true) symbols of std"
    done
    # split, so that each piece is small enough to be carried
    if command -v zstd >/dev/null; then
        tar -C "$libraries" -c . | zstd -T0 -10 -q | split -b 15M - "$out/lib.tar.zst."
    else
        tar -C "$libraries" -c . | xz -T0 -2 | split -b 15M - "$out/lib.tar.xz."
    fi
    ls -la "$out"
}

run_tests() {
    log "native tests on $backend"
    # TF32 has ten bits of mantissa: the tests compare with a float32 reference
    (cd "$work/checkout" && NVIDIA_TF32_OVERRIDE=0 SELFEXTEND_TEST_GPU_LAYERS=$layers \
        python3 -m pytest tests/native -q -p no:cacheprovider --tb=line -rfE ${PYTEST_ARGUMENTS:-} >"$out/tests.log" 2>&1) || true
    tail -40 "$out/tests.log"
}

shaped() { # SHAPE
    [ -f "$models/$1.gguf" ] || { log "write $1"; python3 "$work/checkout/docs/benchmarks/shaped_model.py" "$1" "$models/$1.gguf"; }
}

together() { # SHAPE
    shaped "$1"
    log "several sequences of $1"
    python3 "$work/checkout/docs/benchmarks/together.py" --model "$models/$1.gguf" --gpu-layers "$layers" --counts 1,2,4,8,16 |
        tee "$out/together-$1.txt"
}

bench() { # NAME SHAPE TOKENS GROUP_SIZE WINDOW KV_TYPE [MODE]
    file=$models/$2.gguf
    shaped "$2"
    log "bench $1"
    python3 -m selfextend_cli.bench --model "$file" --tokens "$3" --ga-n "$4" --ga-w "$5" --kv-type "$6" \
        --ga-mode "${7:-two-level}" --gpu-layers "$layers" --passes "${PASSES:-3}" --json >"$out/bench-$1.json" 2>"$out/bench-$1.log" || tail -5 "$out/bench-$1.log"
    grep -v '^prefill\|^decode at' "$out/bench-$1.log" || true
}

unpack
export PYTHONPATH="$site" LLAMA_CPP_LIB_PATH="$libraries" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
[ "$backend" = cuda ] && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$out/device.txt"
for step in $steps; do
    case $step in
    build) build ;;
    test) run_tests ;;
    bench)
        bench smollm2-32k smollm2 "${TOKENS:-32768}" 8 512 f16
        bench smollm2-32k-q8_0 smollm2 "${TOKENS:-32768}" 8 512 q8_0
        bench mistral-32k mistral-7b "${TOKENS:-32768}" 8 1024 f16
        bench smollm2-64k smollm2 "${TOKENS:-65536}" 16 512 f16
        bench smollm2-32k-progressive smollm2 "${TOKENS:-32768}" 64 1024 f16 progressive
        bench mistral-32k-progressive mistral-7b "${TOKENS:-32768}" 16 1024 f16 progressive
        bench smollm2-64k-progressive smollm2 "${TOKENS:-65536}" 64 1024 f16 progressive
        ;;
    together)
        together smollm2
        together mistral-7b
        ;;
    *) echo "unknown step $step" >&2; exit 2 ;;
    esac
done
log done
