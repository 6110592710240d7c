# make demo: set-up, then train, predict, evaluate and report on bundled real images.   make test: set-up, then the tests.
.PHONY: demo test test-all test-study test-faults fuzz fuzz-guided test-web lint docs paper bench wheel clean
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
BIN := $(VENV)/bin
READY := $(VENV)/.ready

demo: $(VENV)/.installed
	$(BIN)/somite demo --out runs/demo

test: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n 2 --dist worksteal -q -m "not slow and not gpu and not fault" $(ARGS)

test-all: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n 2 --dist worksteal $(ARGS)

test-study: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -q -m slow tests/study

# Kills, full disks, hostile and broken files: what may happen to a run, and loses nothing. About a quarter of an hour on two cores.
test-faults: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -q tests/faults tests/trainer/test_alone.py tests/trainer/test_resume.py $(ARGS)

# The same broken files by the hundred thousand; SEED draws others.
fuzz: $(READY)
	PYTHONPATH=tests:tests/faults $(BIN)/python tests/faults/fuzz_all.py --count $(or $(COUNT),100000) --seed $(or $(SEED),0)

# The same readers, led by which of their code a file reaches: SECONDS_EACH of each kind.
fuzz-guided: $(READY)
	$(BIN)/pip install -q -c constraints.txt atheris
	PYTHONPATH=tests:tests/faults $(BIN)/python tests/faults/fuzz_guided.py --seconds $(or $(SECONDS_EACH),60) --seed $(or $(SEED),0)

# The page of `somite web` in headless Chromium; skipped, with the reason, where there is none.
test-web: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -q -rs -m slow tests/web

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell src docs tests README.md CHANGELOG.md CONTRIBUTING.md
	$(BIN)/pyright

docs: $(READY)
	$(BIN)/mkdocs build --strict

paper: $(VENV)/.installed
	$(BIN)/python paper/render.py

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/automaton.py
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/geca.py
	$(BIN)/python benchmarks/sdseg.py
	$(BIN)/python benchmarks/features.py
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/reproducibility.py

# Builds sdist and wheel into dist/ and tries them in empty environments; makes its own.
wheel:
	.ci/wheel $(PYTHON)

clean:
	rm -rf .venv .venv-highest site

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit('somite needs Python 3.11 or newer; try: make PYTHON=python3.12') if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv $(VENV)

# What running needs, and what developing needs beside it; the versions are those of constraints.txt.
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(READY): $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@
