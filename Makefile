# `make demo` installs into .venv and runs the main job, `make test` installs what the tests need and runs all but those
# that take long, which `make test-thorough` runs. All may be run again at any time; nothing is installed twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

RUN_TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: demo test test-thorough clean

demo: $(VENV)/.installed
	$(BIN)/ddq-parity demo

test: $(VENV)/.installed-test
	$(RUN_TESTS) -m "not thorough"

test-thorough: $(VENV)/.installed-test
	$(RUN_TESTS) -m thorough

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; run make with PYTHON=/path/to/python3.11 or newer."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable '.[lite]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[lite,test]'
	@touch $@

clean:
	rm -rf $(VENV)
