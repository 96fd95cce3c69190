# `make` alone explains the targets: the lines with two hashes. Each target first installs what it needs, once.

PROFILE ?= quick
RUN ?= my-$(PROFILE)
PYTHON := .venv/bin/python
SYSTEM_PYTHON := $(shell command -v python3.11 || command -v python3)
.SHELLFLAGS := -eu -c
# make itself silently ignores a misspelt parameter.
STRANGE := $(filter-out PROFILE RUN MUSDB SET,$(foreach name,$(.VARIABLES),$(if $(findstring command,$(origin $(name))),$(name))))
$(if $(STRANGE),$(error make knows PROFILE, RUN, MUSDB and SET, but not $(STRANGE); write SET="$(STRANGE)=..." for a parameter))
.DEFAULT_GOAL := help
.PHONY: help install report pages explore test test-all test-slow lint audit ffmpeg chromium
# A thread that spins while it waits takes time from the other processes.
export OMP_WAIT_POLICY ?= PASSIVE

# Both reach Python as typed; make would expand a dollar, and the shell would end at " #". SET is split as a shell would.
override MUSDB := $(value MUSDB)
override SET := $(value SET)
export MUSDB SET

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; \
		do printf '  make %-10s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  PROFILE=quick|study|gpu|paper   its scale (default: quick)'
	@echo '  RUN=name                        writes to results/name (default: my-PROFILE, which git ignores)'
	@echo '  MUSDB=/path/to/musdb18          learns from MUSDB18 instead of the composed songs'
	@echo '  SET="name=value …"              changes parameters of the notebooks'

install: .venv/ready ffmpeg  ## the packages, into .venv (6 GB)

report: .venv/ready ffmpeg  ## compose, train, score, write results/RUN/index.html (17 to 25 minutes)
	@$(PYTHON) -m lib.pipeline $(PROFILE) "run=$(RUN)" $${MUSDB:+"musdb_root=$$MUSDB"} $${SET:+--set "$$SET"}

pages: .venv/ready  ## the web pages of the notebooks that are in results/RUN (default: quick), without running them
	@$(PYTHON) -m lib.report.pages "results/$(if $(filter file,$(origin RUN)),quick,$(RUN))"

explore: .venv/ready ffmpeg  ## 06-explore with live controls on results/RUN, in JupyterLab
	@mkdir -p explore
	@$(PYTHON) -m papermill --log-level WARNING --no-progress-bar --prepare-only notebooks/06-explore.ipynb explore/06-explore.ipynb -p run "$(RUN)"
	@$(PYTHON) -m jupyter lab --notebook-dir . explore/06-explore.ipynb

# Two processes; tests that share a costly fixture stay in one of them (tests/conftest.py).
test: .venv/ready ffmpeg  ## what a change to the science can break (some 5 minutes)
	@$(PYTHON) -m pytest -n 2 --dist loadgroup -m "not slow and not robustness and not browser and not whole"

test-all: .venv/ready ffmpeg chromium  ## these, whole programs, robustness, and the pages in a browser
	@$(PYTHON) -m pytest -n 2 --dist loadgroup -m "not slow"

test-slow: .venv/ready ffmpeg  ## what takes minutes each: thousands of steps, twenty kills, long fuzzing
	@$(PYTHON) -m pytest -m slow

lint: .venv/ready  ## style of the code
	@$(PYTHON) -m ruff check lib notebooks tests benchmarks
	@$(PYTHON) -m ruff format --check lib tests benchmarks

audit: .audit/ready  ## known vulnerabilities of the pinned packages; asks the package index
	@.ci/audit

.audit/ready: | .venv/ready
	@$(PYTHON) -m venv .audit
	@.audit/bin/python -m pip install -q --disable-pip-version-check pip-audit==2.10.1
	@touch $@

.venv/ready: requirements.txt constraints.txt
	@$(SYSTEM_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Python 3.11 is needed; python3.11 was not found on the path."; exit 1; }
	@echo "Installing Python packages into .venv (about two minutes, 6 GB)"
	@$(SYSTEM_PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/apt python3.11-venv || \
		{ echo "The venv module is missing: install python3.11-venv, or use conda env create -f environment.yml"; exit 1; }
	@$(SYSTEM_PYTHON) -m venv .venv
	@$(PYTHON) -m pip install --progress-bar off --disable-pip-version-check -r requirements.txt || \
		{ echo "The packages could not be installed, for the reason that pip gives above; correct it and run make again."; exit 1; }
	@touch $@

ffmpeg:
	@command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null || .ci/apt ffmpeg || \
		{ echo "ffmpeg and ffprobe are needed: apt-get install ffmpeg, brew install ffmpeg or conda install -c conda-forge ffmpeg"; exit 1; }

chromium:
	@command -v chromium >/dev/null || .ci/apt chromium || echo "Chromium was not found: the tests in a browser are skipped."
