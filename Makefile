# Two commands: `make book` and `make test`. Everything is installed in .venv, under constraints.txt.
PYTHON ?= python3
N ?= 5
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Idle threads sleep: several processes share the cores.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help book reproduce figure status verify screenshots test campaign mutants lint clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

book: .venv/.book  ## render the book (profile digits) into _build/html; rows of this code are taken from results/
	@$(BIN)/sparselib reproduce

reproduce: .venv/.book  ## compute every figure from nothing, then render the book
	@$(BIN)/sparselib reproduce --from-nothing

figure: .venv/.book  ## run one figure into figure.ipynb: make figure N=5
	@$(BIN)/sparselib run $(N) -o figure.ipynb

status: .venv/.book  ## say what is fresh, what is stale, and why
	@$(BIN)/sparselib status

verify: .venv/.book  ## compute a few published rows again and compare
	@$(BIN)/sparselib verify

screenshots: .venv/.test  ## take pictures of every page, light and dark, wide and narrow, into _build/screenshots
	@$(BIN)/python tests/book/screenshots.py _build/html _build/screenshots

test: .venv/.test  ## run the tests
	@$(BIN)/python -m pytest

campaign: .venv/.test  ## try to break it: kills, damaged files, odd places (half an hour); FAULTS_SEED=N repeats one
	@FAULTS=long $(BIN)/python -m pytest -n 0 tests/faults

mutants: .venv/.test  ## change the code in thousands of places: do tests notice? (hours, goes on where it was; SINCE=commit)
	@$(BIN)/python -c "import mutmut" 2>/dev/null || $(INSTALL) -e ".[mutants]"
	@$(BIN)/python -W ignore tests/mutants.py $(if $(SINCE),--since $(SINCE)) $(if $(EVERY),--every $(EVERY)) $(if $(FROM),--from $(FROM))

lint: .venv/.test  ## check style, types and the storeys of the house
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(BIN)/lint-imports --no-cache

clean:  ## remove what was built (the environment and the store of results stay)
	rm -rf _build

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.book: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv (a minute or two, once) …"
	@$(INSTALL) -e ".[book]" && touch $@

.venv/.test: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv (a minute or two, once) …"
	@$(INSTALL) -e ".[book,test,foreign]" && touch $@ .venv/.book
