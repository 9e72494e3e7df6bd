"""Tables of text cells: in a terminal, as plain text and as HTML; columns as a data frame."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final

from mocme.core.extras import MissingLibrary
from mocme.core.text import visible

if TYPE_CHECKING:
    import pandas
    from rich.table import Table
    from rich.text import Text

# Wide enough for every table: no cell is wrapped.
UNLIMITED = 1_000_000


@final
@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        wrap: whether cells may be wrapped where the width is limited.
    """

    title: str = ""
    align: Literal["left", "right"] = "left"
    wrap: bool = True


@final
@dataclass(frozen=True)
class TextTable:
    """Rows of text cells. Cells are plain text: neither markup nor HTML in them has an effect.

    Attributes:
        rows: one cell for each column. A cell may have several lines.
        title: shown above the table.
        caption: shown below the table in a terminal; plain text and HTML leave it out.
        row_lines: whether rows are separated by lines in a terminal.
        title_align: in a terminal; it is on the left in plain text.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    title: str = ""
    caption: str = ""
    row_lines: bool = False
    title_align: Literal["left", "center"] = "center"

    def __rich__(self) -> Table:
        """Render with a box, for `rich.console.Console.print`."""
        return self._layout(
            title=_plain(self.title) if self.title else None,
            caption=_plain(self.caption) if self.caption else None,
            title_justify=self.title_align,
            show_lines=self.row_lines,
        )

    def text(self, width: int | None = None, header: bool = True) -> str:
        """Render as plain text without a box, the title as the first line.

        Args:
            width: number of terminal cells; longer rows are wrapped. Unlimited by default.
            header: whether to show the titles of the columns.
        """
        from rich.console import Console

        console = Console(
            file=io.StringIO(),
            width=width or UNLIMITED,
            color_system=None,
            force_terminal=False,
            force_jupyter=False,
        )
        layout = self._layout(
            box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=header and bool(self.rows)
        )
        with console.capture() as capture:
            console.print(layout)
        lines = [line.rstrip() for line in capture.get().splitlines()] if self.rows else []
        return "\n".join([visible(self.title), *lines] if self.title else lines)

    def html(self) -> str:
        """Render as an HTML table; all texts are escaped."""
        caption = f"<caption>{_escape(self.title)}</caption>" if self.title else ""
        header = _html_row("th", [column.title for column in self.columns])
        return (
            f"<table>{caption}{header}{''.join(_html_row('td', row) for row in self.rows)}</table>"
        )

    def _layout(self, **settings: Any) -> Table:
        from rich.table import Table

        table = Table(**settings)
        for column in self.columns:
            table.add_column(
                _plain(column.title),
                justify=column.align,
                overflow="fold",  # break a word that is longer than its column, do not cut it
                no_wrap=not column.wrap,
            )
        for row in self.rows:
            table.add_row(*map(_plain, row))
        return table


def columns(*titles: str, right: Sequence[str] = ()) -> list[Column]:
    """Columns by title; those in `right` are aligned to the right."""
    return [Column(title, "right" if title in right else "left") for title in titles]


def data_frame(values: Mapping[str, Sequence[Any]]) -> pandas.DataFrame:
    """A data frame of columns by name.

    Raises:
        MissingLibrary: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingLibrary(
            "a data frame needs pandas, which is not installed; run: pip install pandas"
        ) from error
    return pandas.DataFrame(dict(values))


def _plain(text: str) -> Text:
    """A text without markup, and with control characters as escapes; line ends stay."""
    from rich.text import Text

    return Text(visible(text, keep="\n"))


def _html_row(tag: Literal["th", "td"], cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _escape(text: str) -> str:
    return html.escape(visible(text.replace("\n", " ")))
