# Two commands: `make book` and `make test`. Everything is installed in .venv, under constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Idle threads sleep: several processes share the cores.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help book test lint clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

book: .venv/.book  ## compute every figure (profile digits) and render the book into _build/html
	@$(BIN)/sparselib reproduce

test: .venv/.test  ## run the tests
	@$(BIN)/python -m pytest

lint: .venv/.test  ## check style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:  ## remove what was built (the environment and the store of results stay)
	rm -rf _build

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.book: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv (a few minutes, once) …"
	@$(INSTALL) -e ".[book]" && touch $@

.venv/.test: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv (a few minutes, once) …"
	@$(INSTALL) -e ".[book,test]" && touch $@ .venv/.book
