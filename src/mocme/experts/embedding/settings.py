"""Settings of an embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

from mocme.core.device import faster_precision
from mocme.core.registry import Configurable, Spec
from mocme.data.modality import Form
from mocme.experts.base import ExpertSettings
from mocme.experts.embedding.fusion import ComplementaryFusion, Fusion
from mocme.experts.embedding.objective import Objective
from mocme.experts.embedding.optimizers import Optimizer, Schedule
from mocme.experts.embedding.scorers import ComplEx, Scorer
from mocme.experts.embedding.views import ModalityViews


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Configurable):
    """Settings of a training.

    Args:
        epochs: passes over all distinct queries.
        batch_size: distinct queries in a step.
        objective: what is minimised.
        optimizer: a torch optimiser and its learning rates.
        schedule: a factor on the learning rates.
        evaluate_every: epochs between validations; 0 validates only where early stopping needs it.
        patience: validations without a better MRR after which training stops and the best
            parameters are restored; 0 trains all epochs and keeps the last parameters.
        precision: of the score products in training; ``auto`` measures which is faster on this
            machine, once, and the run records the choice. Ranking always uses float32.
        checkpoint_seconds: least time between checkpoints, which are written at the end of an
            epoch.
    """

    epochs: int = 20
    batch_size: int = 1024
    objective: Objective = Objective()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    evaluate_every: int = 0
    patience: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        positive = min(self.epochs, self.batch_size)
        if positive < 1 or min(self.evaluate_every, self.patience, self.checkpoint_seconds) < 0:
            raise ValueError(
                "epochs and batch_size must be at least 1; evaluate_every, patience and "
                "checkpoint_seconds at least 0"
            )
        if self.patience and not self.evaluate_every:
            raise ValueError("patience needs evaluate_every, the epochs between validations")


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings(ExpertSettings):
    """An embedding: links, words as facts, and vectors of modalities fused into entity vectors.

    Args:
        embedding_dim: D, the dimension of entity vectors.
        scorer: scores a triple of vectors.
        inverse: ``free``: an inverse relation has a vector of its own; ``tied``: it is computed
            from the relation's vector.
        views: how many views each modality gets.
        within: fuses the views of a modality.
        across: fuses the modalities of an entity.
        dropout: probability that a modality is hidden in a step, by name; `default` for all others.
        init_std: standard deviation of the first tables.
        by_relation: whether each relation weighs the modalities (a gate that is conditioned on the
            relation, as in NativE: Zhang et al., SIGIR 2024): the score uses the sum of
            w_m(r) a_m(e) v_m(e) over modalities m, with a_m the weights of `across` and w_m(r)
            learned, 1 on average. Vectors are then as many times as long as there are modalities,
            and the scorer must be one by product.
        training: how the embedding is trained.
        seed: of the first parameters and the training; that of the run by default.
    """

    machine_settings: ClassVar[tuple[str, ...]] = ("training.precision",)
    usable: ClassVar[tuple[Form, ...]] = ("dense", "tokens")

    embedding_dim: int = 256
    scorer: Spec[Scorer] = Spec(ComplEx)
    inverse: Literal["free", "tied"] = "free"
    views: Spec[ModalityViews] = Spec(ModalityViews)
    within: Spec[Fusion] = Spec(ComplementaryFusion)
    across: Spec[Fusion] = Spec(ComplementaryFusion)
    dropout: Mapping[str, float] = field(default_factory=lambda: {"default": 0.2})
    init_std: float = 0.01
    by_relation: bool = False
    training: TrainingSettings = TrainingSettings()
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.embedding_dim < 2:
            raise ValueError("embedding_dim must be at least 2")
        if any(not 0 <= p < 1 for p in self.dropout.values()):
            raise ValueError("a dropout probability lies in [0, 1)")
        scorer = self.scorer.component
        if self.by_relation and not scorer.by_product:
            raise ValueError(
                f"by_relation adds up products, which {scorer.kind_name()} does not compute; "
                f"choose another scorer"
            )

    def on_machine(self, device: torch.device) -> Mapping[str, Any]:
        """The faster precision of products of this dimension on a device."""
        if self.training.precision != "auto":
            return {}
        return {"training.precision": faster_precision(device, self.embedding_dim)}
