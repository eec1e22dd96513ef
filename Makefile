# make demo      boot a local node with the real contracts, sync it, list who is at risk
# make test      lint, types, layers and all tests
# make quick     the same with only the quick tests that need no node: the inner loop
# make coverage  all tests, and which lines none of them runs
# make bench     every bench with little data, as one JSON object a line; make bench FULL=1 with much
# make lowest    the tests that need no node, with the lowest versions that are allowed
# make deployments  write the generated chains and deployments anew, from their packages
# make dist      wheel and sdist in dist/, checked and tried in clean environments
# make docs      write the generated blocks of the pages, and the picture of README, anew
# make sample    make demo, and keep its database for `indexer demo`
# make lock      renew constraints.txt, the versions of make venv
# make venv      only the virtual environment, in .venv
# Needs Python 3.11 or later and, for the node, Node.js 20 or later. Nothing is installed outside .venv and the cache.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One process a core and one more; tests that share a market run in one of them, those that need the node first.
PYTEST := $(BIN)/pytest --numprocesses auto --dist loadgroup --no-loadscope-reorder
# pytest rewrites every test module, in each process anew where none may be kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: bench coverage demo lint quick sample test venv
.DEFAULT_GOAL := demo

demo: venv
	@$(BIN)/python -m tests.demo

sample: venv
	@$(BIN)/python -m tests.demo --sample

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

test: lint
	$(PYTEST)

quick: lint
	$(PYTEST) -m "not node and not long and not slow"

coverage: venv
	$(PYTEST) --cov --cov-report term-missing:skip-covered

bench: venv
	@for bench in $$($(BIN)/python -m tests.bench); do $(BIN)/python -m tests.bench.$$bench $(if $(FULL),,--quick) || exit 1; done

venv: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "Python 3.11 or later is needed: install it, or name one with make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$($(PYTHON) --version) is too old, 3.11 or later is needed: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "this Python has no venv module: install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "making the virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --group dev --editable .
	@touch $@

.PHONY: deployments dist docs lock lowest
LOCK := $(VENV)-lock
LOWEST := $(VENV)-lowest
RELEASE := $(VENV)-dist

deployments: venv
	@$(BIN)/python -m tests.deployments.refresh

docs: venv
	@$(BIN)/cog -r -I . README.md docs/*.md
	@$(BIN)/python -m tests.docs.screenshot

# In an environment of its own: what checks a release is not needed to work on it.
dist:
	$(PYTHON) -m venv --clear $(RELEASE)
	$(RELEASE)/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	$(RELEASE)/bin/python -m pip install -qq --disable-pip-version-check --group dist --editable .
	$(RELEASE)/bin/python -m tests.dist

# The versions that `make venv` installs, renewed: the newest that fit together.
lock:
	$(PYTHON) -m venv --clear $(LOCK)
	$(LOCK)/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	$(LOCK)/bin/python -m pip install -qq --disable-pip-version-check --group dev --editable .
	$(LOCK)/bin/python -m pip freeze --exclude-editable > constraints.txt
	rm -r $(LOCK)

# The tests that need no node, with the lowest version that pyproject.toml allows of everything the program imports.
lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install -qq --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST) --resolution lowest-direct --editable '.[alerts,charts,parquet]'
	@# What the tests need must not raise them again.
	$(LOWEST)/bin/uv pip freeze --python $(LOWEST) --exclude-editable | grep -vE '^(pip|setuptools|uv)==' > $(LOWEST)/floors.txt
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST) --constraint $(LOWEST)/floors.txt --group dev
	$(LOWEST)/bin/python -m pytest --numprocesses auto -o faulthandler_timeout=300 -m "not node and not long"
