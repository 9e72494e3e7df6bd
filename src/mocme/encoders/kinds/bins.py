"""Encode numbers as sets of tokens: one token for the quantile bin of each attribute."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mocme.data.features.numeric import bin_tokens, check_bins
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.numeric_io import NumberEncoder
from mocme.encoders.writer import write_tokens


@dataclass(frozen=True, kw_only=True)
class BinsEncoder(NumberEncoder):
    """Numbers as tokens ``attribute#bin``, as in the modality `bins`.

    Args:
        bins: number of bins between quantiles for each attribute; equal quantiles make fewer.
    """

    bins: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bins(self.bins, none=False)

    def encode(self, job: EncodingJob) -> EncodingReport:
        started = time.perf_counter()
        report = EncodingReport(job.name, self.kind_name(), str(job.path))
        columns, sources = self.read(job, report)
        tokens = bin_tokens(
            columns,
            self.bins,
            job.graph.num_entities,
            per_entity=None,
            provenance={
                **sources,
                "encoder": f"quantile bins, at most {self.bins} an attribute",
                "encoder_revision": "1",
            },
        )
        write_tokens(job, tokens, report)
        job.progress(report.items, report.items)
        report.seconds = time.perf_counter() - started
        return report
