"""Pictures by matplotlib: imported when one is drawn, and the same picture makes the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def new_figure(out: Path, **settings: Any) -> Any:
    """A figure for a file, with the settings of matplotlib's `Figure`.

    Raises:
        ImportError: matplotlib is not installed, with how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"{out}: pictures need matplotlib; install it with: pip install 'mocme[pictures]'"
        ) from error
    return Figure(**settings)


def save(figure: Any, out: Path, salt: str, **settings: Any) -> None:
    """Write a figure; its folder is made.

    Args:
        salt: of the names that a vector graphic gives its parts: the picture's own name.
        settings: of matplotlib's `savefig`.
    """
    import matplotlib

    out.parent.mkdir(parents=True, exist_ok=True)
    undated = {"Date": None} if out.suffix in (".svg", ".pdf") else None
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(out, dpi=130, metadata=undated, **settings)
