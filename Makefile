PYTHON ?= python3
BIN = .venv/bin

.PHONY: load check test lint bench load-workers kafka-image package pipeline-image env

load: env ## 5,000 events a second through the pipeline, judged
	@$(BIN)/harness run load --eps 5000

check: lint ## what a contributor runs after each change: no Kafka, no Spark
	@$(BIN)/python -m pytest tests/unit tests/detectors tests/test_layers.py

test: env
	@$(BIN)/python -m pytest

lint: env
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: env ## the load engine alone, and the judging of 5,000,000 events: rates, delays, memory
	@$(BIN)/python -m harness.load.bench
	@$(BIN)/python -m harness.experiments.bench

load-workers: env ## 1, 2 and 4 workers of a load: rate, delay and cost of each
	@$(BIN)/python -m harness.load.scaling

kafka-image: env ## a local image of Kafka, where no registry can be reached
	@bash harness/kafka/image/build streaming-harness/kafka:4.3.1 "$$($(BIN)/harness jars | tail -1)"

package: env ## dist/streaming-pipeline-VERSION.zip: what spark-submit needs on a cluster
	@$(BIN)/python deploy/package.py

pipeline-image: env ## a local image of the pipeline, where no registry can be reached
	@bash deploy/docker/build-local streaming-harness/pipeline:0.1.0 "$$($(BIN)/harness jars | head -1)" $(BIN)/python

env: ## sets up .venv where it is missing or old
	@command -v $(PYTHON) > /dev/null || { echo "setup: python3 is missing: install it (Debian: apt install python3 python3-venv; macOS: brew install python@3.13)" >&2; exit 1; }
	@$(PYTHON) bootstrap.py
