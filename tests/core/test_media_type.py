"""The media type of a file by its first bytes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.core.media_type import HEAD_BYTES, media_type


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
        ("WEBP", "image/webp"),
    ],
)
def test_pictures(format: str, expected: str) -> None:
    image = pytest.importorskip("PIL.Image").new("RGB", (8, 6), (10, 20, 30))
    file = io.BytesIO()
    image.save(file, format)
    assert media_type(file.getvalue()[:HEAD_BYTES]) == expected


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("WAV", "audio/wav"),
        ("FLAC", "audio/flac"),
        ("OGG", "audio/ogg"),
        ("AIFF", "audio/aiff"),
        ("MP3", "audio/mpeg"),
    ],
)
def test_sounds(format: str, expected: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, [0.0, 0.1] * 800, 8000, format=format)
    assert media_type(file.getvalue()[:HEAD_BYTES]) == expected


@pytest.mark.parametrize(
    ("ending", "codec", "expected"),
    [
        ("mp4", "mpeg4", "video/mp4"),
        ("mov", "mpeg4", "video/quicktime"),
        ("mkv", "mpeg4", "video/x-matroska"),
        ("webm", "libvpx", "video/webm"),
        ("avi", "mpeg4", "video/x-msvideo"),
        ("mpg", "mpeg2video", "video/mpeg"),
        ("m4a", "aac", "audio/mp4"),
        ("aac", "aac", "audio/aac"),
    ],
)
def test_videos_and_containers(ending: str, codec: str, expected: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg does not write {codec}")
    numpy = pytest.importorskip("numpy")
    path = tmp_path / f"file.{ending}"
    options = {"format": "ipod"} if ending == "m4a" else {}
    with av.open(str(path), "w", **options) as container:
        if codec == "aac":
            stream = container.add_stream(codec, rate=8000)
            silence = numpy.zeros((1, 1024), numpy.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate = 8000
        else:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            black = numpy.zeros((32, 32, 3), numpy.uint8)
            frame = av.VideoFrame.from_ndarray(black, format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert media_type(path.read_bytes()[:HEAD_BYTES]) == expected


@pytest.mark.parametrize(
    "text",
    [
        '<svg xmlns="http://www.w3.org/2000/svg"/>',
        '<?xml version="1.0"?>\n<!-- a comment -->\n<svg>',
        '\ufeff  <!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd"><svg\n>',
    ],
)
def test_vector_graphics(text: str) -> None:
    assert media_type(text.encode()) == "image/svg+xml"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"root:x:0:0:root:/root:/bin/bash\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        b"SQLite format 3\x00",
        b"PK\x03\x04 an archive",
        b"%PDF-1.7",
        b"\x7fELF",
        b"<html><svg></svg></html>",
        b"<!DOCTYPE svg [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>",
        b"BM, a name that begins with these letters",
        b"RIFF, followed by something else",
        b"\xff\xfea text in UTF-16",
        "ÿû is a word".encode("latin-1") + b"\xff",
        b"GIF is a format",
        b"ID3 is a format of tags",
        b"OggS, but a text",
    ],
)
def test_other_files_are_no_media(head: bytes) -> None:
    assert media_type(head) is None


@given(st.text(max_size=200))
def test_a_text_is_no_media_unless_it_is_a_vector_graphic(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    if not data.startswith((b"GIF8", b"ID3")):
        assert media_type(data) in (None, "image/svg+xml")
