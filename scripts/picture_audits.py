"""Audit graphs and photograph the pages: docs/audit-*.png.

Usage: python scripts/picture_audits.py DATA docs DB15K MKG-W ...    (needs chromium and Pillow)

DATA is a folder that holds the graphs by name. Of each page the upper part is taken.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from mocme.audit.audit import audit
from mocme.audit.page import write_page

WIDTH, HEIGHT = 900, 1250


def picture(data: Path, out: Path) -> None:
    """The page of one graph as a PNG of few colours, which is what it has."""
    with tempfile.TemporaryDirectory() as name:
        page, shot = Path(name) / "page.html", Path(name) / "page.png"
        write_page(audit(data), page)
        subprocess.run(
            [
                *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--screenshot={shot}", f"--window-size={WIDTH},{HEIGHT}", page.as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        with Image.open(shot) as image:
            image.convert("RGB").quantize(64).save(out, optimize=True)


if __name__ == "__main__":
    folder, target, *names = sys.argv[1:]
    for graph in names:
        picture(Path(folder) / graph, Path(target) / f"audit-{graph.lower()}.png")
