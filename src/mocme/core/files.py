"""Input files: regular files only, and small text files with bounds on size and nesting."""

from __future__ import annotations

import codecs
import io
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from mocme.core.text_formats import parse_toml

# Bytes of a TOML file; the largest that a person writes has a hundredth of them.
TOML_BYTES = 1 << 22
# Byte order marks and the encodings that they name. UTF-32 comes first: the mark of UTF-16 with the
# low byte first is the start of that of UTF-32.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: str | Path) -> io.FileIO:
    """Open a regular file, or a link to one, to read its bytes.

    A pipe would wait for its writer, and a device such as ``/dev/zero`` has no end.

    Raises:
        ValueError: it is not a regular file, or cannot be read; the message names it.
    """
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r}: is not a path, for it holds a null character; check it")
    try:
        _check_regular(path, os.stat(path))
        # A pipe may have taken the file's place since; opened this way it does not wait.
        descriptor = os.open(path, os.O_RDONLY | _flag("O_NONBLOCK") | _flag("O_BINARY"))
        file = io.FileIO(descriptor, "rb")
        try:
            _check_regular(path, os.fstat(descriptor))
        except ValueError:
            file.close()
            raise
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return file


def check_regular(path: str | Path) -> None:
    """Refuse a path that a library would open by itself, unless `open_regular` opens it.

    Raises:
        ValueError: as of `open_regular`.
    """
    open_regular(path).close()


def read_toml(path: str | Path) -> dict[str, Any]:
    """The table of a TOML file. A byte order mark at its start is dropped.

    Raises:
        ValueError: the file cannot be read, is larger than `TOML_BYTES`, or is not TOML.
    """
    with open_regular(path) as file:
        data = file.read(TOML_BYTES + 1)
    if len(data) > TOML_BYTES:
        raise ValueError(
            f"{path}: is larger than {TOML_BYTES >> 20} MiB, which no TOML file of settings is; "
            f"check the path"
        )
    try:
        return parse_toml(_decode(data))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error


def marked_encoding(start: bytes) -> tuple[bytes, str]:
    """The byte order mark at the start of some text, and the encoding; two empty values if none."""
    return next(((mark, name) for mark, name in MARKS if start.startswith(mark)), (b"", ""))


def _decode(data: bytes) -> str:
    mark, encoding = marked_encoding(data)
    return data[len(mark) :].decode(encoding or "utf-8")


def _check_regular(path: str | Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for test, kind in _KINDS if test(status.st_mode)), "something else")
        hint = ", or pipe it in and give - for standard input" if kind == "a pipe" else ""
        raise ValueError(f"{path}: is {kind}, and a regular file is needed; check the path{hint}")


def _flag(name: str) -> int:
    """A flag of `os.open`, 0 on systems that do not have it."""
    return int(getattr(os, name, 0))
