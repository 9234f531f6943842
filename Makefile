# The commands for development. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := $(shell find rust/audio rust/index rust/features rust/packs rust/python Cargo.toml Cargo.lock pyproject.toml constraints.txt -type f 2>/dev/null)

.PHONY: help install demo test test-oldest test-newest lint docs format bench kernel-report soak fuzz sanitize wheels clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet uv

$(INSTALLED): $(SOURCES) | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(INSTALLED) ## Make .venv with the package (editable) and everything for development

demo: $(INSTALLED) ## Make 60 sounds, train on them, and make new ones: a few minutes
	$(BIN)/python -m distill.demo demo

test: $(INSTALLED) ## Run the Rust and Python tests, on all cores
	cargo test --workspace --exclude distill-python --quiet
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

test-oldest test-newest: test-%: $(INSTALLED)
	.ci/versions $* $(TESTS)
test-oldest: ## Run the Python tests, or TESTS, with the oldest versions of Python and of all dependencies
test-newest: ## Run the Python tests, or TESTS, with the newest versions of Python and of all dependencies

lint: $(INSTALLED) ## Run the formatters, linters and type checker, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	cargo fmt --all --check
	cargo fmt --manifest-path rust/fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings

docs: $(INSTALLED) ## Build the documentation site, in build/site
	$(BIN)/python -m sphinx -c docs --builder html --fail-on-warning --keep-going --quiet . build/site
	@echo build/site/index.html

format: $(INSTALLED) ## Format both languages, and fix lints of Python
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt --all
	cargo fmt --manifest-path rust/fuzz/Cargo.toml

# The baseline of the hashing benchmark, installed with cargo because not every system has a package.
target/tools/bin/b3sum:
	cargo install --quiet --locked --root target/tools b3sum

bench: $(INSTALLED) target/tools/bin/b3sum ## Run the benchmarks, each with its baseline
	cargo bench --quiet -p distill-index --bench rescan
	PATH="$(CURDIR)/target/tools/bin:$$PATH" $(BIN)/python -m pytest --benchmark-only $(if $(RESULTS),--results=$(RESULTS))

kernel-report: $(INSTALLED) ## Compile the kernel for all GPUs, and report what limits its speed
	$(BIN)/python bench/kernel_report.py
	$(BIN)/python -m pytest tests/kernels/test_compiled.py --soak

soak: $(INSTALLED) ## Run the crash tests of the cache and of the readers, and the load of distill play, with large numbers: 30 minutes
	$(BIN)/python -m pytest tests/proof tests/cache/test_many_packs.py tests/audio/test_mutations.py --soak --timeout 3600

# Coverage for libFuzzer with a stable compiler. --target keeps the flags away from build scripts.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
FUZZ_SECONDS ?= 60

fuzz: ## Fuzz every parser of files, for FUZZ_SECONDS each
	host=$$(rustc -vV | sed -n 's/host: //p') && \
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --quiet --release --manifest-path rust/fuzz/Cargo.toml \
		--target-dir target/fuzz --target $$host && cd target/fuzz && for target in decoders manifest path; do \
		$$host/release/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -print_final_stats=1 || exit 1; done

# RUSTC_BOOTSTRAP=1 enables the sanitizer in a stable compiler.
sanitize: ## Run the tests of the CPU kernel under AddressSanitizer
	host=$$(rustc -vV | sed -n 's/host: //p') && \
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --quiet -p distill-features \
		--target $$host --target-dir target/sanitize

wheels: $(BIN)/uv ## Build the wheels and the source distribution, check them, and try those that fit this machine
	.ci/wheels

clean: ## Remove everything built; keeps the demo and runs
	rm -rf $(VENV) target build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
