"""Sound files to samples of one rate, whatever they are, and a reason where they are nothing."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mocme.encoders.base import EncodingReport, UnusableItem
from mocme.encoders.pretrained import extra

BYTES = 20_000_000
FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF")
ENDINGS = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64",
)  # fmt: skip
# Samples a second that somebody may have recorded with; others are a mistake.
SLOWEST, FASTEST = 1_000, 768_000
CHANNELS = 64
# A thousandth of the loudest sample that files hold (-60 dB): below it, nothing is heard.
SILENT = 1e-3
BLOCK = 1 << 16


def read_sound(
    data: bytes, rate: int, seconds: int | float, outcome: EncodingReport | None = None
) -> Float[np.ndarray, "samples"]:
    """A sound as samples from -1 to 1, the mean of its channels.

    The format is told from the content.

    Args:
        rate: samples a second that are wanted.
        seconds: at most so much of it is read.
        outcome: counts what was special.

    Raises:
        Unusable: it is no sound, broken, silent, too large, or of another format; with the reason.
    """
    with extra("soundfile and soxr", "audio"):
        import soundfile
        import soxr
    if not data:
        raise UnusableItem("an empty file")
    if len(data) > BYTES:
        raise UnusableItem(f"has {len(data) / 1e6:,.1f} MB; the limit is {BYTES / 1e6:,.0f} MB")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check(file)
            resampled = soxr.ResampleStream(file.samplerate, rate, 1, dtype="float32")
            most = int(seconds * file.samplerate)
            if file.frames > most and outcome is not None:
                outcome.count(f"sounds of more than {seconds / 60:g} minutes, cut")
            return _mono(file, resampled, most)
    except UnusableItem:
        raise
    except Exception as error:  # decoders of broken files fail in any way
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
        if "not recogni" in reason:
            raise UnusableItem("is no sound of a known format") from error
        raise UnusableItem(f"is broken ({reason})") from error


def _check(file: Any) -> None:
    if file.format not in FORMATS:
        raise UnusableItem(
            f"is of the format {file.format}, which is not read; make it WAV or FLAC"
        )
    if not SLOWEST <= file.samplerate <= FASTEST:
        raise UnusableItem(f"says it has {file.samplerate:,} samples a second")
    if not 0 < file.channels <= CHANNELS:
        raise UnusableItem(f"says it has {file.channels:,} channels; the limit is {CHANNELS}")


def _mono(file: Any, resampled: Any, most: int) -> Float[np.ndarray, "samples"]:
    """The mean of the channels, at another rate, block by block: the file's rate may be high."""
    parts, read, loudest = [], 0, 0.0
    while read < most:
        # What a header says of the length is not believed: a block is asked for, and may be short.
        block = file.read(min(BLOCK, most - read), dtype="float32", always_2d=True)
        if not len(block):
            break
        read += len(block)
        if not np.isfinite(block).all():
            raise UnusableItem("holds samples that are no numbers (NaN or infinite)")
        loudest = max(loudest, float(np.abs(block).max()))
        parts.append(resampled.resample_chunk(block.mean(1)))
    if not read:
        raise UnusableItem("holds no samples")
    if loudest < SILENT:
        raise UnusableItem(f"is silent: its loudest sample is below {SILENT:g} of what is possible")
    parts.append(resampled.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(parts)


# -- what a sound is like ------------------------------------------------------------------------

RATE, WINDOW, HOP, FFT, MELS = 16_000, 400, 160, 1024, 64
FLOOR = 1e-10
WIDTH = 3 * MELS
# Frames (hundredths of a second) that are looked at together: a minute.
PAGE = 6_000


def mel_bands(
    bands: int = MELS, fft: int = FFT, rate: int = RATE
) -> Float[Tensor, "frequencies bands"]:
    """Triangles of equal height and width on the mel scale, from 0 to half the rate.

    mel = 2595 log10(1 + f / 700) for a frequency f in Hz (O'Shaughnessy, Speech Communication,
    1987; as HTK has it). The bands' edges are equally far apart in mel; each triangle is 1 at its
    middle and 0 at the middles of its neighbours.
    """
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    mels = torch.linspace(0, highest, bands + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, fft // 2 + 1, dtype=torch.float64)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0).float()


def log_mel(sound: Float[Tensor, "samples"]) -> Float[Tensor, "frames bands"]:
    """log10 of a sound's power in each band: 25 ms of it (a Hann window) every 10 ms.

    A sound of less than a frame is filled up with zeros.
    """
    sound = torch.nn.functional.pad(sound, (0, max(0, FFT - len(sound))))
    window, bands = torch.hann_window(WINDOW), mel_bands()
    frames = 1 + (len(sound) - FFT) // HOP
    pages = []
    for first in range(0, frames, PAGE):
        last = min(first + PAGE, frames)
        part = sound[first * HOP : (last - 1) * HOP + FFT]
        found = torch.stft(part, FFT, HOP, WINDOW, window, center=False, return_complex=True)
        power = found.real**2 + found.imag**2
        pages.append((power.T @ bands).clamp(min=FLOOR).log10())
    return torch.cat(pages)


def statistics(levels: Float[Tensor, "frames bands"]) -> Float[Tensor, "3*bands"]:
    """Of each band: mean, standard deviation, and mean change from a frame to the next."""
    change = levels.diff(dim=0).abs().sum(0) / max(1, len(levels) - 1)
    return torch.cat([levels.mean(0), levels.std(0, correction=0), change])
