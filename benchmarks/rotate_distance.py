"""Speed of RotatE's distances: in blocks that fit the cache against all at once.

    python benchmarks/rotate_distance.py [--questions 1024] [--candidates 256] [--width 256]

Prints seconds of a forward and a backward pass, the best of five alternating rounds, and their
ratio. Fails if the two results differ.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from common import alternate, integer_options
from mocme.experts.embedding.scorers import RotatE, moduli


def at_once(query: Tensor, candidates: Tensor) -> Tensor:
    """The formula without blocks."""
    return -moduli(query.unsqueeze(1) - candidates).sum(-1)


def main() -> None:
    options = integer_options(__doc__, questions=1024, candidates=256, width=256, threads=1)
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(options.questions, options.width, generator=generator)
    candidates = torch.randn(options.candidates, options.width, generator=generator)
    outputs: dict[str, Tensor] = {}

    def way(name: str, compare: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def forward_and_backward() -> None:
            inputs = query.clone().requires_grad_(), candidates.clone().requires_grad_()
            scores = compare(*inputs)
            scores.sum().backward()
            assert inputs[0].grad is not None
            outputs[name] = torch.cat([scores.detach().flatten(), inputs[0].grad.flatten()])

        return forward_and_backward

    ways = {"at once": at_once, "in blocks": RotatE(options.width).compare}
    seconds = alternate({name: way(name, compare) for name, compare in ways.items()}, 5)
    torch.testing.assert_close(outputs["at once"], outputs["in blocks"], rtol=1e-4, atol=1e-3)
    best = {name: min(times) for name, times in seconds.items()}
    times_text = ", ".join(f"{name} {value:.3f} s" for name, value in best.items())
    print(f"{times_text}; in blocks is {best['at once'] / best['in blocks']:.1f} times as fast")


if __name__ == "__main__":
    main()
