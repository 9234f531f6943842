# Everything that a developer or CI runs. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := $(shell find rust Cargo.toml Cargo.lock pyproject.toml constraints.txt -type f 2>/dev/null)

.PHONY: help install demo test lint format bench clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet uv

$(INSTALLED): $(SOURCES) | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(INSTALLED) ## Make .venv with the package (editable) and all that tests need

demo: $(INSTALLED) ## Make 60 sounds, train on them, and say where to look
	$(BIN)/python -m distill.demo demo

test: $(INSTALLED) ## Run the Rust and Python tests
	cargo test --workspace --exclude distill-python --quiet
	$(BIN)/python -m pytest

lint: $(INSTALLED) ## Check style and lints of both languages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings

format: $(INSTALLED) ## Format both languages
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt --all

bench: $(INSTALLED) ## Run the benchmarks, each beside its baseline
	$(BIN)/python -m pytest --benchmark-only

clean: ## Remove what was built; the demo and runs stay
	rm -rf $(VENV) target build dist .pytest_cache .ruff_cache .hypothesis
