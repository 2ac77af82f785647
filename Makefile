# `make demo` and `make test` do all the set-up they need on a fresh machine with Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: demo test slow check format docs smoke clean help

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: $(VENV)/.core ## the main job end to end: base model, data, three stages, evaluation, report
	$(BIN)/medexpert run recipes/demo

test: $(VENV)/.dev ## fast tests
	$(BIN)/python -m pytest -n 2

slow: $(VENV)/.dev ## kill and resume, end to end, on tiny models
	$(BIN)/python -m pytest -n 2 -m "slow and not network and not gpu"

check: $(VENV)/.dev ## lint, types, import rules, docs in sync
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -m pytest -n 0 tests/project

format: $(VENV)/.dev ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## regenerate docs/cli.md, docs/recipe-keys.md and the tables of README.md
	$(BIN)/python docs/generate.py

smoke: $(VENV)/.dev ## a short run on real published data (MEDEXPERT_DATA or ../shared/data)
	.ci/smoke

clean: ## remove the environment and build leftovers; runs/ stays
	rm -rf $(VENV) build dist src/*.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 demo")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing medexpert into $(VENV) (a minute or two, mostly PyTorch)'
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing medexpert and its test tools into $(VENV) (a minute or two)'
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.core
