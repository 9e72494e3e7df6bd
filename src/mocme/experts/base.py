"""The protocol of an expert: fitted on training facts, scores queries, explains, extends, packs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.registry import ConfigError, Configurable
from mocme.data.graph import Graph, Queries
from mocme.data.modality import Features, Form

# Receives (steps done, steps in all).
Progress = Callable[[int, int], None]
Packed = tuple[dict[str, Tensor], dict[str, str]]


class SparseOdds(NamedTuple):
    """Odds P / (1 - P) of the candidates that an expert has evidence for.

    Attributes:
        row: which query.
        column: which candidate; a (row, column) occurs at most once.
        odds: at least 0, finite.
    """

    row: Int[Tensor, " n"]
    column: Int[Tensor, " n"]
    odds: Float[Tensor, " n"]


@runtime_checkable
class Reason(Protocol):
    """One reason of an expert for an answer; its shares add up to what the expert says."""

    @property
    def name(self) -> str:
        """The reason in words."""
        ...

    @property
    def share(self) -> float:
        """Its part of the expert's score, log odds or log(1 + odds)."""
        ...


@dataclass(frozen=True, eq=False)
class Extension:
    """A graph with entities that an expert was not fitted with.

    Attributes:
        graph: training entities first, added ones after them; facts of the added ones are training
            facts.
        features: of all entities.
        vectors: of each added entity, by name of a dense modality, as its encoder returns them.
        rows: by name of an expert, what was fitted for each added entity; None without facts.
    """

    graph: Graph
    features: Features
    vectors: Sequence[Mapping[str, Tensor]]
    rows: Mapping[str, Sequence[Tensor | None]]

    def read_by(self, expert: Expert) -> Extension:
        """The part that an expert reads: of the modalities, those that it was fitted with."""
        reads = set(expert.reads)
        vectors = [{n: v for n, v in by_name.items() if n in reads} for by_name in self.vectors]
        return replace(self, features=self.features.only(reads), vectors=vectors)


class Expert(ABC):
    """A fitted expert.

    An expert knows no other expert, and not the mixture. It answers tail queries; a head query is
    the tail query of the inverse relation.

    Attributes:
        name: by which the run and its mixture refer to it.
        reads: names of the modalities that it reads; ``structure`` for the links. Of other
            modalities it gets nothing when entities are added.
    """

    name: str
    reads: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where its queries have to be."""
        return torch.device("cpu")

    @abstractmethod
    def explain(self, head: int, relation: int, answer: int) -> Sequence[Reason]:
        """Reasons for an answer of (head, directed relation, ?), strongest first."""

    @abstractmethod
    def extended(self, extension: Extension) -> Expert:
        """The expert for a graph with added entities; its own parameters stay as they are.

        Args:
            extension: with the modalities that it `reads` alone (`Extension.read_by`).
        """

    @abstractmethod
    def packed(self) -> Packed:
        """Tensors and metadata as a safetensors file holds them."""


class DenseExpert(Expert):
    """An expert that scores every candidate."""

    @abstractmethod
    def score(self, queries: Queries, candidates: Tensor | None = None) -> Float[Tensor, "B C"]:
        """Scores of candidates as answers; higher is likelier.

        Args:
            queries: B queries on `device`.
            candidates: none: all N entities; (C,): shared; (B, C): one set for each query.

        Returns:
            A new tensor, which the caller may change.
        """


class SparseExpert(Expert):
    """An expert that has evidence for some candidates and is silent about all others."""

    @abstractmethod
    def odds(self, queries: Queries) -> SparseOdds:
        """Odds of the candidates that it has evidence for."""


@runtime_checkable
class Resumable(Protocol):
    """A fit that can be interrupted after any step and resumed from its state."""

    def state(self) -> Any:
        """Everything that resuming needs, as a tree of tensors and numbers."""
        ...

    def restore(self, state: Any) -> None:
        """Continue from a `state`."""
        ...


@runtime_checkable
class Monitor(Protocol):
    """What a fit reports to: progress, log, checkpoints, interruption."""

    def resume(self, fit: Resumable) -> None:
        """Restore this expert's newest checkpoint, or save a first one."""
        ...

    def start(self, fit: Any) -> None:
        """The fit begins or resumes."""
        ...

    def step(self, fit: Any) -> None:
        """A step is done.

        Raises:
            Interrupted: a stop was requested; the state is saved before.
        """
        ...

    def record(self, record: Mapping[str, Any], fit: Any) -> None:
        """Log an epoch; save a checkpoint if one is due or the fit is done."""
        ...

    def stage(self, name: str) -> Progress:
        """A callback for the progress of a fit without checkpoints.

        The callback raises Interrupted if a stop was requested.
        """
        ...


class NoMonitor:
    """Reports nothing and saves nothing."""

    def resume(self, fit: Resumable) -> None:
        """Start from the beginning."""

    def start(self, fit: Any) -> None:
        """Ignore it."""

    def step(self, fit: Any) -> None:
        """Ignore it."""

    def record(self, record: Mapping[str, Any], fit: Any) -> None:
        """Ignore it."""

    def stage(self, name: str) -> Progress:
        """A callback that does nothing."""
        return lambda done, total: None


@dataclass(frozen=True, eq=False)
class FitTask:
    """What an expert is fitted on.

    Attributes:
        name: of the expert.
        graph: its training view; the test split is not in it.
        features: modalities of its entities that the expert may read
            (`ExpertSettings.features_of`).
        seed: of the run.
        device: to train on.
        memory: GiB for the scores of a batch.
        monitor: receives progress; not needed to unpack an expert.
        trust_code: whether code that the expert's settings name may be imported.
    """

    name: str
    graph: Graph
    features: Features
    seed: int
    device: torch.device
    memory: float
    monitor: Monitor = NoMonitor()
    trust_code: bool = False


@dataclass(frozen=True, kw_only=True)
class ExpertSettings(Configurable):
    """Settings of an expert.

    Args:
        modalities: names of the modalities that it reads; all that it can read by default. An empty
            list means structure only.
        forms: forms of the modalities that it reads; all by default.
        optional: leave the expert out of a training that has nothing of these forms and names.

    Attributes:
        machine_settings: dotted paths of settings whose value ``auto`` is decided by the machine.
        usable: forms of modalities that experts of this kind can read.
        sparse: whether `fit` returns a `SparseExpert`.
        refittable: whether it can be fitted again on other facts. A mixture that is fitted on
            held-out facts needs experts that can.
    """

    machine_settings: ClassVar[tuple[str, ...]] = ()
    usable: ClassVar[tuple[Form, ...]] = ("dense", "tokens", "pairs")
    sparse: ClassVar[bool] = False
    refittable: ClassVar[bool] = True

    modalities: Sequence[str] | None = None
    forms: Sequence[Form] | None = None
    optional: bool | None = None

    @classmethod
    def kind_name(cls) -> str:
        """The name of the module or package of `mocme.experts` that defines it."""
        return cls.__module__.split(".")[2]

    def takes_part(self, features: Features) -> bool:
        """Whether it is fitted in a training with these modalities; see `optional`."""
        usable = self.usable if self.forms is None else self.forms
        return not self.optional or any(
            form in usable and (self.modalities is None or name in self.modalities)
            for name, form in features.forms().items()
        )

    def features_of(self, features: Features, name: str) -> Features:
        """The modalities that the expert reads, of those of a graph.

        Args:
            name: of the expert, for messages.

        Raises:
            ConfigError: a setting names a modality that the graph does not have, or a form that
                experts of this kind cannot read.
        """
        usable = self.usable if self.forms is None else self.forms
        for form in usable:
            if form not in self.usable:
                can = ", ".join(self.usable) or "no modalities"
                raise ConfigError(
                    f"experts.{name}.forms: {self.kind_name()} cannot read {form!r}; it reads {can}"
                )
        forms = features.forms()
        readable = [modality for modality, form in forms.items() if form in usable]
        if self.modalities is None:
            return features.only(readable)
        for modality in self.modalities:
            if modality not in forms:
                raise ConfigError(
                    f"experts.{name}.modalities: there is no modality {modality!r}; this training "
                    f"reads {', '.join(forms) or 'none'}"
                )
            if modality not in readable:
                raise ConfigError(
                    f"experts.{name}.modalities: {modality!r} has the form {forms[modality]!r}, "
                    f"which this expert does not read; it can read "
                    f"{', '.join(readable) or 'none of the modalities'}"
                )
        return features.only(self.modalities)

    def on_machine(self, device: torch.device) -> Mapping[str, Any]:
        """Values of `machine_settings` that are left to the machine, by dotted path."""
        return {}

    @abstractmethod
    def fit(self, task: FitTask) -> tuple[Expert, dict[str, Any]]:
        """Fit an expert; also returns a record of the fit for the run.

        Raises:
            ValueError: the settings do not fit the graph.
            Interrupted: a stop was requested.
        """

    @abstractmethod
    def unpacked(self, packed: Packed, task: FitTask) -> Expert:
        """The expert that `Expert.packed` describes, for the graph it was fitted on.

        Raises:
            ValueError: the tensors do not fit.
        """
