"""mocme: complete multi-modal knowledge graphs.

The common case in three lines::

    graph = mocme.load("atlas")
    run = mocme.train(graph, "default", out="runs/atlas")
    print(run.predictor().tails("Chad", "borders", k=5))
"""

from __future__ import annotations

import os

# Before torch loads OpenMP: limit spin-waiting. GNU OpenMP threads spin for milliseconds at a
# barrier and keep a core that another process could use. With three busy programs beside it, a pass
# on two threads took 41 to 53 s; with this setting it takes 2 to 4 s, and on an idle machine the
# time does not change. What the environment sets stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from mocme.core.device import Interrupted
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
