"""The vectors of a training step, and one buffer that accumulates their gradient.

For each gather of a table (nodes, D), autograd would allocate a gradient of the table's size, fill
it with zeros, and add them all up. At 15,000 x 1,000 that costs many times what the gather itself
does. Here every use of the table adds its gradient to one buffer, and `GradientBuffer.backward`
passes the sum on to what produced the table. The buffer is an argument, so that all steps of a
training use one allocation.
"""

from __future__ import annotations

from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor


@final
class GradientBuffer:
    """A table (nodes, D) as a training step sees it.

    Args:
        source: the table, a parameter or computed from parameters.
        buffer: a tensor of the same shape for the gradient; it is overwritten.
        bfloat16: compute products in bfloat16. Gradients are still summed in the table's type,
            in which small terms are not lost.
    """

    def __init__(
        self,
        source: Float[Tensor, "nodes D"],
        buffer: Float[Tensor, "nodes D"] | None = None,
        bfloat16: bool = False,
    ) -> None:
        self.source = source
        # Detached: no gradient flows into the table except by `backward`.
        self.values = source.detach()
        self.grad = torch.zeros_like(self.values) if buffer is None else buffer.zero_()
        self.bfloat16 = bfloat16
        # Converted once a step, not once a block.
        self._bfloat16_values = self.values.bfloat16() if bfloat16 else self.values
        # Autograd calls the backward of a gather only if some input requires a gradient, and the
        # detached table does not. This scalar is that input; it never gets a gradient itself.
        self._anchor = torch.zeros((), dtype=source.dtype, device=source.device).requires_grad_()

    def gather(self, nodes: Int[Tensor, " n"]) -> Float[Tensor, "n D"]:
        """Vectors of some nodes; their gradient is added to the buffer."""
        vectors: Tensor = _Gather.apply(self._anchor, self, nodes)
        return vectors

    def block(self, nodes: slice | Tensor, bfloat16: bool = False) -> Float[Tensor, "c D"]:
        """Vectors of some nodes without gradient (a view, for a slice)."""
        return (self._bfloat16_values if bfloat16 else self.values)[nodes]

    def add(self, nodes: slice | Tensor, gradient: Float[Tensor, "c D"]) -> None:
        """Add to the gradient of some nodes."""
        if isinstance(nodes, slice):
            self.grad[nodes] += gradient
        else:
            # Ids may repeat: an indexed += would keep only one of the terms.
            self.grad.index_add_(0, nodes, gradient)

    def add_product(
        self, nodes: slice | Tensor, left: Float[Tensor, "B c"], right: Float[Tensor, "B D"]
    ) -> None:
        """Add left.T @ right to the gradient of some nodes."""
        if isinstance(nodes, slice) and not self.bfloat16:
            # The product is accumulated in place, without a temporary (c, D).
            self.grad[nodes].addmm_(left.T, right)
        else:
            self.add(nodes, (left.T @ right).to(self.grad.dtype))

    def backward(self) -> None:
        """Pass the accumulated gradient on to what produced the table."""
        if self.source.is_leaf:
            self.source.grad = self.grad
        elif self.source.requires_grad:
            torch.autograd.backward(self.source, self.grad)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, buffer: GradientBuffer, nodes: Tensor) -> Tensor:
        ctx.buffer, ctx.nodes = buffer, nodes
        return buffer.values[nodes]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.buffer.add(ctx.nodes, gradients[0])
        return None, None, None
