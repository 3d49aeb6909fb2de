# Everything starts from nothing: the targets make .venv themselves. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO ?= quickstart
SCALE ?= lab
REPRODUCTIONS := $(filter-out quickstart,$(patsubst sweeps/%.yaml,%,$(wildcard sweeps/*.yaml)))
MATH_VERIFY := $(shell sed -n 's/^math-verify==//p' requirements/pins.txt)
SUITE := build/math_verify-$(MATH_VERIFY)
NOT_QUICK := slow or browser or vllm or gpu or verl or trl or lmeval or rliable

.DEFAULT_GOAL := help
.PHONY: help install demo repro-fig1 repro-fig4 repro-fig5 repro-fig6 repro-fig7 repro-all reproductions test coverage test-slow test-browser test-math-verify test-verl test-trl test-vllm test-lmeval test-rliable docs lint contract types check format clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-17s %s\n", $$1, $$2}'

$(INSTALLED): requirements/pins.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/pins.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

install: $(INSTALLED) ## Make .venv with the pinned packages and the lab

demo: $(INSTALLED) ## Compare four methods on two seeds and write the report
	$(BIN)/cppo-lab sweep $(DEMO)

repro-fig5: repro-fig5_mechanisms repro-fig5_ordering repro-fig5_soft ## Figure 5 of the paper; SCALE=paper as published
repro-fig6: repro-fig6_sensitivity repro-fig6_kl repro-fig6_binary ## Figure 6
repro-fig1 repro-fig4: repro-table1
repro-fig7: repro-fig7_budget

repro-%: $(INSTALLED) # One sweep: its runs, its report, its result file
	$(BIN)/cppo-lab sweep $* scale=$(SCALE); code=$$?; \
	[ $$code -eq 2 ] || $(BIN)/cppo-lab results $* scale=$(SCALE); exit $$code

repro-all: $(REPRODUCTIONS:%=repro-%) reproductions ## Every sweep of the paper, and the page of them

reproductions: $(INSTALLED) ## docs/reproductions.md and its figures from results/*.csv
	$(BIN)/python -m cppo_lab.analysis.reproductions --readme README.md

test: $(INSTALLED) ## The quick tests, a few minutes on two cores
	$(BIN)/python -m pytest -q -n 2 -m "not ($(NOT_QUICK))"

coverage: $(INSTALLED) ## The quick tests, with the lines they do not reach
	$(BIN)/python -m pytest -q -n 2 -m "not ($(NOT_QUICK))" --cov --cov-report=term:skip-covered --cov-report=xml:build/coverage.xml

test-slow: $(INSTALLED) ## Whole runs, killed processes, builds
	$(BIN)/python -m pytest -q -n 2 -m slow

test-browser: $(INSTALLED) ## The report's page in Chromium; REPORT=… names one more to test
	CPPO_LAB_REPORT="$(REPORT)" $(BIN)/python -m pytest -q -n 2 -m browser

$(SUITE)/PKG-INFO: $(INSTALLED)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: -d build math-verify==$(MATH_VERIFY)
	tar -xzf $(SUITE).tar.gz -C build
	touch $@

test-math-verify: $(SUITE)/PKG-INFO ## math-verify's own test-suite, by the lab's grader
	cd $(SUITE) && PYTHONPATH=$(CURDIR):$(CURDIR)/tests/peers $(abspath $(BIN))/python -m pytest -q -rx -p math_verify_suite tests

.venv-%/.installed: requirements/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

.venv-vllm/.installed: requirements/vllm.txt pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' $<)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

test-vllm: .venv-vllm/.installed ## Rollouts by vLLM's CPU build, in an environment of its own
	$(<D)/bin/python -m pytest -q -n 2 --dist loadfile -m vllm tests/rollouts tests/eval

test-verl: .venv-verl/.installed ## Equality with verl's losses, in an environment of its own
	$(<D)/bin/python -m pytest -q -m verl tests/peers

test-trl: .venv-trl/.installed ## Equality with TRL's losses, in an environment of its own
	$(<D)/bin/python -m pytest -q -m trl tests/peers

test-rliable: .venv-rliable/.installed ## Equality with rliable's and statsmodels' statistics
	$(<D)/bin/python -m pytest -q --noconftest -m rliable tests/peers/test_rliable.py

test-lmeval: $(INSTALLED) .venv-lmeval/.installed ## Equality with lm-evaluation-harness, in an environment of its own
	$(BIN)/python -m pytest -q -m lmeval tests/peers

docs: .venv-docs/.installed ## The documentation as a site in build/site, every link checked
	NO_MKDOCS_2_WARNING=1 $(<D)/bin/mkdocs build --quiet

lint: $(INSTALLED) ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

contract: $(INSTALLED) ## Which package may import which (pyproject.toml, tool.importlinter)
	$(BIN)/lint-imports --no-logo

types: $(INSTALLED) ## Types
	$(BIN)/mypy

check: lint contract types test ## What every commit must pass

format: $(INSTALLED) ## Rewrite files in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environments and caches; outputs stay
	rm -rf $(VENV) .venv-verl .venv-trl .venv-vllm .venv-lmeval .venv-rliable .venv-docs .pytest_cache .mypy_cache .grimp_cache .import_linter_cache .ruff_cache .hypothesis build dist
