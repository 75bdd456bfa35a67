PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench docs clean

help: ## say what each target does
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(VENV)/.demo$(if $(findstring torch,$(ARGS)),-torch) ## train a small network with the bus in the middle, write runs/<id>/
	$(BIN)/telemetry demo $(ARGS)

test: $(VENV)/.dev ## run the whole test suite, all frameworks included
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile $(ARGS)

lint: $(VENV)/.dev ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## print what things cost, as ratios
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(VENV)/.demo ## render the event catalogue and the reported names into docs/
	$(BIN)/python docs/render_events.py
	$(BIN)/python docs/render_metrics.py

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "trainbus needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing what the demo needs into $(VENV) ..."
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.demo-torch: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing what the demo in PyTorch needs into $(VENV) ..."
	$(PIP) -e '.[demo,torch]'
	@touch $@ $(VENV)/.demo

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing everything, all frameworks included, into $(VENV) (some minutes) ..."
	$(PIP) -e '.[all,dev]'
	@touch $@ $(VENV)/.demo $(VENV)/.demo-torch
