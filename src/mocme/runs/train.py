"""A training, from configuration to finished run folder: resolve, read, build, fit, save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mocme.core.configurable import ConfigError
from mocme.core.device import environment, find_device
from mocme.data.features.sources import read_features
from mocme.data.graph import Graph
from mocme.data.ingest.reader import encoded_modality
from mocme.data.load import load
from mocme.data.modality import ENCODED, Features
from mocme.experts.base import ExpertSettings
from mocme.runs.config import Experiment, Settings
from mocme.runs.fit import fit_run
from mocme.runs.monitor import TrainingObserver
from mocme.runs.run import STARTED, Run
from mocme.runs.run_files import CONFIG, NAMES
from mocme.runs.run_inputs import GRAPH, REJECTED, modality_file
from mocme.storage import RunFolder


def train(
    graph: Graph | str | Path,
    experiment: str | Path | Mapping[str, Any] | Experiment = "default",
    *,
    out: str | Path,
    seed: int | None = None,
    device: str = "auto",
    features: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    observer: TrainingObserver | None = None,
    trust_code: bool = False,
) -> Run:
    """Train the experts and the mixture of an experiment, and write a run.

    Args:
        graph: a graph, or what `load` takes.
        experiment: a TOML file, a shipped experiment's name, a table or an `Experiment`.
        out: a folder that does not exist, is empty, or has what a training left that was killed
            before its inputs were saved.
        seed: instead of the experiment's.
        device: ``auto``, ``cpu`` or ``cuda``.
        features: folder of encoded modalities, where they are not next to the graph.
        settings: by dotted path, instead of the experiment's
            (``{"experts.embedding.training.epochs": 3}``).
        observer: receives progress.
        trust_code: import the code that the experiment and the graph name
            (``kind = "package.module:Class"``); by default, they are refused.

    Raises:
        ConfigError: a setting is wrong.
        ValueError: an input is wrong.
        RunError: `out` is not empty.
        RunLocked: another training is starting there.
        Interrupted: stopped by Ctrl-C; `resume` continues.
    """
    chosen_device = find_device(device)
    experiment = _resolve(experiment, seed, settings, chosen_device, trust_code)
    graph = graph if isinstance(graph, Graph) else load(graph)
    if not len(graph.facts("train")):
        raise ValueError(f"{graph.name}: the train split has no facts")
    inputs = read_inputs(graph, experiment, features, trust_code=trust_code)
    folder = RunFolder.create(
        out,
        _about(experiment, graph, inputs),
        lambda folder: _save_inputs(folder, experiment, graph, inputs),
        STARTED,
    )
    return fit_run(Run(folder, experiment.trust_code), graph, inputs, chosen_device, observer)


def resume(
    path: str | Path,
    *,
    device: str = "auto",
    observer: TrainingObserver | None = None,
    trust_code: bool = False,
) -> Run:
    """Continue an interrupted training; a finished run is returned as it is."""
    run = Run.open(path, trust_code)
    if run.finished:
        return run
    graph = run.graph()
    return fit_run(run, graph, run.features(graph), find_device(device), observer)


def settle(experiment: Experiment, device: torch.device) -> Experiment:
    """Resolve settings that are left to the machine, so that the run records their values."""
    experts = experiment.components().experts
    decided = {
        f"experts.{name}.{path}": value
        for name, expert in experts.items()
        for path, value in expert.on_machine(device).items()
    }
    return experiment.changed(decided) if decided else experiment


def read_inputs(
    graph: Graph,
    experiment: Experiment,
    features: str | Path | None = None,
    *,
    trust_code: bool = False,
) -> Features:
    """The modalities that a training of this experiment reads, with notes for the reader.

    One of which nothing can be made is left out, unless the experiment asks for it: by a table of
    its own, by ``data.only`` or by ``modalities`` of an expert.

    Args:
        trust_code: import the code that tables of the graph name. Whether that of the experiment is
            imported, the experiment says.

    Raises:
        ConfigError: an expert names a modality that is not among them.
        ValueError: one is missing or damaged, with the file and the remedy.
    """
    settings = experiment.components()
    tables, notes = _chosen(experiment, settings, graph, features)
    experts = settings.experts.values()
    named = {n for e in experts if not e.optional for n in e.modalities or ()}
    asked = {*experiment.modalities, *(settings.data.only or ()), *named}
    # Without modalities of the experiment, the tables are those of the graph's author.
    trusted = trust_code or (experiment.trust_code and bool(experiment.modalities))
    folder = Path(features) if features is not None else None
    inputs = read_features(graph, tables, folder, asked, trust_code=trusted)
    notes += [
        f"{name}: left out, because there is no modality for this expert to read"
        for name, expert in settings.experts.items()
        if not expert.takes_part(inputs)
    ]
    taken = {name: e for name, e in settings.experts.items() if e.takes_part(inputs)}
    if not taken:
        raise ConfigError("experts: every expert is optional, and none has a modality to read")
    notes += _unread(taken, inputs)
    valid = len(graph.facts("valid"))
    if seen := valid - len(graph.training_view().facts("valid")):
        notes.append(
            f"valid: {seen:,} of {valid:,} facts are training facts too; nothing is chosen or "
            f"calibrated by them (mocme audit lists such defects)"
        )
    return replace(inputs, notes=[*notes, *inputs.notes])


# -- inside ------------------------------------------------------------------------------------


def _resolve(
    experiment: str | Path | Mapping[str, Any] | Experiment,
    seed: int | None,
    settings: Mapping[str, Any] | None,
    device: torch.device,
    trust_code: bool,
) -> Experiment:
    """The experiment with overrides, and with what is left to the machine decided."""
    changes = dict(settings or {}) | ({} if seed is None else {"seed": seed})
    if isinstance(experiment, Experiment):
        experiment = experiment.trusted(trust_code).changed(changes)
    else:
        experiment = Experiment.load(experiment, changes, trust_code=trust_code)
    return settle(experiment, device)


def _chosen(
    experiment: Experiment, settings: Settings, graph: Graph, features: str | Path | None
) -> tuple[Mapping[str, Mapping[str, Any]], list[str]]:
    """Modalities to train with: the experiment's, or the graph's and those in `features`."""
    tables = dict(experiment.modalities or graph.modalities)
    files = [] if features is None else sorted((Path(features) / ENCODED).glob("*.safetensors"))
    names = [path.stem for path in files if ".codebook" not in path.name]
    extra = [name for name in names if name not in tables]
    if not experiment.modalities:
        tables |= {name: encoded_modality(name) for name in extra}
        extra = []
    notes = [
        f"{features}: {name} is not used, because the experiment declares modalities but not this "
        f"one"
        for name in extra
    ]
    chosen = settings.data.choose(tables)
    notes += [
        f"{name}: the experiment declares it, and its [data] leaves it out"
        for name in experiment.modalities
        if name not in chosen and name not in experiment.data["without"]
    ]
    return chosen, notes


def _unread(experts: Mapping[str, ExpertSettings], inputs: Features) -> list[str]:
    """Notes on modalities that no expert reads although some kind of expert can.

    Raises:
        ConfigError: an expert names a modality that is not among them.
    """
    read = {n for name, expert in experts.items() for n in expert.features_of(inputs, name).names}
    notes = []
    if inputs.pairs and not any("pairs" in expert.usable for expert in experts.values()):
        names = ", ".join(inputs.pairs)
        notes.append(
            f"{names}: only rules read pairs of entities, and this experiment has no rules; add "
            f"them with a table [[experts]] of kind rules, or --set 'experts.rules={{support=3}}'"
        )
    for modality, form in inputs.forms().items():
        able = [name for name, expert in experts.items() if form in expert.usable]
        if able and modality not in read:
            notes.append(
                f"{modality}: no expert reads it, because the settings modalities and forms of "
                f"{', '.join(able)} leave it out"
            )
    return notes


def _about(experiment: Experiment, graph: Graph, features: Features) -> dict[str, Any]:
    return {
        "experiment": experiment.name,
        "graph": graph.name,
        "data": graph.folder,
        "seed": experiment.seed,
        "experts": list(experiment.components().experts),
        "modalities": features.names,
        "facts": {split: len(graph.facts(split)) for split in graph.splits},
        "entities": {
            "all": graph.num_entities,
            "structure": int(graph.linked().sum()),
            **{name: int(mask.sum()) for name, mask in features.present().items()},
        },
        "digest": {
            "graph": graph.digest(),
            "features": features.digest(),
            "inputs": dict(graph.inputs),
        },
        "notes": [*graph.notes, *features.notes],
        "environment": environment(),
        "finished": False,
    }


def _save_inputs(
    folder: RunFolder, experiment: Experiment, graph: Graph, features: Features
) -> None:
    names = {"entities": list(graph.entities), "relations": list(graph.relations)}
    folder.write_json(NAMES, names)
    folder.write_tensors(GRAPH, {s: f.contiguous() for s, f in graph.splits.items()})
    if len(graph.rejected):
        folder.write_tensors(REJECTED, {"rejected": graph.rejected.contiguous()})
    entities = graph.entities.digest()
    for name, modality in features.all().items():
        tensors, metadata = modality.packed()
        text = {key: str(value) for key, value in metadata.items()}
        folder.write_tensors(modality_file(name), tensors, {**text, "entities": entities})
    # Last: without it the training is started again, with it resumed (`STARTED`).
    folder.write_text(CONFIG, experiment.text())
