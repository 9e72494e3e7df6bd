"""Archives are unpacked into their folder, or not at all."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import shutil
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mocme.data.benchmarks.archive import is_archive, unpack

FILES = {"train.txt": b"a\tr\tb\n" * 1000, "deep/er/x.txt": b"", "deep/y.txt": bytes(range(256))}


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o4777
    return info


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return sink.getvalue()


def good_tar() -> bytes:
    folder = member("./deep/", tarfile.DIRTYPE)
    return tar((folder, b""), *((member(name), data) for name, data in FILES.items()))


def good_zip() -> bytes:
    return zipped(("deep/", b""), *FILES.items())


GOOD: dict[str, Callable[[], bytes]] = {
    "x.tar": good_tar,
    "x.tar.gz": lambda: gzip.compress(good_tar()),
    "x.tar.xz": lambda: lzma.compress(good_tar()),
    "x.tar.bz2": lambda: bz2.compress(good_tar()),
    "x.zip": good_zip,
}


def put(folder: Path, data: bytes) -> Path:
    path = folder / "archive"
    path.write_bytes(data)
    return path


def refused(folder: Path, data: bytes, why: str, **limits: float) -> None:
    """Check that unpacking fails for a reason and leaves nothing in or next to its folder."""
    room = folder / "room"
    room.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=why):
        unpack(put(folder, data), room / "out", **limits)  # type: ignore[arg-type]
    assert list(room.iterdir()) == []
    assert {path.name for path in folder.iterdir()} == {"room", "archive"}


@pytest.mark.parametrize("name", GOOD)
def test_every_kind_unpacks(tmp_path: Path, name: str) -> None:
    names = unpack(put(tmp_path, GOOD[name]()), tmp_path / "new" / "out")
    assert sorted(names) == sorted(FILES)
    out = tmp_path / "new" / "out"
    files = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert files == FILES
    assert not any(path.stat().st_mode & 0o7111 for path in out.rglob("*") if path.is_file())
    assert list((tmp_path / "new").iterdir()) == [out]
    assert is_archive(name)
    assert not is_archive("train.txt")


def test_zstandard_unpacks(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    data = zstandard.ZstdCompressor().compress(good_tar())
    assert sorted(unpack(put(tmp_path, data), tmp_path / "out")) == sorted(FILES)
    (tmp_path / "other").mkdir()
    refused(tmp_path / "other", data[:-20], "cannot be unpacked")


OUTSIDE = [
    "/etc/x",
    "../x",
    "a/../../x",
    "a/..",
    "\\x",
    "..\\x",
    "a\\..\\x",
    "C:x",
    "c:/x",
    "a/C:x",
]
CONTROL = ["a\nb", "a\x1b[2J", "//host/x"]


@pytest.mark.parametrize("name", [*OUTSIDE, *CONTROL])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    why = "could lead out of its folder|a name with a drive letter"
    refused(tmp_path, tar((member("ok"), b"1"), (member(name), b"x")), why)
    refused(tmp_path, tar((member(name, tarfile.DIRTYPE), b"")), why)
    refused(tmp_path, zipped(("ok", b"1"), (name, b"x")), why)


def test_a_name_with_a_null_byte_is_refused(tmp_path: Path) -> None:
    data = zipped(("evil_x", b"1")).replace(b"evil_x", b"evil\0x")
    refused(tmp_path, data, "could lead out|cannot be unpacked")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "ok"),
        (tarfile.LNKTYPE, "../archive"),
        (tarfile.LNKTYPE, "ok"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (b"Z", ""),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    data = tar((member("ok"), b"1"), (member("x", kind, target), b""), (member("x/y"), b"2"))
    refused(
        tmp_path, data, "a link, device or sparse file|could not|cannot be unpacked|two members"
    )


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_in_a_zip_are_refused(tmp_path: Path, mode: int) -> None:
    info = zipfile.ZipInfo("x")
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    refused(tmp_path, zipped(("ok", b"1"), (info, b"/etc/passwd")), "a link or a device")


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped(("x", b"secret")))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    refused(tmp_path, bytes(data), "needs a password")


@pytest.mark.parametrize("names", [("x", "x"), ("x", "./x"), ("x", "x/y"), ("x/y", "x")])
def test_two_members_with_one_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    why = "holds two members named"
    refused(tmp_path, tar(*((member(name), b"1") for name in names)), why)
    if "./x" not in names and names[0] != names[1]:
        refused(tmp_path, zipped(*((name, b"1") for name in names)), why)


def test_size_is_limited_while_unpacking(tmp_path: Path) -> None:
    half = random.Random(0).randbytes(60_000)
    for data in (tar((member("a"), half), (member("b"), half)), zipped(("a", half), ("b", half))):
        refused(tmp_path, data, "more than the 100,000 bytes", limit_bytes=100_000, limit_files=10)
        assert unpack(put(tmp_path, data), tmp_path / "room" / "out", limit_bytes=150_000)
        shutil.rmtree(tmp_path / "room" / "out")


def test_the_ratio_is_limited_while_unpacking(tmp_path: Path) -> None:
    zeros = bytes(8 << 20)
    bombs = [zipped(("a", zeros)), gzip.compress(tar((member("a"), zeros)))]
    # After the end of the tar archive, so the content is not a member.
    bombs.append(gzip.compress(tar((member("a"), b"1")) + zeros))
    for bomb in bombs:
        refused(tmp_path, bomb, "more than 100 times its own size", limit_files=10)
    assert unpack(put(tmp_path, bombs[0]), tmp_path / "out", limit_ratio=2000.0) == ["a"]


def test_a_header_that_understates_its_size_does_not_help(tmp_path: Path) -> None:
    data = bytearray(zipped(("a", bytes(4 << 20))))
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 10)
    refused(tmp_path, bytes(data), "cannot be unpacked|times its own size")
    data[central + 24 : central + 28] = struct.pack("<I", 5 << 20)
    refused(tmp_path, bytes(data), "cannot be unpacked|times its own size", limit_ratio=1e6)


def test_the_number_of_files_is_limited(tmp_path: Path) -> None:
    names = [f"d{number}/" for number in range(11)]
    why = "holds more than 10 files"
    refused(tmp_path, zipped(*((name, b"") for name in names)), why, limit_files=10)
    folders = [(member(name, tarfile.DIRTYPE), b"") for name in names]
    refused(tmp_path, tar(*folders), why, limit_files=10)


@pytest.mark.parametrize("name", GOOD)
def test_a_truncated_archive_leaves_nothing(tmp_path: Path, name: str) -> None:
    data = GOOD[name]()
    refused(tmp_path, data[: len(data) // 3], "cannot be unpacked")
    if name != "x.tar":  # whose end is padding
        refused(tmp_path, data[:-5], "cannot be unpacked")


@pytest.mark.parametrize("name", GOOD)
def test_damage_is_an_error_or_harmless(tmp_path: Path, name: str) -> None:
    good = GOOD[name]()
    source = random.Random(name)
    for number in range(30):
        data = bytearray(good)
        for _ in range(source.randint(1, 4)):
            data[source.randrange(len(data))] = source.randrange(256)
        out = tmp_path / "room" / str(number)
        try:
            unpack(put(tmp_path, bytes(data)), out)
        except ValueError:
            assert not out.exists()
        assert {path.name for path in tmp_path.iterdir()} == {"archive", "room"}


def test_a_file_that_is_not_an_archive_is_an_error(tmp_path: Path) -> None:
    refused(tmp_path, b"<html>", "neither a zip nor a tar")
    refused(tmp_path, b"", "neither a zip nor a tar")
    refused(tmp_path, gzip.compress(b"text"), "cannot be unpacked")


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="out: exists"):
        unpack(put(tmp_path, good_zip()), tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="link: exists"):
        unpack(put(tmp_path, good_zip()), tmp_path / "link")
    with pytest.raises(ValueError, match=r"absent: cannot be unpacked \(No such file"):
        unpack(tmp_path / "absent", tmp_path / "new")
