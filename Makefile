# `make help` lists the targets. Nothing outside this directory is changed, but for tmux, which `make test`
# installs if it runs as root on a machine with apt-get.

BIN := .venv/bin
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# One more than there are cores, where there are few: tests wait for daemons and ends more than they compute.
WORKERS ?= $(shell if [ $(CORES) -gt 3 ]; then echo 4; else echo $$(($(CORES) + 1)); fi)
AGENT_WORKERS ?= $(shell if [ $(CORES) -gt 3 ]; then echo 4; else echo $(CORES); fi)
TESTS ?= tests
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup dev test test-harnesses test-harnesses-all lint format lock upgrade demo bench mutants soak fuzz clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv from the locks; the command is then .venv/bin/headcount
	@scripts/setup.sh run

dev: ## Make .venv with the tools for tests and checks too
	@scripts/setup.sh dev

# The second -m wins: a run may choose otherwise by PYTEST_ARGS.
pytest = $(BIN)/python -m pytest -n $(2) --dist worksteal --durations=15 -m "$(1)" $(PYTEST_ARGS) $(TESTS)
skipped = echo "tests that need it are skipped; in CI they fail" >&2

test: dev ## Run all tests but those with real agents (TESTS=path, PYTEST_ARGS=..., WORKERS=n)
	@scripts/system-packages.sh tmux:tmux || $(skipped)
	$(call pytest,not harnesses,$(WORKERS))

test-harnesses: dev ## Run the tests with Claude Code, Codex, Gemini CLI, OpenCode
	@tests/node/install && tests/node/clis/install codex gemini opencode || $(skipped)
	$(call pytest,harnesses and not every_harness,$(AGENT_WORKERS))

test-harnesses-all: dev ## The same with Qwen Code, Copilot CLI and Pi too
	@tests/node/install && tests/node/clis/install codex gemini opencode qwen copilot pi acp || $(skipped)
	$(call pytest,harnesses,$(AGENT_WORKERS))

lint: dev ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src tests
	$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter

format: dev ## Let ruff format and fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: dev ## Write the hashed locks anew from pyproject.toml, keeping versions
	scripts/lock.sh

upgrade: dev ## The same with the newest versions
	scripts/lock.sh --upgrade

demo: setup ## Show a fleet at work, in under two minutes
	@$(BIN)/headcount demo

bench: dev ## Measure, beside the raw limits of this machine
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

mutants: dev ## Break each invariant and limit once; a test must notice
	$(BIN)/python tests/mutants/run.py $(MUTANTS_ARGS)

soak: dev ## Storms of 2,000 random operations on real processes, and random histories (SOAK_ARGS=...)
	$(BIN)/python tests/soak/run.py --histories 5000 $(SOAK_ARGS)

fuzz: dev ## Send 1,000 inputs of every kind to each tool and door (FUZZ_EXAMPLES=n)
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-1000} $(BIN)/python -m pytest --timeout 3600 -n $(WORKERS) tests/faults/test_fuzz.py

clean: ## Remove what make made
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
