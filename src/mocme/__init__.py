"""mocme: complete multi-modal knowledge graphs.

The common case in three lines::

    graph = mocme.load("atlas")
    run = mocme.train(graph, "default", out="runs/atlas")
    print(run.completer().tails("Chad", "borders", k=5))
"""

from __future__ import annotations

import mocme.waiting  # before torch  # noqa: F401
from mocme.additions.asked import NewEntity
from mocme.config import Experiment
from mocme.encoders.making import encode
from mocme.experiment import resume, train
from mocme.graph.loading import load
from mocme.graph.modalities import Features, Modality, Tokens
from mocme.graph.triples import Graph, Queries, Vocabulary
from mocme.inference.completer import Completer
from mocme.inference.predictions import Prediction, Predictions, Question
from mocme.machine import Interrupted
from mocme.opening import Run
from mocme.opening import open_run as open
from mocme.parts import ConfigError
from mocme.runs import RunError

__all__ = [
    "Completer",
    "ConfigError",
    "Experiment",
    "Features",
    "Graph",
    "Interrupted",
    "Modality",
    "NewEntity",
    "Prediction",
    "Predictions",
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
