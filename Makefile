# make install   everything into .venv (done once; again when setup.py changes)
# make demo      the main job on the embedded corpus, end to end
# make test      lint and tests
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
TEST_ARGS ?=

.PHONY: install demo test lint clean

install: $(VENV)/installed

# Bytecode is made where a module is first imported, not for all of them here: most are never imported.
# torch comes first and by itself, so that the CPU build is taken; face_recognition_models comes without its build-time wishes.
$(VENV)/installed: setup.py pyproject.toml infra/constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; give one with make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "setuptools>=70,<81" wheel
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-build-isolation -c infra/constraints.txt -e ".[all]"
	@touch $@
	@echo "installed: $(BIN)/archon"

demo: install
	$(BIN)/archon demo $(DEMO_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: install lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TEST_ARGS)
	@echo "tests done: see the line above for how many passed; nothing was written outside temporary folders"

clean:
	rm -rf $(VENV) demo build *.egg-info
