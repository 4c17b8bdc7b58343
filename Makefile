# Makes .venv from nothing but Python and pip, and runs the jobs of this project in it.
# `make` lists the jobs; PYTHON=python3.12 names the Python that a new .venv is made with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The stamp is written last and named after all that .venv depends on, this folder included (an
# environment cannot be moved): a half-made, outdated or copied .venv has no such stamp and is
# made anew.
KEY := $(shell (pwd; cat setup.cfg pyproject.toml constraints.txt) | cksum | cut -d ' ' -f 1)
STAMP := $(VENV)/.complete-$(KEY)

CHECK_PYTHON := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 14))

.DEFAULT_GOAL := help
.PHONY: help venv quickstart test test-slow test-reference lint clean

help:
	@echo "make quickstart  train, search and convert on the embedded images; see runs/quickstart"
	@echo "make test        run the default tests"
	@echo "make test-slow   run the tests that take minutes"
	@echo "make test-reference  compare with the PyTorch reference, which it installs into .venv"
	@echo "make lint        check style and format with ruff"
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
	$(BIN)/ofa-quickstart --flagfile=flags/quickstart.flags

test: venv
	$(BIN)/python -m pytest

# Exit code 5 of pytest: no test is marked slow, which is no failure.
test-slow: venv
	$(BIN)/python -m pytest -m "slow and not reference" || [ $$? -eq 5 ]

# PyTorch and the reference are large and only these tests need them.
test-reference: venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[reference]'
	$(BIN)/python -m pytest -m reference

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
