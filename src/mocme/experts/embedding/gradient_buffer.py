"""The vectors of a step, and one buffer in which their gradient collects.

Autograd would make a table-sized tensor of zeros for each gather and add them up; at 15,000 x 1,000
that costs more than the gather's own work many times over. Here every use of the table adds its
gradient into one buffer, and `GradientBuffer.backward` hands the whole to whatever made the table.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


class GradientBuffer:
    """A table (nodes, D) as a training step sees it.

    Args:
        source: the table, a parameter or computed from some.
        buffer: of the same shape, to use again; it is overwritten.
        low: make products in bfloat16.
    """

    def __init__(self, source: Tensor, buffer: Tensor | None = None, low: bool = False) -> None:
        self.source = source
        self.values = source.detach()
        self.grad = torch.zeros_like(self.values) if buffer is None else buffer.zero_()
        self.low = low
        self._low_values = self.values.bfloat16() if low else self.values
        # Something that requires a gradient, so that autograd visits the gathers.
        self._anchor = torch.zeros((), dtype=source.dtype, device=source.device).requires_grad_()

    def gather(self, nodes: Int[Tensor, " n"]) -> Float[Tensor, "n D"]:
        """Vectors of some nodes; their gradient is added to the buffer."""
        gathered: Tensor = _Gather.apply(self._anchor, self, nodes)
        return gathered

    def block(self, nodes: slice | Tensor, low: bool = False) -> Float[Tensor, "c D"]:
        """Vectors of some nodes without gradient (a view, for a slice)."""
        return (self._low_values if low else self.values)[nodes]

    def add(self, nodes: slice | Tensor, gradient: Float[Tensor, "c D"]) -> None:
        """Add to the gradient of some nodes."""
        if isinstance(nodes, slice):
            self.grad[nodes] += gradient
        else:
            self.grad.index_add_(0, nodes, gradient)

    def add_product(self, nodes: slice | Tensor, left: Tensor, right: Tensor) -> None:
        """Add left.T @ right, (B, c) and (B, D), to the gradient of some nodes."""
        if isinstance(nodes, slice) and not self.low:
            self.grad[nodes].addmm_(left.T, right)
        else:
            self.add(nodes, (left.T @ right).to(self.grad.dtype))

    def backward(self) -> None:
        """Hand the collected gradient to what made the table."""
        if self.source.is_leaf:
            self.source.grad = self.grad
        elif self.source.requires_grad:
            torch.autograd.backward(self.source, self.grad)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, rows: GradientBuffer, nodes: Tensor) -> Tensor:
        ctx.rows, ctx.nodes = rows, nodes
        return rows.values[nodes]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.rows.add(ctx.nodes, gradients[0])
        return None, None, None
