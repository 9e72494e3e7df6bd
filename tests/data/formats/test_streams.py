"""Streams give the same bytes in chunks of any size, compressed or not, and notice any loss."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from mocme.data.formats import streams, tsv
from mocme.data.formats.registry import FORMATS, format_of
from mocme.data.formats.report import Report
from mocme.data.formats.writers import atomic_file

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


ENCODINGS = {
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "utf-32-le": b"\xff\xfe\0\0",
    "utf-32-be": b"\0\0\xfe\xff",
}
UNICODE = "".join(f"名{n}\tr\t\U0001f600 é{n}\r\n" for n in range(20_000))


@packed
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_other_encodings_are_read_by_their_byte_order_mark(
    tmp_path: Path, pack: Pack, encoding: str
) -> None:
    path = tmp_path / "facts.tsv"
    path.write_bytes(pack(ENCODINGS[encoding] + UNICODE.encode(encoding)))
    data, report = content(path)
    assert data.decode() == UNICODE
    assert report.encoding == encoding
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"read as {encoding.upper()}" in str(report)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", [TEXT.decode(), "北京\t首都\t中国\n" * 3, "h,r,t\n", "a\tr\tb"])
def test_other_encodings_without_a_mark_are_refused(
    tmp_path: Path, encoding: str, text: str
) -> None:
    path = tmp_path / "facts.tsv"
    path.write_bytes(text.encode(encoding))
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    with pytest.raises(ValueError, match=rf"facts.tsv: seems to be {name}.*iconv -f {name} -t"):
        content(path)


@pytest.mark.parametrize(
    "data",
    [b"a\0b\tr\tt\n", b"\0\n", b"\0", b"", b"a\tr\tb\n" * 9 + b"\0" * 9, streams.BOM + b"a\0\n\0"],
)
def test_null_characters_in_utf_8_are_no_other_encoding(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "facts.tsv"
    path.write_bytes(data)
    assert content(path)[0] == data


def test_damage_in_other_encodings_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "facts.tsv"
    path.write_bytes(b"\xff\xfe" + "a\tr\tb\nc\tr\t".encode("utf-16-le") + b"\x00\xd8\n\0")
    table = tsv.read(path, 3)
    assert table.rows == [("a", "r", "b")]
    assert [(r.line, r.reason) for r in table.report.rejects] == [(2, "not valid UTF-8")]
    for data in (b"\xff\xfea\0b", b"\xff\xfe\0\0\xff\xff\xff\xff"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"facts.tsv: cannot be read to its end \(not valid"):
            content(path)


@packed
@pytest.mark.parametrize("size", [1000, 1 << 24])
def test_a_line_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Pack, size: int
) -> None:
    monkeypatch.setattr(streams, "LONGEST_LINE", 1 << 16)
    path = tmp_path / "facts.tsv"
    for length, fits in [((1 << 16) - 10, True), (3 << 16, False)]:
        path.write_bytes(pack(b"a\tr\tb\n" * 5 + b"x" * length + b"\tr\tt\na\tr\tb\n"))
        report = Report(str(path))
        with streams.open_stream(path, report) as file:
            if fits:
                assert sum(len(b.lines) for b in tsv.blocks(file, 3, report, size)) == 7
                continue
            with pytest.raises(ValueError, match=r"facts.tsv: line \d+: is longer than"):
                list(tsv.blocks(file, 3, report, size))


@pytest.mark.parametrize("pack", [gz, zstd], ids=["gzip", "Zstandard"])
def test_memory_does_not_depend_on_the_compression(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "facts.tsv"
    path.write_bytes(pack(bytes(120 << 20)))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(ValueError, match="line 1: is longer than 16 MiB"):
        tsv.read(path, 3)
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("ending", [name for known in FORMATS for name in known.endings[:1]])
def test_only_regular_files_are_read(tmp_path: Path, ending: str) -> None:
    pipe, zero = tmp_path / f"pipe{ending}", tmp_path / f"zero{ending}"
    os.mkfifo(pipe)
    zero.symlink_to("/dev/zero")
    for path in (pipe, zero):
        if format_of(path).readable:
            with pytest.raises(ValueError, match="and a regular file is needed; check the path"):
                list(format_of(path).facts(path, Report(str(path))))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = tmp_path / f"x.tsv{ending}", b"a\tr\tb\n" * 500_000
    with atomic_file(path) as file:
        file.write(text)
    with streams.open_stream(path, Report(str(path))) as content:
        assert content.read() == text
    monkeypatch.setattr("mocme.data.formats.streams.ALWAYS", 1 << 16)
    with (
        pytest.raises(ValueError, match=r"more than 200 times its size.*decompress it first"),
        streams.open_stream(path, Report(str(path))) as content,
    ):
        content.read()
