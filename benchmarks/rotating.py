"""RotatE's distances: in blocks that a processor's cache holds, beside all of them at once.

    python benchmarks/rotating.py [--questions 1024] [--candidates 256] [--width 256]

Prints seconds of a forward and a backward pass, the best of five that alternate, and their ratio;
stops if the two do not agree.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from mocme.experts.embedding.scorers import RotatE, moduli


def at_once(query: Tensor, candidates: Tensor) -> Tensor:
    """The formula as it stands."""
    return -moduli(query.unsqueeze(1) - candidates).sum(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("questions", 1024), ("candidates", 256), ("width", 256)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(asked.questions, asked.width, generator=generator)
    candidates = torch.randn(asked.candidates, asked.width, generator=generator)
    best: dict[str, float] = {}
    found: dict[str, Tensor] = {}
    for _ in range(5):
        for name, compare in (("at once", at_once), ("in blocks", RotatE().compare)):
            given = query.clone().requires_grad_(), candidates.clone().requires_grad_()
            begun = time.perf_counter()
            scores = compare(*given)
            scores.sum().backward()
            seconds = time.perf_counter() - begun
            best[name] = min(best.get(name, seconds), seconds)
            assert given[0].grad is not None
            found[name] = torch.cat([scores.detach().flatten(), given[0].grad.flatten()])
    torch.testing.assert_close(found["at once"], found["in blocks"], rtol=1e-4, atol=1e-3)
    told = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in best.items())
    print(f"{told}; {best['at once'] / best['in blocks']:.1f} times as fast")


if __name__ == "__main__":
    main()
