# The two commands: `make run` shows token.place at work, `make test` proves it. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
JOBS ?= 2

.PHONY: run test test-typescript test-browser page lint format types bench faults constraints clean help

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "token.place needs Python 3.11 or newer; try: make PYTHON=python3.12 run"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(READY): $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing token.place into $(VENV) …"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

$(READY_DEV): $(READY)
	@echo "Installing what the tests need …"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

run: $(READY) ## everything on this machine: relay, gateway, page, node with the embedded model
	@$(BIN)/tokenplace models pull smollm2-135m-instruct
	@exec $(BIN)/tokenplace up

test: $(READY_DEV) lint types ## lint, types, import contracts, and the tests (minutes)
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory test-typescript; \
	else echo "npm is not here: the TypeScript client and the page are not tested (Debian, Ubuntu: apt install npm)"; fi
	@$(BIN)/tokenplace models pull smollm2-135m-instruct
	@$(BIN)/pytest -n $(JOBS) --dist worksteal -m "not heavy"

clients/typescript/node_modules: clients/typescript/package-lock.json
	@cd clients/typescript && npm ci --silent --no-audit --no-fund
	@touch $@

web/node_modules: web/package-lock.json clients/typescript/node_modules
	@cd web && npm ci --silent --no-audit --no-fund
	@touch $@

page: web/node_modules ## build the page into the Python package
	@cd web && npm run --silent build

test-typescript: web/node_modules $(READY_DEV) ## types, vectors and live tests of the client; that the served page is the built source
	@cd clients/typescript && npm run --silent check && npm test --silent
	@cd web && npm run --silent check && npm run --silent check:built

test-browser: web/node_modules $(READY_DEV) ## the page in a real Chromium, against a real relay, node and model
	@command -v chromium >/dev/null || test -n "$(CHROMIUM)" || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq chromium; \
	  else echo "Chromium is missing (Debian: apt install chromium), or set CHROMIUM to its path"; exit 1; fi; }
	@cd web && npm test --silent

lint: $(READY_DEV) ## style, security lint, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --recursive --severity-level medium --configfile pyproject.toml src

types: $(READY_DEV) ## mypy, strict
	@$(BIN)/mypy

format: $(READY_DEV) ## mend style
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

faults: $(READY_DEV) ## the slow fault and load tests
	@$(BIN)/pytest -m heavy

bench: $(READY_DEV) ## measure the sealed path beside the bare engine, in one run
	@$(BIN)/python -m bench

constraints: $(READY_DEV) ## pin today's versions, without addresses
	@$(PIP) list --format=freeze --exclude-editable | grep -viE '^(pip|setuptools|wheel)==' | sort -f > constraints.txt

clean: ## remove the environment and what was built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
