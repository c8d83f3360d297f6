# All that a developer runs. ARGS goes to the tool: make unit ARGS="-k flow_control -x"
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

BIN := .venv/bin
# No cache provider: as root it would leave files in a user's checkout.
PYTEST := $(BIN)/python -m pytest -p no:cacheprovider
ROOT := .ci/as-root
ARGS ?=

.PHONY: help setup demo test lint format unit system perf lock clean

help: ## this list
	@echo "ambient: a service mesh for Linux nodes. Needs git and make; 'setup' installs the rest and says what."
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## distribution packages that are missing, then .venv from the lock files (PYTHON= chooses the interpreter)
	@.ci/setup

demo: setup ## the mesh on this machine in network namespaces, step by step (root; ARGS="--keep" leaves it running)
	@$(ROOT) $(BIN)/ambient demo $(ARGS)

test: lint ## lint, then every test: unit, shell, fuzz, system (root for the last)
	@$(ROOT) --try $(PYTEST) -q $(ARGS)

lint: setup ## ruff, ruff format, mypy --strict
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup ## rewrite the sources as ruff wants them
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

unit: setup ## tests that need no privilege: unit, shell, fuzz
	@$(PYTEST) -q $(wildcard tests/unit tests/shell tests/fuzz) $(ARGS)

system: setup ## tests on real network namespaces (root)
	@$(ROOT) $(PYTEST) -q tests/system $(ARGS)

perf: setup ## benchmarks side by side with no mesh (root; see perf/ for ARGS)
	@$(ROOT) $(BIN)/python -m perf $(ARGS)

lock: setup ## the lock files anew from pyproject.toml (ARGS=--upgrade takes the newest versions)
	@.ci/lock $(ARGS)

clean: ## remove .venv, caches and build output
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
