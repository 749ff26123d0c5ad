# Every target begins with the set-up it needs; nothing is wanted beforehand but Linux, git, make and Python 3.11.
SHELL := /bin/bash
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check
PEER := torchattacks==3.5.1# a parity test's reference; asks for torchvision, which it does not need: no dependencies

.PHONY: help setup repro test check lab reproducible benchmarks lock

help:           ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## +/\t/' | expand -t 16

setup: .venv/requirements.lock ## the environment, once for each state of requirements.lock

repro: setup    ## the whole study: data, training, attacks, table, notebooks, reports
	dvc repro

test: check     ## linters, types, notebooks, configuration, then the tests
	pytest tests

check: setup    ## linters, types, notebooks, configuration
	ruff check .
	ruff format --check .
	mypy aisec_lab
	nbqa mypy notebooks
	nbstripout --verify --keep-id notebooks/*.ipynb
	aisec compose --check

lab: setup      ## JupyterLab on the notebooks
	jupyter lab --notebook-dir=. --ContentsManager.allow_hidden=False notebooks

reproducible: repro ## force the whole study a second time and compare every output, byte for byte
	python -m tests.reproducible

benchmarks: setup ## our attacks against the reference libraries, timed in pairs (some minutes, one core)
	OMP_NUM_THREADS=1 python -m benchmarks.attacks

# A venv cannot be moved and a half-installed one cannot be trusted: it is made anew whenever the lock's content changes.
.venv/requirements.lock: requirements.lock
	@if cmp -s requirements.lock $@; then touch $@; else \
	  set -e; rm -rf .venv; $(PYTHON) -m venv .venv; \
	  $(PIP) -r requirements.lock; \
	  $(PIP) --no-deps $(PEER); \
	  $(PIP) --no-deps --no-build-isolation --editable .; \
	  .venv/bin/python -m ipykernel install --sys-prefix --name aisec-lab --display-name aisec-lab --env OMP_NUM_THREADS 1; \
	  cp requirements.lock $@; \
	fi

lock:           ## resolve pyproject.toml anew and write requirements.lock
	rm -rf .venv && $(PYTHON) -m venv .venv
	$(PIP) --editable ".[test,dev]"
	.venv/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//' > requirements.lock
