"""What the tests of encoders share: a graph of names, and the encoding of one modality."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from mocme.data.graph import Graph, Vocabulary
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of

# Settings of the transformer models that tests build: as small as possible.
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TEXT = {**TINY, "vocab_size": 20, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 0}


@dataclass(frozen=True)
class EncodedModality:
    """An encoded modality: the report, the file's metadata, and the vectors by entity."""

    report: EncodingReport
    metadata: dict[str, str]
    vectors: dict[str, np.ndarray]

    @property
    def reasons(self) -> dict[str, str]:
        """The reason of each failure, by file name."""
        return {Path(f.place).name: f.reason for f in self.report.failures}


def named_graph(names: list[str]) -> Graph:
    """A graph of these entities with one fact."""
    facts = torch.tensor([[0, 0, 0]])
    return Graph(Vocabulary(names), Vocabulary(["r"], "relation"), {"train": facts}, name="tiny")


def encode_folder(folder: Path, names: list[str], **table: Any) -> EncodedModality:
    """Encode the files that the `paths` of a table name, and read the result."""
    job = EncodingJob(named_graph(names), "it", folder, folder)
    report = encoder_of(table, "encode.it").encode(job)
    if not report.present:
        return EncodedModality(report, {}, {})
    with safe_open(job.path, "np") as file:
        rows, values = file.get_tensor("rows"), file.get_tensor("values")
        metadata = dict(file.metadata())
    vectors = {names[row]: value for row, value in zip(rows, values, strict=True)}
    return EncodedModality(report, metadata, vectors)


def save_quietly(model: Any, folder: Path, *settings: Any) -> Path:
    """Save a model of transformers and its settings to a folder, without progress bars."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.eval().save_pretrained(folder)
    for setting in settings:
        setting.save_pretrained(folder)
    if bars:
        logging.enable_progress_bar()
    return folder
