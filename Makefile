# sipwire: two commands matter, `make demo` and `make test`; both set up what they need.
# Needed on the machine: a Rust toolchain, Python 3.11 or newer with pip, a C compiler. Nothing else.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(abspath $(VENV)/bin)
export PATH := $(BIN):$(PATH)
export VIRTUAL_ENV := $(abspath $(VENV))
RUST    := Cargo.toml Cargo.lock devices/Cargo.toml $(shell find src devices/src -name '*.rs')
say     = @printf '\n\033[1m== %s\033[0m\n' "$(1)"

.PHONY: help setup build demo test test-rust test-python lint wheel bench fuzz clean

# Seconds `make fuzz` gives each target.
FUZZ_SECONDS ?= 120

help:
	@echo 'make demo    build and run a call between two endpoints on this machine; writes demo-out/report.html'
	@echo 'make test    all tests (Rust, Python, real peers that are installed)'
	@echo 'make lint    formatting, clippy, mypy, stub check, licences'
	@echo 'make wheel   a wheel in dist/'
	@echo 'make bench   measurements side by side with peers'
	@echo 'make fuzz    each fuzz target for FUZZ_SECONDS (120) seconds'
	@echo 'make clean   remove everything that was built'

setup: $(VENV)/.tools

$(VENV)/.tools: tools/requirements.txt
	$(call say,Setting up .venv with the build tools from PyPI (about half a minute))
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
	  { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(VENV)/bin/python install --quiet pip; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tools/requirements.txt
	@touch $@

build: $(VENV)/.built

$(VENV)/.built: $(VENV)/.tools $(RUST) pyproject.toml tools/build_backend.py
	$(call say,Building the extension (two to four minutes the first time; seconds after that))
	@$(BIN)/python tools/build_backend.py
	@$(BIN)/maturin develop --release --locked --quiet
	@touch $@

demo: build
	$(call say,A call between two endpoints on loopback (about 12 seconds))
	@$(BIN)/python -m sipwire demo --out demo-out

test: test-rust test-python

test-rust: $(VENV)/.tools
	$(call say,Rust tests (two to four minutes the first time))
	@$(BIN)/python tools/build_backend.py --debug
	@cargo test --locked --quiet

test-python: build
	$(call say,Python tests and calls with the peers that are installed (three to six minutes))
	@$(BIN)/python -m pytest -q -rs tests/python tests/interop

lint: $(VENV)/.tools build
	$(call say,Formatting and clippy and types and licences (one to two minutes))
	@cargo fmt --all --check
	@cargo clippy --locked --quiet --all-targets --features python -- -D warnings
	@$(BIN)/ruff check python tests examples tools benches
	@$(BIN)/ruff format --check python tests examples tools benches
	@$(BIN)/mypy --strict python/sipwire
	@$(BIN)/python -m mypy.stubtest sipwire._core
	@$(BIN)/python tools/check_dependencies.py

wheel: $(VENV)/.tools
	$(call say,Building the wheel as pip would (three to six minutes: an isolated build))
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls -l dist

bench: build
	@$(BIN)/python benches/run.py

fuzz: $(VENV)/.tools
	@$(BIN)/python tools/fuzz.py $(FUZZ_SECONDS)

clean:
	rm -rf target fuzz/target fuzz/corpus fuzz/artifacts $(VENV) dist demo-out build python/sipwire/*.so
