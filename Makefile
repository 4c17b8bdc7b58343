# Makes .venv from nothing but Python and pip, and runs the jobs of this project in it.
# `make` lists the jobs; PYTHON=python3.12 names the Python that a new .venv is made with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The stamp is written last and named after all that .venv depends on, this folder included (an
# environment cannot be moved): a half-made, outdated or copied .venv has no such stamp and is
# made anew.
KEY := $(shell (pwd; cat setup.cfg pyproject.toml constraints.txt ofa_tf/version.py) | cksum | cut -d ' ' -f 1)
STAMP := $(VENV)/.complete-$(KEY)

# Two files of tests at a time; the tests of a file share what is built for them.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

CHECK_PYTHON := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 14))

.DEFAULT_GOAL := help
.PHONY: help venv quickstart test test-slow test-reference bench lint clean

help:
	@echo "make quickstart  train, search and convert on the embedded images; see runs/quickstart"
	@echo "make test        run the default tests"
	@echo "make test-slow   run the tests that take minutes"
	@echo "make test-reference  compare with the PyTorch reference, which it installs into .venv"
	@echo "make bench       measure side by side with the PyTorch reference (20 minutes); takes"
	@echo "                 ONLY=train_step,search  PUBLISHED=DIR  ARGS=--quick"
	@echo "make lint        check style and format with ruff, types with mypy"
	@echo "make venv        only make .venv, which the others do by themselves (about two minutes)"
	@echo "make clean       remove .venv and the caches; runs/ is kept"
	@echo "PYTHON=python3.12 after any of them: the Python for a new .venv (default: python3)"

venv: $(STAMP)

$(STAMP):
	@$(PYTHON) -c '$(CHECK_PYTHON)' 2>/dev/null || { \
	  echo "Python 3.10 to 3.13 with its venv module is needed (Debian and Ubuntu: the package" \
	    "python3-venv), but $(PYTHON) gives: $$($(PYTHON) --version 2>&1 | tail -n 1)." \
	    "Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) (about two minutes) ..."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[test]'
	@touch $@

quickstart: venv
	$(BIN)/ofa-quickstart

test: venv
	$(PYTEST)

test-slow: venv
	$(PYTEST) -m "slow and not reference"

# PyTorch and the reference are large, and nothing else needs them.
INSTALL_REFERENCE := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
  --constraint constraints.txt --editable '.[reference]'

test-reference: venv
	$(INSTALL_REFERENCE)
	$(PYTEST) -m reference

# PUBLISHED is the folder of acc_predictor.pth and note10, without which two parts are skipped.
bench: venv
	$(INSTALL_REFERENCE)
	$(BIN)/python benchmarks/run_all.py $(if $(ONLY),--only=$(ONLY)) \
	  $(if $(PUBLISHED),--published="$(PUBLISHED)") $(ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
