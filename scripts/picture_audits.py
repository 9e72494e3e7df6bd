"""Audit graphs and take screenshots of the pages: docs/audit-*.png.

Usage: python scripts/picture_audits.py DATA docs DB15K MKG-W ...    (needs chromium and Pillow)

DATA is the folder with the graphs. A screenshot shows the top of the page.
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
# The pages have few colours, so that a palette makes small files without visible loss.
COLOURS = 64


def screenshot(data: Path, out: Path) -> None:
    """Write the page of a graph's audit as a PNG."""
    with tempfile.TemporaryDirectory() as name:
        page, png = Path(name) / "page.html", Path(name) / "page.png"
        write_page(audit(data), page)
        subprocess.run(
            [
                *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--screenshot={png}", f"--window-size={WIDTH},{HEIGHT}", page.as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        with Image.open(png) as image:
            image.convert("RGB").quantize(COLOURS).save(out, optimize=True)


if __name__ == "__main__":
    folder, target, *names = sys.argv[1:]
    for graph in names:
        screenshot(Path(folder) / graph, Path(target) / f"audit-{graph.lower()}.png")
