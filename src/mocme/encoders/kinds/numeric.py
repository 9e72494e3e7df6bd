"""Numbers to vectors: scaled by attribute, with presence, and bins if asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from mocme.data.features.numeric import Columns, kept_scales, scaled
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.numeric_io import NumberEncoder
from mocme.encoders.store import PAGE
from mocme.encoders.writer import write_vectors


class NumericEncoder(NumberEncoder):
    """Numbers as a vector: for each attribute a scaled column and one that says it is there.

    The arithmetic is that of the modality `numbers` (`mocme.data.features.numeric.scaled`).
    Nothing is imputed: where an entity lacks an attribute, its columns are 0, presence included.

    Args:
        bins: with 2 or more, as many further columns an attribute: its piecewise linear encoding
            between quantiles. 0 for none.
    """

    def __init__(
        self,
        *,
        paths: Sequence[str],
        entity: str | None = None,
        attribute: str | None = None,
        value: str | None = None,
        attributes: Sequence[str] = (),
        delimiter: str | None = None,
        bins: int = 0,
    ) -> None:
        super().__init__(
            paths=paths,
            entity=entity,
            attribute=attribute,
            value=value,
            attributes=attributes,
            delimiter=delimiter,
        )
        if bins < 0 or bins == 1:
            raise ValueError("bins must be 0 or at least 2")
        self.bins = bins

    def encode(self, job: EncodingJob) -> EncodingReport:
        started = time.perf_counter()
        outcome = EncodingReport(job.name, "numeric", str(job.path))
        columns, sources = self.read(job, outcome)
        rows = np.unique(np.concatenate([ids for ids, _ in columns.values()]))
        each = 2 + self.bins
        outcome.present, outcome.width = len(rows), each * len(columns)
        how = f"and {self.bins} bins between quantiles" if self.bins else "no bins"
        metadata = {
            **sources,
            "encoder": f"numbers by attribute: asinh of the distance from the median in "
            f"interquartile ranges, presence, {how}",
            "encoder_revision": "1",
            "scales": kept_scales(columns, self.bins),
        }
        blocks = _blocks(columns, rows, each, self.bins)
        write_vectors(job.path, rows, outcome.width, blocks, job.bound(metadata))
        job.advance(outcome.items, outcome.items)
        outcome.seconds = time.perf_counter() - started
        return outcome


def _blocks(
    columns: Columns, rows: Int[np.ndarray, " n"], each: int, bins: int
) -> Iterator[Float[np.ndarray, "b F"]]:
    """The vectors of the entities in `rows`, some at a time, `each` columns an attribute."""
    encoded = []
    for ids, numbers in columns.values():
        order = np.argsort(ids)
        made = scaled(numbers, bins).float().numpy()
        encoded.append((np.array(ids)[order], made[order]))
    for first in range(0, len(rows), PAGE):
        part = rows[first : first + PAGE]
        block = np.zeros((len(part), each * len(columns)), np.float32)
        for number, (having, made) in enumerate(encoded):
            low, high = np.searchsorted(having, [part[0], part[-1] + 1])
            places = np.searchsorted(part, having[low:high])
            block[places, number * each : (number + 1) * each] = made[low:high]
        yield block
