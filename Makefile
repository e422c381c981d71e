PYTHON ?= python3
BIN = .venv/bin

.PHONY: load test lint bench env

load: env ## 5,000 events a second through the pipeline, judged
	@$(BIN)/harness run load --eps 5000

test: env
	@$(BIN)/python -m pytest

lint: env
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: env ## the load engine alone, and the judging of 5,000,000 events: rates, delays, memory
	@$(BIN)/python -m harness.load.bench
	@$(BIN)/python -m harness.bench

env: ## sets up .venv where it is missing or old
	@command -v $(PYTHON) > /dev/null || { echo "setup: python3 is missing: install it (Debian: apt install python3 python3-venv; macOS: brew install python@3.13)" >&2; exit 1; }
	@$(PYTHON) bootstrap.py
