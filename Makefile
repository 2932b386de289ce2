# Everything a person types. Each target first makes .venv, from nothing but Python >= 3.11, git and make.
.DEFAULT_GOAL := help
.PHONY: help repro ui test test-all lint setup setup-tests deps docs lock moved
BIN := .venv/bin
STAMP := .venv/installed
TESTS_STAMP := .venv/installed-tests
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --no-loadscope-reorder
# Processes that wait for each other: nothing else runs beside them, nor before them in the same process.
ALONE := tests/training/test_distributed.py
SYSTEM_PATH := $(PATH)
# Stages say `python` and mean the one of .venv.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Whatever an image of containers sets: without bytecode each process compiles PyTorch and MLflow anew, for seconds.
export PYTHONDONTWRITEBYTECODE :=

help:  ## list these commands
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

repro: setup  ## train whatever is out of date, end to end, and register it; RECIPE=name writes that recipe to params.yaml first
	$(if $(RECIPE),$(BIN)/darkroom recipe use $(RECIPE))
	@$(BIN)/darkroom params check
	$(BIN)/dvc repro
	$(BIN)/darkroom register

ui: setup  ## look at runs, pictures and models in the browser (MLflow)
	$(BIN)/darkroom ui

test: setup-tests  ## the tests, in a few minutes
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow" --ignore $(ALONE)
	$(BIN)/python -m pytest -m "not slow" $(ALONE)

test-all: setup-tests  ## the tests and the slowest proofs
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --ignore $(ALONE)
	$(BIN)/python -m pytest $(ALONE)

lint: setup-tests  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src tests

docs: setup  ## write docs/parameters.md anew from the classes of the parameters
	$(BIN)/python -m darkroom.config.explain docs/parameters.md

deps: setup  ## list in dvc.yaml the code that each stage runs
	$(BIN)/python -m tests.support.dependencies

setup-tests: setup $(TESTS_STAMP)

# DVC needs git, or to be told that there is none: here, or around this folder but not for it.
setup: $(STAMP)  ## make or refresh .venv (every other target does this too)
	@if [ -e .git ] || git ls-files --error-unmatch dvc.yaml >/dev/null 2>&1; then \
		if grep -qs 'no_scm = true' .dvc/config.local; then $(BIN)/dvc config --local --unset core.no_scm; fi; \
	elif ! grep -qs 'no_scm = true' .dvc/config.local; then \
		echo "No git repository here: DVC is told to work without one."; \
		printf '[core]\n    no_scm = true\n' >> .dvc/config.local; \
	fi

# The scripts of a virtual environment hold its path: in a folder that was moved or copied it is made again.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): moved
endif

# uv reads none of pip's settings, so a folder of local wheels is handed on to it.
INSTALL = wheels="$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)}"; \
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$(echo $$wheels | tr ' ' ,)}" $(BIN)/uv pip install --quiet --python $(BIN)/python

# PYTHON=… names the interpreter.
$(STAMP): requirements.lock pyproject.toml
	@case "$$(pwd -P)" in *:*|*[[:cntrl:]]*) \
		echo "$$(pwd -P): no list of programs can name a folder with a colon or a line break in its path;" \
			"move the project to another one, and run make again" >&2; \
		exit 1;; \
	esac
	@PATH="$(SYSTEM_PATH)"; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Darkroom needs Python 3.11 or newer and found none; install one, or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	echo "Installing into .venv ($$("$$found" --version), a few minutes the first time)"; \
	if [ "$$(cat $@ 2>/dev/null)" != "$$(pwd -P)" ]; then "$$found" -m venv --clear .venv; fi
	@rm -f $@
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(INSTALL) -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@printf '%s' "$$(pwd -P)" > $@

# What tests and checks need besides; made anew with .venv, whose stamp is older than none of this.
$(TESTS_STAMP): $(STAMP) requirements-test.lock
	@echo "Installing what the tests need into .venv"
	@$(INSTALL) -r requirements.lock -r requirements-test.lock
	@touch $@

# PyTorch names its GPU libraries exactly, by platform: left out here, a CPU build installs none and a CUDA build its own.
COMPILE = env -u UV_FIND_LINKS $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header \
	--annotation-style line pyproject.toml
lock: setup  ## write requirements.lock and requirements-test.lock anew from pyproject.toml
	@$(COMPILE) --upgrade | grep -vE '^(nvidia-|cuda-|triton)' > requirements.lock.new
	@{ echo "# Written by \`make lock\` from pyproject.toml: what the tests need besides requirements.lock."; \
	$(COMPILE) --extra test --constraints requirements.lock.new | sed 's/, -c requirements.lock.new//; s/-c requirements.lock.new, //' \
		| grep -vE '^(nvidia-|cuda-|triton)' | awk 'NR == FNR { runtime[$$1]; next } !($$1 in runtime)' requirements.lock.new -; \
	} > requirements-test.lock
	@{ echo "# Written by \`make lock\` from pyproject.toml: every package at one version, for every platform."; \
	cat requirements.lock.new; } > requirements.lock
	@rm requirements.lock.new
