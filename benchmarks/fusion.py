"""Complementary fusion of a modality's views: with its own gradient, and as autograd makes it.

    python benchmarks/fusion.py [--entities 15000] [--views 4] [--width 256] [--threads 1]

Both compute the same numbers (checked before anything is timed); what differs is how often tensors
as large as the views are made, read and added. Rounds alternate; the table gives medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from mocme.experts.embedding.fusion import Complementary, ComplementaryFusion, weighted


def plain(fusion: ComplementaryFusion, views: Tensor, present: Tensor) -> Tensor:
    """The fused vectors, with every use of the views left to autograd."""
    products = torch.bmm(views, views.transpose(1, 2))
    gated = torch.einsum("nvd,vd->nv", views, fusion.gate)
    return weighted(fusion.weigh(products, gated, present)[0], views)


def main() -> None:
    """Print seconds and the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("entities", 15_000), ("views", 4), ("width", 256), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (given.entities, given.views, given.width)
    views = torch.randn(shape, generator=generator).mul_(0.01).requires_grad_()
    upstream = torch.randn(given.entities, given.width, generator=generator)
    present = torch.rand(shape[:2], generator=generator) < 0.9
    fusion = Complementary().make(given.width, given.views, generator)
    assert isinstance(fusion, ComplementaryFusion)
    ways = {
        "own gradient": lambda: fusion(views, present).vector,
        "autograd": lambda: plain(fusion, views, present),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    gradients = {}
    for _ in range(given.rounds + 1):
        for name, way in ways.items():
            views.grad = None
            started = time.perf_counter()
            way().backward(upstream)
            seconds[name].append(time.perf_counter() - started)
            gradients[name] = views.grad
    first, second = gradients.values()
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    # The first round warms up.
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:14} {median * 1000:8.1f} ms")
    print(f"{'ratio':14} {medians['autograd'] / medians['own gradient']:8.2f}")


if __name__ == "__main__":
    main()
