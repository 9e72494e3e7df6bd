"""Encode vectors as sets of tokens: the codes of their nearest centroids, whole or by parts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from mocme.core.digest import file_digest
from mocme.core.interrupts import Interrupted
from mocme.data.features.kinds.encoded import nothing_encoded
from mocme.data.features.sources import Encoded, Vectors, needs_encoding, source_of
from mocme.data.features.tokens import rarest_tokens
from mocme.data.graph import Graph
from mocme.data.modality import EmptyModality, Modality, provenance_of
from mocme.data.modality_files import check_entities, read_safetensors
from mocme.encoders.base import Encoder, EncodingJob, EncodingReport, encoded_file
from mocme.encoders.codebooks import Codebook, FewVectors, Scaling
from mocme.encoders.writer import write_arrays, write_tokens

# Numbers that are converted to float32 at a time: 32 MB.
BLOCK = 1 << 23


class CodeInput(NamedTuple):
    """The vectors to make codes from.

    Attributes:
        values: of any floating point type, possibly in a mapped file.
        rows: ids of the entities that have them, ascending.
        patches: number of vectors in a row, one after another.
        width: of one such vector.
    """

    path: Path
    values: torch.Tensor
    rows: torch.Tensor
    patches: int
    width: int
    metadata: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class CodesEncoder(Encoder):
    """Codes of another modality's vectors; the centroids are written next to the result.

    For a modality of patches (`patches` in the file's metadata), each patch gets codes from one
    common codebook, and an entity has those of all its patches.

    Args:
        of: an encoded modality, or a modality of vectors that the graph declares.
        method: ``kmeans`` gives a vector the code of its nearest centroid. ``product`` splits it
            into parts, and gives each a code of its own codebook (product quantisation; Jegou,
            Douze and Schmid, IEEE TPAMI 2011); the token ``3#17`` is code 17 of part 3.
        codes: number of centroids, with ``product`` of each part.
        parts: number of parts with ``product``; where the width is not a multiple, the first parts
            are wider by 1.
        scale: ``unit`` subtracts the mean of the sample from each vector and scales it to length 1,
            so that directions are compared; ``none`` compares distances as they are.
        sample: maximum number of vectors that the centroids are computed from, drawn at random.
        at_least: minimum number of entities that have a code.
        at_most: maximum share, of the entities with vectors, that have a code.
        seed: of the sample and of k-means.
    """

    of: str
    method: Literal["kmeans", "product"] = "kmeans"
    codes: int = 256
    parts: int = 8
    scale: Scaling = "unit"
    sample: int = 65_536
    at_least: int = 2
    at_most: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codes < 2 or self.parts < 1 or self.sample < self.codes:
            raise ValueError(
                "codes must be at least 2, parts at least 1, sample at least as large as codes"
            )
        if self.at_least < 1 or not 0 < self.at_most <= 1:
            raise ValueError("at_least must be 1 or more, at_most a share in (0, 1]")
        if not 0 <= self.seed < 2**32:
            raise ValueError("seed must lie within 0 .. 4294967295")

    @property
    def num_parts(self) -> int:
        """The number of codebooks."""
        return self.parts if self.method == "product" else 1

    def needs(self) -> Sequence[str]:
        return (self.of,)

    def encode(self, job: EncodingJob) -> EncodingReport:
        started = time.perf_counter()
        report = EncodingReport(
            job.name, self.kind_name(), str(job.path), entities=job.graph.num_entities
        )
        vectors = self._input(job)
        report.items = len(vectors.rows)
        codebook = self._codebook(vectors, report)
        tokens = rarest_tokens(
            self._code_sets(job, vectors, codebook, report),
            job.graph.num_entities,
            per_entity=None,
            at_least=self.at_least,
            at_most=self.at_most,
            provenance={},
        )
        if not len(tokens.token):
            raise EmptyModality(
                f"{vectors.path}: no code belongs to {self.at_least} entities or more and to at "
                f"most the share {self.at_most} of {len(vectors.rows):,}; set codes, at_least or "
                f"at_most"
            )
        # Written last, so that a job that stops earlier keeps an older result and its codebook.
        path = job.path.with_name(f"{job.name}.codebook.safetensors")
        centroids, metadata = codebook.packed()
        write_arrays(path, centroids, {**metadata, "of": self.of})
        tokens = replace(tokens, provenance=self._provenance(vectors, file_digest(path)))
        write_tokens(job, tokens, report)
        if without := report.encoded - report.present:
            report.count("entities without a code within the limits", without)
        report.seconds = time.perf_counter() - started
        return report

    def _provenance(self, vectors: CodeInput, codebook_sha256: str) -> dict[str, str]:
        product = f"product quantisation of {self.num_parts} parts"
        method = product if self.method == "product" else "k-means"
        limits = f"in {self.at_least} entities or more, in at most the share {self.at_most}"
        return {
            "of": self.of,
            "of_sha256": file_digest(vectors.path),
            "of_encoder": vectors.metadata.get("encoder", "unknown"),
            "encoder": f"{method}, {self.codes} codes, scale {self.scale}, sample {self.sample}, "
            f"seed {self.seed}; {limits}",
            "encoder_revision": f"sha256 {codebook_sha256}",
        }

    def _input(self, job: EncodingJob) -> CodeInput:
        """The vectors of an encoded modality, or of one that the graph declares.

        Raises:
            ValueError: there are none; with the command that makes them.
            EmptyModality: nothing could be encoded, so nothing can be made of it.
        """
        if self.of == job.name:
            raise ValueError(f"{job.name!r} cannot be made of itself; give it another name")
        graph, folder = job.graph, Path(job.graph.folder or ".")
        for path in (encoded_file(job.base, self.of), encoded_file(folder, self.of)):
            if path.is_file():
                return _read_encoded(path, graph)
            if reason := nothing_encoded(path, graph):
                raise EmptyModality(f"{self.of}: {reason}")
        table, where = graph.modalities.get(self.of), f"modalities.{self.of}"
        if table is None or needs_encoding(table, graph):
            which = f"all {folder}" if table else "(--help lists the kinds)"
            raise ValueError(
                f"{encoded_file(job.base, self.of)}: there is no such file, and {self.of!r} is no "
                f"modality of vectors that the graph declares; make it first with: mocme encode "
                f"{which}"
            )
        source = source_of(table, where, trust_code=job.trust_code)
        if isinstance(source, Encoded):
            return _read_encoded(folder / source.path, graph)
        if not isinstance(source, Vectors):
            raise ValueError(
                f"{where}: is no modality of vectors, and codes are made of vectors; name another "
                f"modality in of"
            )
        dense, _ = source.load(graph, folder)
        assert isinstance(dense, Modality)
        return _code_input(folder / source.path, dense.values, dense.rows, dict(dense.provenance))

    def _codebook(self, vectors: CodeInput, report: EncodingReport) -> Codebook:
        """Centroids of a sample of the vectors."""
        values = vectors.values.reshape(-1, vectors.width)
        chosen = np.arange(len(values))
        if len(values) > self.sample:
            generator = np.random.default_rng(self.seed)
            chosen = np.sort(
                generator.choice(len(values), self.sample, replace=False, shuffle=False)
            )
        if self.num_parts > vectors.width:
            raise ValueError(
                f"{vectors.path}: {self.num_parts} parts of vectors of width {vectors.width}; set "
                f"parts to at most that"
            )
        sample = _to_float32(vectors, values[torch.from_numpy(chosen)])
        report.count("vectors that the centroids were computed from", len(sample))
        try:
            return Codebook.fit(sample, self.codes, self.num_parts, self.scale, self.seed)
        except FewVectors as error:
            raise ValueError(f"{vectors.path}: {error}; set codes to at most that many") from error

    def _code_sets(
        self, job: EncodingJob, vectors: CodeInput, codebook: Codebook, report: EncodingReport
    ) -> Iterator[tuple[int, list[str]]]:
        """The codes of each entity, block by block."""
        product = self.method == "product"
        # (parts, codes): the token of each code of each part.
        names = np.array(
            [
                [f"{part}#{code}" if product else str(code) for code in range(self.codes)]
                for part in range(1, self.num_parts + 1)
            ],
            object,
        )
        step = max(1, BLOCK // (vectors.width * vectors.patches))
        for first in range(0, len(vectors.rows), step):
            if job.stopped.is_set():
                raise Interrupted("stopped; the same command starts again")
            rows = vectors.rows[first : first + step]
            block = vectors.values[first : first + step].reshape(-1, vectors.width)
            codes = codebook.codes(_to_float32(vectors, block))
            # One row of tokens for each entity: those of all its patches, part by part.
            tokens = names[np.arange(self.num_parts), codes].reshape(len(rows), -1)
            yield from zip(rows.tolist(), tokens.tolist(), strict=True)
            report.encoded += len(rows)
            job.progress(report.encoded, report.items)


def _read_encoded(path: Path, graph: Graph) -> CodeInput:
    """The vectors of an encoded file, memory-mapped.

    Raises:
        ValueError: the file is for other entities, or holds no vectors.
    """
    tensors, metadata = read_safetensors(path)
    check_entities(path, metadata, graph.entities.digest())
    if set(tensors) != {"values", "rows"}:
        raise ValueError(
            f"{path}: holds no vectors, and codes are made of vectors; name another modality in of"
        )
    return _code_input(path, tensors["values"], tensors["rows"], provenance_of(metadata))


def _code_input(
    path: Path, values: torch.Tensor, rows: torch.Tensor, metadata: dict[str, str]
) -> CodeInput:
    """Check the shapes of vectors.

    Raises:
        ValueError: they do not fit, or do not match the file's number of patches.
    """
    patches = metadata.get("patches", "1")
    if values.ndim != 2 or rows.shape != values.shape[:1] or not values.numel():
        raise ValueError(
            f"{path}: values of shape {tuple(values.shape)} with rows of shape "
            f"{tuple(rows.shape)}; needed are (n, F) and (n,), at least one"
        )
    if not patches.isdecimal() or not int(patches) or values.shape[1] % int(patches):
        raise ValueError(
            f"{path}: declares {patches!r} patches, by which its {values.shape[1]} columns cannot "
            f"be divided; encode it again"
        )
    return CodeInput(path, values, rows, int(patches), values.shape[1] // int(patches), metadata)


def _to_float32(vectors: CodeInput, values: torch.Tensor) -> Float[np.ndarray, "n F"]:
    """Convert some of the vectors to float32.

    Raises:
        ValueError: one is not finite.
    """
    array: Float[np.ndarray, "n F"] = values.float().numpy()
    if not np.isfinite(array).all():
        raise ValueError(
            f"{vectors.path}: a vector holds NaN or infinity (in float32); leave such entities out"
        )
    return array
