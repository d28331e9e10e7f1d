# The two commands: `make run` shows token.place at work, `make test` proves it. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
JOBS ?= 2

.PHONY: docs test-portable standalone audit docker-build k8s-render k8s-deploy dist run test test-typescript test-browser page lint format types bench faults constraints clean help

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

# Other people's programs that some tests have at the other end; nginx's package is told not to start its service.
.PHONY: programs
programs:
	@PATH="$$PATH:/usr/sbin"; here() { command -v nginx && command -v minisign; }; here >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    (apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nginx-light minisign) >/dev/null 2>&1; \
	  fi; here >/dev/null; } || echo "nginx or minisign is not here: the tests with them are skipped (Debian, Ubuntu: apt install nginx-light minisign)"

test: $(READY_DEV) lint types programs ## lint, types, import contracts, and the tests (minutes)
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
	@cd clients/typescript && npm run --silent check && npm test --silent && npm run --silent size
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

docs: $(READY_DEV) ## the documents as a site, in site/
	@$(BIN)/python -c 'import zensical' 2>/dev/null || $(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	@$(BIN)/python scripts/build_site.py site

bench: $(READY_DEV) ## measure the sealed path beside the bare engine, in one run
	@$(BIN)/python -m bench

audit: $(READY_DEV) ## look the pinned versions up in the database of known weaknesses (asks the network)
	@test -x $(VENV)/audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet 'pip-audit>=2.10'; }
	@$(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off

dist: $(READY_DEV) ## every file of a release into dist/, with checksums; sign them with `tokenplace release sign`
	@$(BIN)/python scripts/build_release.py dist

constraints: $(READY_DEV) ## pin today's versions, without addresses
	@$(PIP) list --format=freeze --exclude-editable | grep -viE '^(pip|setuptools|wheel)==' | sort -f > constraints.txt

test-portable: $(READY_DEV) ## what runs on every platform: pure rooms, doors, and a chat through relay and node
	@$(BIN)/pytest -n $(JOBS) -m "not heavy" tests/unit tests/contract tests/acceptance/test_python_sdk.py

standalone: $(VENV)/bin/python ## the program as one file in dist/standalone, for people without Python
	@$(PIP) install --quiet --constraint constraints.txt '.[all]' 'pyinstaller>=6.20'
	@$(BIN)/python deploy/standalone/build.py dist/standalone

docker-build: ## the images of relay, gateway and node
	docker build -f deploy/docker/relay.Dockerfile --target relay -t tokenplace-relay .
	docker build -f deploy/docker/relay.Dockerfile --target gateway -t tokenplace-gateway .
	docker build -f deploy/docker/node.Dockerfile -t tokenplace-node .

k8s-render: $(READY_DEV) ## the chart's manifests, for clusters without Helm
	@$(BIN)/python deploy/render.py

k8s-deploy: ## apply the manifests to the cluster that kubectl speaks to
	kubectl apply -f deploy/kubernetes/namespace.yaml
	kubectl apply --namespace tokenplace -f deploy/kubernetes/relay.yaml

clean: ## remove the environment and what was built
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
