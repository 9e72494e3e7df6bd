"""Pictures that were sent to the server, until an entity is made with them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import final

from mocme.encoders.base import UnusableItem
from mocme.encoders.image_io import BYTES, PIXELS, ImageShape, read_picture
from mocme.serving.limits import Limits
from mocme.serving.middleware import Refusal


@final
class ImageUploads:
    """A folder that all processes of a server share.

    A picture is named by the SHA-256 of its bytes. Where more would be kept than the limits
    allow, those go that were not used for longest.

    Args:
        folder: is there, and holds nothing else.
    """

    def __init__(self, folder: Path, limits: Limits = Limits()) -> None:
        self._folder, self._limits = folder, limits

    def keep(self, data: bytes) -> str:
        """Look at a picture as an encoder does, and keep it; gives its id.

        Raises:
            Refusal: 422, it is no picture that can be used.
            OSError: it cannot be kept.
        """
        try:
            read_picture(data, ImageShape())
        except UnusableItem as error:
            raise Refusal(
                422,
                "no_picture",
                f"the picture cannot be used: {error}",
                f"send a whole JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF of at most "
                f"{BYTES // 1_000_000} MB and {PIXELS // 1_000_000} megapixels",
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        descriptor, fresh = tempfile.mkstemp(prefix=".", dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(fresh, self._folder / digest)
        except OSError:
            Path(fresh).unlink(missing_ok=True)
            raise
        self._clear()
        return digest

    def find(self, id: str) -> Path:
        """The file of a picture.

        Raises:
            LookupError: it is not there (any more).
        """
        path = self._folder / id
        try:
            os.utime(path)
        except FileNotFoundError:
            raise LookupError(
                f"there is no picture {id!r} (any more); send it again: POST /v1/pictures"
            ) from None
        return path

    def _clear(self) -> None:
        """Take away what is beyond the limits, the oldest first."""
        found = []
        for path in self._folder.iterdir():
            try:
                about = path.stat()
            except FileNotFoundError:  # another process was quicker
                continue
            found.append((about.st_mtime_ns, about.st_size, path))
        number, size = 0, 0
        for _, own, path in sorted(found, reverse=True):
            number, size = number + 1, size + own
            if number > self._limits.pictures or size > self._limits.pictures_bytes:
                path.unlink(missing_ok=True)
