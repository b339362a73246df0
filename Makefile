# Each target sets up what it needs in .venv, from nothing but python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TINY_MODEL := out/tiny-model
DEMO := out/demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check bench clean

# The example rows on a random model of a few megabytes: the path is the real one, the pictures are noise.
demo: $(TINY_MODEL)/model_index.json
	$(BIN)/python -m jobs.generate examples/manifest.jsonl $(DEMO) --model $(TINY_MODEL) \
		--width 256 --height 256 --max-input-image-size 256 --steps 8

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

# Removes what these targets made, and nothing else under out/.
clean:
	rm -rf $(VENV) $(TINY_MODEL) $(DEMO) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The index is written last, so its presence means a whole checkpoint. Images of an older one are not continued.
$(TINY_MODEL)/model_index.json: omnigen_actor/checkpoint/tiny.py | $(READY)
	rm -rf $(DEMO)
	$(BIN)/python -m jobs.tiny_model $(TINY_MODEL)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==$(shell sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@
