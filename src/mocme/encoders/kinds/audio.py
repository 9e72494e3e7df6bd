"""Encode sounds as vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mocme.encoders.audio_io import (
    ENDINGS,
    FFT,
    HOP,
    MAX_BYTES,
    MELS,
    RATE,
    WIDTH,
    WINDOW,
    log_mel,
    read_audio,
    statistics,
)
from mocme.encoders.base import EncodingReport
from mocme.encoders.inputs import read_file
from mocme.encoders.neural import Engine, Identity, NeuralEncoder, in_chunks
from mocme.encoders.pretrained import (
    check_model_name,
    extra,
    load_network,
    load_settings,
    revision,
)
from mocme.encoders.store import RawItem, group_means

DEFAULT = "log-mel"
# Windows of sound in one batch of a network.
BATCH = 8
# Sounds in one batch: their windows fill it.
SOUNDS = 4


@dataclass(frozen=True, kw_only=True)
class AudioEncoder(NeuralEncoder):
    """Sounds as statistics of their spectrum or as the vectors of a network.

    Files of at most 20 MB, read by libsndfile: WAV, FLAC, OGG (Vorbis, Opus), MP3, AIFF and others.
    Several sounds of an entity are averaged.

    Args:
        model: ``log-mel``, which needs no training: mean, deviation and change over time of the
            power in 64 bands (192 numbers); or an audio model of transformers, by its folder or by
            its name on a hub: CLAP (its projected embedding, of length 1), or a model like
            wav2vec 2.0, HuBERT or AST (mean of the last layer).
        minutes: what exceeds this length is not read; such sounds are counted.
        seconds: length of the windows that a network takes. The vector of a sound is the mean of
            its windows, weighted by their lengths. A last window of less than a second is left out.
    """

    column = "path"
    endings = ENDINGS
    several = "entities with several sounds, averaged"

    model: str = DEFAULT
    minutes: float = 10.0
    seconds: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_model_name(self.model)
        if not 0 < self.minutes <= 120:
            raise ValueError("minutes must be more than 0 and at most 120")
        if not 1 <= self.seconds <= 60:
            raise ValueError("seconds must be at least 1 and at most 60")

    def content(self, item: RawItem) -> bytes:
        return read_file(item, MAX_BYTES)

    def engine(self, device: torch.device, allow_download: bool) -> Engine:
        with extra("soundfile and soxr", "audio"):
            import soundfile  # noqa: F401
            import soxr  # noqa: F401
        if self.model == DEFAULT:
            return LogMelEngine(self.minutes)
        return AudioEngine(self, device, allow_download)


class LogMelEngine:
    """Statistics of the power in each band; nothing is trained."""

    width = WIDTH
    window = 64
    unit = False

    def __init__(self, minutes: int | float) -> None:
        self.seconds = minutes * 60
        self.identity: Identity = {
            "encoder": f"log-mel: {MELS} bands (HTK), {RATE} Hz, window {WINDOW} of {FFT}, step "
            f"{HOP}; mean, deviation, change",
            "encoder_revision": "1",
            "minutes": f"at most {minutes:g}",
        }

    def prepare(self, content: bytes, report: EncodingReport) -> Float[np.ndarray, "F"]:
        """The vector of a sound: all work is done here, because this runs in threads."""
        sound = read_audio(content, RATE, self.seconds, report)
        vector: Float[np.ndarray, "F"] = statistics(log_mel(torch.from_numpy(sound))).numpy()
        return vector

    def batches(self, prepared: Sequence[Float[np.ndarray, "F"]]) -> Iterator[list[int]]:
        """Sounds in their order."""
        return in_chunks(len(prepared), 256)

    def encode(self, batch: Sequence[Float[np.ndarray, "F"]]) -> Float[np.ndarray, "n F"]:
        """The vectors of a batch of sounds."""
        return np.stack(batch)


class AudioClip(NamedTuple):
    """A sound as input of a network.

    Attributes:
        windows: the network's inputs for each window, with one row each.
        lengths: of the windows, in samples.
    """

    windows: list[Mapping[str, Tensor]]
    lengths: list[int]


class AudioEngine:
    """A loaded audio model of transformers.

    Raises:
        ValueError: it cannot be loaded, or is not an audio model; with the remedy.
    """

    window = 4
    unit = False

    def __init__(self, settings: AudioEncoder, device: torch.device, allow_download: bool) -> None:
        with extra("transformers", "models"):
            import transformers
        self.name, self.device = settings.model, device
        self.max_seconds = settings.minutes * 60
        self.extractor = load_settings(transformers.AutoFeatureExtractor, self.name, allow_download)
        config = load_settings(transformers.AutoConfig, self.name, allow_download)
        clap = config.model_type in ("clap", "clap_audio_model")
        kind = transformers.ClapAudioModelWithProjection if clap else transformers.AutoModel
        network, _ = load_network(kind, self.name, allow_download)
        self.network = network.to(device)
        self.rate = self._sampling_rate(settings.seconds)
        self.length = int(settings.seconds * self.rate)
        self.width = self._probe()
        self.identity: Identity = {
            "encoder": f"{self.name}, {'own embedding' if clap else 'mean of the last layer'}",
            "encoder_revision": revision(self.name, network),
            "inputs": f"sha256 {_digest(self.extractor)}",
            "windows": f"of {settings.seconds:g} seconds at {self.rate} Hz, mean by length, of at "
            f"most {settings.minutes:g} minutes",
        }

    def _sampling_rate(self, seconds: int | float) -> int:
        """The model's sampling rate in Hz; refuses windows that are too long for it."""
        rate = getattr(self.extractor, "sampling_rate", None)
        if not rate:
            raise ValueError(
                f"the model {self.name!r} is not an audio model: it has no sampling rate"
            )
        # Longer windows would be cut, by some models at a random position.
        longest = getattr(self.extractor, "nb_max_samples", 0) / rate
        frames = getattr(self.extractor, "max_length", 0)  # of 10 ms
        longest = longest or (frames / 100 if isinstance(frames, int) else 0)
        if longest and seconds > longest:
            raise ValueError(
                f"seconds = {seconds:g} is more than the {longest:g} that the model "
                f"{self.name!r} takes"
            )
        return int(rate)

    def _probe(self) -> int:
        """Encode a second of noise to determine F, and to check that it is deterministic."""
        noise = torch.randn(self.rate, generator=torch.Generator().manual_seed(0)) / 10
        try:
            first, second = (self.encode([self._clip(noise.numpy())]) for _ in range(2))
        except (RuntimeError, TypeError, AttributeError, KeyError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise ValueError(
                f"the model {self.name!r} does not accept sound alone ({reason}); name an audio "
                f"model such as CLAP, wav2vec 2.0, HuBERT or AST"
            ) from error
        if first.ndim != 2 or not np.allclose(first, second, 1e-3, 1e-4):
            raise ValueError(
                f"the model {self.name!r} gives no vector, or not the same vector twice; name "
                f"another one"
            )
        return int(first.shape[1])

    def prepare(self, content: bytes, report: EncodingReport) -> AudioClip:
        """The windows of a sound."""
        return self._clip(read_audio(content, self.rate, self.max_seconds, report))

    def _clip(self, sound: Float[np.ndarray, "samples"]) -> AudioClip:
        parts = [sound[first : first + self.length] for first in range(0, len(sound), self.length)]
        if len(parts) > 1 and len(parts[-1]) < self.rate:
            parts.pop()
        # A convolutional network needs some samples for its first output: pad to 0.1 s.
        parts[0] = np.pad(parts[0], (0, max(0, self.rate // 10 - len(parts[0]))))
        windows: list[Mapping[str, Tensor]] = [
            dict(self.extractor(part, sampling_rate=self.rate, return_tensors="pt"))
            for part in parts
        ]
        return AudioClip(windows, [len(part) for part in parts])

    def batches(self, prepared: Sequence[AudioClip]) -> Iterator[list[int]]:
        """Sounds in their order."""
        return in_chunks(len(prepared), SOUNDS)

    def encode(self, batch: Sequence[AudioClip]) -> Float[np.ndarray, "n F"]:
        """The vectors of a batch of sounds: means of their windows, weighted by length."""
        windows = [window for clip in batch for window in clip.windows]
        # Only windows with inputs of the same shape share a batch, so that nothing is padded.
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, window in enumerate(windows):
            shapes = tuple((name, tuple(value.shape)) for name, value in sorted(window.items()))
            groups.setdefault(shapes, []).append(index)
        vectors: dict[int, Float[np.ndarray, "F"]] = {}
        for group in groups.values():
            for chunk in in_chunks(len(group), BATCH):
                indices = [group[position] for position in chunk]
                encoded = self._forward([windows[index] for index in indices])
                vectors.update(zip(indices, encoded, strict=True))
        stacked = np.stack([vectors[index] for index in range(len(windows))])
        lengths = [length for clip in batch for length in clip.lengths]
        return group_means(stacked, [len(clip.windows) for clip in batch], lengths)

    def _forward(self, windows: Sequence[Mapping[str, Tensor]]) -> Float[np.ndarray, "n F"]:
        names = windows[0]
        inputs = {
            name: torch.cat([window[name] for window in windows]).to(self.device) for name in names
        }
        with torch.inference_mode():
            output = self.network(**inputs)
            embeds = getattr(output, "audio_embeds", None)
            if embeds is None:
                pooled = output.last_hidden_state.mean(1)
            else:
                pooled = functional.normalize(embeds, dim=1)
        vectors: Float[np.ndarray, "n F"] = pooled.float().cpu().numpy()
        return vectors


def _digest(extractor: Any) -> str:
    """SHA-256 of the settings that decide a network's inputs."""
    return hashlib.sha256(extractor.to_json_string().encode()).hexdigest()
