# The one door for developers. Everything that is needed is installed on the way: packages of the
# distribution as root (or with sudo), Python packages into .venv.

PYTHON ?= /usr/bin/python3
VENV := .venv
RUN := $(VENV)/bin
TIERS := house unit wire process machine
BENCH := build/bench/venv

.PHONY: run test $(TIERS) bench bench-peers deb format clean

run: $(VENV)/ready ## serve echo on port 51423 in the foreground, until Ctrl-C
	$(RUN)/netsrvd run

test: $(VENV)/ready deb ## run every test
	$(RUN)/pytest

$(TIERS): %: $(VENV)/ready ## run one tier; `machine` wants `make deb` first
	$(RUN)/pytest tests/$*

bench: $(VENV)/ready $(BENCH)/ready ## compare with what is installed, into docs/performance.md
	$(MAKE) --directory=tests/bench
	$(BENCH)/bin/python -m tests.bench.run --publish

bench-peers: $(BENCH)/ready ## install what Debian and PyPI have to compare with
	tests/bench/install-peers $(BENCH)

deb: ## build and check the package, into build/deb
	packaging/make-deb

format: $(VENV)/ready ## lay out the code and mend what can be mended mechanically
	$(RUN)/ruff format netsrvd tests
	$(RUN)/ruff check --fix netsrvd tests

clean: ## remove what was made here
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/ready: pyproject.toml packaging/make-venv
	packaging/make-venv $(PYTHON) $(VENV)
	touch $@

$(BENCH)/ready: $(VENV)/ready
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --upgrade pip
	$(BENCH)/bin/pip install --quiet --group bench
	touch $@
