# Every target works in a fresh clone: what it needs, `setup` has installed into .venv first.
# A second run installs nothing; the stamp is older than pyproject.toml or constraints.txt only
# when one of them has changed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := .stamps/setup
SOURCES := service training sojourn_client tests benchmarks deploy

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check bench bench-quick bench-serve profile compose format constraints docs audit sbom chaos fuzz \
  proofs clean

help:  ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## make .venv with everything that the other targets need

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

# --group came with pip 25.1.
$(READY): pyproject.toml constraints.txt $(BIN)/python
	@echo 'installing into $(VENV), about two minutes ...'
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[serve,embedded,train,lm,telemetry,wandb,client]' --group dev
	@mkdir -p $(@D) && touch $@

demo: $(READY)  ## train on real data, serve it, post events, see the recommendations change
	$(BIN)/python deploy/demo.py

test: $(READY)  ## run the whole test suite, with a real Valkey
	$(BIN)/python -m pytest

lint: $(READY)  ## check format, rules, types and imports
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

check: lint test  ## all that the build server checks: lint, then test

bench: $(READY)  ## measure latency and throughput on this machine
	$(BIN)/python benchmarks/run.py

bench-quick: $(READY)  ## serving against the bare server, in about two minutes
	$(BIN)/python benchmarks/serve.py --quick --json build/bench-quick.json

bench-serve: $(READY)  ## the same in full, on a quiet machine; a quarter of an hour
	$(BIN)/python benchmarks/serve.py --json build/bench-serve.json

profile: $(READY)  ## sample the service under load: where a request's time goes; needs a network once
	$(BIN)/python benchmarks/hot_path.py

compose:  ## build and start Redis and the service; needs Docker and a bundle in ./bundles
	@test -s bundles/CURRENT || { echo 'no bundle in ./bundles: `make demo` makes one'; exit 1; }
	docker compose up --build --detach --wait
	@echo 'serving at http://127.0.0.1:8000/'

format: $(READY)  ## format the code and mend what can be mended
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

docs: $(READY)  ## build the documentation into build/site, strictly
	$(BIN)/mkdocs build --strict --quiet

constraints: $(READY)  ## write constraints.txt from what is installed
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt

audit: $(READY)  ## ask whether anything that serves has a known vulnerability; needs a network
	$(BIN)/python deploy/audit.py audit

sbom: $(READY)  ## list all that serves, as CycloneDX in build/sbom.json
	$(BIN)/python deploy/audit.py sbom

chaos: $(READY)  ## kill everything in turn under load, then count every acknowledged event
	$(BIN)/python -m deploy.chaos.run

fuzz: $(READY)  ## hold the service against its OpenAPI document; needs a network once
	$(BIN)/python -m deploy.chaos.fuzz

proofs: chaos  ## chaos, and: given-up requests, reloads, replicas, erasure; ten minutes
	$(BIN)/python -m deploy.chaos.cancel
	$(BIN)/python -m deploy.chaos.reloads
	$(BIN)/python -m deploy.chaos.replicas
	$(BIN)/python -m deploy.chaos.erasure

clean:  ## remove the environment and every cache; data, runs and bundles stay
	rm -rf $(VENV) .stamps build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
