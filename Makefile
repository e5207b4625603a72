# The one door for developers. What is needed for the target is installed on the way: packages of the
# distribution as root (or with sudo), Python packages into .venv, and servers that tests need into
# build/servers.

PYTHON ?= /usr/bin/python3
VENV := .venv
RUN := $(VENV)/bin
# Tests run make themselves, without the flags of this one.
PYTEST := env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL $(RUN)/pytest
TIERS := repo unit integration functional system
SUITES := bookworm trixie
HALVES := 1 2
MACHINES := $(foreach suite,$(SUITES),$(HALVES:%=$(suite)-%))
BENCH := build/bench/venv
FUZZ := build/fuzz/venv
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 7200
SUITE ?= trixie
RELEASE_TOOLS := build/release-tools

.PHONY: run test $(HALVES:%=test-%) $(MACHINES:%=test-%) $(TIERS)
.PHONY: bench bench-peers bench-probe fuzz soak deb release docs terminal format clean

run: $(VENV)/runs ## serve echo on port 51423 in the foreground, until Ctrl-C
	$(RUN)/netsrvd run

# Most tests wait more than they compute, so four runs at the same time take half of the time. The
# trees are made before, as two runs would both install what makes them.
test: $(VENV)/ready deb ## run every test: halves of this host's and of each Debian's, four at a time
	[ "$$(id -u)" != 0 ] || tests/system/trees $(SUITES) >/dev/null
	$(MAKE) --no-print-directory --keep-going --jobs=4 --output-sync=target \
		$(MACHINES:%=test-%) $(HALVES:%=test-%)

$(HALVES:%=test-%): test-%:
	$(PYTEST) --ignore=tests/system --half=$*

$(MACHINES:%=test-%): test-%:
	$(PYTEST) tests/system --suite=$(basename $(subst -,.,$*)) --half=$(lastword $(subst -, ,$*))

$(TIERS): %: $(VENV)/ready ## run one tier; `system` wants `make deb` first
	$(PYTEST) tests/$*

bench: $(VENV)/ready $(BENCH)/ready ## compare with what is installed, into docs/performance.md
	$(MAKE) --directory=tests/bench
	$(BENCH)/bin/python -m tests.bench.run --publish

bench-probe: $(VENV)/ready ## compare `netsrvd probe` with other probers against known truth; wants root
	tests/bench/install-probers
	$(RUN)/python -m tests.bench.probers

bench-peers: $(BENCH)/ready ## install what Debian and PyPI have to compare with
	tests/bench/install-peers $(BENCH)

fuzz: $(FUZZ)/ready ## let atheris look for inputs that break a promise, FUZZ_SECONDS each
	$(FUZZ)/bin/python -m tests.fuzz.run --seconds=$(FUZZ_SECONDS)

# What it saw stays in build/soak/..., from which `python -m tests.soak.report` makes the report again.
soak: $(VENV)/ready deb ## SOAK_SECONDS of mixed load on a booted Debian, SUITE; outside of CI, wants root
	folder=build/soak/$$(date +%Y%m%d-%H%M%S) && \
		$(RUN)/python -m tests.soak.driver $$folder $(SOAK_SECONDS) $(SUITE) && \
		$(RUN)/python -m tests.soak.report $$folder

deb: ## build and check the package, into build/deb
	packaging/make-deb

release: $(RELEASE_TOOLS)/ready ## build all that a release has, twice, compare and check it, into build/release
	packaging/make-release $(RELEASE_TOOLS)

docs: ## draw docs/pictures/*.svg from their sources, make HTML of docs/ in build/docs
	packaging/make-pictures
	packaging/need python3-myst-parser python3-sphinx
	packaging/make-docs build/docs

terminal: $(VENV)/ready deb ## take docs/pictures/terminal.svg anew, of the package on Debian 12
	$(PYTEST) tests/system/test_two_machines.py -k 'bookworm and picture_shows'
	cp build/pictures/terminal.svg docs/pictures/terminal.svg

format: $(VENV)/ready ## lay out the code and fix what can be fixed mechanically
	$(RUN)/ruff format netsrvd tests
	$(RUN)/ruff check --fix netsrvd tests

clean: ## remove what was made here
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

# To run it needs no tools of tests.
$(VENV)/runs: pyproject.toml packaging/make-venv
	packaging/make-venv $(PYTHON) $(VENV)
	touch $@

$(VENV)/ready: $(VENV)/runs packaging/make-test-tools
	packaging/make-test-tools $(VENV) build/servers
	touch $@

$(BENCH)/ready: $(VENV)/ready
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --upgrade pip
	$(BENCH)/bin/pip install --quiet --group bench
	touch $@

$(FUZZ)/ready: $(VENV)/ready
	$(PYTHON) -m venv $(FUZZ)
	$(FUZZ)/bin/pip install --quiet --upgrade pip
	$(FUZZ)/bin/pip install --quiet --group fuzz --editable .
	touch $@

$(RELEASE_TOOLS)/ready: $(VENV)/runs
	$(PYTHON) -m venv $(RELEASE_TOOLS)
	$(RELEASE_TOOLS)/bin/pip install --quiet --upgrade pip
	$(RELEASE_TOOLS)/bin/pip install --quiet --group release
	touch $@
