# Every target begins with the set-up it needs; nothing is wanted beforehand but Linux, git, make and Python 3.11.
SHELL := /bin/bash
MAKEFLAGS += --jobs=2# the two environments are installed side by side
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PIP := -m pip install --quiet --disable-pip-version-check
PEER := torchattacks==3.5.1# a parity test's reference; asks for torchvision, which it does not need: no dependencies
SECML := secml==0.15.6# runs on Python 3.11, though it declares less than that
SECML_HOME := $(CURDIR)/.venv-legacy/secml# else in the home folder; SecML fails where two kernels make it at once
KERNEL := .venv/share/jupyter/kernels/aisec-legacy/kernel.json
KERNEL_ENV := OMP_NUM_THREADS=1 TF_CPP_MIN_LOG_LEVEL=3 PYTHONWARNINGS=ignore::DeprecationWarning,ignore::FutureWarning \
  SECML_HOME_DIR=$(SECML_HOME) SECML_PYTORCH_DIR=$(SECML_HOME)/pytorch

.PHONY: help setup legacy repro test check lab reproducible benchmarks lock

help:           ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## +/\t/' | expand -t 16

setup: .venv/requirements.lock ## the environment, once for each state of requirements.lock

legacy: $(KERNEL) ## the second kernel, TensorFlow Privacy and SecML, once for each state of requirements-legacy.lock

repro: setup legacy ## all studies: data, training, attacks, tables, notebooks, reports; one notebook on each core
	aisec repro

test: check legacy ## linters, types, notebooks, configuration, then the tests
	pytest tests

check: setup    ## linters, types, notebooks, configuration
	ruff check .
	ruff format --check .
	mypy aisec_lab
	nbqa mypy notebooks
	nbstripout --verify --keep-id notebooks/*/*.ipynb
	aisec compose --check

lab: setup legacy ## JupyterLab on the notebooks
	jupyter lab --notebook-dir=. --ContentsManager.allow_hidden=False notebooks

reproducible: repro ## force all studies a second time and compare every output, byte for byte
	python -m tests.reproducible

benchmarks: setup ## our attacks against the reference libraries, timed in pairs (some minutes, one core)
	OMP_NUM_THREADS=1 python -m benchmarks.attacks

# A venv cannot be moved and a half-installed one cannot be trusted: it is made anew whenever the lock's content changes.
.venv/requirements.lock: requirements.lock
	@if cmp -s requirements.lock $@; then touch $@; else \
	  set -e; rm -rf .venv; $(PYTHON) -m venv .venv; \
	  .venv/bin/python $(PIP) -r requirements.lock; \
	  .venv/bin/python $(PIP) --no-deps $(PEER); \
	  .venv/bin/python $(PIP) --no-deps --no-build-isolation --editable .; \
	  .venv/bin/python -m ipykernel install --sys-prefix --name aisec-lab --display-name aisec-lab --env OMP_NUM_THREADS 1; \
	  cp requirements.lock $@; \
	fi

.venv-legacy/requirements-legacy.lock: requirements-legacy.lock
	@if cmp -s requirements-legacy.lock $@; then touch $@; else \
	  set -e; rm -rf .venv-legacy; $(PYTHON) -m venv .venv-legacy; \
	  .venv-legacy/bin/python $(PIP) -r requirements-legacy.lock; \
	  .venv-legacy/bin/python $(PIP) --no-deps --ignore-requires-python $(SECML); \
	  $(KERNEL_ENV) .venv-legacy/bin/python -c 'import secml.settings' >/dev/null; \
	  cp requirements-legacy.lock $@; \
	fi

# Registered in .venv, whose papermill and JupyterLab look there; that one may have been made anew since.
$(KERNEL): .venv/requirements.lock .venv-legacy/requirements-legacy.lock
	.venv-legacy/bin/python -m ipykernel install --prefix .venv --name aisec-legacy --display-name aisec-legacy \
	  $(foreach pair,$(KERNEL_ENV),--env $(subst =, ,$(pair)))

lock:           ## resolve pyproject.toml anew and write requirements.lock
	rm -rf .venv && $(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) --editable ".[test,dev]"
	.venv/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//' > requirements.lock
