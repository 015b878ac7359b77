# Every target sets up .venv by itself; nothing else needs to be installed but Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Jupyter does not start for root unless told so; machines for trying things out often have no other user.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: lab test check bench soak clean
.DEFAULT_GOAL := check

lab: $(READY)
	$(BIN)/jupyter lab $(AS_ROOT) notebooks/1_quickstart.ipynb

test: $(READY)
	$(BIN)/python -m tests all

check: $(READY)
	$(BIN)/python -m tests check

bench: $(READY)
	$(BIN)/python -m tests.bench

# Four workers, random kills of workers and of Postgres, ten minutes; not part of the tests.
soak: $(READY)
	$(BIN)/python -m tests.soak

clean:
	rm -rf $(VENV) .venv-peer* .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Debian's python3 comes without venv; apt has it.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV) || (apt-get update && apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@
