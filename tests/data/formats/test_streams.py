"""Streams give the same bytes in chunks of any size, compressed or not, and notice any loss."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from mocme.data.formats import streams, tsv
from mocme.data.formats.report import Report

TEXT = "".join(f"e{n % 97}\tr{n % 5}\tname {n}\n" for n in range(3000)).encode()
Pack = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


PACKERS: dict[str, Pack] = {"plain": bytes, "gzip": gz, "Zstandard": zstd}
packed = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)


def content(path: Path | str) -> tuple[bytes, Report]:
    report = Report(str(path))
    with streams.open_stream(path, report) as file:
        data = file.read()
    return data, report


@packed
def test_content_and_digest(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "any name"
    path.write_bytes(pack(TEXT))
    data, report = content(path)
    assert data == TEXT
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("pack", [gz, zstd], ids=["gzip", "Zstandard"])
def test_consecutive_frames_are_one_file(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "frames"
    path.write_bytes(pack(TEXT) + pack(b"") + pack(b"last\tr\tt\n"))
    assert content(path)[0] == TEXT + b"last\tr\tt\n"


@pytest.mark.parametrize("pack", [gz, zstd], ids=["gzip", "Zstandard"])
def test_a_compressed_file_that_ends_early_or_is_damaged_is_an_error(
    tmp_path: Path, pack: Pack
) -> None:
    path, data = tmp_path / "facts.tsv", pack(TEXT)
    for keep in (len(data) // 2, len(data) - 1, 6):
        path.write_bytes(data[:keep])
        with pytest.raises(ValueError, match=r"facts.tsv: cannot be read to its end"):
            content(path)
    path.write_bytes(data[: len(data) // 2] + bytes(40) + data[len(data) // 2 + 40 :])
    with pytest.raises(ValueError, match=r"facts.tsv: cannot be read to its end"):
        content(path)


def test_the_digest_covers_bytes_that_were_not_requested(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(TEXT)
    report = Report("a")
    with streams.open_stream(path, report) as file:
        file.read(5)
    assert report.sha256 == hashlib.sha256(TEXT).hexdigest()


@packed
def test_standard_input(monkeypatch: pytest.MonkeyPatch, pack: Pack) -> None:
    class Input:
        buffer = io.BytesIO(pack(TEXT))

    monkeypatch.setattr("sys.stdin", Input)
    table = tsv.read("-", 3)
    assert len(table.rows) == 3000
    assert not Input.buffer.closed


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.tsv: cannot be read .*; check the path"):
        content(tmp_path / "none.tsv")


class Slow(io.BufferedIOBase):
    """Returns a few bytes at a time, as a pipe does."""

    def __init__(self, data: bytes, most: int) -> None:
        self.data, self.most = data, most

    def read(self, size: int = -1) -> bytes:
        part, self.data = self.data[: self.most], self.data[self.most :]
        return part


def test_chunks_end_with_lines_and_lose_nothing() -> None:
    source = random.Random(0)
    for trial in range(500):
        bom = streams.BOM if trial % 3 == 0 else b""
        data = b"".join(source.choices([b"\n", b"a", b"\r\n", b"\xef", b"bc"], k=trial % 40))
        file = Slow(bom + data, source.randrange(1, 9))
        report = Report("x")
        chunks = list(streams.line_chunks(file, report, source.randrange(1, 9)))
        assert b"".join(chunks) == data
        assert report.bom == bool(bom)
        assert all(chunk.endswith(b"\n") for chunk in chunks[:-1])
        assert all(chunks)


def test_rows_and_rejects_do_not_depend_on_the_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "facts.tsv"
    lines = TEXT.split(b"\n")
    for number, inserted in (
        (7, b"only two\tcells"),
        (1500, b""),
        (1501, b"# note"),
        (2800, b"\xff\t\t"),
    ):
        lines.insert(number, inserted)
    path.write_bytes(b"\n".join(lines))
    expected = tsv.read(path, 3)
    assert [reject.line for reject in expected.report.rejects] == [8, 2801]
    for size in (64, 1000, 30_000):
        monkeypatch.setattr(streams, "CHUNK", size)
        monkeypatch.setattr(streams.line_chunks, "__defaults__", (size,))
        assert tsv.read(path, 3) == expected
