#!/usr/bin/env bash
# Build the wheel, install it into an empty environment and run it from an empty folder.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$root/.venv/bin/python" -m build --wheel --no-isolation --outdir "$work/dist" "$root" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$root/.venv/bin/python" -m venv "$work/venv"
pip="$work/venv/bin/python -m pip install --quiet --disable-pip-version-check -c $root/constraints.txt"
$pip "$(grep '^torch==' "$root/constraints.txt")"
$pip "$work"/dist/mocme-*.whl
cd "$work"
venv/bin/mocme --version
venv/bin/mocme experiments --json >experiments.json
venv/bin/mocme train atlas/structure --out run --set experts.embedding.training.epochs=2 --set experts.embedding.embedding_dim=16
venv/bin/mocme evaluate run --split test --json >result.json
venv/bin/mocme predict run --head Chad --relation borders -k 3
venv/bin/python - <<'CODE'
import json

result = json.load(open("result.json"))
assert 0 < result["mrr"] < 1 and "hits@10" in result, result
assert "mocme" in json.load(open("experiments.json"))
print("the wheel installs and runs")
CODE
