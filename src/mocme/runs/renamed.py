"""Settings of version 0.1 and their new names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mocme.core.registry import ConfigError

# The longest prefix of a dotted path decides.
RENAMED = {
    "model.width": "experts.embedding.embedding_dim",
    "model.initial": "experts.embedding.init_std",
    "model.experts": "experts.embedding.views",
    "model.patterns.strength": "mixture.strength.rules",
    "model.patterns.sharpness": "mixture.sharpness.rules",
    "model.patterns": "experts.rules",
    "model.scorer.relation_width": "experts.embedding.scorer.relation_dim",
    "model.across.key_width": "experts.embedding.across.key_dim",
    "model.within.key_width": "experts.embedding.within.key_dim",
    "model": "experts.embedding",
    "training.passes": "experts.embedding.training.epochs",
    "training.batch": "experts.embedding.training.batch_size",
    "training.seed": "seed",
    "training.optimizer.tables": "experts.embedding.training.optimizer.embedding_lr",
    "training.optimizer.dense": "experts.embedding.training.optimizer.dense_lr",
    "training": "experts.embedding.training",
}


def renamed_settings(table: Mapping[str, Any]) -> None:
    """Refuse settings of version 0.1.

    Raises:
        ConfigError: with the new name of the first one.
    """
    for path in _paths({key: table[key] for key in ("model", "training") if key in table}):
        raise ConfigError(f"{path}: is now {new_name(path)} (see `mocme experiments` for examples)")


def new_name(path: str) -> str:
    """The new name of a setting of version 0.1."""
    keys = path.split(".")
    for length in range(len(keys), 0, -1):
        prefix = ".".join(keys[:length])
        if prefix in RENAMED:
            return ".".join([RENAMED[prefix], *keys[length:]])
    return path


def _paths(table: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Dotted paths of all settings, in the order of the table."""
    for key, value in table.items():
        path = f"{before}{key}"
        if isinstance(value, Mapping) and value and not path.endswith("patterns"):
            yield from _paths(value, f"{path}.")
        else:
            yield path
