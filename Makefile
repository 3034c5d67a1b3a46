# Posthouse on a fresh machine: Python 3.11 to 3.14 and make are all it takes. Works with GNU make 3.81.
SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help install demo test test-all lint bench simulate clean lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST) | sort

install: $(STAMP) ## the virtual environment, from wheels only

$(STAMP): pyproject.toml tests/requirements.lock .ci/venv
	@sh .ci/venv $(VENV) tests/requirements.lock
	@touch $(STAMP)

demo: $(STAMP) ## the main job, end to end, on the embedded database
	@$(RUN) -m tests.demo

test: $(STAMP) lint ## style, types, import contracts, then the tests (8 minutes on 2 cores at the most)
	@$(RUN) -m pytest -m "not long and not alone" -n 2
	@$(RUN) -m pytest -m "not long and alone"

test-all: $(STAMP) lint ## the long suites too
	@$(RUN) -m pytest -m "not alone" -n 2
	@$(RUN) -m pytest -m "alone"

lint: $(STAMP) ## ruff, mypy strict, import contracts
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports --no-cache

simulate: $(STAMP) ## the renewal policy over 1,000,000 connections and a week: figures, goals, picture
	@$(RUN) -m tests.benchmarks.simulate --strict

bench-%: $(STAMP)
	@$(RUN) -m tests.benchmarks.$(subst -,_,$*)

chaos-%: $(STAMP)
	@$(RUN) -m tests.faults.chaos_$(subst -,_,$*)

bench: $(STAMP) ## every benchmark, and one table of goals
	@$(RUN) -m tests.benchmarks

lock: ## renew both lock files (needs uv on the PATH)
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --only-binary :all: pyproject.toml -o requirements.lock
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --only-binary :all: pyproject.toml --extra dev -c requirements.lock -o tests/requirements.lock

clean: ## the environment and what was built
	rm -rf $(VENV) build
