# make demo: see it work.   make test: see it tested.   make setup: work on it.   make check: before every commit.
# Each does all of its set-up in .venv and only what is not done yet. PYTHON names another interpreter (3.10 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo test setup check lint examples benchmark clean

demo: $(VENV)/.runtime
	@echo "Synthetic phantoms: this shows the mechanics, not the accuracy (that is in results/README.md)."
	@# 4 says that some inputs have no answer: two of the examples must be refused
	@$(BIN)/groundglass explain examples --output out || [ $$? -eq 4 ]

# Two files of tests at a time: many wait for time limits of others.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

setup: $(VENV)/.development

check: lint
	$(BIN)/python -m pytest -m "not slow and not data"

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

examples: $(VENV)/.runtime
	$(BIN)/groundglass phantom examples

benchmark: setup
	$(BIN)/python benchmarks/predict.py

clean:
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "groundglass needs Python 3.10 or newer; run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.development: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[all]'
	@touch $@ $(VENV)/.runtime
