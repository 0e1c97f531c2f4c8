# Every target does all its own set-up: it needs make, git and a Python >= 3.12 (on PATH or in pyenv).
SHELL := /bin/bash
.DEFAULT_GOAL := help

PORT ?= 8000
RUN ?= .run
VENV := .venv
BIN := $(VENV)/bin

# A Python >= 3.12 on PATH or under pyenv; 3.12 before newer ones, it is what the lock is tested with most.
PYTHON ?= $(shell for p in python3.12 python3.13 python3.14 python3 \
    $$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.1[2-9]*/bin/python3 2>/dev/null | sort -V); do \
    "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && command -v "$$p" && break; done)

.PHONY: help run examples browser test test-fast test-nightly test-images lint docs bench bench-release lock clean

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(VENV)/.made:
	@if [ -z "$(PYTHON)" ]; then echo "tessera-stac needs Python 3.12 or newer, on PATH or in pyenv;" \
	  "found $$(python3 --version 2>&1 || echo none)" >&2; exit 1; fi
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
	  { echo "tessera-stac needs Python 3.12 or newer; PYTHON=$(PYTHON) is $$("$(PYTHON)" --version 2>&1)" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run: requirements.lock pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# uv is in the lock itself, and is several times as fast as pip.
INSTALL_UV = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
  -r <(awk '/^[^ ]/ {uv = /^uv==/} uv' requirements-dev.lock)

# All of requirements.lock is in this one.
$(VENV)/.dev: requirements-dev.lock requirements.lock pyproject.toml $(VENV)/.made
	$(INSTALL_UV)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(VENV)/.run $@

$(VENV)/.examples: requirements-dev.lock $(VENV)/.run
	$(INSTALL_UV)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation -c requirements-dev.lock -e '.[examples]'
	@touch $@

run: $(VENV)/.run  ## Build a sample catalogue from real manifests and serve it on PORT
	@$(BIN)/tessera-stac demo --folder $(RUN) --port $(PORT)

examples: $(VENV)/.examples  ## Install what README's blocks and examples/ need: . .venv/bin/activate

browser: $(VENV)/.made  ## Build STAC Browser for the server's /browser page (needs node and npm)
	$(BIN)/python deploy/browser/build.py

test: $(VENV)/.dev  ## Run the tests
	$(BIN)/python -m pytest -n auto --dist loadgroup $(ARGS)

test-fast: $(VENV)/.dev  ## Run the tests that need no server and no other program
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not bench and not nightly and not service and not slow" $(ARGS)

test-nightly: $(VENV)/.dev  ## Run the oracles at length: 20,000 filters per backend
	$(BIN)/python -m pytest -m nightly -n 0 $(ARGS)

test-images: $(VENV)/.dev  ## Build and run the images: needs root, buildah and debootstrap, 15 minutes, 10 GB
	$(BIN)/python -m pytest -m release -s -n 0 tests/deploy/test_image.py $(ARGS)

lint: $(VENV)/.dev  ## ruff, mypy --strict and the rooms' contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev  ## Build the documentation site into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # with --quiet, --strict would not see warnings

bench: $(VENV)/.dev  ## Print the tables of the README that take minutes
	$(BIN)/python -m pytest -m "bench and not release" -s -p no:xdist tests/bench $(ARGS)

bench-release: $(VENV)/.dev  ## Print those that take hours: a planet, a soak, other servers
	$(BIN)/python -m pytest -m release -s -p no:xdist tests/bench $(ARGS)

lock: $(VENV)/.dev  ## Resolve the dependencies again
	$(BIN)/uv pip compile pyproject.toml --group build --universal --python-version 3.12 --generate-hashes \
	  --no-emit-index-url --no-header -q -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --group build --group dev --group docs --all-extras --universal --python-version 3.12 \
	  --generate-hashes --no-emit-index-url --no-header -q -o requirements-dev.lock
	$(BIN)/uv pip compile pyproject.toml --group build --extra pgstac --universal --python-version 3.12 \
	  --generate-hashes --no-emit-index-url --no-header -q -o deploy/pgstac/requirements.lock

clean:  ## Remove what was made
	rm -rf $(VENV) $(RUN) build dist api/browser_dist .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
