"""Speed of complementary fusion: hand-written gradient compared with autograd.

    python benchmarks/fusion_gradient.py [--entities 15000] [--views 4] [--width 256] [--threads 1]

Both compute the same numbers, which is checked. They differ in how often tensors as large as the
views are allocated, read and added. Rounds alternate; the output gives medians.
"""

from __future__ import annotations

import statistics

import torch
from torch import Tensor

from common import alternate, integer_options
from mocme.experts.embedding.fusion import ComplementaryFusion, weighted


def by_autograd(fusion: ComplementaryFusion, views: Tensor, present: Tensor) -> Tensor:
    """The fused vectors, with every use of the views left to autograd."""
    products = torch.bmm(views, views.transpose(1, 2))
    gated = torch.einsum("nvd,vd->nv", views, fusion.gate)
    return weighted(fusion.weigh(products, gated, present)[0], views)


def main() -> None:
    """Print milliseconds and the ratio."""
    options = integer_options(__doc__, entities=15_000, views=4, width=256, threads=1, rounds=9)
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (options.entities, options.views, options.width)
    views = torch.randn(shape, generator=generator).mul_(0.01).requires_grad_()
    upstream = torch.randn(options.entities, options.width, generator=generator)
    present = torch.rand(shape[:2], generator=generator) < 0.9
    fusion = ComplementaryFusion(options.width, options.views, generator)
    gradients: dict[str, Tensor | None] = {}

    def hand_written() -> None:
        views.grad = None
        fusion(views, present).vector.backward(upstream)
        gradients["hand-written"] = views.grad

    def autograd() -> None:
        views.grad = None
        by_autograd(fusion, views, present).backward(upstream)
        gradients["autograd"] = views.grad

    ways = {"hand-written": hand_written, "autograd": autograd}
    seconds = alternate(ways, options.rounds + 1)
    torch.testing.assert_close(*gradients.values(), rtol=1e-4, atol=1e-5)
    # The first round is a warm-up.
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:14} {median * 1000:8.1f} ms")
    print(f"{'ratio':14} {medians['autograd'] / medians['hand-written']:8.2f}")


if __name__ == "__main__":
    main()
