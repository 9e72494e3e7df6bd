"""Numbers to sets of tokens: one token for the quantile bin of each attribute."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mocme.data.features.numeric import bin_sets, kept_edges
from mocme.data.features.tokens import rarest
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.numeric_io import NumberEncoder
from mocme.encoders.writer import settle_tokens


class BinsEncoder(NumberEncoder):
    """Numbers as tokens ``attribute#bin``, as the modality `bins` has them.

    Args:
        bins: between quantiles, for each attribute; equal quantiles make fewer.
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
        bins: int = 10,
    ) -> None:
        super().__init__(
            paths=paths,
            entity=entity,
            attribute=attribute,
            value=value,
            attributes=attributes,
            delimiter=delimiter,
        )
        if bins < 2:
            raise ValueError("bins must be at least 2")
        self.bins = bins

    def encode(self, job: EncodingJob) -> EncodingReport:
        started = time.perf_counter()
        outcome = EncodingReport(job.name, "bins", str(job.path))
        columns, sources = self.read(job, outcome)
        encoder = f"quantile bins, at most {self.bins} an attribute"
        tokens = rarest(
            bin_sets(columns, self.bins),
            job.graph.num_entities,
            per_entity=None,
            at_least=1,
            at_most=1.0,
            provenance={
                **sources,
                "encoder": encoder,
                "encoder_revision": "1",
                "edges": kept_edges(columns, self.bins),
            },
        )
        settle_tokens(job, tokens, outcome)
        job.advance(outcome.items, outcome.items)
        outcome.seconds = time.perf_counter() - started
        return outcome
