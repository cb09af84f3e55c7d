# Each target sets up what it needs, once: a virtual environment in VENV, with the versions of constraints.txt.

VENV ?= .venv
PYTHON ?= python3
WORKERS ?= 2
MINUTES ?= 10
FAULTS ?= fault and not slow
BENCH ?= --data hf_tuner/demo/customer_messages --rows 512

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALL := $(PIP) install --quiet --retries 10 --timeout 60 --disable-pip-version-check
DEMO := $(VENV)/.ready-demo
DEV := $(VENV)/.ready-dev
INPUTS := pyproject.toml setup.py constraints.txt

# Two test workers on two cores: one thread each, or they fight for the cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

export PIP_ROOT_USER_ACTION = ignore

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all faults support fuzz lint format types docs audit wheel bench ready clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' \
	  | awk -F '\t' '{ printf "  make %-9s %s\n", $$1, $$2 }'

demo: $(DEMO) ## train, prove and predict with the embedded model and data
	$(BIN)/hf-tuner demo

test: $(DEV) ## every test that takes seconds
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-all: $(DEV) ## the slow tests on real data as well
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m ""

faults: $(DEV) ## run the tests of the fault matrix and write docs/faults.md
	$(ONE_THREAD) $(BIN)/python tests/fault_page.py -m "$(FAULTS)"

support: $(DEV) ## run every method for every task and write docs/support.md
	$(ONE_THREAD) $(BIN)/python tests/support_page.py

fuzz: $(DEV) ## feed damaged files to every door for MINUTES
	$(ONE_THREAD) $(BIN)/python tests/fuzz.py $(MINUTES)

lint: $(DEV) ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV) ## mend what lint finds, where that is safe
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV) ## static types
	$(BIN)/mypy

docs: $(DEV) ## the documentation, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

audit: $(DEV) ## known vulnerabilities in what is installed
	$(BIN)/python .ci/audit.py

wheel: $(DEV) ## the wheel, into dist/, and a look at what is in it
	rm -rf build dist
	$(BIN)/python -m build --quiet --wheel
	rm -rf build
	$(BIN)/python .ci/check_wheel.py dist

bench: $(DEV) ## how fast training is beside a plain Trainer
	$(BIN)/python benchmarks/speed.py $(BENCH)

ready: $(DEV) ## the environment alone

clean: ## remove what was built (not the environment, not runs/)
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("hf-tuner needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip

$(DEMO): $(INPUTS) | $(BIN)/python
	$(INSTALL) -c constraints.txt -e ".[demo]"
	touch $@

$(DEV): $(INPUTS) | $(BIN)/python
	$(INSTALL) -c constraints.txt -e ".[demo,dev]"
	touch $(DEMO) $@
