#!/bin/sh
# Pack what a bare GPU machine needs into FOLDER: the patched source without tools and other backends, this checkout's
# Python, the Python half of llama-cpp-python, and wheels. About 8 MB. Then, on that machine: sh FOLDER/cuda.sh OUT
#
#   docs/benchmarks/pack.sh FOLDER [PYTHON_VERSION_THERE]       (in a checkout with an installed .venv)
set -eu
folder=$1 python_there=${2:-3.12}
python=.venv/bin/python
mkdir -p "$folder/wheels"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

$python patches/tool.py prepare "$work/llama"
(
    cd "$work/llama/vendor/llama.cpp"
    rm -rf tools examples tests app benches docs media models gguf-py conversion skills pocs ci .github .devops vendor/cpp-httplib
    cd ggml/src
    rm -rf ggml-cann ggml-et ggml-hexagon ggml-hip ggml-metal ggml-musa ggml-opencl ggml-openvino ggml-rpc ggml-sycl ggml-virtgpu \
        ggml-vulkan ggml-webgpu ggml-zdnn ggml-zendnn ggml-blas
)
tar -C "$work" -cJf "$folder/llama.tar.xz" llama
git archive --format=tar.gz -o "$folder/checkout.tar.gz" HEAD
package=$($python -c 'import importlib.util as i; print(i.find_spec("llama_cpp").submodule_search_locations[0])')
tar -C "$(dirname "$package")" --exclude=lib --exclude=server --exclude=__pycache__ -czf "$folder/llama_cpp.tar.gz" llama_cpp
$python -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version "$python_there" \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d "$folder/wheels" \
    diskcache gguf platformdirs psutil rich markdown-it-py mdurl pygments jinja2 markupsafe typing-extensions click pypdf pypdfium2 filelock xxhash
cp docs/benchmarks/cuda.sh "$folder/"
du -sh "$folder"
