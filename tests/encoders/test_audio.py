"""Sounds: what the statistics are, what is refused, and models loaded from a folder."""

from __future__ import annotations

import builtins
import io
import math
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from media import TEXT, TINY, make, save_quietly
from mocme.encoders import audio_io as sounds
from mocme.encoders.audio_io import (
    FFT,
    HOP,
    MELS,
    RATE,
    WIDTH,
    WINDOW,
    log_mel,
    mel_bands,
    read_sound,
    statistics,
)
from mocme.encoders.base import EncodingReport, UnusableItem
from mocme.encoders.catalog import encoder_of
from mocme.encoders.kinds.audio import AudioEncoder, AudioEngine, LogMelEngine

soundfile = pytest.importorskip("soundfile", reason="the extra audio is not installed")
CPU = torch.device("cpu")


def tone(frequency: float = 440, seconds: float = 1, rate: int = RATE, loud: float = 0.5) -> Any:
    return (loud * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(
        np.float32
    )


def noise(seconds: float = 1, rate: int = RATE, seed: int = 0) -> Any:
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal(int(seconds * rate))).astype(np.float32)


def written(sound: Any, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
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
def test_formats(kind: str, subtype: str | None, tolerance: float) -> None:
    expected = tone()
    found = read_sound(written(expected, kind=kind, subtype=subtype), RATE, 60)
    assert abs(len(found) - len(expected)) < 2500
    # A lossy one may begin with some samples of its own, so it is laid upon the expected sound.
    shift = 0
    if kind == "MP3":
        products = np.correlate(found[:6000], expected[2000:5000])
        shift = int(products.argmax()) - 2000
    length = min(len(found), len(expected)) - 3000
    one, other = found[2000 + shift : length + shift], expected[2000:length]
    assert np.abs(one - other).mean() < tolerance


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_another_rate_is_the_same_sound(rate: int) -> None:
    found = read_sound(written(tone(rate=rate), rate), RATE, 60)
    expected = tone()
    assert abs(len(found) - len(expected)) <= 2
    inner = slice(500, len(expected) - 500)
    np.testing.assert_allclose(found[inner], expected[inner], atol=2e-3)


def test_channels_are_averaged() -> None:
    both = np.stack([tone(), tone(880)], 1)
    found = read_sound(written(both, subtype="FLOAT"), RATE, 60)
    np.testing.assert_allclose(found, both.mean(1), atol=1e-6)


def test_a_long_one_is_cut_and_counted() -> None:
    outcome = EncodingReport("it", "audio")
    data = written(noise(5, 8_000), 8_000)
    found = read_sound(data, RATE, 2, outcome)
    assert len(found) == pytest.approx(2 * RATE, abs=2)
    assert list(outcome.counts) == ["sounds of more than 0.0333333 minutes, cut"]
    whole = read_sound(data, RATE, 60)
    np.testing.assert_allclose(found[:-200], whole[: len(found) - 200], atol=1e-6)


def wav(channels: int, rate: int, size: int, content: bytes) -> bytes:
    """A WAV file of 16 bits whose header says what it wants."""
    form = struct.pack("<HHIIHH", 1, channels, rate, 2 * rate * channels % 2**32, 2 * channels, 16)
    data = b"data" + struct.pack("<I", size) + content
    return b"RIFF" + struct.pack("<I", 36 + size & 0xFFFFFFFF) + b"WAVEfmt \x10\0\0\0" + form + data


def quiet(level: float) -> bytes:
    return written(tone(loud=level), subtype="FLOAT")


def holed() -> bytes:
    sound = tone()
    sound[500] = np.nan
    return written(sound, subtype="FLOAT")


SAMPLES = (tone() * 32767).astype("<i2").tobytes()
BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.wav": (lambda: b"", "an empty file"),
    "text.mp3": (lambda: b"This is no sound, whatever its name says.\n" * 100, "no sound|broken"),
    "page.wav": (lambda: b"<!DOCTYPE html><html></html>", "no sound"),
    "noise.bin": (lambda: np.random.default_rng(0).bytes(5000), "no sound|broken"),
    "silent.wav": (lambda: quiet(0), "is silent"),
    "quiet.wav": (lambda: quiet(5e-4), "is silent: its loudest sample is below 0.001"),
    "holed.wav": (holed, "no numbers"),
    "nothing.wav": (lambda: wav(1, RATE, 0, b""), "no samples|broken"),
    "mute.wav": (lambda: wav(0, RATE, 100, bytes(100)), "broken|no sound"),
    "slow.wav": (lambda: wav(1, 3, len(SAMPLES), SAMPLES), "says it has 3 samples a second"),
    "still.wav": (lambda: wav(1, 0, len(SAMPLES), SAMPLES), "samples a second|broken"),
    "fast.wav": (lambda: wav(1, 2**31 - 1, len(SAMPLES), SAMPLES), "samples a second|broken"),
    "many.wav": (lambda: wav(500, RATE, len(SAMPLES), SAMPLES), "says it has 500 channels"),
    "header.flac": (lambda: written(tone(), kind="FLAC")[:60], "no samples|broken"),
    "header.ogg": (lambda: written(tone(), kind="OGG")[:100], "no samples|broken|no sound"),
    "heavy.wav": (lambda: bytes(20_000_001), "has 20.0 MB; the limit is 20 MB"),
    "old.voc": (lambda: written(tone(), kind="VOC"), "of the format VOC"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ones_have_a_reason(name: str) -> None:
    content, reason = BROKEN[name]
    with pytest.raises(UnusableItem, match=reason) as caught:
        read_sound(content(), RATE, 60)
    assert "\n" not in str(caught.value)


def test_a_header_that_promises_too_much_is_not_believed() -> None:
    found = read_sound(wav(1, RATE, 2**32 - 40, SAMPLES), RATE, 6000)
    assert len(found) == pytest.approx(RATE, abs=2)


def test_a_truncated_one_is_what_it_holds_or_has_a_reason() -> None:
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        data = written(noise(3), kind=kind)
        with suppress(UnusableItem):
            assert 0 < len(read_sound(data[: len(data) // 2], RATE, 60)) < 3 * RATE


# -- statistics ------------------------------------------------------------------------------------


def test_bands_are_those_of_another_implementation() -> None:
    utils = pytest.importorskip("transformers.audio_utils", reason="transformers is not there")
    expected = utils.mel_filter_bank(FFT // 2 + 1, MELS, 0, RATE / 2, RATE, None, "htk")
    np.testing.assert_allclose(mel_bands().numpy(), expected, atol=1e-5)
    assert (mel_bands().sum(0) > 0).all()


def test_levels_equal_a_naive_loop() -> None:
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
    found = log_mel(torch.from_numpy(sound))
    np.testing.assert_allclose(found.numpy(), np.array(expected), rtol=1e-3, atol=1e-3)
    stats = statistics(found).numpy()
    levels = np.array(expected)
    wanted = [levels.mean(0), levels.std(0), np.abs(np.diff(levels, axis=0)).mean(0)]
    np.testing.assert_allclose(stats, np.concatenate(wanted), rtol=2e-3, atol=2e-3)
    assert stats.shape == (WIDTH,)


def test_pages_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = torch.from_numpy(noise(1))
    whole = log_mel(sound)
    monkeypatch.setattr(sounds, "PAGE", 7)
    torch.testing.assert_close(log_mel(sound), whole, rtol=1e-4, atol=1e-4)


def test_a_tone_is_loudest_in_its_band() -> None:
    for frequency in (200, 1000, 4000):
        levels = log_mel(torch.from_numpy(tone(frequency))).mean(0)
        mel = 2595 * math.log10(1 + frequency / 700)
        step = 2595 * math.log10(1 + RATE / 2 / 700) / (MELS + 1)
        assert abs(int(levels.argmax()) - (mel / step - 1)) <= 1


def test_even_a_click_has_statistics() -> None:
    click = torch.zeros(10)
    click[3] = 0.5
    found = statistics(log_mel(click))
    assert found.shape == (WIDTH,)
    assert torch.isfinite(found).all()
    assert (found[MELS:] == 0).all()


# -- the modality ----------------------------------------------------------------------------------


def test_a_folder_of_sounds(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    (folder / "two").mkdir(parents=True)
    for name, frequency in (("one", 300), ("two/a", 300), ("two/b", 3000), ("three", 3000)):
        (folder / f"{name}.flac").write_bytes(written(tone(frequency), kind="FLAC"))
    for name in ("empty.wav", "silent.wav", "text.mp3", "many.wav"):
        (folder / name).write_bytes(BROKEN[name][0]())
    (folder / "a stranger.wav").write_bytes(written(tone()))
    names = ["one", "two", "three", "empty", "silent", "text", "many"]
    table: dict[str, Any] = {"kind": "audio", "paths": ["sounds"]}
    made = make(tmp_path, names, **table)
    assert list(made.vectors) == ["one", "two", "three"]
    assert set(made.reasons) == {"empty.wav", "silent.wav", "text.mp3", "many.wav"}
    assert made.outcome.strange == ["a stranger"]
    assert made.outcome.width == WIDTH
    assert (made.outcome.encoded, made.outcome.shared) == (2, 2)
    assert made.outcome.counts == {"entities with several sounds, averaged": 1}
    assert made.metadata["encoder"].startswith("log-mel")
    ends = made.vectors["one"].astype(np.float32) + made.vectors["three"].astype(np.float32)
    np.testing.assert_allclose(made.vectors["two"], ends / 2, rtol=2e-3, atol=2e-3)
    again = make(tmp_path, names, **table)
    assert (again.outcome.encoded, again.outcome.reused) == (0, 4)
    np.testing.assert_array_equal(again.vectors["two"], made.vectors["two"])


def test_sounds_that_a_table_lists(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(written(noise()))
    (tmp_path / "list.tsv").write_text("a\tx.wav\nb\tnothing.wav\nc\thttps://example.org/x.wav\n")
    made = make(tmp_path, ["a", "b", "c"], kind="audio", paths=["list.tsv"])
    assert list(made.vectors) == ["a"]
    reasons = [failure.reason for failure in made.outcome.failures]
    assert "there is no file" in reasons[0]
    assert "nothing is fetched" in reasons[1]


def test_alike_sounds_are_near() -> None:
    engine = LogMelEngine(1)
    outcome = EncodingReport("it", "audio")

    def vector(sound: Any) -> Any:
        return engine.prepare(written(sound), outcome)

    first, second = vector(noise(seed=1)), vector(noise(seed=2))
    other = vector(tone(440))
    assert np.linalg.norm(first - second) < 0.2 * np.linalg.norm(first - other)


@pytest.mark.parametrize(
    "settings", [{"minutes": 0.0}, {"minutes": 500.0}, {"seconds": 0.1}, {"seconds": 100.0}]
)
def test_settings_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        encoder_of({"kind": "audio", "paths": ["x"], **settings}, "encode.it")


@pytest.mark.parametrize("missing", ["soundfile", "soxr"])
def test_a_missing_library_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == missing:
            raise ImportError(f"No module named {missing!r}")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r'pip install "mocme\[audio\]"'):
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
        warnings.simplefilter("ignore")  # it warns of bands that are empty by its own settings
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
def test_models_give_what_the_library_gives(tmp_path: Path, kind: Any) -> None:
    name, model, settings = saved(kind, tmp_path)
    rate = settings.sampling_rate
    engine = loaded(name)
    sound = noise(3, rate)
    found = engine.encode(
        [engine.prepare(written(sound, rate, subtype="FLOAT"), EncodingReport("", ""))]
    )
    inputs = settings(sound, sampling_rate=rate, return_tensors="pt")
    with torch.inference_mode():
        if kind is clap:
            expected = model.get_audio_features(**inputs)
            expected = getattr(expected, "pooler_output", expected)
        else:
            expected = model(**inputs).last_hidden_state.mean(1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)
    assert engine.width == expected.shape[1]


def test_windows_of_a_long_sound_are_averaged(tmp_path: Path) -> None:
    name, *_ = saved("Wav2Vec2", tmp_path)
    engine = loaded(name, seconds=2.0)
    sound = noise(5.5)  # two windows and a half, and half a second more
    outcome = EncodingReport("it", "audio")
    ready = [
        engine.prepare(written(part, subtype="FLOAT"), outcome)
        for part in (sound, sound[: 2 * RATE], sound[2 * RATE : 4 * RATE], sound[4 * RATE :])
    ]
    assert ready[0].lengths == [2 * RATE, 2 * RATE, RATE * 3 // 2]
    whole, *parts = engine.encode(ready)
    expected = (2 * parts[0] + 2 * parts[1] + 1.5 * parts[2]) / 5.5
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-5)
    # What is beside it in a batch changes nothing.
    np.testing.assert_allclose(engine.encode(ready[:1])[0], whole, rtol=1e-4, atol=1e-5)
    short = engine.prepare(written(sound[: 4 * RATE + 100]), outcome)
    assert len(short.windows) == 2


def test_a_click_is_long_enough(tmp_path: Path) -> None:
    name, *_ = saved("Wav2Vec2", tmp_path)
    engine = loaded(name)
    ready = engine.prepare(written(tone(seconds=0.002)), EncodingReport("it", "audio"))
    assert np.isfinite(engine.encode([ready])).all()


def test_a_folder_of_sounds_by_a_model(tmp_path: Path) -> None:
    name, *_ = saved("Hubert", tmp_path)
    (tmp_path / "sounds").mkdir()
    for place in range(6):
        (tmp_path / "sounds" / f"e{place}.wav").write_bytes(
            written(noise(1 + place / 4, seed=place))
        )
    names = [f"e{place}" for place in range(7)]
    made = make(tmp_path, names, kind="audio", paths=["sounds"], model=name)
    assert list(made.vectors) == names[:6]
    assert made.outcome.width == 16
    assert made.metadata["encoder_revision"].startswith("sha256")


def test_models_that_do_not_fit(tmp_path: Path) -> None:
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
