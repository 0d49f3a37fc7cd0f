# Two commands to begin with: `make simclr` and `make test`. All create what they need.

VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough; `make PYTHON=... test` chooses another one.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)

# Of `make gpu`: an environment of its own, and the CUDA that its jax is built for.
GPU := .venv-gpu
CUDA ?= cuda12

.PHONY: help simclr test slow aot wheel torture lint benchmark gpu docs docs-serve \
	release-check clean

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
	@echo "make docs       build the documentation into site/, and check its links"
	@echo "make docs-serve show it at http://localhost:8000 while you write"
	@echo "make release-check  build what is released, into dist/, and look it over"
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

$(VENV)/.docs: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

$(VENV)/.release: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[release]'
	@touch $@

simclr: $(VENV)/.experiments
	$(BIN)/python -m experiments.simclr
	$(BIN)/python -m experiments.linear_probe runs/simclr
	@test -e runs/simclr/digits.npz || $(BIN)/jaxcl embed runs/simclr --layer z --out runs/simclr/digits.npz
	@$(BIN)/jaxcl report runs/simclr/digits.npz --key embeddings --labels labels \
		--out runs/simclr/report --overwrite > runs/simclr/report.txt
	@echo
	@echo "Where to look next:"
	@echo "  runs/simclr/curves.png, embedding.png, neighbors.png   what was learned, seen"
	@echo "  runs/simclr/report/report.html    are these embeddings Gaussian? a page"
	@echo "  docs/tutorial.md                  the same, written by yourself in 80 lines"
	@echo "and three commands:"
	@echo "  $(BIN)/python -m experiments.simclr --loss dcl --temperature 0.1 --directory runs/dcl"
	@echo "  $(BIN)/jaxcl probe runs/dcl       # is another loss any better?"
	@echo "  $(BIN)/jaxcl prepare --name photos --folder YOUR_IMAGES --resize 64  # then: --source tfds:photos"

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

docs: $(VENV)/.docs
	$(BIN)/python -m docs.website

docs-serve: $(VENV)/.docs
	$(BIN)/python -m zensical serve

release-check: $(VENV)/.release
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

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
	rm -rf $(VENV) $(GPU) site dist .cache .pytest_cache .mypy_cache .ruff_cache
