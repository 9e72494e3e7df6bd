"""Sounds: reading, statistics, unusable files, and models loaded from a folder."""

from __future__ import annotations

import io
import math
import re
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from media import TEXT, TINY, encode_folder, save_quietly
from mocme.core.extras import remedy
from mocme.encoders import audio_io
from mocme.encoders.audio_io import (
    FFT,
    HOP,
    MELS,
    RATE,
    WIDTH,
    WINDOW,
    log_mel,
    mel_bands,
    read_audio,
    statistics,
)
from mocme.encoders.base import EncodingReport, UnusableItem
from mocme.encoders.catalog import encoder_of
from mocme.encoders.kinds.audio import AudioEncoder, AudioEngine, LogMelEngine

soundfile = pytest.importorskip("soundfile", reason="the extra audio is not installed")
CPU = torch.device("cpu")


def tone(frequency: float = 440, seconds: float = 1, rate: int = RATE, peak: float = 0.5) -> Any:
    """A sine wave; the frequency and the sampling rate are in Hz."""
    times = np.arange(int(seconds * rate)) / rate
    return (peak * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def noise(seconds: float = 1, rate: int = RATE, seed: int = 0) -> Any:
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal(int(seconds * rate))).astype(np.float32)


def sound_file(
    sound: Any, rate: int = RATE, kind: str = "WAV", subtype: str | None = None
) -> bytes:
    with io.BytesIO() as file:
        soundfile.write(file, sound, rate, format=kind, subtype=subtype)
        return file.getvalue()


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "FLOAT", 1e-6),
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "ULAW", 0.03),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.05),
        ("MP3", None, 0.05),
        ("AIFF", "PCM_16", 1e-4),
        ("CAF", "PCM_16", 1e-4),
    ],
)
def test_every_format_gives_the_samples(kind: str, subtype: str | None, tolerance: float) -> None:
    expected = tone()
    samples = read_audio(sound_file(expected, kind=kind, subtype=subtype), RATE, 60)
    assert abs(len(samples) - len(expected)) < 2500
    # A lossy encoder may add samples at the beginning: align the two sounds.
    shift = 0
    if kind == "MP3":
        products = np.correlate(samples[:6000], expected[2000:5000])
        shift = int(products.argmax()) - 2000
    length = min(len(samples), len(expected)) - 3000
    aligned = samples[2000 + shift : length + shift]
    assert np.abs(aligned - expected[2000:length]).mean() < tolerance


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampling_keeps_the_sound(rate: int) -> None:
    samples = read_audio(sound_file(tone(rate=rate), rate), RATE, 60)
    expected = tone()
    assert abs(len(samples) - len(expected)) <= 2
    inner = slice(500, len(expected) - 500)
    np.testing.assert_allclose(samples[inner], expected[inner], atol=2e-3)


def test_channels_are_averaged() -> None:
    stereo = np.stack([tone(), tone(880)], 1)
    samples = read_audio(sound_file(stereo, subtype="FLOAT"), RATE, 60)
    np.testing.assert_allclose(samples, stereo.mean(1), atol=1e-6)


def test_a_long_sound_is_cut_and_counted() -> None:
    report = EncodingReport("it", "audio")
    data = sound_file(noise(5, 8_000), 8_000)
    cut = read_audio(data, RATE, 2, report)
    assert len(cut) == pytest.approx(2 * RATE, abs=2)
    assert list(report.counts) == ["sounds of more than 0.0333333 minutes, cut"]
    full = read_audio(data, RATE, 60)
    np.testing.assert_allclose(cut[:-200], full[: len(cut) - 200], atol=1e-6)


def wav(channels: int, rate: int, size: int, content: bytes) -> bytes:
    """A WAV file of 16 bits with any header; `size` is the declared number of bytes."""
    header = struct.pack(
        "<HHIIHH", 1, channels, rate, 2 * rate * channels % 2**32, 2 * channels, 16
    )
    data = b"data" + struct.pack("<I", size) + content
    return (
        b"RIFF" + struct.pack("<I", 36 + size & 0xFFFFFFFF) + b"WAVEfmt \x10\0\0\0" + header + data
    )


def quiet(peak: float) -> bytes:
    return sound_file(tone(peak=peak), subtype="FLOAT")


def with_nan() -> bytes:
    sound = tone()
    sound[500] = np.nan
    return sound_file(sound, subtype="FLOAT")


SAMPLES = (tone() * 32767).astype("<i2").tobytes()
BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.wav": (lambda: b"", "an empty file"),
    "text.mp3": (
        lambda: b"This is not a sound, whatever its name says.\n" * 100,
        "no sound|broken",
    ),
    "page.wav": (lambda: b"<!DOCTYPE html><html></html>", "no sound"),
    "noise.bin": (lambda: np.random.default_rng(0).bytes(5000), "no sound|broken"),
    "silent.wav": (lambda: quiet(0), "is silent"),
    "quiet.wav": (lambda: quiet(5e-4), "is silent: its loudest sample is below 0.001"),
    "nan.wav": (with_nan, "are not numbers"),
    "nothing.wav": (lambda: wav(1, RATE, 0, b""), "no samples|broken"),
    "mute.wav": (lambda: wav(0, RATE, 100, bytes(100)), "broken|no sound"),
    "slow.wav": (lambda: wav(1, 3, len(SAMPLES), SAMPLES), "declares 3 samples a second"),
    "still.wav": (lambda: wav(1, 0, len(SAMPLES), SAMPLES), "samples a second|broken"),
    "fast.wav": (lambda: wav(1, 2**31 - 1, len(SAMPLES), SAMPLES), "samples a second|broken"),
    "many.wav": (lambda: wav(500, RATE, len(SAMPLES), SAMPLES), "declares 500 channels"),
    "header.flac": (lambda: sound_file(tone(), kind="FLAC")[:60], "no samples|broken"),
    "header.ogg": (lambda: sound_file(tone(), kind="OGG")[:100], "no samples|broken|no sound"),
    "heavy.wav": (lambda: bytes(20_000_001), "has 20.0 MB; the limit is 20 MB"),
    "old.voc": (lambda: sound_file(tone(), kind="VOC"), "of the format VOC"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_unusable_sound_has_a_reason(name: str) -> None:
    content, reason = BROKEN[name]
    with pytest.raises(UnusableItem, match=reason) as caught:
        read_audio(content(), RATE, 60)
    assert "\n" not in str(caught.value)


def test_a_header_with_a_wrong_length_is_ignored() -> None:
    samples = read_audio(wav(1, RATE, 2**32 - 40, SAMPLES), RATE, 6000)
    assert len(samples) == pytest.approx(RATE, abs=2)


def test_a_truncated_sound_is_read_as_far_as_it_goes_or_has_a_reason() -> None:
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        data = sound_file(noise(3), kind=kind)
        with suppress(UnusableItem):
            assert 0 < len(read_audio(data[: len(data) // 2], RATE, 60)) < 3 * RATE


# -- statistics ------------------------------------------------------------------------------------


def test_mel_bands_equal_those_of_transformers() -> None:
    utils = pytest.importorskip("transformers.audio_utils", reason="transformers is not installed")
    expected = utils.mel_filter_bank(FFT // 2 + 1, MELS, 0, RATE / 2, RATE, None, "htk")
    np.testing.assert_allclose(mel_bands().numpy(), expected, atol=1e-5)
    assert (mel_bands().sum(0) > 0).all()


def test_levels_and_statistics_equal_a_naive_loop() -> None:
    sound = noise(0.2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    bands = mel_bands().numpy().astype(np.float64)
    before = (FFT - WINDOW) // 2
    expected = []
    for first in range(0, len(sound) - FFT + 1, HOP):
        part = sound[first + before : first + before + WINDOW].astype(np.float64) * window
        angles = np.outer(np.arange(FFT // 2 + 1), np.arange(WINDOW)) * (-2j * np.pi / FFT)
        power = np.abs(np.exp(angles) @ part) ** 2
        expected.append(np.log10(np.maximum(power @ bands, 1e-10)))
    levels = log_mel(torch.from_numpy(sound))
    naive = np.array(expected)
    np.testing.assert_allclose(levels.numpy(), naive, rtol=1e-3, atol=1e-3)
    stats = statistics(levels).numpy()
    wanted = [naive.mean(0), naive.std(0), np.abs(np.diff(naive, axis=0)).mean(0)]
    np.testing.assert_allclose(stats, np.concatenate(wanted), rtol=2e-3, atol=2e-3)
    assert stats.shape == (WIDTH,)


def test_the_size_of_pages_does_not_change_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = torch.from_numpy(noise(1))
    in_one_page = log_mel(sound)
    monkeypatch.setattr(audio_io, "PAGE", 7)
    torch.testing.assert_close(log_mel(sound), in_one_page, rtol=1e-4, atol=1e-4)


def test_a_tone_is_loudest_in_its_band() -> None:
    for frequency in (200, 1000, 4000):
        levels = log_mel(torch.from_numpy(tone(frequency))).mean(0)
        mel = 2595 * math.log10(1 + frequency / 700)
        step = 2595 * math.log10(1 + RATE / 2 / 700) / (MELS + 1)
        assert abs(int(levels.argmax()) - (mel / step - 1)) <= 1


def test_a_sound_shorter_than_a_frame_has_statistics() -> None:
    click = torch.zeros(10)
    click[3] = 0.5
    stats = statistics(log_mel(click))
    assert stats.shape == (WIDTH,)
    assert torch.isfinite(stats).all()
    assert (stats[MELS:] == 0).all()


# -- the modality ----------------------------------------------------------------------------------


def test_a_folder_of_sounds(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    (folder / "two").mkdir(parents=True)
    for name, frequency in (("one", 300), ("two/a", 300), ("two/b", 3000), ("three", 3000)):
        (folder / f"{name}.flac").write_bytes(sound_file(tone(frequency), kind="FLAC"))
    for name in ("empty.wav", "silent.wav", "text.mp3", "many.wav"):
        (folder / name).write_bytes(BROKEN[name][0]())
    (folder / "unknown name.wav").write_bytes(sound_file(tone()))
    names = ["one", "two", "three", "empty", "silent", "text", "many"]
    table: dict[str, Any] = {"kind": "audio", "paths": ["sounds"]}
    encoded = encode_folder(tmp_path, names, **table)
    assert list(encoded.vectors) == ["one", "two", "three"]
    assert set(encoded.reasons) == {"empty.wav", "silent.wav", "text.mp3", "many.wav"}
    assert encoded.report.strange == ["unknown name"]
    assert encoded.report.width == WIDTH
    assert (encoded.report.encoded, encoded.report.shared) == (2, 2)
    assert encoded.report.counts == {"entities with several sounds, averaged": 1}
    assert encoded.metadata["encoder"].startswith("log-mel")
    ends = encoded.vectors["one"].astype(np.float32) + encoded.vectors["three"].astype(np.float32)
    np.testing.assert_allclose(encoded.vectors["two"], ends / 2, rtol=2e-3, atol=2e-3)
    again = encode_folder(tmp_path, names, **table)
    assert (again.report.encoded, again.report.reused) == (0, 4)
    np.testing.assert_array_equal(again.vectors["two"], encoded.vectors["two"])


def test_sounds_listed_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(sound_file(noise()))
    (tmp_path / "list.tsv").write_text("a\tx.wav\nb\tnothing.wav\nc\thttps://example.org/x.wav\n")
    encoded = encode_folder(tmp_path, ["a", "b", "c"], kind="audio", paths=["list.tsv"])
    assert list(encoded.vectors) == ["a"]
    reasons = [failure.reason for failure in encoded.report.failures]
    assert "there is no file" in reasons[0]
    assert "nothing is fetched" in reasons[1]


def test_similar_sounds_have_similar_vectors() -> None:
    engine = LogMelEngine(1)
    report = EncodingReport("it", "audio")

    def vector(sound: Any) -> Any:
        return engine.prepare(sound_file(sound), report)

    first, second = vector(noise(seed=1)), vector(noise(seed=2))
    other = vector(tone(440))
    assert np.linalg.norm(first - second) < 0.2 * np.linalg.norm(first - other)


@pytest.mark.parametrize(
    "settings", [{"minutes": 0.0}, {"minutes": 500.0}, {"seconds": 0.1}, {"seconds": 100.0}]
)
def test_a_setting_out_of_range_is_an_error(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        encoder_of({"kind": "audio", "paths": ["x"], **settings}, "encode.it")


@pytest.mark.parametrize("missing", ["soundfile", "soxr"])
def test_a_missing_library_is_named_with_its_extra(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=re.escape(remedy("audio"))):
        AudioEncoder(paths=["x"]).engine(CPU, False)


# -- models ----------------------------------------------------------------------------------------


def speech(kind: str) -> tuple[Any, Any]:
    import transformers

    sizes = {
        **TINY,
        "conv_dim": (8, 8),
        "conv_stride": (40, 8),
        "conv_kernel": (40, 8),
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
        "vocab_size": 8,
    }
    config = getattr(transformers, f"{kind}Config")(**sizes)
    return getattr(transformers, f"{kind}Model")(config), transformers.Wav2Vec2FeatureExtractor()


def ast() -> tuple[Any, Any]:
    import warnings

    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its default settings leave some bands empty
        settings = transformers.ASTFeatureExtractor()
    return transformers.ASTModel(transformers.ASTConfig(**TINY)), settings


def clap() -> tuple[Any, Any]:
    import transformers

    sound = {
        "patch_embeds_hidden_size": 16,
        "hidden_size": 32,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "num_hidden_layers": 2,
    }
    config = transformers.ClapConfig(audio_config=sound, text_config=TEXT, projection_dim=12)
    return transformers.ClapModel(config), transformers.ClapFeatureExtractor(
        truncation="rand_trunc"
    )


def saved(kind: Any, folder: Path) -> tuple[str, Any, Any]:
    pytest.importorskip("transformers", reason="the extra models is not installed")
    torch.manual_seed(0)
    model, settings = speech(kind) if isinstance(kind, str) else kind()
    return str(save_quietly(model, folder / "model", settings)), model, settings


def loaded(name: str, **settings: Any) -> AudioEngine:
    engine = AudioEncoder(paths=["x"], model=name, **settings).engine(CPU, False)
    assert isinstance(engine, AudioEngine)
    return engine


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert", ast, clap])
def test_vectors_equal_those_of_the_library(tmp_path: Path, kind: Any) -> None:
    name, model, settings = saved(kind, tmp_path)
    rate = settings.sampling_rate
    engine = loaded(name)
    sound = noise(3, rate)
    data = sound_file(sound, rate, subtype="FLOAT")
    vectors = engine.encode([engine.prepare(data, EncodingReport("", ""))])
    inputs = settings(sound, sampling_rate=rate, return_tensors="pt")
    with torch.inference_mode():
        if kind is clap:
            expected = model.get_audio_features(**inputs)
            expected = getattr(expected, "pooler_output", expected)
        else:
            expected = model(**inputs).last_hidden_state.mean(1)
    np.testing.assert_allclose(vectors, expected.numpy(), rtol=1e-3, atol=1e-4)
    assert engine.width == expected.shape[1]


def test_windows_of_a_long_sound_are_averaged(tmp_path: Path) -> None:
    name, *_ = saved("Wav2Vec2", tmp_path)
    engine = loaded(name, seconds=2.0)
    sound = noise(5.5)  # two windows and a half, and half a second more
    report = EncodingReport("it", "audio")
    clips = [
        engine.prepare(sound_file(part, subtype="FLOAT"), report)
        for part in (sound, sound[: 2 * RATE], sound[2 * RATE : 4 * RATE], sound[4 * RATE :])
    ]
    assert clips[0].lengths == [2 * RATE, 2 * RATE, RATE * 3 // 2]
    vector, *parts = engine.encode(clips)
    expected = (2 * parts[0] + 2 * parts[1] + 1.5 * parts[2]) / 5.5
    np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)
    # The other sounds in a batch do not matter.
    np.testing.assert_allclose(engine.encode(clips[:1])[0], vector, rtol=1e-4, atol=1e-5)
    short = engine.prepare(sound_file(sound[: 4 * RATE + 100]), report)
    assert len(short.windows) == 2


def test_a_very_short_sound_can_be_encoded(tmp_path: Path) -> None:
    name, *_ = saved("Wav2Vec2", tmp_path)
    engine = loaded(name)
    clip = engine.prepare(sound_file(tone(seconds=0.002)), EncodingReport("it", "audio"))
    assert np.isfinite(engine.encode([clip])).all()


def test_a_folder_of_sounds_by_a_model(tmp_path: Path) -> None:
    name, *_ = saved("Hubert", tmp_path)
    (tmp_path / "sounds").mkdir()
    for number in range(6):
        data = sound_file(noise(1 + number / 4, seed=number))
        (tmp_path / "sounds" / f"e{number}.wav").write_bytes(data)
    names = [f"e{number}" for number in range(7)]
    encoded = encode_folder(tmp_path, names, kind="audio", paths=["sounds"], model=name)
    assert list(encoded.vectors) == names[:6]
    assert encoded.report.width == 16
    assert encoded.metadata["encoder_revision"].startswith("sha256")


def test_an_unsuitable_model_is_an_error(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra models is not installed")
    name, *_ = saved(clap, tmp_path)
    with pytest.raises(ValueError, match="more than the 10 that the model"):
        loaded(name, seconds=20.0)
    model = transformers.BertModel(transformers.BertConfig(**TEXT))
    settings = transformers.Wav2Vec2FeatureExtractor()
    other = str(save_quietly(model, tmp_path / "bert", settings))
    with pytest.raises(ValueError, match="name an audio model"):
        loaded(other)
    with pytest.raises(ValueError, match="no such folder"):
        loaded(str(tmp_path / "nothing"))
