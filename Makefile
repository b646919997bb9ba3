# The verbs are Stable-Baselines3's, and `demo`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Only what stands in pyproject.toml and constraints.txt decides what is installed
INSTALLED = $(VENV)/.installed
DEMO_INSTALLED = $(VENV)/.installed-for-demo
PIP = $(BIN)/python -m pip install --quiet --constraint constraints.txt

define install_for_demo
@echo "== Making the virtual environment $(VENV)"
$(PYTHON) -m venv $(VENV)
@echo "== Installing the library and PyTorch: a large download"
$(PIP) --editable .
@echo "== Installing the RL Zoo, MuJoCo, plots and videos"
$(PIP) --editable ".[zoo]"
endef

.PHONY: install demo test pytest doc type lint format check-codestyle commit-checks clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(install_for_demo)
	@echo "== Installing Ray, ONNX, Sphinx and the tools of development"
	$(PIP) --editable ".[benchmark,export,docs,dev]"
	touch $@

$(DEMO_INSTALLED): pyproject.toml constraints.txt
	$(install_for_demo)
	touch $@

# Where all is installed, so is that
demo: $(or $(wildcard $(INSTALLED)),$(DEMO_INSTALLED))
	$(BIN)/python examples/demo.py

test pytest: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

doc: $(INSTALLED)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs
	$(BIN)/python docs/check_links.py build/docs

type: $(INSTALLED)
	$(BIN)/mypy

lint: $(INSTALLED)
	$(BIN)/ruff check

format: $(INSTALLED)
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format

check-codestyle: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

commit-checks: format type lint

clean:
	rm -rf $(VENV) build dist demo logs .mypy_cache .pytest_cache .ruff_cache
