"""Encode texts as sets of tokens: words, bigrams, or the subwords of a tokenizer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mocme.core.interrupts import Interrupted
from mocme.data.features.tokens import text_tokens
from mocme.data.words import UNITS
from mocme.encoders.base import EncodingFailure, EncodingJob, EncodingReport, UnusableItem
from mocme.encoders.inputs import RawEncoder, read_text
from mocme.encoders.store import PAGE, FeatureStore
from mocme.encoders.subwords import SubwordTokenizer
from mocme.encoders.writer import write_tokens

STOPPED = "stopped; the same command starts again"
# Splits texts: the tokens of each.
Tokenize = Callable[[Sequence[str]], Sequence[list[str]]]


@dataclass(frozen=True, kw_only=True)
class WordsEncoder(RawEncoder):
    """The rarest tokens of each entity's texts, as in the modality `words`.

    All texts of an entity are joined, with one text on each line. A token is used only if the
    number of entities that have it is within the limits; ties among the rarest are broken
    alphabetically.

    Args:
        unit: ``words``, ``bigrams`` (pairs of consecutive words in a line), or ``subwords`` of a
            tokenizer.
        per_entity: maximum number of tokens of an entity, the rarest ones; 0 for all.
        at_least: minimum number of entities that have a token.
        at_most: maximum share, of the entities with a text, that have a token.
        tokenizer: for subwords, a ``tokenizer.json`` of the library tokenizers. Without it, one is
            trained on these texts by byte pair encoding (Sennrich et al., ACL 2016), and written
            next to the result as ``NAME.tokenizer.json``.
        vocabulary: number of subwords of a tokenizer that is trained here.
    """

    unit: Literal["words", "bigrams", "subwords"] = "words"
    per_entity: int = 6
    at_least: int = 3
    at_most: float = 0.2
    tokenizer: str | None = None
    vocabulary: int = 8000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_entity < 0 or self.at_least < 1 or not 0 < self.at_most <= 1:
            raise ValueError(
                "per_entity must be 0 or more, at_least 1 or more, at_most a share in (0, 1]"
            )
        if self.tokenizer is not None and self.unit != "subwords":
            raise ValueError('tokenizer is for unit = "subwords"')
        if self.vocabulary < 1:
            raise ValueError("vocabulary must be at least 1")

    def encode(self, job: EncodingJob) -> EncodingReport:
        started = time.perf_counter()
        report = EncodingReport(job.name, self.kind_name(), str(job.path))
        with FeatureStore(job.path) as store:
            sources = self.gather(job, store, report)
            if several := store.sort_items("\n"):
                report.counts["entities with several texts, joined"] = several
            report.items = len(store)
            tokenize, described = self._tokenize(job, store)
            tokens, report.encoded, without = text_tokens(
                _token_sets(job, store, tokenize, report),
                job.graph.num_entities,
                unit=self.unit,
                per_entity=self.per_entity or None,
                at_least=self.at_least,
                at_most=self.at_most,
                path=job.folder / self.paths[0],
                provenance={**sources, **described},
            )
        if isinstance(tokenize, SubwordTokenizer):
            report.count("subwords of the tokenizer", tokenize.size)
            if self.tokenizer is None:
                tokenize.write(job.path.with_name(f"{job.name}.tokenizer.json"))
        write_tokens(job, tokens, report)
        if without:
            report.count(f"texts without a {self.unit[:-1]} within the limits", without)
        report.seconds = time.perf_counter() - started
        return report

    def _tokenize(
        self, job: EncodingJob, store: FeatureStore
    ) -> tuple[Tokenize, Mapping[str, str]]:
        """The function that splits texts, and its description for the provenance."""
        number = f"the {self.per_entity} rarest" if self.per_entity else "all"
        limits = f"in {self.at_least} entities or more, in at most the share {self.at_most}"
        described = {"encoder": f"{self.unit}, {number} of an entity's, {limits}"}
        described["unit"] = self.unit
        if self.unit != "subwords":
            tokens_of = UNITS[self.unit]
            return lambda texts: [*map(tokens_of, texts)], {**described, "encoder_revision": "1"}
        if self.tokenizer is not None:
            tokenizer = SubwordTokenizer.read(job.folder / self.tokenizer)
        else:
            tokenizer = SubwordTokenizer.train(_texts(job, store), self.vocabulary)
        described["encoder"] += f"; {tokenizer.description}"
        return tokenizer, {**described, "encoder_revision": f"sha256 {tokenizer.sha256}"}


def _texts(job: EncodingJob, store: FeatureStore) -> Iterator[str]:
    for window in store.windows(PAGE):
        if job.stopped.is_set():
            raise Interrupted(STOPPED)
        yield from (item.source for item in window)


def _token_sets(
    job: EncodingJob, store: FeatureStore, tokenize: Tokenize, report: EncodingReport
) -> Iterator[tuple[int, list[str]]]:
    """The tokens of each entity that has a text; entities with an empty text become failures."""
    done = 0
    for window in store.windows(PAGE):
        if job.stopped.is_set():
            raise Interrupted(STOPPED)
        texts: list[tuple[int, str]] = []
        for item in window:
            try:
                texts.append((item.entity, read_text(item).decode()))
            except UnusableItem as error:
                name = job.graph.entities[item.entity]
                report.failures.append(EncodingFailure(name, item.origin, str(error)))
        sets = tokenize([text for _, text in texts])
        yield from ((entity, tokens) for (entity, _), tokens in zip(texts, sets, strict=True))
        done += len(window)
        job.progress(done, report.items)
