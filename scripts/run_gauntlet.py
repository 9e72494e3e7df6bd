"""Attack the package as a whole, and print what held, with figures.

    .venv/bin/python scripts/run_gauntlet.py                  # all trials, about twenty minutes
    .venv/bin/python scripts/run_gauntlet.py disk killed      # those whose promise has such a word
    .venv/bin/python scripts/run_gauntlet.py --markdown       # a table for docs/security.md

Each trial runs commands of this environment in processes of their own, in a temporary folder. What
needs root (a read-only or a full disk is mounted) says so where it cannot be run. The status is 1
if a promise did not hold. The quick part of the same promises is in the tests.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gauntlet import files, media, network  # noqa: F401
from gauntlet.common import TRIALS, Result


def main() -> None:
    """Run the chosen trials."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    failed = False
    if arguments.markdown:
        print("| promise | held | measured |\n|---|---|---|", flush=True)
    for promise, run in TRIALS.items():
        if arguments.words and not any(word in promise.lower() for word in arguments.words):
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mocme-gauntlet-") as work:
            try:
                result = run(Path(work))
            except Exception as error:
                result = Result(False, f"the trial failed: {error!r}")
        held = {True: "yes", False: "NO", None: "not run"}[result.held]
        failed |= result.held is False
        if arguments.markdown:
            print(f"| {promise} | {held} | {result.figures} |", flush=True)
        else:
            seconds = time.monotonic() - started
            print(f"{held:8}{promise} ({seconds:.0f} s)\n        {result.figures}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
