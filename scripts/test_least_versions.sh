#!/usr/bin/env bash
# Run the tests in an environment with the least version of every library that pyproject.toml
# declares. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-least
python=.venv/bin/python
test -x $venv/bin/python || $python -m venv $venv
least=$(mktemp)
trap 'rm -f "$least"' EXIT
$python scripts/least_versions.py >"$least"
if ! cmp -s "$least" $venv/least.txt; then
    pip="$venv/bin/python -m pip install --quiet --disable-pip-version-check"
    $pip "$(grep '^torch==' constraints.txt)"
    $pip -c "$least" -e ".[test]"
    cp "$least" $venv/least.txt
fi
# Old libraries use what newer ones deprecate; that is not for this package to mend.
$venv/bin/python -m pytest -n 2 --dist loadfile -p no:cacheprovider \
    -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning "$@"
