# The ways into Obtrace. Each target is a few lines: what it does stands in dev/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export OBTRACE_CACHE ?= $(HOME)/.cache/obtrace
# Outside of the clone, so that a second clone need not compile the dependencies again.
export CARGO_TARGET_DIR ?= $(OBTRACE_CACHE)/target

.PHONY: help setup engine clients services up build test check bench bench-worker chaos clean

help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: ## Installs what the machine lacks (apt; asks for sudo when not root)
	@dev/setup.sh

engine: setup ## Fetches the ClickHouse engine library into the cache
	@dev/engine.sh

clients: setup ## Installs the pinned Python and Node SDKs for the client tests into the cache
	@tests/clients/setup.sh >/dev/null

services: setup ## Starts Postgres, Redis, Kafka (one broker, and three with TLS) and S3 for tests; dev/services/run down
	@dev/services/run up --cluster $(ARGS)
	@dev/services/run env

build: setup
	@cargo build --release --locked

up: engine build ## Builds and starts `obtrace dev`; ARGS="--data-dir D" goes to it
	@exec "$(CARGO_TARGET_DIR)/release/obtrace" dev $(ARGS)

test: engine clients ## Runs all tests; ARGS="--test flow" runs a part
	@dev/test.sh $(ARGS)

check: setup ## Format, lints, dependencies, documentation, generated files
	@dev/check.sh

bench: engine build ## Measures throughput, latency and memory beside peers; ARGS="edge" takes a part
	@benches/load/run.sh $(ARGS)

bench-worker: engine build ## Measures the worker between Kafka and the engine, beside the OpenTelemetry Collector
	@benches/load/run.sh worker $(ARGS)

chaos: engine clients ## The kill and fault loops at length: 100 rounds
	@OBTRACE_CHAOS_ROUNDS=$${OBTRACE_CHAOS_ROUNDS:-100} dev/test.sh --test flow $(ARGS)

clean: ## Removes what was compiled; keeps the engine, the clients and all data
	@cargo clean
