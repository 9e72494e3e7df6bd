# make demo   set up .venv and run the demonstration on the embedded data
# make test   set up .venv and run all tests
# make check  lint, types, import rules
# make audit  look up known vulnerabilities of the locked versions (asks pypi.org)
# make test-least  run the tests with the least versions that pyproject.toml declares
# make wheel  build the wheel, install it into a clean environment and run it

PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-least audit check wheel clean

# Files of requirements/ hold the hash of every file that pip may take; scripts/lock.sh makes them.
# torch is installed first, by its version: its build, and so its hash, depends on the platform.
.venv/installed: pyproject.toml constraints.txt requirements/serve.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed; name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (torch is about 200 MB; a minute or two)"
	$(PIP) -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(PIP) --no-deps --require-hashes -r requirements/serve.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/installed-test: .venv/installed requirements/test.txt
	$(PIP) --no-deps --require-hashes -r requirements/test.txt
	@touch $@

demo: .venv/installed
	$(BIN)/mocme demo

test: .venv/installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

# An environment of its own. Its tools have the versions of constraints.txt.
test-least: .venv/installed-test
	scripts/test_least_versions.sh

audit: .venv/installed-test
	scripts/audit_dependencies.sh

check: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy -p mocme
	$(BIN)/lint-imports

wheel: .venv/installed-test
	scripts/check_wheel.sh

clean:
	rm -rf .venv .venv-least dist runs
