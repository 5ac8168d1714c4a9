# make demo: see it work.   make test: see it tested.   make setup: work on it.   make check: before every commit.
# make docs: the documentation as a site.   make release: wheel, sdist and bill of materials, checked.
# Each does all of its set-up in .venv and only what is not done yet. PYTHON names another interpreter (3.10 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where the real images lie, for what needs them.
DATA ?= ../shared/data
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo test setup check lint docs pictures examples benchmark fuzz release sbom scan lock clean

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

# The pages of docs/ as a site in site/; a broken link, a missing page or anything loaded from elsewhere is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

# What shows the present model on drawn chests: the pictures of README and docs, and the outputs of the notebooks. Needs chromium.
pictures: setup
	$(BIN)/python docs/pictures/slice.py
	$(BIN)/python tests/test_notebooks.py
	$(BIN)/python docs/pictures/serve.py

# Wheel and sdist in dist/, built and tried in environments of their own.
release: setup
	$(BIN)/python .ci/release.py
	@$(MAKE) sbom

# The bill of materials of the runtime, as CycloneDX in dist/.
sbom: setup
	$(BIN)/python .ci/sbom.py

# Known weaknesses, in our code and in what the runtime needs.
scan: setup
	$(BIN)/python .ci/scan.py

# requirements.txt anew, after a change of pyproject.toml or constraints.txt: the runtime with the hash of each file.
lock: setup
	@head -n 2 requirements.txt > requirements.new
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.10 --extra dicom --extra web \
		--no-header --no-annotate --no-emit-index-url -c constraints.txt pyproject.toml >> requirements.new
	@mv requirements.new requirements.txt

examples: $(VENV)/.runtime
	$(BIN)/groundglass phantom examples

# All that benchmarks/README.md tells of, into results/; an hour on two idle cores. 4 says that eight bits do not pass.
benchmark: setup
	$(BIN)/python benchmarks/predict.py -o results/predict-speed.csv
	$(BIN)/python benchmarks/series.py -o results/series-cost.csv
	$(BIN)/python benchmarks/serve.py -o results/serve-load.csv
	$(BIN)/python benchmarks/screen.py steps -o results/screen-steps.csv
	$(BIN)/python benchmarks/screen.py simulate results/screen-steps.csv -o results/screen-scale.csv
	$(BIN)/python benchmarks/screen.py memory --items 10000 -o results/screen-memory.csv
	$(BIN)/python benchmarks/screen.py rate --workers 1,2 -o results/screen-rate.csv
	$(BIN)/python benchmarks/beside.py -o results/beside.csv
	[ ! -d $(DATA) ] || $(BIN)/python benchmarks/eight_bits.py --data $(DATA) -o results/eight-bits.csv || [ $$? -eq 4 ]

# Mutated inputs for so many seconds in all, on from where fuzz.json says that it stopped; fuzz/README.md.
SECONDS ?= 60
fuzz: setup
	$(BIN)/python -m fuzz.run try all --seconds $(SECONDS)

clean:
	rm -rf $(VENV) out build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

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
