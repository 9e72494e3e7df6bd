#!/usr/bin/env bash
# Write requirements/*.txt: for each environment of the Makefile every version of constraints.txt
# that it needs, with the hashes of all its files. Run it after constraints.txt has changed.
#
# torch stands in none of them: its build depends on the platform. The Makefile installs it first,
# by its version.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "pip-tools==7.6.2"
compile() {
    local name=$1
    shift
    "$work/venv/bin/pip-compile" --quiet --generate-hashes --strip-extras --constraint constraints.txt \
        --unsafe-package torch --unsafe-package setuptools --no-annotate --no-header \
        --no-emit-index-url --no-emit-find-links "$@" -o "$work/$name" pyproject.toml "$work/build.in"
    {
        echo "# Made by scripts/lock.sh; do not edit."
        grep -v "^#\|^$\|^mocme @" "$work/$name"
    } >"requirements/$name"
}
mkdir -p requirements
printf 'hatchling\neditables\n' >"$work/build.in"
compile serve.txt --extra serve
printf 'hatchling\neditables\nbuild\n' >"$work/build.in"
compile test.txt --extra serve --extra test
