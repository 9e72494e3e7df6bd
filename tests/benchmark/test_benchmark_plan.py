"""The identity of a result: which changes of a configuration make it another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mocme.benchmark.plan import InputDigests, identity
from mocme.core.registry import ConfigError
from mocme.runs.config import Experiment
from mocme.runs.experiment_files import experts_by_name


def leaves(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in table.items():
        here = f"{path}{key}"
        values |= leaves(value, f"{here}.") if isinstance(value, Mapping) else {here: value}
    return values


def test_every_number_of_a_configuration_is_part_of_the_identity() -> None:
    stopping = {
        "experts.embedding.training.evaluate_every": 2,
        "experts.embedding.training.patience": 3,
    }
    base, inputs = Experiment.load("mocme", stopping), InputDigests("g", "f")
    digests = {identity(base, inputs)["digest"]}
    numbers = {
        key: value
        for key, value in leaves(experts_by_name(base.table())).items()
        if type(value) in (int, float) and not key.startswith("expected")
    }
    assert len(numbers) > 10
    changed = 0
    for key, value in numbers.items():
        try:
            other = base.changed({key: value * 2 or 1})
        except ConfigError:
            other = base.changed({key: type(value)(value / 2) or 0.5})
        digests.add(identity(other, inputs)["digest"])
        changed += 1
    assert len(digests) == changed + 1


def test_graph_features_and_seed_are_part_of_the_identity_and_descriptions_are_not() -> None:
    base = Experiment.load("structure")
    digest = identity(base, InputDigests("g", "f"))["digest"]
    assert identity(base.changed({"description": "x"}), InputDigests("g", "f"))["digest"] == digest
    others = {
        identity(base, InputDigests("g2", "f"))["digest"],
        identity(base, InputDigests("g", "f2"))["digest"],
        identity(base.changed({"seed": 5}), InputDigests("g", "f"))["digest"],
    }
    assert len({digest, *others}) == 4
