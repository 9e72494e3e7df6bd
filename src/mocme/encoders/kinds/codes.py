"""Vectors to sets of tokens: the codes of their nearest centroids, whole or by parts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from mocme.core.device import Interrupted
from mocme.core.registry import build
from mocme.data.features.sources import Encoded, Source, Vectors, kind_of, not_encoded
from mocme.data.features.tokens import rarest
from mocme.data.graph import Graph
from mocme.data.modality import Modality, check_entities, described, read_safetensors
from mocme.encoders.base import Encoder, EncodingJob, EncodingReport, encoded_file
from mocme.encoders.codebooks import Codebook, FewVectors, Scale
from mocme.encoders.pretrained import sha256
from mocme.encoders.writer import settle_tokens, write_tensors

# Numbers that are held as float32 at a time: 32 MB.
BLOCK = 1 << 23


class CodeInput(NamedTuple):
    """The vectors that codes are made of.

    Attributes:
        values: perhaps in a mapped file, of any floating point type.
        rows: the entities that have them, ascending.
        patches: vectors that a row consists of, one after the other; `width` is that of one.
    """

    path: Path
    values: torch.Tensor
    rows: torch.Tensor
    patches: int
    width: int
    metadata: dict[str, str]


class CodesEncoder(Encoder):
    """Codes of another modality's vectors, which lie beside the result with their centroids.

    Of a modality of patches (the file's metadata `patches`), each patch gets codes from one common
    codebook, and an entity has those of all its patches.

    Args:
        of: a modality that was encoded, or one of vectors that the graph declares.
        method: ``kmeans`` gives a vector the code of its nearest centroid. ``product`` cuts it into
            parts, and gives each a code of its own codebook (product quantisation; Jegou, Douze and
            Schmid, IEEE TPAMI 2011); the token ``3#17`` is code 17 of part 3.
        codes: centroids, of each part with ``product``.
        parts: with ``product``; where the width is no multiple, the first ones are wider by 1.
        scale: ``unit`` takes from each vector the mean of the sample and scales it to length 1, so
            that directions are compared; ``none`` compares distances as they are.
        sample: at most so many vectors, drawn by `seed`, are the centroids computed from.
        at_least: entities that have a code.
        at_most: the share of the entities with vectors that may have a code.
    """

    def __init__(
        self,
        *,
        of: str,
        method: Literal["kmeans", "product"] = "kmeans",
        codes: int = 256,
        parts: int = 8,
        scale: Scale = "unit",
        sample: int = 65_536,
        at_least: int = 2,
        at_most: float = 0.5,
        seed: int = 0,
    ) -> None:
        if codes < 2 or parts < 1 or sample < codes:
            raise ValueError(
                "codes must be at least 2, parts at least 1, sample at least as large as codes"
            )
        if at_least < 1 or not 0 < at_most <= 1:
            raise ValueError("at_least must be 1 or more, at_most a share in (0, 1]")
        if not 0 <= seed < 2**32:
            raise ValueError("seed must lie within 0 .. 4294967295")
        self.of, self.method, self.codes = of, method, codes
        self.parts = parts if method == "product" else 1
        self.scale, self.sample, self.seed = scale, sample, seed
        self.at_least, self.at_most = at_least, at_most

    def needs(self) -> Sequence[str]:
        return (self.of,)

    def encode(self, job: EncodingJob) -> EncodingReport:
        started = time.perf_counter()
        outcome = EncodingReport(job.name, "codes", str(job.path), job.graph.num_entities)
        given = self._given(job)
        outcome.items = len(given.rows)
        book = self._codebook(given, outcome)
        tokens = rarest(
            self._sets(job, given, book, outcome),
            job.graph.num_entities,
            per_entity=None,
            at_least=self.at_least,
            at_most=self.at_most,
            provenance={},
        )
        if not len(tokens.token):
            raise ValueError(
                f"{given.path}: no code belongs to {self.at_least} entities or more and to at most "
                f"the share {self.at_most} of {len(given.rows):,}; set codes, at_least or at_most"
            )
        # Only now, so that what stops before leaves an older result with its own codebook.
        path = job.path.with_name(f"{job.name}.codebook.safetensors")
        centroids, metadata = book.packed()
        write_tensors(path, centroids, {**metadata, "of": self.of})
        tokens = replace(tokens, provenance=self._provenance(given, sha256(path)))
        settle_tokens(job, tokens, outcome)
        if left := outcome.encoded - outcome.present:
            outcome.count("entities without a code within the limits", left)
        outcome.seconds = time.perf_counter() - started
        return outcome

    def _provenance(self, given: CodeInput, codebook: str) -> dict[str, str]:
        product = f"product quantisation of {self.parts} parts"
        kind = product if self.method == "product" else "k-means"
        limits = f"in {self.at_least} entities or more, in at most the share {self.at_most}"
        return {
            "of": self.of,
            "of_sha256": sha256(given.path),
            "of_encoder": given.metadata.get("encoder", "unknown"),
            "encoder": f"{kind}, {self.codes} codes, scale {self.scale}, sample {self.sample}, "
            f"seed {self.seed}; {limits}",
            "encoder_revision": f"sha256 {codebook}",
        }

    def _given(self, job: EncodingJob) -> CodeInput:
        """The vectors that were encoded, or that the graph declares.

        Raises:
            ValueError: there are none, with the command that makes them.
        """
        if self.of == job.name:
            raise ValueError(f"{job.name!r} cannot be made of itself; give it another name")
        graph, folder = job.graph, Path(job.graph.folder or ".")
        for path in (encoded_file(job.base, self.of), encoded_file(folder, self.of)):
            if path.is_file():
                return _encoded(path, graph)
        table, where = graph.modalities.get(self.of), f"modalities.{self.of}"
        if table is None or not_encoded(table, graph):
            which = f"all {folder}" if table else "(--help lists the kinds)"
            raise ValueError(
                f"{encoded_file(job.base, self.of)}: there is no such file, and {self.of!r} is no "
                f"modality of vectors that the graph declares; make it first with: mocme encode "
                f"{which}"
            )
        settings = {**table, "kind": kind_of(table, where)}
        source = build(Source, settings, where)  # type: ignore[type-abstract]
        if isinstance(source, Encoded):
            return _encoded(folder / source.path, graph)
        if not isinstance(source, Vectors):
            raise ValueError(f"{where}: is no modality of vectors, and codes are made of vectors")
        dense, _ = source.load(graph, folder)
        assert isinstance(dense, Modality)
        return _shaped(folder / source.path, dense.values, dense.rows, dict(dense.provenance))

    def _codebook(self, given: CodeInput, outcome: EncodingReport) -> Codebook:
        """Centroids of a sample of the vectors."""
        vectors = given.values.reshape(-1, given.width)
        chosen = np.arange(len(vectors))
        if len(vectors) > self.sample:
            drawn = np.random.default_rng(self.seed)
            chosen = np.sort(drawn.choice(len(vectors), self.sample, replace=False, shuffle=False))
        if self.parts > given.width:
            raise ValueError(
                f"{given.path}: {self.parts} parts of vectors of width {given.width}; set parts"
            )
        sample = _plain(given, vectors[torch.from_numpy(chosen)])
        outcome.count("vectors that the centroids were computed from", len(sample))
        try:
            return Codebook.fitted(sample, self.codes, self.parts, self.scale, self.seed)
        except FewVectors as error:
            raise ValueError(f"{given.path}: {error}; set codes to at most that many") from error

    def _sets(
        self, job: EncodingJob, given: CodeInput, book: Codebook, outcome: EncodingReport
    ) -> Iterator[tuple[int, list[str]]]:
        """The codes of each entity, block by block."""
        several = self.method == "product"
        names = np.array(
            [
                [f"{part}#{code}" if several else str(code) for code in range(self.codes)]
                for part in range(1, self.parts + 1)
            ],
            object,
        )
        step = max(1, BLOCK // (given.width * given.patches))
        for first in range(0, len(given.rows), step):
            if job.stopped.is_set():
                raise Interrupted("stopped; the same command starts again")
            rows = given.rows[first : first + step]
            vectors = given.values[first : first + step].reshape(-1, given.width)
            codes = book.codes(_plain(given, vectors))
            found = names[np.arange(self.parts), codes].reshape(len(rows), -1)
            yield from zip(rows.tolist(), found.tolist(), strict=True)
            outcome.encoded += len(rows)
            job.advance(outcome.encoded, outcome.items)


def _encoded(path: Path, graph: Graph) -> CodeInput:
    """The vectors of a file that was encoded, which stay in it.

    Raises:
        ValueError: they are for other entities, or there are none.
    """
    tensors, metadata = read_safetensors(path)
    check_entities(path, metadata, graph.entities.digest())
    if set(tensors) != {"values", "rows"}:
        raise ValueError(f"{path}: holds no vectors, and codes are made of vectors")
    return _shaped(path, tensors["values"], tensors["rows"], described(metadata))


def _shaped(
    path: Path, values: torch.Tensor, rows: torch.Tensor, metadata: dict[str, str]
) -> CodeInput:
    """Vectors whose shapes fit.

    Raises:
        ValueError: they do not, or are not as many patches as the file says.
    """
    patches = metadata.get("patches", "1")
    if values.ndim != 2 or rows.shape != values.shape[:1] or not values.numel():
        raise ValueError(
            f"{path}: values of shape {tuple(values.shape)} with rows of shape "
            f"{tuple(rows.shape)}; needed are (n, F) and (n,), at least one"
        )
    if not patches.isdecimal() or not int(patches) or values.shape[1] % int(patches):
        raise ValueError(
            f"{path}: says that it has {patches!r} patches, which {values.shape[1]} columns are "
            f"not; encode it again"
        )
    return CodeInput(path, values, rows, int(patches), values.shape[1] // int(patches), metadata)


def _plain(given: CodeInput, vectors: torch.Tensor) -> Float[np.ndarray, "n F"]:
    """Vectors in float32.

    Raises:
        ValueError: one is not finite.
    """
    plain: Float[np.ndarray, "n F"] = vectors.float().numpy()
    if not np.isfinite(plain).all():
        raise ValueError(
            f"{given.path}: a vector holds NaN or infinity (in float32); leave such entities out"
        )
    return plain
