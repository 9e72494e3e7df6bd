"""Stored inputs of the fuzzer, and its valid ones, are accepted or refused as they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz_targets import TARGETS, target

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_valid_and_stored_inputs(name: str) -> None:
    with target(name) as read:
        for seed in read.seeds():
            read.read(seed)
        for path in sorted((CORPUS / name).glob("*")):
            try:
                read(path.read_bytes())
            except BaseException as error:
                error.add_note(f"with the input {path}")
                raise
