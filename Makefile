# Every target does all the set-up that it needs, on a fresh Debian 12 with Python 3.11; quick when all is there.

BIN := .venv/bin
RUN := $(BIN)/python -m

.PHONY: help setup setup-tests demo test lint test-scale bench bench-peers pin

help:
	@echo "make demo         the main job on real data, live in the terminal; leaves a daemon running"
	@echo "make test         lint, types and all tests that fit in minutes"
	@echo "make test-scale   the tests that are too large for that"
	@echo "make bench        the figures of the README, on this machine"
	@echo "make bench-peers  the same work beside bytewax and dlt"
	@echo "make lint         formatting, lint and types alone"

setup:
	@.ci/setup

setup-tests:
	@.ci/setup tests

demo: setup
	@$(BIN)/cohortd demo $(DEMO)

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

test: setup-tests lint
	$(RUN) pytest -q -n 2 --dist worksteal -m "not scale"

test-scale: setup-tests
	$(RUN) pytest -q -m scale --timeout 3600

# BENCH holds arguments: names of benchmarks, and --quick.
bench: setup
	@$(BIN)/cohortd bench $(BENCH)

bench-peers: setup
	@.ci/setup peers
	@$(BIN)/python tests/bench/bench_peers.py .venv-peers/bin/python $(BENCH)

pin: setup
	$(BIN)/python .ci/pin > constraints.new && mv constraints.new constraints.txt
