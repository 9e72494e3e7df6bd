"""Mixtures of single models, and the models of a mixture."""

from __future__ import annotations

from mocme.experts.base import Expert
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.experts.embedding.objective import Objective
from mocme.experts.embedding.vector_model import VectorModel
from mocme.experts.rules.expert import RuleExpert
from mocme.experts.rules.rule_model import RuleModel
from mocme.mixture.base import Mixture
from mocme.mixture.sum import Sum
from mocme.mixture.weight_search import Weight


def mixture_of(
    model: VectorModel | None = None,
    rules: RuleModel | None = None,
    *,
    weight: Weight = Weight(1.0),
    objective: Objective = Objective(),
) -> Sum:
    """A sum of a model and rules, the rules with a weight."""
    experts: list[Expert] = []
    if model is not None:
        experts.append(EmbeddingExpert("embedding", tuple(model.modalities), model, objective))
    if rules is not None:
        experts.append(RuleExpert("rules", ("structure",), rules))
    count = model.num_entities if model is not None else rules.relations.num_entities
    return Sum(experts, count, {"embedding": Weight(1.0), "rules": weight})


def embedding_of(mixture: Mixture) -> VectorModel:
    """The model of the first embedding."""
    return next(e.model for e in mixture.experts if isinstance(e, EmbeddingExpert))


def rules_of(mixture: Mixture) -> RuleModel:
    """The first rules."""
    return next(e.model for e in mixture.experts if isinstance(e, RuleExpert))
