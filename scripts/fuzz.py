"""Look for inputs that a reader neither accepts nor refuses as it should, with Atheris.

    .venv/bin/python -m pip install atheris
    .venv/bin/python scripts/fuzz.py run --minutes 30 --work /tmp/fuzz
    .venv/bin/python scripts/fuzz.py run --minimise tests/fuzzing/corpus/run --work /tmp/fuzz

The targets are those of tests/fuzz_targets.py: facts, tables, tensors, run. Inputs that reach
new code are kept under --work, so a second call goes on. A failure ends the search; its input is
written to --work as crash-*, timeout-* or oom-*. `--minimise` writes as few inputs as reach the
same code, each no longer than --bytes, to the folder whose inputs the tests replay.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
# Modules that are imported later, when they are first used, would not be watched.
with atheris.instrument_imports(include=["mocme"]):
    import mocme

    for module in pkgutil.walk_packages(mocme.__path__, "mocme."):
        if not module.name.startswith(("mocme.serving", "mocme.cli")):
            importlib.import_module(module.name)
    from fuzz_targets import TARGETS, target


def main() -> None:
    """Fuzz a target, or minimise what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--minimise", type=Path)
    parser.add_argument("--bytes", type=int, default=4096)
    arguments = parser.parse_args()
    corpus = arguments.work / arguments.target
    corpus.mkdir(parents=True, exist_ok=True)
    options = [f"-artifact_prefix={arguments.work}/", "-timeout=20", "-rss_limit_mb=6000"]
    with target(arguments.target) as read:
        if arguments.minimise:
            arguments.minimise.mkdir(parents=True, exist_ok=True)
            options += ["-merge=1", f"-max_len={arguments.bytes}", str(arguments.minimise)]
        else:
            for number, seed in enumerate(read.seeds()):
                (corpus / f"seed-{number}").write_bytes(seed)
            options += [f"-max_total_time={int(arguments.minutes * 60)}", "-len_control=0"]
            options += [f"-max_len={read.longest}"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
