# make run      the whole default workflow on this machine, from images to a report
# make test     all tests, on all cores; with PYTEST_ARGS='-k selection' those only, in one process
# make quicktest  those of config, io, planning and datasets, which train nothing: a minute or two
# make docs     the documentation's site, in site/; a link that leads nowhere is an error
# make paper-docs  the tables, figures and numbers of `snakemake paper` into docs/paper/, which the pages quote
# make gallery  the figures of `make run` into docs/images/gallery/
# All make .venv from the hash-checked lock; nothing else has to be installed by hand.
PYTHON ?= python3
CORES ?= all
QUICK := $(addprefix tests/,config io planning datasets)
VENV := .venv
BIN := $(VENV)/bin
RESULTS := results
PAPER_RESULTS := results_paper
SNAKEMAKE := $(BIN)/snakemake
# pip's warnings are about where packages come from: kept, and shown only where it fails.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOGGED = >> $(VENV)/install.log 2>&1 || { tail -n 30 $(VENV)/install.log; exit 1; }
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
UV_COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet

.DEFAULT_GOAL := help
.PHONY: help run test quicktest lint typecheck imports docs paper-docs gallery check lock clean

help:
	@sed -n '/^# make/s/^# //p' $(MAKEFILE_LIST)

run: $(VENV)/run.stamp
	@$(BIN)/python workflow/unlock.py
	@ENSEMBLEFLOW_COMMAND='make run$(if $(filter command line,$(origin CORES)), CORES=$(CORES))' $(SNAKEMAKE) --cores $(CORES) --rerun-incomplete --logger ensembleflow
	@$(BIN)/ensembleflow summary --results $(RESULTS)

test: $(VENV)/test.stamp
	$(BIN)/python $(if $(PYTEST_ARGS),-m pytest $(PYTEST_ARGS),tests/on_all_cores.py)

quicktest: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(QUICK) $(PYTEST_ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/Snakefile rules
	$(BIN)/snakemake --lint

typecheck: $(VENV)/test.stamp
	$(BIN)/mypy

imports: $(VENV)/test.stamp
	$(BIN)/lint-imports

docs: $(VENV)/test.stamp
	@NO_MKDOCS_2_WARNING=1 PYTHONPATH=workflow $(BIN)/mkdocs build --quiet
	@echo "open site/index.html; its search needs a server: python3 -m http.server --directory site"

paper-docs:
	@test -e $(PAPER_RESULTS)/paper/numbers.json || { echo "there is no $(PAPER_RESULTS)/paper/numbers.json: snakemake --cores all paper --configfile config/paper.yaml makes it"; exit 1; }
	cp $(PAPER_RESULTS)/paper/{*.md,*.csv,*.svg,numbers.json} docs/paper/

gallery:
	@test -e $(RESULTS)/figures || { echo "there are no $(RESULTS)/figures: make run makes them"; exit 1; }
	mkdir -p docs/images/gallery
	cp $(RESULTS)/figures/*.svg docs/images/gallery/

check: lint typecheck imports docs test

# Renew the locks: the newest versions that pyproject.toml allows, the four agreeing with each other.
lock: $(VENV)/lock.stamp
	$(BIN)/$(UV_COMPILE) --upgrade --extra workflow --extra cpu -o requirements.lock
	$(BIN)/$(UV_COMPILE) --extra workflow --extra cpu --extra onnxruntime --extra openvino -c requirements.lock -o requirements-engines.lock
	$(BIN)/$(UV_COMPILE) --extra workflow --extra cpu --extra onnxruntime --extra openvino --extra parquet --extra docs --extra test -c requirements.lock -c requirements-engines.lock -o requirements-test.lock
	grep -v '^tensorflow' requirements.lock | grep '==' | sed 's/ \\$$//' > $(VENV)/constraints.txt
	$(BIN)/$(UV_COMPILE) --extra workflow --extra gpu -c $(VENV)/constraints.txt -o requirements-gpu.lock

clean:
	rm -rf $(VENV) .snakemake

$(VENV)/run.stamp: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("ensembleflow needs Python 3.11 or newer, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@echo "installing the pinned packages into $(VENV) (once, a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --require-hashes -r requirements.lock $(LOGGED)
	@$(INSTALL) --no-deps --no-build-isolation --editable . $(LOGGED)
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp requirements-test.lock
	@$(INSTALL) --require-hashes -r requirements-test.lock $(LOGGED)
	@touch $@

$(VENV)/lock.stamp: $(VENV)/run.stamp
	@$(INSTALL) uv $(LOGGED)
	@touch $@
