# Needs Python 3.11 or later, and make. PYTHON=/path/to/python names another one.
PYTHON ?= python3
# How many processes run the tests, and what runs them there: `.ci/run` has its own, which notes the time of each test.
JOBS ?= 2
TRIAL ?= -m twisted.trial

VENV := .venv
BIN := $(VENV)/bin

.PHONY: help run test lint docs screenshots twisted clean

help:
	@echo "make run    start the orchestrator on examples/quickstart; Ctrl-C ends it"
	@echo "make run STORE=postgres   the same, with its events in a PostgreSQL that is started for it"
	@echo "make test   run all tests"
	@echo "make lint   check style and types"
	@echo "make docs   build the documentation's site in site/"
	@echo "make screenshots   a picture of every page of the console, in screenshots/"
	@echo "make twisted VERSION=lowest   run tests with another Twisted: lowest, latest or a number"
	@echo "make clean  remove what the others made"

run: $(VENV)/installed$(if $(STORE),-demo-$(STORE))
	@$(BIN)/python examples/quickstart/demo.py $(STORE)

test: $(VENV)/installed-test
	@$(BIN)/python -u $(TRIAL) --jobs=$(JOBS) --temp-directory=$(VENV)/trial tests

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if [ -x $(BIN)/hadolint ]; then echo "$(BIN)/hadolint Containerfile"; $(BIN)/hadolint Containerfile; fi

docs: $(VENV)/installed-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

screenshots: $(VENV)/installed-test
	@HARN_SCREENSHOTS="$(CURDIR)/screenshots" $(BIN)/python -m twisted.trial --temp-directory=$(VENV)/trial-screenshots \
		tests.console.test_browser.PageTests.test_every_page

twisted:
	@PYTHON=$(PYTHON) .ci/twisted $(or $(VERSION),lowest)

clean:
	rm -rf $(VENV) .harn build dist site screenshots *.egg-info _trial_temp* .hypothesis .mypy_cache .ruff_cache */plugins/dropin.cache

# Installed in place, so that an edit counts at once. "compat" puts this folder on the path as it is, which is how Twisted
# finds our plugins in it. A stamp is older than the files that say what to install.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "installing harn and what it needs into $(VENV) (about a minute, this once)..." >&2
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/installed-%: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "installing harn and what its $* needs into $(VENV) (about a minute, this once)..." >&2
	@$(INSTALL) --editable ".[$*]"
	@touch $@ $(VENV)/installed

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "harn needs Python 3.11 or later; run: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)..." >&2
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
