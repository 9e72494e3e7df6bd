# make demo   set up .venv and run the demonstration on the embedded data
# make test   set up .venv and run all tests
# make check  lint, types, import rules
# make wheel  build the wheel, install it into a clean environment and run it

PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check wheel clean

# Install torch first and alone: packages that need a range of versions then keep the pinned build.
.venv/installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed; name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (torch is about 200 MB; a minute or two)"
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e ".[serve]"
	@touch $@

.venv/installed-test: .venv/installed
	$(PIP) -e ".[test]" build
	@touch $@

demo: .venv/installed
	$(BIN)/mocme demo

test: .venv/installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy -p mocme
	$(BIN)/lint-imports

wheel: .venv/installed-test
	scripts/check_wheel.sh

clean:
	rm -rf .venv dist runs
