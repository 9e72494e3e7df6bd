"""What the tests of encoders share: a graph of names, and a modality made for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from mocme.data.graph import Graph, Vocabulary
from mocme.encoders.base import Encoder, EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of

# Of transformer models that are built for a test: as small as they can be.
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TEXT = {**TINY, "vocab_size": 20, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 0}


@dataclass(frozen=True)
class Made:
    """A modality that was made: its account, its metadata, and its vectors by entity."""

    outcome: EncodingReport
    metadata: dict[str, str]
    vectors: dict[str, np.ndarray]

    @property
    def reasons(self) -> dict[str, str]:
        """Why what failed failed, by file name."""
        return {Path(f.place).name: f.reason for f in self.outcome.failures}


def named_graph(names: list[str]) -> Graph:
    """A graph of these entities."""
    facts = torch.tensor([[0, 0, 0]])
    return Graph(Vocabulary(names), Vocabulary(["r"], "relation"), {"train": facts}, name="tiny")


def make(folder: Path, names: list[str], **table: Any) -> Made:
    """Encode files of a folder, or of what `paths` names, and read what was written."""
    encoder: Encoder = encoder_of(table, "encode.it")
    job = EncodingJob(named_graph(names), "it", folder, folder)
    outcome = encoder.encode(job)
    if not outcome.present:
        return Made(outcome, {}, {})
    with safe_open(job.path, "np") as file:
        rows, values = file.get_tensor("rows"), file.get_tensor("values")
        metadata = dict(file.metadata())
    vectors = {names[row]: value for row, value in zip(rows, values, strict=True)}
    return Made(outcome, metadata, vectors)


def save_quietly(model: Any, folder: Path, *settings: Any) -> Path:
    """Save a model of transformers and its settings as a folder to load it from."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.eval().save_pretrained(folder)
    for one in settings:
        one.save_pretrained(folder)
    if bars:
        logging.enable_progress_bar()
    return folder
