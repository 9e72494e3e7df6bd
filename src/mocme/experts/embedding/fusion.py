"""Many views of an entity to one vector, and the weights it used.

The same operator serves twice: over the views of a modality, and over the modalities of an entity.
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
    """A fusion of n entities' V views.

    Attributes:
        vector: (n, D); zero where nothing is present.
        weights: (n, V); sum to 1, or are all 0 where nothing is present. The vector is the sum of
            the views by these weights, except where a fusion says otherwise.
        redundancy: mean squared cosine between the present views, a scalar (0 where not computed).
    """

    vector: Tensor
    weights: Tensor
    redundancy: Tensor


Standard = tuple[Tensor, Tensor]


class Fusion(Configurable):
    """Settings of a fusion; `make` gives the module."""

    @abstractmethod
    def make(self, width: int, views: int, generator: torch.Generator) -> Fusing:
        """A module (n, V, D), (n, V) -> `Fused`."""


class Fusing(nn.Module):
    """A fusion at work.

    What it does with one entity may depend on all of them, by statistics of their views: `standard`
    tells these, so that entities that come later are fused by what the first ones set.
    """

    def standard(self, views: Tensor, present: Tensor) -> Standard | None:
        """The statistics of some entities' views; None where a fusion has none."""
        return None


class Complementary(Fusion):
    """Weights by relevance and complementarity.

    Args:
        relevance: whether a learned scalar of the view takes part (else complementarity only).
        complementarity: ``learned``: standardised (mu - redundancy), times a learned lambda;
            ``off``: an ordinary gate; ``shuffled``: that of another entity (a control).
        strength: start of lambda. Near 0 a fusion starts as a uniform mean; at 1 the weights start
            with a spread of one logit before anything is learned, which costs accuracy.
        temperature: start of tau.
    """

    def __init__(
        self,
        *,
        relevance: bool = True,
        complementarity: Literal["learned", "off", "shuffled"] = "learned",
        strength: float = 0.1,
        temperature: float = 1.0,
    ) -> None:
        if strength <= 0 or temperature <= 0:
            raise ValueError("strength and temperature must be above 0")
        self.relevance, self.complementarity = relevance, complementarity
        self.strength, self.temperature = strength, temperature

    def make(self, width: int, views: int, generator: torch.Generator) -> Fusing:
        return ComplementaryFusion(self, width, views)


class Mean(Fusion):
    """The uniform mean of the views that are present."""

    def __init__(self) -> None:
        pass

    def make(self, width: int, views: int, generator: torch.Generator) -> Fusing:
        return MeanFusion()


class Attention(Fusion):
    """Softmax of scaled products between each view's key and a query made of their mean."""

    def __init__(self, *, key_width: int = 64) -> None:
        self.key_width = key_width

    def make(self, width: int, views: int, generator: torch.Generator) -> Fusing:
        return AttentionFusion(width, self.key_width, generator)


class Projection(Fusion):
    """A linear map of all views side by side, absent ones 0; it starts as their mean."""

    def __init__(self) -> None:
        pass

    def make(self, width: int, views: int, generator: torch.Generator) -> Fusing:
        return ProjectionFusion(width, views)


class Blocks(Fusion):
    """Each view keeps an equal share of the D entries for itself.

    With a scorer by product a score is then a sum of one score for each view (as MoMoK adds those
    of its modalities: Zhang et al., ICLR 2025). Both parts of a complex entry are of one view.
    """

    def __init__(self) -> None:
        pass

    def make(self, width: int, views: int, generator: torch.Generator) -> Fusing:
        return BlocksFusion(width, views)


class ComplementaryFusion(Fusing):
    """See `Complementary`; the formulas are those of docs/method.md, section "Fusion"."""

    def __init__(self, settings: Complementary, width: int, views: int) -> None:
        super().__init__()
        self.settings = settings
        self.log_strength = nn.Parameter(torch.tensor(settings.strength).log())
        self.log_temperature = nn.Parameter(torch.tensor(settings.temperature).log())
        # One gate a view: which view it is matters as much as what it holds.
        self.gate = nn.Parameter(torch.zeros(views, width))
        self.bias = nn.Parameter(torch.zeros(views))

    def forward(
        self,
        views: Float[Tensor, "n V D"],
        present: Bool[Tensor, "n V"],
        standard: Standard | None = None,
    ) -> Fused:
        """Fuse the views that are present.

        Args:
            standard: by which complementarity is standardised; that of these views by default.
        """
        others = [p for p in self.parameters() if p is not self.gate]
        return Fused(*_Weighed.apply(views, present, self, standard, self.gate, *others))

    def standard(self, views: Tensor, present: Tensor) -> Standard:
        """Mean and deviation of the redundancy of all present views."""
        with torch.no_grad():
            products = torch.bmm(views, views.transpose(1, 2))
            return spread_of(pair_redundancy(products, present)[0], present)

    def weigh(
        self,
        products: Float[Tensor, "n V V"],
        gated: Float[Tensor, "n V"],
        present: Bool[Tensor, "n V"],
        standard: Standard | None = None,
    ) -> tuple[Float[Tensor, "n V"], Float[Tensor, ""]]:
        """Weights and mean redundancy, from products of views with each other and with the gate."""
        redundancy, mean_redundancy, length = pair_redundancy(products, present)
        logits = products.new_zeros(present.shape)
        if self.settings.relevance:
            logits = gated / length + self.bias
        if self.settings.complementarity != "off":
            complementarity = standardised(redundancy, present, standard)
            if self.settings.complementarity == "shuffled":
                complementarity = complementarity.roll(1, 0)
            logits = logits + self.log_strength.exp() * complementarity
        return masked_softmax(logits / self.log_temperature.exp(), present), mean_redundancy


class _Weighed(torch.autograd.Function):
    """`ComplementaryFusion`: (vector, weights, mean redundancy) of views.

    Views are large and enter three times, in products with each other, with the gate and with the
    weights. Their gradient is made here in one tensor; autograd would make and add one for each
    use. The small tensors in between are left to autograd.
    """

    @staticmethod
    def forward(
        ctx: Any,
        views: Tensor,
        present: Tensor,
        fusion: ComplementaryFusion,
        standard: Standard | None,
        gate: Tensor,
        *others: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        products = torch.bmm(views, views.transpose(1, 2)).requires_grad_()
        gated = torch.einsum("nvd,vd->nv", views, gate).requires_grad_()
        with torch.set_grad_enabled(any(ctx.needs_input_grad)):
            weights, redundancy = fusion.weigh(products, gated, present, standard)
        ctx.small = (products, gated), (weights, redundancy), others
        ctx.save_for_backward(views, gate)
        weights = weights.detach()
        return weighted(weights, views), weights, redundancy.detach()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        views, gate = ctx.saved_tensors
        inputs, made, others = ctx.small
        by_vector = upstream[0].unsqueeze(1)
        by_weights = upstream[1] + torch.bmm(by_vector, views.transpose(1, 2)).squeeze(1)
        by_products, by_gated, *by_others = torch.autograd.grad(
            made,
            (*inputs, *others),
            (by_weights, upstream[2]),
            retain_graph=True,  # as autograd itself, which may be asked twice
            allow_unused=True,
        )
        gradient = made[0].detach().unsqueeze(2) * by_vector
        if by_products is not None:
            gradient.baddbmm_(by_products + by_products.transpose(1, 2), views)
        by_gate = None
        if by_gated is not None:
            gradient.addcmul_(by_gated.unsqueeze(2), gate)
            by_gate = torch.einsum("nv,nvd->vd", by_gated, views)
        return gradient, None, None, None, by_gate, *by_others


class MeanFusion(Fusing):
    """See `Mean`."""

    def forward(
        self,
        views: Float[Tensor, "n V D"],
        present: Bool[Tensor, "n V"],
        standard: Standard | None = None,
    ) -> Fused:
        """Average the views that are present."""
        weights = shares(views, present)
        return Fused(weighted(weights, views), weights, views.new_zeros(()))


class AttentionFusion(Fusing):
    """See `Attention`."""

    def __init__(self, width: int, key_width: int, generator: torch.Generator) -> None:
        super().__init__()
        scale = width**-0.5
        self.key = nn.Parameter(torch.randn(width, key_width, generator=generator) * scale)
        self.query = nn.Parameter(torch.randn(width, key_width, generator=generator) * scale)

    def forward(
        self,
        views: Float[Tensor, "n V D"],
        present: Bool[Tensor, "n V"],
        standard: Standard | None = None,
    ) -> Fused:
        """Attend from the mean of the present views to each of them."""
        units = unit(views) * present.unsqueeze(-1)
        centre = units.sum(1) / present.sum(1, keepdim=True).clamp_min(1)
        logits = torch.einsum("nvk,nk->nv", units @ self.key, centre @ self.query)
        weights = masked_softmax(logits * self.key.shape[1] ** -0.5, present)
        return Fused(weighted(weights, views), weights, views.new_zeros(()))


class ProjectionFusion(Fusing):
    """See `Projection`; as weights it gives those of the mean that it starts from."""

    def __init__(self, width: int, views: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(width).repeat(views, 1, 1) / views)

    def forward(
        self,
        views: Float[Tensor, "n V D"],
        present: Bool[Tensor, "n V"],
        standard: Standard | None = None,
    ) -> Fused:
        """Map the views that are present."""
        shown = (views * present.unsqueeze(-1)).flatten(1)
        vector = shown @ self.weight.flatten(0, 1)
        return Fused(vector, shares(views, present), views.new_zeros(()))


class BlocksFusion(Fusing):
    """See `Blocks`; as weights it gives each present view the same."""

    owner: Tensor

    def __init__(self, width: int, views: int) -> None:
        super().__init__()
        period = width // 2 if width % 2 == 0 else width
        if period < views:
            raise ValueError(f"Blocks needs a width of {2 * views} or more for {views} views")
        entry = torch.arange(width) % period
        owner = entry % views == torch.arange(views).unsqueeze(1)
        self.register_buffer("owner", owner, persistent=False)

    def forward(
        self,
        views: Float[Tensor, "n V D"],
        present: Bool[Tensor, "n V"],
        standard: Standard | None = None,
    ) -> Fused:
        """Take from each view that is present the entries it owns."""
        vector = (views * present.unsqueeze(-1) * self.owner).sum(1)
        return Fused(vector, shares(views, present), views.new_zeros(()))


def shares(views: Tensor, present: Bool[Tensor, "n V"]) -> Float[Tensor, "n V"]:
    """The same weight for all present views."""
    return present.to(views.dtype) / present.sum(1, keepdim=True).clamp_min(1)


def unit(views: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
    """Vectors of length 1 (0 stays 0, with a finite gradient)."""
    return functional.normalize(views, dim=-1, eps=1e-8)


def weighted(weights: Float[Tensor, "n V"], views: Float[Tensor, "n V D"]) -> Float[Tensor, "n D"]:
    """Weighted sum of each entity's views."""
    return torch.bmm(weights.unsqueeze(1), views).squeeze(1)


def pair_redundancy(
    products: Float[Tensor, "n V V"], present: Bool[Tensor, "n V"]
) -> tuple[Float[Tensor, "n V"], Float[Tensor, ""], Float[Tensor, "n V"]]:
    """Mean squared cosine of each view with the other present ones (0 where alone).

    Cosines come from the products of the views as they are, so that no tensor of unit vectors is
    made, which would be as large as the views and cost more than all the rest.

    Returns:
        the redundancy of each view; its mean over the views that have company; the views' lengths.
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


def spread_of(redundancy: Float[Tensor, "n V"], present: Bool[Tensor, "n V"]) -> Standard:
    """Mean and deviation over all present views."""
    count = present.sum().clamp_min(1)
    mean = (redundancy * present).sum() / count
    return mean, (((redundancy - mean) * present).square().sum() / count).sqrt()


def standardised(
    redundancy: Float[Tensor, "n V"],
    present: Bool[Tensor, "n V"],
    standard: Standard | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "n V"]:
    """(mu - redundancy) / (sigma + eps), without gradient of mu and sigma.

    Args:
        standard: mu and sigma; those over all present views by default.
    """
    with torch.no_grad():
        mean, spread = standard or spread_of(redundancy, present)
    return (mean - redundancy) / (spread + eps)


def masked_softmax(
    logits: Float[Tensor, "n V"], present: Bool[Tensor, "n V"]
) -> Float[Tensor, "n V"]:
    """Softmax over the present views; all 0 where none is.

    The mask comes after every division: -inf divided by a learned temperature has a NaN gradient.
    """
    lowest = torch.finfo(logits.dtype).min
    weights = logits.masked_fill(~present, lowest).softmax(1)
    return weights * present


Fusion.kinds = (Complementary, Mean, Attention, Projection, Blocks)
