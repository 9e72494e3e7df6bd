"""Encode numbers as vectors: scaled by attribute, with presence and optional bins."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mocme.data.features.numeric import NumberVectors, check_bins, scales_json
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.numeric_io import NumberEncoder
from mocme.encoders.store import PAGE
from mocme.encoders.writer import write_vectors


@dataclass(frozen=True, kw_only=True)
class NumericEncoder(NumberEncoder):
    """Numbers as a vector: for each attribute a scaled value and its presence.

    The computation is that of the modality `numbers` (`mocme.data.features.numeric`). Nothing is
    imputed: where an entity lacks an attribute, its columns are 0, presence included.

    Args:
        bins: with 2 or more, the same number of further columns for each attribute: its piecewise
            linear encoding between quantiles. 0 for none.
    """

    bins: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bins(self.bins, none=True)

    def encode(self, job: EncodingJob) -> EncodingReport:
        started = time.perf_counter()
        report = EncodingReport(job.name, self.kind_name(), str(job.path))
        columns, sources = self.read(job, report)
        vectors = NumberVectors(columns, self.bins)
        rows = vectors.rows
        report.present, report.width = len(rows), vectors.width
        bins = f"and {self.bins} bins between quantiles" if self.bins else "no bins"
        metadata = {
            **sources,
            "encoder": f"numbers by attribute: asinh of the distance from the median in "
            f"interquartile ranges, presence, {bins}",
            "encoder_revision": "1",
            "scales": scales_json(columns, self.bins),
        }
        blocks = (vectors.block(rows[n : n + PAGE]) for n in range(0, len(rows), PAGE))
        write_vectors(job.path, rows, vectors.width, blocks, job.bound(metadata))
        job.progress(report.items, report.items)
        report.seconds = time.perf_counter() - started
        return report
