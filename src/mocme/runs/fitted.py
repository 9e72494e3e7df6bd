"""The fitted experts and the mixture of a run, as its files hold them."""

from __future__ import annotations

import torch

from mocme.data.graph import Graph
from mocme.data.modality import Features
from mocme.experts.base import Expert, FitTask, Monitor, NoMonitor, Packed
from mocme.mixture.base import Mixture, packed_experts
from mocme.runs.config import Experiment, Settings
from mocme.runs.run_files import CONFIG
from mocme.storage import RunFolder
from mocme.storage.errors import refuse_invalid

MIXTURE = "mixture.safetensors"


def expert_file(name: str) -> str:
    """The file of an expert in a run's folder."""
    return f"experts/{name}.safetensors"


def fit_task(
    folder: RunFolder,
    experiment: Experiment,
    name: str,
    graph: Graph,
    features: Features,
    device: torch.device,
    monitor: Monitor = NoMonitor(),
) -> FitTask:
    """What an expert of a run is fitted on, or unpacked for.

    Args:
        graph: a training view.
        features: of the training; the expert gets what it reads.

    Raises:
        RunError: the configuration names a modality that the run does not have.
    """
    settings = experiment.components()
    with refuse_invalid(folder.path / CONFIG):
        part = settings.experts[name].features_of(features, name)
    memory, trust = settings.evaluation.memory, experiment.trust_code
    return FitTask(name, graph, part, settings.seed, device, memory, monitor, trust)


def read_expert(
    folder: RunFolder, experiment: Experiment, task: FitTask, file: str | None = None
) -> Expert:
    """A fitted expert of a run.

    Args:
        file: in the run; that of the expert's name by default.

    Raises:
        RunError: its file is missing or damaged.
    """
    file = file or expert_file(task.name)
    packed = folder.read_packed(file)
    with refuse_invalid(folder.path / file, config=folder.path / CONFIG):
        return experiment.components().experts[task.name].unpacked(packed, task)


def read_mixture(
    folder: RunFolder,
    experiment: Experiment,
    graph: Graph,
    features: Features,
    device: torch.device,
) -> Mixture:
    """The fitted mixture of a run, with its experts.

    Args:
        graph: a training view.

    Raises:
        RunError: a file is missing or damaged.
    """
    settings, packed = experiment.components(), folder.read_packed(MIXTURE)
    experts = []
    for name in mixture_experts(folder, settings, features, packed):
        task = fit_task(folder, experiment, name, graph, features, device)
        experts.append(read_expert(folder, experiment, task))
    with refuse_invalid(folder.path / MIXTURE, config=folder.path / CONFIG):
        return settings.mixture.unpacked(packed, experts, graph)


def mixture_experts(
    folder: RunFolder, settings: Settings, features: Features, packed: Packed
) -> list[str]:
    """The names of the experts of a run's packed mixture.

    Raises:
        RunError: they are not experts of the run, or one is missing that no fit left out.
    """
    taken = [name for name, e in settings.experts.items() if e.takes_part(features)]
    with refuse_invalid(folder.path / MIXTURE):
        names = packed_experts(packed)
        if unknown := [name for name in names if name not in taken]:
            raise ValueError(f"names the expert {unknown[0]!r}, which the run does not have")
        if not settings.mixture.selects and names != taken:
            raise ValueError(f"has the experts {names!r}; the run has {taken!r}")
    return names
