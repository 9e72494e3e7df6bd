"""Read sound files as samples at one rate, with a reason for files that cannot be used."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mocme.encoders.base import EncodingReport, UnusableItem, check_size
from mocme.encoders.pretrained import extra

MAX_BYTES = 20_000_000
FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF")
ENDINGS = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64",
)  # fmt: skip
# Plausible sampling rates in Hz; others are errors in the header.
MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_CHANNELS = 64
# A sound whose loudest sample is below this (-60 dB of full scale) counts as silent.
SILENCE = 1e-3
# Samples that are read at a time.
BLOCK = 1 << 16


def read_audio(
    data: bytes, rate: int, seconds: int | float, report: EncodingReport | None = None
) -> Float[np.ndarray, "samples"]:
    """Read a sound as samples from -1 to 1, the mean of its channels.

    The content decides the format.

    Args:
        rate: sampling rate of the result, in Hz.
        seconds: what exceeds this length is not read.
        report: counts sounds that were cut.

    Raises:
        UnusableItem: the data is not a sound, is broken, silent or too large, or has another
            format; with the reason.
    """
    with extra("soundfile and soxr", "audio"):
        import soundfile
        import soxr
    if not data:
        raise UnusableItem("an empty file")
    check_size(len(data), MAX_BYTES)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_header(file)
            resampler = soxr.ResampleStream(file.samplerate, rate, 1, dtype="float32")
            max_samples = int(seconds * file.samplerate)
            if file.frames > max_samples and report is not None:
                report.count(f"sounds of more than {seconds / 60:g} minutes, cut")
            return _read_mono(file, resampler, max_samples)
    except UnusableItem:
        raise
    except Exception as error:  # decoders raise any exception for broken files
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
        if "not recogni" in reason:
            raise UnusableItem("holds no sound in a known format") from error
        raise UnusableItem(f"is broken ({reason})") from error


def _check_header(file: Any) -> None:
    if file.format not in FORMATS:
        raise UnusableItem(
            f"is of the format {file.format}, which is not supported; convert it to WAV or FLAC"
        )
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise UnusableItem(f"declares {file.samplerate:,} samples a second")
    if not 0 < file.channels <= MAX_CHANNELS:
        raise UnusableItem(f"declares {file.channels:,} channels; the limit is {MAX_CHANNELS}")


def _read_mono(file: Any, resampler: Any, max_samples: int) -> Float[np.ndarray, "samples"]:
    """The mean of the channels, resampled block by block: the file's own rate may be high."""
    blocks, read, loudest = [], 0, 0.0
    while read < max_samples:
        # The length in the header may be wrong: ask for a block, and take what comes.
        block = file.read(min(BLOCK, max_samples - read), dtype="float32", always_2d=True)
        if not len(block):
            break
        read += len(block)
        if not np.isfinite(block).all():
            raise UnusableItem("holds samples that are not numbers (NaN or infinite)")
        loudest = max(loudest, float(np.abs(block).max()))
        blocks.append(resampler.resample_chunk(block.mean(1)))
    if not read:
        raise UnusableItem("holds no samples")
    if loudest < SILENCE:
        raise UnusableItem(f"is silent: its loudest sample is below {SILENCE:g} of full scale")
    blocks.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(blocks)


# -- log-mel statistics --------------------------------------------------------------------------

# Sampling rate in Hz; window, step and transform in samples; number of mel bands.
RATE, WINDOW, HOP, FFT, MELS = 16_000, 400, 160, 1024, 64
# Least power, so that its logarithm is finite.
FLOOR = 1e-10
WIDTH = 3 * MELS
# Frames (10 ms each) that are transformed at a time: one minute.
PAGE = 6_000


def mel_bands(
    bands: int = MELS, fft: int = FFT, rate: int = RATE
) -> Float[Tensor, "frequencies bands"]:
    """Triangular filters of equal height and of equal width on the mel scale, from 0 to rate / 2.

    mel = 2595 log10(1 + f / 700) for a frequency f in Hz (O'Shaughnessy, Speech Communication,
    1987; as in HTK). The edges are equidistant in mel. Each triangle is 1 at its centre and 0 at
    the centres of its neighbours.
    """
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    mels = torch.linspace(0, highest, bands + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, fft // 2 + 1, dtype=torch.float64)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0).float()


def log_mel(sound: Float[Tensor, "samples"]) -> Float[Tensor, "frames bands"]:
    """log10 of the power of a sound in each band: Hann windows of 25 ms every 10 ms.

    A sound shorter than one frame is padded with zeros.
    """
    sound = torch.nn.functional.pad(sound, (0, max(0, FFT - len(sound))))
    window, bands = torch.hann_window(WINDOW), mel_bands()
    frames = 1 + (len(sound) - FFT) // HOP
    pages = []
    for first in range(0, frames, PAGE):
        last = min(first + PAGE, frames)
        part = sound[first * HOP : (last - 1) * HOP + FFT]
        spectrum = torch.stft(part, FFT, HOP, WINDOW, window, center=False, return_complex=True)
        power = spectrum.real**2 + spectrum.imag**2
        pages.append((power.T @ bands).clamp(min=FLOOR).log10())
    return torch.cat(pages)


def statistics(levels: Float[Tensor, "frames bands"]) -> Float[Tensor, "3*bands"]:
    """Mean, standard deviation and mean absolute change between frames, of each band."""
    change = levels.diff(dim=0).abs().sum(0) / max(1, len(levels) - 1)
    return torch.cat([levels.mean(0), levels.std(0, correction=0), change])
