"""A training from its configuration to a finished run folder; `opening` has what a run answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from mocme.core.device import Interrupted, environment, faster_precision, find_device, stop_signal
from mocme.data.features.sources import read_features
from mocme.data.graph import Graph
from mocme.data.ingest.reader import encoded_table
from mocme.data.load import load
from mocme.data.modality import ENCODED, Features
from mocme.evaluation import metrics
from mocme.evaluation.ranking import batch_for, rank_split
from mocme.experts.embedding.model import Model
from mocme.experts.embedding.trainer import Progress, Trainer
from mocme.mixture import fit as weighing
from mocme.runs.config import Experiment
from mocme.runs.run import LOG, PATTERNS, REJECTED, Run, make_model
from mocme.storage import RunFolder


@runtime_checkable
class TrainingObserver(Protocol):
    """What wants to see a training go on."""

    def start(self, trainer: Trainer, run: Run) -> None: ...

    def step(self, progress: Progress) -> None: ...

    def record(self, record: Mapping[str, Any]) -> None: ...

    def stage(self, name: str) -> Callable[[int, int], None]: ...


def train(
    graph: Graph | str | Path,
    experiment: str | Path | Mapping[str, Any] | Experiment = "default",
    *,
    out: str | Path,
    seed: int | None = None,
    device: str = "auto",
    features: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    watch: TrainingObserver | None = None,
) -> Run:
    """Train a model and write a run.

    Args:
        graph: a graph, or what `load` takes.
        experiment: a TOML file, a shipped experiment's name, a table or an `Experiment`.
        out: a folder that is not there yet, or empty.
        seed: instead of the experiment's.
        features: folder of encoded modalities, where they do not lie beside the graph.
        settings: by dotted path, instead of the experiment's (``{"training.passes": 3}``).

    Raises:
        ConfigError: a setting is wrong. ValueError: an input is. RunError: `out` is not free.
        Interrupted: stopped by Ctrl-C; `resume` goes on.
    """
    changes = dict(settings or {}) | ({} if seed is None else {"training.seed": seed})
    if isinstance(experiment, Experiment):
        experiment = experiment.changed(changes)
    else:
        experiment = Experiment.load(experiment, changes)
    graph = graph if isinstance(graph, Graph) else load(graph)
    if not len(graph.facts("train")):
        raise ValueError(f"{graph.name}: the train split holds no fact")
    place = find_device(device)
    experiment = settle(experiment, place)
    found = read_inputs(graph, experiment, features)
    folder = RunFolder.create(out, _about(experiment, graph, found))
    _store_inputs(folder, experiment, graph, found)
    return _go(Run(folder, trust_code=True), graph, found, place, watch)


def resume(
    path: str | Path,
    *,
    device: str = "auto",
    watch: TrainingObserver | None = None,
    trust_code: bool = False,
) -> Run:
    """Go on with a training that was stopped; a finished run is returned as it is."""
    run = Run.open(path, trust_code)
    if run.finished:
        return run
    graph = run.graph()
    return _go(run, graph, run.features(graph), find_device(device), watch)


def settle(experiment: Experiment, device: torch.device) -> Experiment:
    """Decide what is left to the machine, so that the run says what was used."""
    if experiment.training["precision"] != "auto":
        return experiment
    return experiment.with_training(
        precision=faster_precision(device, int(experiment.model["width"]))
    )


def read_inputs(
    graph: Graph, experiment: Experiment, features: str | Path | None = None
) -> Features:
    """The modalities that a training of this experiment reads, with notes for the reader.

    Raises:
        ValueError: one is missing or damaged, naming the file and the remedy.
    """
    chosen, notes = _chosen(experiment, graph, features)
    found = read_features(graph, chosen, Path(features) if features is not None else None)
    if found.pairs and experiment.parts()[1].patterns is None:
        names = ", ".join(found.pairs)
        notes.append(
            f"{names}: pairs of entities are read by patterns only, and this experiment has none; "
            f"ask for them with a table [model.patterns], or --set 'model.patterns={{support=3}}'"
        )
    return replace(found, notes=[*notes, *found.notes])


def make_trainer(
    experiment: Experiment, graph: Graph, features: Features, device: torch.device
) -> Trainer:
    """A trainer that sees train and valid only."""
    _, _, settings, evaluation = experiment.parts()
    view = graph.training_view()
    model, facts = make_model(experiment, view, features)
    validate = None
    if len(view.facts("valid")):

        def validate(trained: Model) -> Mapping[str, float]:
            found = metrics.of_ranks(
                rank_split(trained, view, "valid", evaluation.memory).realistic
            )
            return found

    elif settings.patience:
        raise ValueError("training.patience needs a valid split, and the graph has none")
    return Trainer(settings, model.to(device), facts, validate, settings.precision == "bfloat16")


# -- inside ------------------------------------------------------------------------------------


def _chosen(
    experiment: Experiment, graph: Graph, features: str | Path | None
) -> tuple[Mapping[str, Mapping[str, Any]], list[str]]:
    """Modalities to train with: the experiment's, or the graph's with what lies in `features`."""
    tables = dict(experiment.modalities or graph.modalities)
    lying = [] if features is None else sorted((Path(features) / ENCODED).glob("*.safetensors"))
    names = [path.stem for path in lying if ".codebook" not in path.name]
    extra = [name for name in names if name not in tables]
    if not experiment.modalities:
        tables |= {name: encoded_table(name) for name in extra}
        extra = []
    notes = [
        f"{features}: {name} is not used, for the experiment declares modalities and not this one"
        for name in extra
    ]
    found = experiment.parts()[0].choose(tables)
    notes += [
        f"{name}: the experiment declares it, and its [data] leaves it out"
        for name in experiment.modalities
        if name not in found and name not in experiment.data["without"]
    ]
    return found, notes


def _about(experiment: Experiment, graph: Graph, features: Features) -> dict[str, Any]:
    return {
        "experiment": experiment.name,
        "graph": graph.name,
        "data": graph.folder,
        "seed": experiment.training["seed"],
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


def _store_inputs(
    folder: RunFolder, experiment: Experiment, graph: Graph, features: Features
) -> None:
    folder.write_text("config.toml", experiment.text())
    names = {"entities": list(graph.entities), "relations": list(graph.relations)}
    folder.write_json("names.json", names)
    folder.write_tensors("graph.safetensors", {s: f.contiguous() for s, f in graph.splits.items()})
    if len(graph.rejected):
        folder.write_tensors(REJECTED, {"rejected": graph.rejected.contiguous()})
    digest = graph.entities.digest()
    for name, modality in features.all().items():
        tensors, metadata = modality.packed()
        text = {key: str(value) for key, value in metadata.items()}
        folder.write_tensors(
            f"modalities/{name}.safetensors", tensors, {**text, "entities": digest}
        )


def _go(
    run: Run, graph: Graph, features: Features, device: torch.device, watch: TrainingObserver | None
) -> Run:
    """Train to the end, from the newest checkpoint if there is one."""
    folder = run.folder
    with folder.lock():
        trainer = make_trainer(run.experiment, graph, features, device)
        if (checkpoint := folder.load_checkpoint()) is not None:
            trainer.restore(checkpoint.state)
            folder.rewind(checkpoint)
        else:
            # Killed before its first pass ends, a training starts again from here, log and all.
            folder.save_checkpoint(0, trainer.state(), [LOG])
        _try_evaluation(trainer.model, graph, run.experiment.parts()[3].memory)
        if watch is not None:
            watch.start(trainer, run)
        _train(folder, trainer, watch)
        weights = {name: t.detach().cpu() for name, t in trainer.model.state_dict().items()}
        folder.write_tensors("model.safetensors", weights)
        _add_patterns(run, trainer.model, graph, features, watch)
        folder.update_about(
            finished=True,
            seconds=round(trainer.progress.seconds, 3),
            best_epoch=trainer.progress.best_epoch or trainer.progress.epoch,
        )
    return run


def _train(folder: RunFolder, trainer: Trainer, watch: TrainingObserver | None) -> None:
    saved, pause = time.monotonic(), trainer.settings.checkpoint_seconds
    with stop_signal() as stopped:

        def on_step(progress: Progress) -> None:
            if watch is not None:
                watch.step(progress)
            if stopped.is_set():
                folder.save_checkpoint(progress.step, trainer.state(), [LOG])
                raise Interrupted(
                    f"stopped at step {progress.step}; go on with: mocme resume {folder.path}"
                )

        for record in trainer.run(on_step):
            folder.append(LOG, record)
            if watch is not None:
                watch.record(record)
            now = time.monotonic()
            if trainer.progress.done or now - saved >= pause:
                folder.save_checkpoint(trainer.progress.step, trainer.state(), [LOG])
                saved = now


def _add_patterns(
    run: Run, model: Model, graph: Graph, features: Features, watch: TrainingObserver | None
) -> None:
    """Fit patterns beside a trained model; stopped within, `resume` begins them again."""
    _, settings, _, evaluation = run.experiment.parts()
    if settings.patterns is None:
        return
    model.eval()
    model.thaw()
    advance = None if watch is None else watch.stage("patterns")
    with stop_signal() as stopped:

        def on_step(done: int, total: int) -> None:
            if advance is not None:
                advance(done, total)
            if stopped.is_set():
                raise Interrupted(
                    f"stopped while fitting patterns; go on with: mocme resume {run.path}"
                )

        view = graph.training_view()
        evidence, record = weighing.fit(
            model, view, features, settings.patterns, evaluation.memory, on_step
        )
    tensors, metadata = evidence.packed()
    run.folder.write_tensors(PATTERNS, tensors, metadata)
    run.folder.write_json("patterns.json", record)
    if watch is not None:
        watch.record({"patterns": record})


def _try_evaluation(model: Model, graph: Graph, memory: float) -> None:
    """Rank one batch before the first pass: running out of memory happens now or never."""
    split = next((s for s in ("valid", "train") if len(graph.facts(s))), None)
    if split is None:
        return
    model.eval()
    rank_split(
        model, graph.training_view(), split, memory, only=batch_for(graph.num_entities, memory)
    )
    model.thaw()
