"""Plots by matplotlib: it is imported when a plot is drawn, and equal plots are equal files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mocme.core.extras import extra


def require_matplotlib(out: Path) -> None:
    """Check that a plot can be drawn, before the work for it.

    Raises:
        MissingLibrary: matplotlib is not installed; the message says how to install it.
    """
    with extra("matplotlib", "pictures", f"{out}: plots need"):
        import matplotlib.figure  # noqa: F401


def new_figure(out: Path, **settings: Any) -> Any:
    """Create a figure for a file, with the settings of matplotlib's `Figure`.

    Raises:
        MissingLibrary: matplotlib is not installed; the message says how to install it.
    """
    require_matplotlib(out)
    from matplotlib.figure import Figure

    return Figure(**settings)


def save(figure: Any, out: Path, salt: str, **settings: Any) -> None:
    """Write a figure, and create its folder.

    Args:
        salt: seed for the ids of elements in an SVG; the name of the plot, for instance.
        settings: of matplotlib's `savefig`.
    """
    import matplotlib

    out.parent.mkdir(parents=True, exist_ok=True)
    undated = {"Date": None} if out.suffix in (".svg", ".pdf") else None
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(out, dpi=130, metadata=undated, **settings)
