# `make` prints the targets. Everything runs in .venv, which is made when it is missing; all that must be there is python3 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-dev
MUTATION := $(VENV)/.installed-mutation
ORACLES := $(VENV)/.installed-oracles
RES8 := models/fashion-res8/model.onnx
FASHION := models/fashion-mnist
SOURCES := onnxq passes calibration tests models docs examples

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow mutation check format models bench bench-passes bench-methods bench-calibration bench-sampled bench-fusion clean

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

# pip reads pyproject.toml; a change there installs again. A half-made environment leaves no stamp and is completed by the next make.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "onnxq needs python3 3.11 or newer; point to one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "this python3 cannot make virtual environments; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## quantize a real model on real samples; the report goes to out/demo.txt and out/demo.json
	@mkdir -p out
	$(BIN)/onnxq quantize $(RES8) --calib $(FASHION)/calib.npz --eval $(FASHION)/eval.npz --metric top1 \
	  -o out/fashion-res8.int8.onnx --report out/demo.json | tee out/demo.txt

test: $(STAMP)  ## the whole test suite, without the tests that take minutes
	$(BIN)/python -m pytest -n 2 -m 'not slow'

$(MUTATION): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,mutation]'
	@touch $@

$(ORACLES): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,oracles]'
	@touch $@

test-slow: $(STAMP) $(MUTATION) $(ORACLES)  ## the tests that take minutes, and a sample of the mutants of the passes
	$(BIN)/python -m pytest -n 2 -m slow
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutation/mutate.py --sample 300 --jobs 2

mutation: $(MUTATION)  ## every mutant of the passes (docs/mutation.md), and the figures of that
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutation/mutate.py --jobs 2 --record

check: $(STAMP)  ## formatting, linter, type checkers, import layers
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(STAMP)  ## format the code and repair what the linter can
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

models: $(STAMP)  ## fetch the real models from the package index
	$(BIN)/python models/fetch.py

bench: $(STAMP)  ## onnxq against onnxruntime.quantization on the same models and samples, and what calibration costs
	$(BIN)/python models/bench.py
	$(BIN)/python models/bench_calibration.py

bench-passes: $(STAMP)  ## how the cpu pipeline grows from 10,000 to 100,000 nodes
	$(BIN)/python models/bench_passes.py

bench-methods: $(STAMP)  ## every calibration method on every model: labelled score and SQNR
	$(BIN)/python models/bench_methods.py

bench-calibration: $(STAMP)  ## what calibration costs, as a multiple of a plain forward pass
	$(BIN)/python models/bench_calibration.py

bench-sampled: $(STAMP)  ## by how much ranges move because not every element is counted
	$(BIN)/python models/bench_sampled.py

bench-fusion: $(STAMP)  ## our integer operators against what ONNX Runtime fuses: counts and speed
	$(BIN)/python models/bench_fusion.py

clean:  ## remove everything that make made, the environment included
	rm -rf $(VENV) out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +
