# Set-up is pip in a virtual environment; nothing else is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Two folders of DICOM: scans of scanner A, scans of scanner B. Without them: virtual scans.
SOURCE ?=
TARGET ?=
DEMO ?= demo

.PHONY: demo test lint docs faults wheel-test core-install clean

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,dev,docs]'
	touch $@

demo: $(INSTALLED)
	@bash scripts/demo.sh $(BIN)/cvsct '$(DEMO)' '$(SOURCE)' '$(TARGET)'

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal --durations 25 --durations-min 5

# The site of docs/ in site/, which opens from the disk: site/index.html. A broken link ends it.
docs: $(INSTALLED)
	$(BIN)/python scripts/cli_reference.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Every goal of docs/reference/reliability.md in full, an hour on two idle cores: a line of JSON each.
FIGURES ?= faults.jsonl
GOALS := kills workers disk_full mutated bombs hostile_tags identifiers geometries models outputs

faults: $(INSTALLED)
	@missed=0; for goal in $(GOALS); do \
	  $(BIN)/python -m tests.faults.$$goal --out '$(FIGURES)' || missed=1; done; exit $$missed

# What users install: sdist and wheel, built twice to the same bytes, with a README that an index shows;
# then the wheel without extras in an environment of its own: no PyTorch, its size, a network and a
# bundled model run. Needs the package index.
wheel-test: $(INSTALLED)
	$(BIN)/python scripts/build_package.py --out dist
	$(BIN)/python scripts/core_install.py --wheel dist/*.whl

core-install: wheel-test

clean:
	rm -rf $(VENV) demo dist site
