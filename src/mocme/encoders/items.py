"""What the readers of single items share; imports no torch, so that a decoding process is small."""

from __future__ import annotations

from mocme.core.extras import extra as extra


class UnusableItem(ValueError):
    """A text or file that cannot be encoded; the message gives the reason."""


def check_size(size: int, max_bytes: int) -> None:
    """Refuse files of more than `max_bytes` bytes.

    Raises:
        UnusableItem: `size` is more.
    """
    if size > max_bytes:
        raise UnusableItem(f"has {size / 1e6:,.1f} MB; the limit is {max_bytes / 1e6:,.0f} MB")
