# make demo: set-up, then train, predict, evaluate and report on bundled real images.   make test: set-up, then the tests.
.PHONY: demo test test-all test-study lint docs bench clean
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

demo: .venv/.installed
	$(BIN)/somite demo --out runs/demo

test: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n 2 --dist worksteal -q -m "not slow and not gpu" $(ARGS)

test-all: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n 2 --dist worksteal $(ARGS)

test-study: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -q -m slow tests/study

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell src docs tests README.md CHANGELOG.md CONTRIBUTING.md
	$(BIN)/pyright

docs: $(READY)
	$(BIN)/mkdocs build --strict

bench: .venv/.installed
	$(BIN)/python benchmarks/automaton.py
	$(BIN)/python benchmarks/sampling.py

clean:
	rm -rf .venv site

.venv/bin/python:
	$(PYTHON) -c "import sys; sys.exit('somite needs Python 3.11 or newer; try: make PYTHON=python3.12') if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv .venv

# What running needs, and what developing needs beside it; the versions are those of constraints.txt.
.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(READY): .venv/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
