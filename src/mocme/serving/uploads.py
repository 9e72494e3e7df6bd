"""Uploaded pictures, stored until an entity is created with them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import final

from mocme.core.deadline import Check, unlimited
from mocme.encoders.image_io import MAX_BYTES, MAX_PIXELS
from mocme.encoders.items import UnusableItem
from mocme.serving.limits import Limits
from mocme.serving.picture_process import PictureProcess
from mocme.serving.refusals import Refusal


@final
class ImageUploads:
    """A folder of pictures, shared by all processes of a server.

    A picture's id is the SHA-256 of its bytes. Beyond the limits, the least recently used pictures
    are deleted.

    Args:
        folder: an existing folder with nothing else in it.

    Attributes:
        folder: as given.
    """

    def __init__(self, folder: Path, limits: Limits = Limits()) -> None:
        self.folder, self._limits = folder, limits
        self._decoder = PictureProcess(limits.picture_seconds, limits.picture_memory)

    def start(self) -> None:
        """Start the process that decodes pictures, before the first is sent."""
        self._decoder.start()

    def close(self) -> None:
        """End the process that decodes pictures."""
        self._decoder.close()

    def store(self, data: bytes, check: Check = unlimited) -> str:
        """Check that an encoder can read a picture, store it, and return its id.

        Args:
            check: called while it is decoded; what it raises ends the work.

        Raises:
            Refusal: 422, the data is not a usable picture.
            OSError: it cannot be written.
        """
        try:
            self._decoder.check(data, check)
        except UnusableItem as error:
            raise Refusal(
                422,
                "no_picture",
                f"the picture cannot be used: {error}",
                f"send a complete JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF of at most "
                f"{MAX_BYTES // 1_000_000} MB and {MAX_PIXELS // 1_000_000} megapixels",
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(temporary, self.folder / digest)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._evict()
        return digest

    def find(self, id: str) -> Path:
        """Return the path of a stored picture, and mark it as used.

        Raises:
            LookupError: no such picture is stored, or it was deleted.
        """
        path = self.folder / id
        try:
            os.utime(path)
        except FileNotFoundError:
            raise LookupError(
                f"there is no picture {id!r} (any more); send it again: POST /v1/pictures"
            ) from None
        return path

    def _evict(self) -> None:
        """Delete pictures beyond the limits, the least recently used first."""
        files = []
        for path in self.folder.iterdir():
            try:
                stat = path.stat()
            except FileNotFoundError:  # deleted by another process meanwhile
                continue
            files.append((stat.st_mtime_ns, stat.st_size, path))
        total = 0
        for count, (_, size, path) in enumerate(sorted(files, reverse=True), 1):
            total += size
            if count > self._limits.stored_pictures or total > self._limits.stored_bytes:
                path.unlink(missing_ok=True)
