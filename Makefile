# Kubernetes Inside Out. Two commands are all that a newcomer needs: `make lab` and `make test`.
#
#   make lab      a cluster, then JupyterLab on the labs
#   make test     unit tests, and the suite on a real cluster (PROVIDER=kind, vagrant or kubeconfig: on one of another provider)
#   make book     the book, executed on a real cluster
#   make check    ruff, mypy --strict, the layers, labs and notebooks in step
#   make bench    ratios, side by side in one run
#   make setup    only the set-up that the others begin with
#   make clean    removes what these made in this folder; caches and clusters stay (see `lab down --all`)
#
# Slow ones, not in .ci/run:
#   make test-labs     every lab's solution and all its wrong answers, graded on a cluster (`make test`: labs 03 and 08, with a few)
#   make conformance   Kubernetes' own e2e tests (sig-network, sig-node) on a cluster of ours
#   make test-v2       the embedded provider on a pure cgroup v2 host with systemd (a QEMU guest)
#   make test-kind     the kind provider on a Docker daemon of its own
#   make test-vagrant  the vagrant provider on real virtual machines (libvirt; emulated where there is no KVM)

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
PYTEST ?= $(BIN)/pytest
TESTED := $(or $(PROVIDER),embedded)

.PHONY: help setup prepared lab test book bench check clean conformance test-labs test-v2 test-kind test-vagrant
help:
	@sed -n 's/^#   /  /p' $(MAKEFILE_LIST)

setup: $(VENV)/.ready
	@sh lab_utils/host/packages.sh

$(VENV)/.ready: requirements.lock pyproject.toml
	@sh lab_utils/host/packages.sh python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# What nodes are made of is built beforehand, so that it counts to no test. Other providers make theirs in other ways.
prepared: setup
	$(if $(filter embedded,$(TESTED)),$(BIN)/lab prepare)

lab: setup
	$(BIN)/lab up
	$(BIN)/lab start

test: setup prepared
	LAB_TEST_PROVIDER=$(TESTED) $(BIN)/python -m tests

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(PYTEST) -q tests/test_layers.py
	$(BIN)/lab build --all --check

book: setup
	$(BIN)/python -m lab_utils.book build

bench: setup
	$(BIN)/python -m tests.bench

test-labs: setup prepared
	LAB_TEST_PROVIDER=$(TESTED) LAB_TEST_LABS=$(or $(LABS),all) $(PYTEST) tests/labs/test_every_lab.py

conformance: setup
	$(BIN)/python -m tests.conformance

test-v2: setup
	$(BIN)/python -m tests.v2

test-kind: setup
	$(BIN)/python -m tests.kind

test-vagrant: setup
	$(BIN)/python -m tests.vagrant

clean:
	rm -rf $(VENV) _build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
