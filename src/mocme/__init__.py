"""mocme: complete multi-modal knowledge graphs.

The common case in three lines::

    graph = mocme.load("atlas")
    run = mocme.train(graph, "default", out="runs/atlas")
    print(run.predictor().tails("Chad", "borders", k=5))
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Before torch loads OpenMP: limit spin-waiting. GNU OpenMP threads spin for milliseconds at a
# barrier and keep a core that another process could use. With three busy programs beside it, a pass
# on two threads took 41 to 53 s; with this setting it takes 2 to 4 s, and on an idle machine the
# time does not change. What the environment sets stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from mocme.core.interrupts import Interrupted
    from mocme.core.registry import ConfigError
    from mocme.data.graph import Graph, Queries, Vocabulary
    from mocme.data.load import load
    from mocme.data.modality import Features, Modality, Tokens
    from mocme.encoders.encode import encode
    from mocme.inductive.new_entity import NewEntity
    from mocme.prediction.predictor import Predictor
    from mocme.prediction.schema import Prediction, Predictions, Question
    from mocme.runs.config import Experiment
    from mocme.runs.run import Run
    from mocme.runs.run import open_run as open
    from mocme.runs.train import resume, train
    from mocme.storage import RunError

__all__ = [
    "ConfigError",
    "Experiment",
    "Features",
    "Graph",
    "Interrupted",
    "Modality",
    "NewEntity",
    "Prediction",
    "Predictions",
    "Predictor",
    "Queries",
    "Question",
    "Run",
    "RunError",
    "Tokens",
    "Vocabulary",
    "encode",
    "load",
    "open",
    "resume",
    "train",
]

# Where the public names are defined. A name is imported when it is first used: everything together
# imports torch and takes two seconds, which `mocme --help` does not need.
_ORIGINS = {
    "ConfigError": "mocme.core.registry",
    "Experiment": "mocme.runs.config",
    "Features": "mocme.data.modality",
    "Graph": "mocme.data.graph",
    "Interrupted": "mocme.core.interrupts",
    "Modality": "mocme.data.modality",
    "NewEntity": "mocme.inductive.new_entity",
    "Prediction": "mocme.prediction.schema",
    "Predictions": "mocme.prediction.schema",
    "Predictor": "mocme.prediction.predictor",
    "Queries": "mocme.data.graph",
    "Question": "mocme.prediction.schema",
    "Run": "mocme.runs.run",
    "RunError": "mocme.storage",
    "Tokens": "mocme.data.modality",
    "Vocabulary": "mocme.data.graph",
    "encode": "mocme.encoders.encode",
    "load": "mocme.data.load",
    "open": "mocme.runs.run:open_run",
    "resume": "mocme.runs.train",
    "train": "mocme.runs.train",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Type checkers use the imports above: they would take any attribute from __getattr__.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public name (PEP 562)."""
        if name not in _ORIGINS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, defined_name = _ORIGINS[name].partition(":")
        value = getattr(importlib.import_module(module), defined_name or name)
        globals()[name] = value
        return value
