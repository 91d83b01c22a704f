SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON_IN_VENV := .venv/bin/python
STAMP := .venv/.installed

# Nothing calls home.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help quickstart chat install test test-slow check lm-eval bench bench-system gpu faults evidence docs up down ui browse clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: install ## Install, then run the whole pipeline on a small model
	$(PYTHON_IN_VENV) -m flows.quickstart

chat: install ## Align a real chat model, which a package carries, on instructions with constraints (a quarter of an hour)
	$(PYTHON_IN_VENV) -m flows.chat

install: $(STAMP) ## Make .venv for this machine, CPU or NVIDIA GPU; does nothing when up to date

$(STAMP): pyproject.toml infra/constraints.txt infra/install.sh
	@bash infra/install.sh

test: install ## Run the tests in two processes, without the slow ones and those that need a GPU
	$(PYTHON_IN_VENV) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

test-slow: install ## Run the slow tests
	$(PYTHON_IN_VENV) -m pytest -m slow

check: install ## Lint, formatting, types, which way imports go
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m mypy
	.venv/bin/lint-imports --no-cache --no-logo

lm-eval: install ## Make .venv-lm-eval, in which flows.judge_policies runs tasks of lm-eval
	@bash infra/lm_eval.sh

bench: install ## Compare with what a user would run instead, side by side (ten minutes)
	@for name in dpo reward_model scoring sampling selection store; do $(PYTHON_IN_VENV) benchmarks/$$name.py; done

bench-system: install ## Measure the deployed system: what a dispatched stage costs, and new prompts (half an hour)
	@for name in dispatch new_prompts; do $(PYTHON_IN_VENV) benchmarks/$$name.py; done

gpu: ## Test and measure on this machine's NVIDIA GPU, with the Python given: make gpu [PYTHON=python3] [ONLY="tests dpo scoring"]
	@$(or $(PYTHON),$(PYTHON_IN_VENV)) benchmarks/gpu.py $(if $(ONLY),--only $(ONLY)) $(if $(RESULTS),--results $(RESULTS))

faults: install ## Kill everything at random moments and compare what comes out (half an hour)
	$(PYTHON_IN_VENV) benchmarks/faults.py

evidence: install ## Run the shipped comparisons and write docs/evidence.md (hours; half an hour with ONLY=facts)
	$(PYTHON_IN_VENV) benchmarks/evidence.py $(if $(ONLY),--only $(ONLY))

docs: install ## Build the documentation into site/; a dead link fails
	NO_MKDOCS_2_WARNING=1 $(PYTHON_IN_VENV) -m mkdocs build --strict --quiet

up: install ## Start the whole system on this machine: server, database, object store, a worker a GPU
	@$(PYTHON_IN_VENV) -m infra.up up

down: ## Stop what make up started; history and data stay
	@if [[ -x $(PYTHON_IN_VENV) ]]; then $(PYTHON_IN_VENV) -m infra.up down; fi

browse: install ## Look at a store in the browser: make browse STORE=.rsdpo
	@$(PYTHON_IN_VENV) -m flows.browse $(or $(STORE),.rsdpo)

ui: install ## Start Prefect's server and UI on this machine
	@echo "Prefect UI: http://127.0.0.1:$${PREFECT_SERVER_API_PORT:-4200}  (stop with Ctrl-C)"
	@$(PYTHON_IN_VENV) -m prefect server start --host 127.0.0.1

clean: ## Remove .venv and caches, never .rsdpo
	rm -rf .venv site .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -path ./.git -prune -o -path ./.rsdpo -prune -o -name __pycache__ -type d -exec rm -rf {} +
