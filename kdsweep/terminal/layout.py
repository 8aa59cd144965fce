"""Lays tables out for a given width: columns are dropped by priority, and nothing that is copied is broken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAP = 2  # between columns
INDENT = 4  # of lines below a row
NARROWEST = 24  # of a column of prose


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Unique name, for choosing columns.
        title: Heading; may have several lines.
        cells: The text of each row. It is shown as it is: markup has no effect.
        left: Whether it is aligned to the left, as text; numbers are aligned to the right.
        wraps: Whether its lines may be broken between words. Keys and numbers are never broken.
    """

    name: str
    title: str
    cells: Sequence[str]
    left: bool = False
    wraps: bool = False

    @property
    def width(self) -> int:
        """Width without breaking lines."""
        return max(cell_len(line) for text in (self.title, *self.cells) for line in text.split("\n"))

    @property
    def least(self) -> int:
        """Smallest width at which it can be shown."""
        return min(self.width, NARROWEST) if self.wraps else self.width


def fitting(columns: Sequence[Column], drop: Iterable[str], width: int) -> list[Column] | None:
    """Drop columns until the others fit.

    Args:
        columns: All columns, from left to right.
        drop: Names of the columns that may be dropped, in this order.
        width: Available width.

    Returns:
        The columns that are left; None if even those that must stay are too wide.
    """
    left, droppable = list(columns), list(drop)
    while _total(left) > width:
        if not droppable:
            return None
        name = droppable.pop(0)
        left = [column for column in left if column.name != name]
    return left


def table(columns: Sequence[Column], below: Sequence[Sequence[str]] = ()) -> RenderableType:
    """Build a table.

    Args:
        columns: The columns, which must fit.
        below: For each row, the lines to put under it. Lines are broken between words only.
    """
    rows = range(len(columns[0].cells))
    if not any(below):
        return _rows(columns, rows, header=True)
    parts: list[RenderableType] = []
    for row in rows:
        parts.append(_rows(columns, range(row, row + 1), header=row == 0))
        parts += [Padding(Text(line), (0, 0, 0, INDENT), expand=False) for line in below[row]]
    return Group(*parts)


def flowed(parts: Iterable[str], width: int) -> list[str]:
    """Put parts on as few lines as possible. A part is broken only if it alone is too wide."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(f"{lines[-1]} {part}") <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return lines


def _rows(columns: Sequence[Column], rows: range, header: bool) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, show_header=header, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column in columns:
        shown.add_column(
            Text(column.title),
            justify="left" if column.left else "right",
            vertical="top",
            min_width=column.least,
            max_width=column.width,
            no_wrap=not column.wraps,
            overflow="fold",
        )
        shown.columns[-1].width = None if column.wraps else column.width
    for row in rows:
        shown.add_row(*(Text(column.cells[row]) for column in columns))
    return shown


def _total(columns: Sequence[Column]) -> int:
    return sum(column.least for column in columns) + GAP * (len(columns) - 1)
