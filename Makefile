# pepper: `make run` sets up and runs the main job, `make test` sets up and runs every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test lint ui clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pepper needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,service]' --group dev
	touch $@

run: $(VENV)/.installed
	$(BIN)/python -m pepper.run +sweep=loads

$(VENV)/.plugins: $(VENV)/.installed
	-$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --group plugins
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint $(VENV)/.plugins
	$(BIN)/python -m pytest -m "not quiet" --numprocesses 2 --dist loadgroup --no-loadscope-reorder --durations 10
	$(BIN)/python -m pytest -m quiet --durations 10

ui: $(VENV)/.installed
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
