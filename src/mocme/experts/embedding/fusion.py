"""Fusion of several vectors of an entity into one, with the weights that were used.

The same operator is used twice: over the views of a modality, and over the modalities of an entity.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from mocme.core.registry import Configurable


class Fused(NamedTuple):
    """The fusion of V inputs of n entities.

    Attributes:
        vector: (n, D); zero where nothing is present.
        weights: (n, V); sum to 1, or are all 0 where nothing is present. The vector is the sum of
            the inputs by these weights, unless a fusion documents otherwise.
        redundancy: mean squared cosine between the present inputs, a scalar (0 where not computed).
    """

    vector: Tensor
    weights: Tensor
    redundancy: Tensor


# Mean and deviation of the redundancy, by which complementarity is standardised.
NormStats = tuple[Tensor, Tensor]


class Fusion(nn.Module, Configurable):
    """Fuses V vectors of an entity into one; a module (n, V, D), (n, V) -> `Fused`.

    The result for one entity may depend on all of them, through statistics of their inputs.
    `norm_stats` returns these, so that entities added later are fused by the statistics of the
    first ones. Every subclass in this module is a kind.

    Args:
        embedding_dim: D.
        inputs: V.
        generator: draws the parameters.
    """

    trial = (64, 4, torch.Generator())

    def __init__(self, embedding_dim: int, inputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.embedding_dim, self.inputs = embedding_dim, inputs

    @classmethod
    def kind_name(cls) -> str:
        """The name of the class without its ending: ``Mean`` for `MeanFusion`."""
        return cls.__name__.removesuffix("Fusion")

    @abstractmethod
    def forward(
        self,
        inputs: Float[Tensor, "n V D"],
        present: Bool[Tensor, "n V"],
        stats: NormStats | None = None,
    ) -> Fused:
        """Fuse the inputs that are present.

        Args:
            stats: by which inputs are standardised; those of `inputs` by default.
        """

    def norm_stats(self, inputs: Tensor, present: Tensor) -> NormStats | None:
        """Statistics of some entities' inputs; None where a fusion has none."""
        return None


class ComplementaryFusion(Fusion):
    """Weights by relevance and complementarity; formulas in docs/method.md, section "Fusion".

    Args:
        embedding_dim: D.
        inputs: V.
        generator: not used.
        relevance: whether a learned scalar of each input takes part (else complementarity only).
        complementarity: ``learned``: standardised (mu - redundancy), times a learned lambda;
            ``off``: an ordinary gate; ``shuffled``: that of another entity (a control).
        strength: initial lambda. Near 0 a fusion starts as a uniform mean; at 1 the weights start
            with a spread of one logit before anything is learned, which costs accuracy.
        temperature: initial tau.
    """

    def __init__(
        self,
        embedding_dim: int,
        inputs: int,
        generator: torch.Generator,
        *,
        relevance: bool = True,
        complementarity: Literal["learned", "off", "shuffled"] = "learned",
        strength: float = 0.1,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(embedding_dim, inputs, generator)
        if strength <= 0 or temperature <= 0:
            raise ValueError("strength and temperature must be above 0")
        self.relevance, self.complementarity = relevance, complementarity
        self.log_strength = nn.Parameter(torch.tensor(strength).log())
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())
        # One gate for each input: which input it is matters as much as what it holds.
        self.gate = nn.Parameter(torch.zeros(inputs, embedding_dim))
        self.bias = nn.Parameter(torch.zeros(inputs))

    def forward(
        self,
        inputs: Float[Tensor, "n V D"],
        present: Bool[Tensor, "n V"],
        stats: NormStats | None = None,
    ) -> Fused:
        """Fuse the inputs that are present."""
        others = [p for p in self.parameters() if p is not self.gate]
        return Fused(*_ComplementaryFused.apply(inputs, present, self, stats, self.gate, *others))

    def norm_stats(self, inputs: Tensor, present: Tensor) -> NormStats:
        """Mean and deviation of the redundancy of all present inputs."""
        with torch.no_grad():
            products = torch.bmm(inputs, inputs.transpose(1, 2))
            return spread_of(pair_redundancy(products, present)[0], present)

    def weigh(
        self,
        products: Float[Tensor, "n V V"],
        gated: Float[Tensor, "n V"],
        present: Bool[Tensor, "n V"],
        stats: NormStats | None = None,
    ) -> tuple[Float[Tensor, "n V"], Float[Tensor, ""]]:
        """Weights and mean redundancy, from products of inputs with each other and the gate."""
        redundancy, mean_redundancy, length = pair_redundancy(products, present)
        logits = products.new_zeros(present.shape)
        if self.relevance:
            logits = gated / length + self.bias
        if self.complementarity != "off":
            complementarity = standardised(redundancy, present, stats)
            if self.complementarity == "shuffled":
                complementarity = complementarity.roll(1, 0)
            logits = logits + self.log_strength.exp() * complementarity
        return masked_softmax(logits / self.log_temperature.exp(), present), mean_redundancy


class _ComplementaryFused(torch.autograd.Function):
    """`ComplementaryFusion`: (vector, weights, mean redundancy) of the inputs.

    The inputs are large and enter three times: in products with each other, with the gate and with
    the weights. Their gradient is accumulated here in one tensor; autograd would allocate one for
    each use and add them. The small tensors in between are left to autograd.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        present: Tensor,
        fusion: ComplementaryFusion,
        stats: NormStats | None,
        gate: Tensor,
        *others: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        products = torch.bmm(inputs, inputs.transpose(1, 2)).requires_grad_()
        gated = torch.einsum("nvd,vd->nv", inputs, gate).requires_grad_()
        with torch.set_grad_enabled(any(ctx.needs_input_grad)):
            weights, redundancy = fusion.weigh(products, gated, present, stats)
        ctx.small = (products, gated), (weights, redundancy), others
        ctx.save_for_backward(inputs, gate)
        weights = weights.detach()
        return weighted(weights, inputs), weights, redundancy.detach()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        inputs, gate = ctx.saved_tensors
        intermediates, outputs, others = ctx.small
        by_vector = upstream[0].unsqueeze(1)
        # vector = weights @ inputs: the weights receive a gradient through the vector as well.
        by_weights = upstream[1] + torch.bmm(by_vector, inputs.transpose(1, 2)).squeeze(1)
        by_products, by_gated, *by_others = torch.autograd.grad(
            outputs,
            (*intermediates, *others),
            (by_weights, upstream[2]),
            retain_graph=True,  # like autograd itself, which may run backward twice
            allow_unused=True,
        )
        gradient = outputs[0].detach().unsqueeze(2) * by_vector
        if by_products is not None:
            # d(X X^T) = (G + G^T) X for an upstream gradient G.
            gradient.baddbmm_(by_products + by_products.transpose(1, 2), inputs)
        by_gate = None
        if by_gated is not None:
            gradient.addcmul_(by_gated.unsqueeze(2), gate)
            by_gate = torch.einsum("nv,nvd->vd", by_gated, inputs)
        return gradient, None, None, None, by_gate, *by_others


class MeanFusion(Fusion):
    """The uniform mean of the inputs that are present."""

    def forward(
        self,
        inputs: Float[Tensor, "n V D"],
        present: Bool[Tensor, "n V"],
        stats: NormStats | None = None,
    ) -> Fused:
        """Average the inputs that are present."""
        weights = shares(inputs, present)
        return Fused(weighted(weights, inputs), weights, inputs.new_zeros(()))


class AttentionFusion(Fusion):
    """Softmax of scaled products between each input's key and a query made of their mean.

    Args:
        embedding_dim: D.
        inputs: V.
        generator: draws keys and queries.
        key_dim: dimension of keys and queries.
    """

    def __init__(
        self,
        embedding_dim: int,
        inputs: int,
        generator: torch.Generator,
        *,
        key_dim: int = 64,
    ) -> None:
        super().__init__(embedding_dim, inputs, generator)
        scale = embedding_dim**-0.5
        self.key = nn.Parameter(torch.randn(embedding_dim, key_dim, generator=generator) * scale)
        self.query = nn.Parameter(torch.randn(embedding_dim, key_dim, generator=generator) * scale)

    def forward(
        self,
        inputs: Float[Tensor, "n V D"],
        present: Bool[Tensor, "n V"],
        stats: NormStats | None = None,
    ) -> Fused:
        """Attend from the mean of the present inputs to each of them."""
        units = unit(inputs) * present.unsqueeze(-1)
        centre = units.sum(1) / present.sum(1, keepdim=True).clamp_min(1)
        logits = torch.einsum("nvk,nk->nv", units @ self.key, centre @ self.query)
        weights = masked_softmax(logits * self.key.shape[1] ** -0.5, present)
        return Fused(weighted(weights, inputs), weights, inputs.new_zeros(()))


class ProjectionFusion(Fusion):
    """A linear map of all inputs concatenated, absent ones 0; it starts as their mean.

    Its weights are those of the mean that it starts from.
    """

    def __init__(self, embedding_dim: int, inputs: int, generator: torch.Generator) -> None:
        super().__init__(embedding_dim, inputs, generator)
        self.weight = nn.Parameter(torch.eye(embedding_dim).repeat(inputs, 1, 1) / inputs)

    def forward(
        self,
        inputs: Float[Tensor, "n V D"],
        present: Bool[Tensor, "n V"],
        stats: NormStats | None = None,
    ) -> Fused:
        """Map the inputs that are present."""
        shown = (inputs * present.unsqueeze(-1)).flatten(1)
        vector = shown @ self.weight.flatten(0, 1)
        return Fused(vector, shares(inputs, present), inputs.new_zeros(()))


class BlocksFusion(Fusion):
    """Each input owns an equal share of the D entries.

    With a scorer by product, the score is then a sum of one score for each input (MoMoK adds the
    scores of its modalities so: Zhang et al., ICLR 2025). Both parts of a complex entry belong to
    one input. Every present input gets the same weight.
    """

    owner: Tensor

    def __init__(self, embedding_dim: int, inputs: int, generator: torch.Generator) -> None:
        super().__init__(embedding_dim, inputs, generator)
        period = embedding_dim // 2 if embedding_dim % 2 == 0 else embedding_dim
        if period < inputs:
            raise ValueError(
                f"Blocks needs an embedding_dim of {2 * inputs} or more for {inputs} inputs"
            )
        entry = torch.arange(embedding_dim) % period
        owner = entry % inputs == torch.arange(inputs).unsqueeze(1)
        self.register_buffer("owner", owner, persistent=False)

    def forward(
        self,
        inputs: Float[Tensor, "n V D"],
        present: Bool[Tensor, "n V"],
        stats: NormStats | None = None,
    ) -> Fused:
        """Take from each present input the entries that it owns."""
        vector = (inputs * present.unsqueeze(-1) * self.owner).sum(1)
        return Fused(vector, shares(inputs, present), inputs.new_zeros(()))


def shares(inputs: Tensor, present: Bool[Tensor, "n V"]) -> Float[Tensor, "n V"]:
    """The same weight for all present inputs."""
    return present.to(inputs.dtype) / present.sum(1, keepdim=True).clamp_min(1)


def unit(inputs: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
    """Vectors of length 1 (0 stays 0, with a finite gradient)."""
    return functional.normalize(inputs, dim=-1, eps=1e-8)


def weighted(weights: Float[Tensor, "n V"], inputs: Float[Tensor, "n V D"]) -> Float[Tensor, "n D"]:
    """Weighted sum of each entity's inputs."""
    return torch.bmm(weights.unsqueeze(1), inputs).squeeze(1)


def pair_redundancy(
    products: Float[Tensor, "n V V"], present: Bool[Tensor, "n V"]
) -> tuple[Float[Tensor, "n V"], Float[Tensor, ""], Float[Tensor, "n V"]]:
    """Mean squared cosine of each input with the other present ones (0 where alone).

    Cosines are computed from the products of the inputs. Normalising the inputs first would
    allocate a tensor as large as they are and cost more than all other steps together.

    Returns:
        The redundancy of each input; its mean over entities' inputs that are not alone; the lengths
        of the inputs.
    """
    # Far below the square of any trained length (tables start near 0.01 * sqrt(D)).
    squared_length = products.diagonal(dim1=1, dim2=2) + 1e-12
    cosines = products.square() / (squared_length.unsqueeze(1) * squared_length.unsqueeze(2))
    both = present.unsqueeze(1) & present.unsqueeze(2)
    both = both & ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    others = both.sum(2)
    redundancy = (cosines * both).sum(2) / others.clamp_min(1)
    mean = redundancy.sum() / (others > 0).sum().clamp_min(1)
    return redundancy, mean, squared_length.sqrt()


def spread_of(redundancy: Float[Tensor, "n V"], present: Bool[Tensor, "n V"]) -> NormStats:
    """Mean and deviation over all present inputs."""
    count = present.sum().clamp_min(1)
    mean = (redundancy * present).sum() / count
    return mean, (((redundancy - mean) * present).square().sum() / count).sqrt()


def standardised(
    redundancy: Float[Tensor, "n V"],
    present: Bool[Tensor, "n V"],
    stats: NormStats | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "n V"]:
    """(mu - redundancy) / (sigma + eps), without gradient of mu and sigma.

    Args:
        stats: mu and sigma; those over all present inputs by default.
    """
    with torch.no_grad():
        mean, spread = stats or spread_of(redundancy, present)
    return (mean - redundancy) / (spread + eps)


def masked_softmax(
    logits: Float[Tensor, "n V"], present: Bool[Tensor, "n V"]
) -> Float[Tensor, "n V"]:
    """Softmax over the present inputs; all 0 where none is.

    The mask comes after every division: -inf divided by a learned temperature has a NaN gradient.
    """
    lowest = torch.finfo(logits.dtype).min
    weights = logits.masked_fill(~present, lowest).softmax(1)
    return weights * present


Fusion.kinds = (
    ComplementaryFusion,
    MeanFusion,
    AttentionFusion,
    ProjectionFusion,
    BlocksFusion,
)
