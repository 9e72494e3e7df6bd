"""Pictures, sounds and videos of entities, opened to be sent to a client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, final

from starlette.datastructures import Headers
from starlette.responses import FileResponse

from mocme.core.allowed_files import AllowedFolders, NotAllowed
from mocme.core.media_type import HEAD_BYTES, media_type

# Maximum size in bytes of a file that is sent.
MAX_FILE_BYTES = 100_000_000
# An SVG picture can contain scripts. The sandbox keeps files of the graph from running any.
SANDBOX = {"content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'"}


class NotShown(ValueError):
    """A file that is not sent to clients; the message is the reason, without the path."""


@final
@dataclass(frozen=True)
class MediaFile:
    """An open file and its media type by its content."""

    file: BinaryIO
    media_type: str

    @property
    def kind(self) -> str:
        """``image``, ``audio`` or ``video``."""
        return self.media_type.partition("/")[0]

    @staticmethod
    def open(path: Path, folders: AllowedFolders) -> MediaFile:
        """Open a file to send it.

        Every check is of the file that is open, so nothing can change between check and reading.

        Raises:
            NotShown: it lies outside of the folders, is not a picture, sound or video, or is too
                large.
            FileNotFoundError: there is none.
            OSError: it cannot be read.
        """
        try:
            file = folders.open(path)
        except NotAllowed as error:
            raise NotShown(
                "it is not a regular file in the graph's folder or in one that --files-from names"
            ) from error
        try:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise NotShown(f"it is larger than {MAX_FILE_BYTES:,} bytes")
            name = media_type(os.pread(file.fileno(), HEAD_BYTES, 0))
            if name is None:
                raise NotShown("its content is not a picture, sound or video of a known format")
        except BaseException:
            file.close()
            raise
        return MediaFile(file, name)


def describe(path: Path, folders: AllowedFolders) -> tuple[str, str]:
    """The kind of a file, and why it is not shown; the reason is empty if it is."""
    try:
        media = MediaFile.open(path, folders)
    except NotShown as reason:
        return "other", str(reason)
    except (OSError, ValueError):
        return "other", "it cannot be read"
    with media.file:
        return media.kind, ""


class MediaResponse(FileResponse):
    """Sends an open file, and closes it.

    A request for several ranges gets the whole file: players ask for one range at a time.
    """

    def __init__(self, media: MediaFile) -> None:
        self._file = media.file
        super().__init__(
            # The open file itself: its path could lead elsewhere by now.
            f"/dev/fd/{media.file.fileno()}",
            headers=SANDBOX,
            media_type=media.media_type,
            stat_result=os.fstat(media.file.fileno()),
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the file."""
        with self._file:
            await super().__call__(_one_range(scope), receive, send)


def _one_range(scope: Mapping[str, Any]) -> dict[str, Any]:
    """A request without a header that asks for several ranges."""
    if "," not in ",".join(Headers(raw=scope["headers"]).getlist("range")):
        return dict(scope)
    kept = [(name, value) for name, value in scope["headers"] if name.lower() != b"range"]
    return {**scope, "headers": kept}
