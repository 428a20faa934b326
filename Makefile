# The commands of this project; `make help` lists them. Everything runs in .venv, which uv fills from uv.lock.
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV_VERSION := 0.13.8
UV := $(or $(shell command -v uv),.tools/bin/uv)
LANES := -n 2 --dist loadfile
UNIT := not broker and not native and not airflow and not lab and not slow

.PHONY: help demo test check lint lock lab lab-down modes faults stream-faults soak replicas sizes swaps
.PHONY: bench bench-serve bench-stream clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/demo ## the three case studies, live on this machine's own metrics (ARGS=--once ends by itself)
	@$(UV) run --frozen --no-sync python -m packer_lib.demo $(ARGS)

test: .venv/ready prerequisites ## every test; as root on Debian it installs mosquitto and fetches Kafka first (ARGS=… for pytest)
	@$(UV) run --frozen --no-sync pytest $(LANES) $(ARGS)
	@echo "All passed. Next: 'make demo' shows it live, 'make bench' measures it."

lab: .venv/ready ## engine, registry, SSH machines and brokers for the tests that need them (as root on Debian it installs them)
	@$(UV) run --frozen --no-sync python -m tests.lab up

lab-down: ## stops what 'make lab' started; images and caches stay
	@$(UV) run --frozen --no-sync python -m tests.lab down

modes: lab ## the sixteen modes and the paper's cases, through Airflow; writes their table into README.md
	@$(UV) run --frozen --no-sync python -m tests.modes $(ARGS)

faults: lab ## every fault of the release under a steady 50 requests/s, into docs/faults.md
	@$(UV) run --frozen --no-sync python -m tests.faults $(ARGS)

stream-faults: .venv/ready prerequisites ## every fault of a stream on real brokers, into docs/stream-faults.md (50 minutes; ARGS="-k broker")
	@$(UV) run --frozen --no-sync python -m tests.stream_faults $(ARGS)

soak: .venv/ready prerequisites ## two streaming units under a steady load for half an hour, into docs/stream-faults.md (ARGS="--minutes 5")
	@$(UV) run --frozen --no-sync python -m tests.stream_faults.soak $(ARGS)

replicas: lab ## replicas of streams under load in every form and every kind of delivery: what `make test` takes a part of
	@MLPACKER_LONG=1 $(UV) run --frozen --no-sync pytest -s tests/runtime/test_replicas.py tests/integration/test_replicas.py tests/integration/test_streams_elsewhere.py $(ARGS)

sizes: lab ## sizes of images beside BentoML's, and what a new model costs, into docs/images.md
	@$(UV) run --frozen --no-sync python -m tests.sizes

swaps: .venv/ready prerequisites ## fifty new models for a running stream under load, on Kafka (also exactly once, two replicas) and MQTT
	@MLPACKER_SWAPS=50 $(UV) run --frozen --no-sync pytest -s -m slow tests/runtime/test_swap_live.py $(ARGS)

check: lint ## format, lint, types and unit tests, in under three minutes
	@$(UV) run --frozen --no-sync pytest -q $(LANES) -m "$(UNIT)" $(ARGS)

lint: .venv/ready ## format, lint and types
	@$(UV) run --frozen --no-sync ruff format --check .
	@$(UV) run --frozen --no-sync ruff check .
	@$(UV) run --frozen --no-sync mypy

lock: $(UV) ## uv.lock anew, and from it the hashed requirements of every need of a bundle
	$(UV) lock
	$(UV) run --frozen python -m packer_lib.bundle.locks

bench: .venv/ready prerequisites ## our speed beside the peers', as ratios, into docs/benchmarks.md
	@$(UV) run --frozen --no-sync python -m tests.benchmarks $(ARGS)

bench-serve: .venv/ready prerequisites ## REST beside the peers, into docs/benchmarks/serve.json (ARGS="--seconds 1 --rounds 2")
	@$(UV) run --frozen --no-sync python -m tests.benchmarks serve $(ARGS)

bench-stream: .venv/ready prerequisites ## streams beside the peers, into docs/benchmarks/stream.json (ARGS="--rounds 3")
	@$(UV) run --frozen --no-sync python -m tests.benchmarks stream $(ARGS)

clean: ## removes what the other targets made in this folder
	rm -rf .venv .tools .lab .bench .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: prerequisites
prerequisites: .venv/ready
	@$(UV) run --frozen --no-sync python -m tests.lab.prerequisites

# The orchestrator alone, which is all that the demo needs: its units get environments of their own.
.venv/demo: $(UV) pyproject.toml uv.lock
	@echo "Installing Airflow and MLPacker into .venv as uv.lock names them (a minute or so the first time) …"
	@$(UV) sync --frozen --no-dev --extra demo --inexact
	@touch $@

# The orchestrator and all extras in one environment, made again when the lock changes.
.venv/ready: $(UV) pyproject.toml uv.lock
	@echo "Installing what uv.lock names into .venv (1.8 GB with TensorFlow; a minute or two the first time) …"
	@$(UV) sync --frozen --all-extras
	@touch $@ .venv/demo

.tools/bin/uv:
	@echo "Installing uv $(UV_VERSION) into .tools …"
	@python3 -m venv .tools
	@.tools/bin/pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
