# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Windows, or without make: the same steps are in docs/command-line.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Python keeps what it has compiled: else each of the tests' many processes compiles all of it again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-fast coverage lint types scripts
demo: $(VENV)/.installed
	$(BIN)/sammix demo -o demo

# Two processes: most tests wait for one core. A file stays whole, as its tests share phantoms and models.
test: $(VENV)/.installed lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Less than two minutes: no training, no click through the module, no real CT.
test-fast: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not real" --ignore=Testing/module/host

coverage: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=90

lint: $(VENV)/.installed types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(VENV)/.installed
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# Slicer installs the files that are listed.
scripts:
	cd SAMMixLib && { sed '/SCRIPTS$$/q' CMakeLists.txt; \
	  find . -name '*.py' | sed 's|^\./|    |' | LC_ALL=C sort; \
	  echo '  RESOURCES'; \
	  find . -type f ! -name '*.py' ! -name '*.pyc' ! -name '*.typed' ! -name 'CMakeLists.*' | sed 's|^\./|    |' | LC_ALL=C sort; \
	  sed -n '/WITH_SUBDIR$$/,$$p' CMakeLists.txt; } > CMakeLists.new && mv CMakeLists.new CMakeLists.txt

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14) and 'SAMMix needs Python 3.10 to 3.13')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
