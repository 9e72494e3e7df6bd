"""Sounds to vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mocme.encoders.audio_io import (
    BYTES,
    ENDINGS,
    FFT,
    HOP,
    MELS,
    RATE,
    WIDTH,
    WINDOW,
    log_mel,
    read_sound,
    statistics,
)
from mocme.encoders.base import EncodingReport
from mocme.encoders.inputs import read_file
from mocme.encoders.neural import Engine, Identity, NeuralEncoder, in_chunks
from mocme.encoders.pretrained import extra, load_network, load_settings, named, revision
from mocme.encoders.store import RawItem, group_means

DEFAULT = "log-mel"
# Windows of sound that go through a network at a time.
BATCH = 8


class AudioEncoder(NeuralEncoder):
    """Sounds by their spectrum or by a network; several of an entity count as their mean.

    Files of at most 20 MB, read by libsndfile: WAV, FLAC, OGG (Vorbis, Opus), MP3, AIFF and others.

    Args:
        model: ``log-mel``, for which nothing is trained: of the power in 64 bands, mean, deviation
            and change over time (192 numbers); or an audio model of transformers, by its folder or
            by its name on a hub: CLAP (its projected embedding, of length 1), or one like
            wav2vec 2.0, HuBERT or AST (mean of the last layer).
        minutes: a longer sound is read so far, and counted.
        seconds: of the windows that a network takes; the mean of a sound's windows, weighted by
            their lengths, is its vector. A last window of less than a second is left out.
    """

    column = "path"
    endings = ENDINGS
    several = "entities with several sounds, averaged"

    def __init__(
        self,
        *,
        paths: Sequence[str],
        entity: str | None = None,
        columns: Sequence[str] = (),
        delimiter: str | None = None,
        model: str = DEFAULT,
        minutes: float = 10.0,
        seconds: float = 10.0,
    ) -> None:
        super().__init__(paths=paths, entity=entity, columns=columns, delimiter=delimiter)
        named(model)
        if not 0 < minutes <= 120:
            raise ValueError("minutes must be more than 0 and at most 120")
        if not 1 <= seconds <= 60:
            raise ValueError("seconds must be at least 1 and at most 60")
        self.model, self.minutes, self.seconds = model, minutes, seconds

    def content(self, item: RawItem) -> bytes:
        return read_file(item, BYTES)

    def engine(self, device: torch.device, allow_download: bool) -> Engine:
        """What makes vectors with these settings.

        Raises:
            ValueError: a library is missing, or the model cannot be loaded; with the remedy.
        """
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

    def prepare(self, content: bytes, outcome: EncodingReport) -> Float[np.ndarray, "F"]:
        """All there is to do, for threads do it."""
        sound = read_sound(content, RATE, self.seconds, outcome)
        found: Float[np.ndarray, "F"] = statistics(log_mel(torch.from_numpy(sound))).numpy()
        return found

    def batches(self, ready: Sequence[Float[np.ndarray, "F"]]) -> Iterator[list[int]]:
        """Sounds in their order."""
        return in_chunks(len(ready), 256)

    def encode(self, batch: Sequence[Float[np.ndarray, "F"]]) -> Float[np.ndarray, "n F"]:
        """The vectors of some sounds."""
        return np.stack(batch)


class AudioClip(NamedTuple):
    """A sound as a network takes it.

    Attributes:
        windows: the inputs of each, one row each.
        lengths: of each, in samples.
    """

    windows: list[Mapping[str, Tensor]]
    lengths: list[int]


class AudioEngine:
    """An audio model of transformers that is loaded.

    Raises:
        ValueError: it cannot be loaded, or is no audio model; with the remedy.
    """

    window = 4
    unit = False

    def __init__(self, settings: AudioEncoder, device: torch.device, allow_download: bool) -> None:
        with extra("transformers", "models"):
            import transformers
        self.name, self.device, self.most = settings.model, device, settings.minutes * 60
        self.extractor = load_settings(transformers.AutoFeatureExtractor, self.name, allow_download)
        config = load_settings(transformers.AutoConfig, self.name, allow_download)
        clap = config.model_type in ("clap", "clap_audio_model")
        kind = transformers.ClapAudioModelWithProjection if clap else transformers.AutoModel
        network, _ = load_network(kind, self.name, allow_download)
        self.network = network.to(device)
        self.rate = self._rate(settings.seconds)
        self.length = int(settings.seconds * self.rate)
        self.width = self._try()
        self.identity: Identity = {
            "encoder": f"{self.name}, {'own embedding' if clap else 'mean of the last layer'}",
            "encoder_revision": revision(self.name, network),
            "inputs": f"sha256 {_digest(self.extractor)}",
            "windows": f"of {settings.seconds:g} seconds at {self.rate} Hz, mean by length, of at "
            f"most {settings.minutes:g} minutes",
        }

    def _rate(self, seconds: int | float) -> int:
        """Samples a second that the model wants."""
        rate = getattr(self.extractor, "sampling_rate", None)
        if not rate:
            raise ValueError(f"the model {self.name!r} is no audio model: no sampling rate")
        # What is longer would be cut, by some at random.
        longest = getattr(self.extractor, "nb_max_samples", 0) / rate
        frames = getattr(self.extractor, "max_length", 0)  # of 10 ms
        longest = longest or (frames / 100 if isinstance(frames, int) else 0)
        if longest and seconds > longest:
            raise ValueError(
                f"seconds = {seconds:g} is more than the {longest:g} that the model "
                f"{self.name!r} takes"
            )
        return int(rate)

    def _try(self) -> int:
        """F, found out by a second of noise."""
        noise = torch.randn(self.rate, generator=torch.Generator().manual_seed(0)) / 10
        try:
            first, second = (self.encode([self._heard(noise.numpy())]) for _ in range(2))
        except (RuntimeError, TypeError, AttributeError, KeyError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise ValueError(
                f"the model {self.name!r} does not take sound alone ({reason}); name an audio "
                f"model such as CLAP, wav2vec 2.0, HuBERT or AST"
            ) from error
        if first.ndim != 2 or not np.allclose(first, second, 1e-3, 1e-4):
            raise ValueError(f"the model {self.name!r} gives no vector, or not the same one twice")
        return int(first.shape[1])

    def prepare(self, content: bytes, outcome: EncodingReport) -> AudioClip:
        """The windows of a sound."""
        return self._heard(read_sound(content, self.rate, self.most, outcome))

    def _heard(self, sound: Float[np.ndarray, "samples"]) -> AudioClip:
        parts = [sound[first : first + self.length] for first in range(0, len(sound), self.length)]
        if len(parts) > 1 and len(parts[-1]) < self.rate:
            parts.pop()
        # A network of convolutions needs some samples for its first output.
        parts[0] = np.pad(parts[0], (0, max(0, self.rate // 10 - len(parts[0]))))
        windows: list[Mapping[str, Tensor]] = [
            dict(self.extractor(part, sampling_rate=self.rate, return_tensors="pt"))
            for part in parts
        ]
        return AudioClip(windows, [len(part) for part in parts])

    def batches(self, ready: Sequence[AudioClip]) -> Iterator[list[int]]:
        """Sounds in their order; the windows of one are enough for a batch."""
        return in_chunks(len(ready), 4)

    def encode(self, batch: Sequence[AudioClip]) -> Float[np.ndarray, "n F"]:
        """The vectors of some sounds: means of their windows', weighted by their lengths."""
        flat = [window for heard in batch for window in heard.windows]
        # Only windows of the same length go together, so that nothing is padded.
        groups: dict[tuple[Any, ...], list[int]] = {}
        for place, window in enumerate(flat):
            key = tuple((name, tuple(value.shape)) for name, value in sorted(window.items()))
            groups.setdefault(key, []).append(place)
        vectors: dict[int, Float[np.ndarray, "F"]] = {}
        for places in groups.values():
            for chunk in in_chunks(len(places), BATCH):
                some = [places[place] for place in chunk]
                vectors.update(zip(some, self._ask([flat[p] for p in some]), strict=True))
        found = np.stack([vectors[place] for place in range(len(flat))])
        lengths = [n for heard in batch for n in heard.lengths]
        return group_means(found, [len(heard.windows) for heard in batch], lengths)

    def _ask(self, windows: Sequence[Mapping[str, Tensor]]) -> Float[np.ndarray, "n F"]:
        names = windows[0]
        inputs = {
            name: torch.cat([window[name] for window in windows]).to(self.device) for name in names
        }
        with torch.inference_mode():
            found = self.network(**inputs)
            embeds = getattr(found, "audio_embeds", None)
            if embeds is None:
                pooled = found.last_hidden_state.mean(1)
            else:
                pooled = functional.normalize(embeds, dim=1)
        vectors: Float[np.ndarray, "n F"] = pooled.float().cpu().numpy()
        return vectors


def _digest(extractor: Any) -> str:
    """Of everything that decides what a network is given."""
    return hashlib.sha256(extractor.to_json_string().encode()).hexdigest()
