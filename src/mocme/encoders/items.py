"""What the readers of single items share; imports no torch, so that a decoding process is small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UnusableItem(ValueError):
    """A text or file that cannot be encoded; the message gives the reason."""


def check_size(size: int, max_bytes: int) -> None:
    """Refuse files of more than `max_bytes` bytes.

    Raises:
        UnusableItem: `size` is more.
    """
    if size > max_bytes:
        raise UnusableItem(f"has {size / 1e6:,.1f} MB; the limit is {max_bytes / 1e6:,.0f} MB")


@contextmanager
def extra(package: str, name: str) -> Iterator[None]:
    """Turn a missing package into an error that names the extra to install.

    Raises:
        ValueError: `package` is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f'{package} is not installed; install it with: pip install "mocme[{name}]" ({error})'
        ) from error
