# Everything a newcomer needs, on a machine with Python 3.11+, its own pip, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 3
# The suite starts many processes: without stored bytecode each of them takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo run migrate test coverage check lint types layers format lock audit sbom screenshots \
	bench bench-queries bench-fetch bench-memory bench-start chaos breakage fuzz

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is required: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "The venv module is missing: on Debian, apt install python3-venv"; exit 1; }

# Two stamps in one environment: the demo and the service need no development tools.
$(VENV)/.installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed-dev ## create .venv with everything, development tools included

demo: $(VENV)/.installed ## run the whole service on SQLite with a simulated Codat
	$(BIN)/python -m app demo

run: migrate ## run the service, with settings from the environment or .env
	$(BIN)/python -m app serve

migrate: $(VENV)/.installed ## bring the database up to date
	$(BIN)/python -m app migrate

test: $(VENV)/.installed-dev ## run the whole suite, on SQLite and PostgreSQL
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

coverage: $(VENV)/.installed-dev ## run the suite and require a coverage of 95 percent; takes a third longer
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal --cov --cov-report=term

check: lint types layers test ## run everything that CI checks

lint: $(VENV)/.installed-dev ## check format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev ## check types, strictly
	$(BIN)/mypy

layers: $(VENV)/.installed-dev ## check the layers: which module may import which
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras \
	--no-emit-index-url --no-header --no-annotate --python-version 3.11

lock: | $(BIN)/python ## pin all dependencies with their hashes
	$(BIN)/python -m pip install --quiet uv
	$(UV_COMPILE) pyproject.toml -o requirements.txt
	$(UV_COMPILE) --extra otel --extra dev pyproject.toml -o requirements-dev.txt
	$(UV_COMPILE) --extra otel --constraint requirements-dev.txt pyproject.toml -o requirements-otel.txt

# Exit code 1: vulnerabilities, 2: it could not be checked. pip-audit itself ends with 1 for both.
audit: $(VENV)/.installed-dev ## list known vulnerabilities of the pinned packages; needs the network
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
		--requirement requirements-otel.txt >$(VENV)/audit.log 2>&1 && code=0 || code=1; \
	cat $(VENV)/audit.log; \
	if [ $$code = 1 ] && ! grep -q '^Found [0-9]* known vulnerabilit' $(VENV)/audit.log; then \
		echo "The audit could not run: no package was checked."; exit 2; \
	fi; exit $$code

sbom: $(VENV)/.installed-dev ## write sbom.json: what the image contains, in the CycloneDX format
	$(BIN)/python -W ignore -m cyclonedx_py requirements requirements.txt --pyproject pyproject.toml --mc-type application \
		--output-reproducible --of JSON -o sbom.json

screenshots: $(VENV)/.installed-dev ## take the pictures in docs/screenshots; needs chromium
	$(BIN)/python -m bench.screenshots

bench: $(VENV)/.installed-dev ## measure the webhook endpoint beside other receivers
	$(BIN)/python -m bench.endpoint --rounds $(or $(ROUNDS),5) --plot docs/bench.svg

bench-queries: $(VENV)/.installed-dev ## measure every query over a million syncs
	$(BIN)/python -m bench.queries --database $(or $(DATABASE),postgresql) $(if $(SYNCS),--syncs $(SYNCS))

bench-fetch: $(VENV)/.installed-dev ## measure a fetch of 5,000 transactions beside the bare requests
	$(BIN)/python -m bench.fetch

bench-memory: $(VENV)/.installed-dev ## measure memory over a backlog of events and an export
	$(BIN)/python -m bench.memory

bench-start: $(VENV)/.installed-dev ## measure how long each process takes to start, and its memory
	$(BIN)/python -m bench.startup

chaos: $(VENV)/.installed-dev ## lose, duplicate and reorder webhooks, kill -9, then compare with Codat
	$(BIN)/python -m bench.chaos --syncs $(or $(SYNCS),200) --seeds $(or $(SEEDS),3)

breakage: $(VENV)/.installed-dev ## break the database and kill -9 under load, then look for lost events
	$(BIN)/python -m bench.outage --seconds $(or $(SECONDS),20)
	$(BIN)/python -m bench.chaos --calm --syncs 100 --kills $(or $(KILLS),100) $(if $(SEED),--first-seed $(SEED))

fuzz: $(VENV)/.installed-dev ## send hostile requests to the real process
	$(BIN)/python -m bench.hostile --requests $(or $(REQUESTS),100000) $(if $(SEED),--seed $(SEED))
