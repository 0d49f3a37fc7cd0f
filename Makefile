# Two commands: `make simclr` and `make test`. Both create what they need.

VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough; `make PYTHON=... test` chooses another one.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)

# Of `make gpu`: an environment of its own, and the CUDA that its jax is built for.
GPU := .venv-gpu
CUDA ?= cuda12

.PHONY: help simclr test slow aot wheel torture lint benchmark gpu clean

help:
	@echo "make simclr     pretrain on real images and probe what was learned"
	@echo "make test       run the tests"
	@echo "make slow       run the tests that take minutes"
	@echo "make aot        compile for TPUs without one, and compare with what was recorded"
	@echo "make wheel      install the wheel where nothing else is, and run its commands"
	@echo "make torture    kill, stop and damage trainings, and compare how they end"
	@echo "make lint       check style, formatting and types"
	@echo "make benchmark  compare time and memory with dense losses and other packages"
	@echo "make gpu        benchmark and recipes on this GPU; CIFAR10=tfds:cifar10 adds SimCLR"
	@echo "make clean      remove the virtual environment and caches"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "jaxcl needs Python 3.11 or newer; none found"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.experiments: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[experiments]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.experiments

$(VENV)/.aot: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable '.[aot]'
	@touch $@

simclr: $(VENV)/.experiments
	$(BIN)/python -m experiments.simclr
	$(BIN)/python -m experiments.linear_probe runs/simclr

# Each worker takes half of the files, so that few programs are compiled by both, and
# takes over from the other one at the end.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow and not aot" -n 2 --dist worksteal

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow -n 2 --dist loadgroup $(SLOW_FLAGS)

# One process: libtpu is loaded once, and each program compiled once.
aot: $(VENV)/.aot
	$(BIN)/python -m pytest -m aot tests/aot

wheel: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow tests/wheel_test.py

torture: $(VENV)/.dev
	$(BIN)/python -m tests.torture

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: $(VENV)/.experiments
	$(BIN)/python -m experiments.benchmark

$(GPU)/.gpu: pyproject.toml
	@nvidia-smi -L 2>/dev/null || { echo "make gpu needs an NVIDIA GPU and its driver: nvidia-smi finds none"; exit 1; }
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/python -m pip install --quiet --editable '.[experiments]' 'jax[$(CUDA)]'
	@touch $@

# `make gpu GPU_FLAGS=--rehearse` runs the same parts at tiny sizes, on a CPU too.
gpu: $(if $(findstring --rehearse,$(GPU_FLAGS)),$(VENV)/.experiments,$(GPU)/.gpu)
	$(dir $<)bin/python -m experiments.gpu --cifar10 '$(CIFAR10)' $(GPU_FLAGS)

clean:
	rm -rf $(VENV) $(GPU) .pytest_cache .mypy_cache .ruff_cache
