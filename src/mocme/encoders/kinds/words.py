"""Texts to sets of tokens: words, bigrams, or the pieces that a tokenizer makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from mocme.core.device import Interrupted
from mocme.data.features.tokens import rarest
from mocme.data.words import UNITS
from mocme.encoders.base import EncodingFailure, EncodingJob, EncodingReport, UnusableItem
from mocme.encoders.inputs import RawEncoder, read_text
from mocme.encoders.store import PAGE, FeatureStore
from mocme.encoders.subwords import Subwords
from mocme.encoders.writer import settle_tokens

STOPPED = "stopped; the same command starts again"
# Texts to the tokens of each.
Cut = Callable[[Sequence[str]], Sequence[list[str]]]


class WordsEncoder(RawEncoder):
    """The rarest tokens of each entity's texts, as the modality `words` has them.

    All texts of an entity count as one, a line each. A token counts only within the limits of how
    many entities have it; ties among the rarest are broken alphabetically.

    Args:
        unit: ``words``, ``bigrams`` (pairs of words that follow each other in a line), or
            ``subwords``, the pieces of a tokenizer.
        per_entity: at most so many, the rarest; 0 for all.
        at_least: entities that have a token.
        at_most: the share of the entities with a text that may have a token.
        tokenizer: for subwords, a ``tokenizer.json`` of the library tokenizers. Without it one is
            trained on these texts by byte pair encoding (Sennrich et al., ACL 2016), and kept
            beside the result as ``NAME.tokenizer.json``.
        vocabulary: how many pieces a tokenizer that is trained here has.
    """

    def __init__(
        self,
        *,
        paths: Sequence[str],
        entity: str | None = None,
        columns: Sequence[str] = (),
        delimiter: str | None = None,
        unit: Literal["words", "bigrams", "subwords"] = "words",
        per_entity: int = 6,
        at_least: int = 3,
        at_most: float = 0.2,
        tokenizer: str | None = None,
        vocabulary: int = 8000,
    ) -> None:
        super().__init__(paths=paths, entity=entity, columns=columns, delimiter=delimiter)
        if per_entity < 0 or at_least < 1 or not 0 < at_most <= 1:
            raise ValueError(
                "per_entity is 0 or more, at_least 1 or more; at_most is a share in (0, 1]"
            )
        if tokenizer is not None and unit != "subwords":
            raise ValueError('tokenizer is for unit = "subwords"')
        if vocabulary < 1:
            raise ValueError("vocabulary must be at least 1")
        self.unit, self.tokenizer, self.vocabulary = unit, tokenizer, vocabulary
        self.per_entity, self.at_least, self.at_most = per_entity, at_least, at_most

    def encode(self, job: EncodingJob) -> EncodingReport:
        started = time.perf_counter()
        outcome = EncodingReport(job.name, "words", str(job.path))
        with FeatureStore(job.path) as store:
            sources = self.gather(job, store, outcome)
            if several := store.settle("\n"):
                outcome.counts["entities with several texts, joined"] = several
            outcome.items = len(store)
            cut, described = self._cut(job, store)
            tokens = rarest(
                _sets(job, store, cut, outcome),
                job.graph.num_entities,
                per_entity=self.per_entity or None,
                at_least=self.at_least,
                at_most=self.at_most,
                provenance={**sources, **described},
            )
        if not len(tokens.token):
            raise ValueError(
                f"{job.folder / self.paths[0]}: no {self.unit[:-1]} occurs in {self.at_least} "
                f"entities or more and in at most the share {self.at_most} of the "
                f"{outcome.encoded:,} that have a text; set at_least or at_most"
            )
        if isinstance(cut, Subwords):
            outcome.count("pieces that the tokenizer has", cut.size)
            if self.tokenizer is None:
                cut.write(job.path.with_name(f"{job.name}.tokenizer.json"))
        settle_tokens(job, tokens, outcome)
        if left := outcome.encoded - outcome.present:
            outcome.count(f"texts without a {self.unit[:-1]} within the limits", left)
        outcome.seconds = time.perf_counter() - started
        return outcome

    def _cut(self, job: EncodingJob, store: FeatureStore) -> tuple[Cut, Mapping[str, str]]:
        """What cuts texts, and its description."""
        often = f"the {self.per_entity} rarest" if self.per_entity else "all"
        limits = f"in {self.at_least} entities or more, in at most the share {self.at_most}"
        described = {"encoder": f"{self.unit}, {often} of an entity's, {limits}"}
        described["unit"] = self.unit
        if self.unit != "subwords":
            one = UNITS[self.unit]
            return lambda texts: list(map(one, texts)), {**described, "encoder_revision": "1"}
        if self.tokenizer is not None:
            pieces = Subwords.read(job.folder / self.tokenizer)
        else:
            pieces = Subwords.trained(_texts(job, store), self.vocabulary)
        described["encoder"] += f"; {pieces.described}"
        return pieces, {**described, "encoder_revision": f"sha256 {pieces.sha256}"}


def _texts(job: EncodingJob, store: FeatureStore) -> Iterator[str]:
    for window in store.windows(PAGE):
        if job.stopped.is_set():
            raise Interrupted(STOPPED)
        yield from (item.source for item in window)


def _sets(
    job: EncodingJob, store: FeatureStore, cut: Cut, outcome: EncodingReport
) -> Iterator[tuple[int, list[str]]]:
    """The tokens of each entity that has a text; what has none is listed."""
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
                outcome.failures.append(EncodingFailure(name, item.place, str(error)))
        found = cut([text for _, text in texts])
        yield from ((entity, own) for (entity, _), own in zip(texts, found, strict=True))
        outcome.encoded += len(texts)
        done += len(window)
        job.advance(done, outcome.items)
