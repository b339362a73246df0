# Each target sets up what it needs in .venv, from nothing but python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := out/demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check bench chaos clean

# Drawn scenes, photographs and a chain on the small trained model of the package, from nothing each time.
demo: $(READY)
	rm -rf $(DEMO)
	$(BIN)/python -m jobs.generate examples/demo/manifest.jsonl $(DEMO) --config examples/demo.yaml
	$(BIN)/python examples/contact_sheet.py $(DEMO) $(DEMO)/sheet.png --rows 40 --base-folder examples/demo

test: $(READY)
	$(BIN)/python -m tests.servers.install
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/engine.py --side 256 --steps 10
	$(BIN)/python benchmarks/pipeline.py

# 200 kills at random: half an hour on two cores.
chaos: $(READY)
	$(BIN)/python benchmarks/chaos.py --output out/chaos.json

# Removes what these targets made, and nothing else under out/.
clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==$(shell sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@
