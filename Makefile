# Everything a newcomer needs, on a machine with Python 3.11+, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test run migrate check format lint types floors lock chaos screenshots
.PHONY: bench bench-start fuzz audit breakage
.PHONY: bench-queries bench-memory bench-fetch

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "the venv module is missing: on Debian, apt install python3-venv"; exit 1; }

# Two stamps in one environment: the demo and the service need no development tools.
$(VENV)/.installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed-dev ## the environment in .venv, development tools included

demo: $(VENV)/.installed ## the whole service on SQLite with a simulated Codat
	$(BIN)/python -m app demo

run: migrate ## the service for real, settings from the environment or .env
	$(BIN)/python -m app serve

migrate: $(VENV)/.installed ## the database up to date
	$(BIN)/python -m app migrate

# Real processes with real deadlines share the machine: what failed beside others must pass alone.
test: $(VENV)/.installed-dev ## the whole suite, on SQLite and PostgreSQL
	$(BIN)/python -m pytest --numprocesses $(or $(JOBS),3) --maxschedchunk 5 --cov --cov-report=term \
		|| $(BIN)/python -m pytest --last-failed --last-failed-no-failures none

check: lint types floors test ## everything CI checks

lint: $(VENV)/.installed-dev ## format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev ## mypy, strict
	$(BIN)/mypy

floors: $(VENV)/.installed-dev ## who may import whom
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: | $(BIN)/python ## pin all dependencies with their hashes
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --no-emit-index-url --no-header \
		--no-annotate --python-version 3.11 pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --no-emit-index-url --no-header \
		--no-annotate --python-version 3.11 --extra dev pyproject.toml -o requirements-dev.txt

screenshots: $(VENV)/.installed-dev ## pictures of the pages into docs/screenshots; needs chromium
	$(BIN)/python -m bench.screenshots

chaos: $(VENV)/.installed-dev ## webhooks lost, Codat refusing, kill -9: are we equal to Codat?
	$(BIN)/python -m bench.storm --syncs $(or $(SYNCS),200) --seeds $(or $(SEEDS),3)

bench: $(VENV)/.installed-dev ## the door's speed, beside a null application and others
	$(BIN)/python -m bench.door --rounds $(or $(ROUNDS),7) --plot docs/door.svg

bench-start: $(VENV)/.installed-dev ## what a process loads, how soon it is there, its memory
	$(BIN)/python -m bench.start

fuzz: $(VENV)/.installed-dev ## hostile requests against the real process
	$(BIN)/python -m bench.fuzz --requests $(or $(REQUESTS),100000) $(if $(SEED),--seed $(SEED))

audit: $(VENV)/.installed-dev ## known weaknesses of what is pinned; asks the network
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement requirements.txt

bench-queries: $(VENV)/.installed-dev ## is every question as fast over a million syncs as over ten thousand?
	$(BIN)/python -m bench.queries --small $(or $(SMALL),10000) --large $(or $(LARGE),1000000)

bench-memory: $(VENV)/.installed-dev ## does memory stay flat over a backlog and an export?
	$(BIN)/python -m bench.memory

bench-fetch: $(VENV)/.installed-dev ## what a fetch of 5,000 items costs beside the bare requests
	$(BIN)/python -m bench.fetching

breakage: $(VENV)/.installed-dev ## the database breaks, kill -9 and SIGTERM under load
	$(BIN)/python -m bench.breakage --seconds $(or $(SECONDS),20)
	$(BIN)/python -m bench.kills --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED))
