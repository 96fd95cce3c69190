# make report [PROFILE=quick] [MUSDB=/path/to/musdb18] [SET="name=value …"]
# make test       what a change to the science can break: the tests outside tests/robustness and tests/browser
# make test-all   these too: bad input, bombs, killed processes, full disks, pages in a browser
# make test-slow  what takes minutes each: thousands of steps, twenty kills, long fuzzing
# Each target first installs what it needs, once.

PROFILE ?= quick
PYTHON := .venv/bin/python
SYSTEM_PYTHON := $(shell command -v python3.11 || command -v python3)
.SHELLFLAGS := -eu -c
# make itself silently ignores a misspelt parameter.
STRANGE := $(filter-out PROFILE MUSDB SET,$(foreach name,$(.VARIABLES),$(if $(findstring command,$(origin $(name))),$(name))))
$(if $(STRANGE),$(error make knows PROFILE, MUSDB and SET, but not $(STRANGE); write SET="$(STRANGE)=..." for a parameter))
.PHONY: report test test-all test-slow lint audit ffmpeg chromium
# A thread that spins while it waits takes time from the other processes.
export OMP_WAIT_POLICY ?= PASSIVE

# Both reach Python as typed; make would expand a dollar, and the shell would end at " #". SET is split as a shell would.
override MUSDB := $(value MUSDB)
override SET := $(value SET)
export MUSDB SET

report: .venv/ready ffmpeg
	@$(PYTHON) -m lib.pipeline $(PROFILE) $${MUSDB:+"musdb_root=$$MUSDB"} $${SET:+--set "$$SET"}

# Two processes; tests that share a costly fixture stay in one of them (tests/conftest.py).
test: .venv/ready ffmpeg
	@$(PYTHON) -m pytest -n 2 --dist loadgroup -m "not slow and not robustness and not browser"

test-all: .venv/ready ffmpeg chromium
	@$(PYTHON) -m pytest -n 2 --dist loadgroup -m "not slow"

test-slow: .venv/ready ffmpeg
	@$(PYTHON) -m pytest -m slow

lint: .venv/ready
	@$(PYTHON) -m ruff check lib notebooks tests benchmarks
	@$(PYTHON) -m ruff format --check lib tests benchmarks

# Look up known vulnerabilities of the installed versions.
audit: .audit/ready
	@.ci/audit

.audit/ready: | .venv/ready
	@$(PYTHON) -m venv .audit
	@.audit/bin/python -m pip install -q --disable-pip-version-check pip-audit==2.10.1
	@touch $@

.venv/ready: requirements.txt constraints.txt
	@$(SYSTEM_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Python 3.11 is needed; python3.11 was not found on the path."; exit 1; }
	@echo "Installing Python packages into .venv (about two minutes, 6 GB)"
	@$(SYSTEM_PYTHON) -m venv .venv || { .ci/apt python3.11-venv && $(SYSTEM_PYTHON) -m venv --clear .venv; } || \
		{ echo "The venv module is missing: install python3.11-venv, or use conda env create -f environment.yml"; exit 1; }
	@$(PYTHON) -m pip install --progress-bar off --disable-pip-version-check -r requirements.txt || \
		{ echo "The packages could not be installed, for the reason that pip gives above; correct it and run make again."; exit 1; }
	@touch $@

ffmpeg:
	@command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null || .ci/apt ffmpeg || \
		{ echo "ffmpeg and ffprobe are needed: apt-get install ffmpeg, brew install ffmpeg or conda install -c conda-forge ffmpeg"; exit 1; }

chromium:
	@command -v chromium >/dev/null || .ci/apt chromium || echo "Chromium was not found: the tests in a browser are skipped."
