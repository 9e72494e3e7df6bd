#!/usr/bin/env bash
# Look up known vulnerabilities of every locked version with pip-audit, which asks pypi.org.
# Exit status: 0 none known; 1 some are; 3 some versions could not be looked up (they are named).
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "pip-audit==2.10.1"
# torch has no hash in requirements/, which pip-audit would refuse, so it is looked up on its own.
grep '^torch==' constraints.txt >"$work/torch.txt"
"$work/venv/bin/pip-audit" --disable-pip --progress-spinner off --format json \
    -r requirements/test.txt -o "$work/locked.json" || true
"$work/venv/bin/pip-audit" --disable-pip --no-deps --progress-spinner off --format json \
    -r "$work/torch.txt" -o "$work/torch.json" || true
.venv/bin/python - "$work" <<'CODE'
import json
import sys
from pathlib import Path

packages = [
    package
    for name in ("locked.json", "torch.json")
    for package in json.loads((Path(sys.argv[1]) / name).read_text())["dependencies"]
]
unknown = [package["name"] for package in packages if "skip_reason" in package]
vulnerable = [package for package in packages if package.get("vulns")]
for package in vulnerable:
    for entry in package["vulns"]:
        fixed = ", ".join(entry["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {entry['id']}; fixed in {fixed}")
print(f"{len(packages) - len(unknown)} of {len(packages)} versions looked up")
if unknown:
    print(f"could not be looked up: {', '.join(unknown)}")
sys.exit(1 if vulnerable else 3 if unknown else 0)
CODE
