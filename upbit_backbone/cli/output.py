"""Text for people and for scripts: numbers, safe foreign text, tables and JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import one_line
from ..models.market import KST
from .characters import json_line

# Small pictures made of characters. Pure.

BLOCKS = "▁▂▃▄▅▆▇█"
FILL = " ▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as one line of blocks; a flat line in the middle where nothing moves."""
    shown = list(values)[-width:] if width > 0 else []
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high <= low:
        return BLOCKS[3] * len(shown)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((value - low) / (high - low) * top)] for value in shown)


def squeeze(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: each the last of an equal part, so that the newest is always shown."""
    count = len(values)
    if width <= 0 or not count:
        return []
    if count <= width:
        return list(values)
    return [values[(index + 1) * count // width - 1] for index in range(width)]


def area_chart(values: Sequence[float], width: int, height: int) -> list[str]:
    """`height` lines of at most `width` characters, highest line first."""
    shown = squeeze(values, width)
    if not shown or height <= 0:
        return []
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    steps = height * 8
    levels = [1 + round((value - low) / span * (steps - 1)) if high > low else steps // 2 for value in shown]
    return ["".join(FILL[min(8, max(0, level - 8 * row))] for level in levels) for row in reversed(range(height))]


def bar(share: float, width: int) -> str:
    """A bar that fills `share` (0 to 1) of `width`."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + ("" if not rest else " ▏▎▍▌▋▊▉"[rest])


# Upbit shows rises in red and falls in blue.
RISE_STYLE, FALL_STYLE, QUIET_STYLE = "bold red", "bold blue", "dim"
NOTHING = "–"

console = Console(highlight=False, markup=False, emoji=False)


def is_terminal() -> bool:
    return console.is_terminal


def safe(text: object, limit: int = 200) -> str:
    """Foreign text that cannot move the cursor, change the title or break the line."""
    return NOTHING if text is None else one_line(text, limit)


def number(value: Decimal | None) -> str:
    """Exact, with thousands separators, without zeros that mean nothing."""
    if value is None:
        return NOTHING
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def short(value: Decimal | None) -> str:
    """Large amounts in millions and billions."""
    if value is None:
        return NOTHING
    for size, unit in ((Decimal(10) ** 12, "T"), (Decimal(10) ** 9, "B"), (Decimal(10) ** 6, "M")):
        if abs(value) >= size:
            return f"{value / size:,.2f}{unit}"
    return f"{value:,.2f}"


def percent(value: Decimal | None) -> Text:
    """Signed per cent in the colour of its direction."""
    if value is None:
        return Text(NOTHING)
    style = RISE_STYLE if value > 0 else FALL_STYLE if value < 0 else ""
    return Text(f"{value:+.2f}%", style)


def moment(value: datetime | None) -> str:
    """Korean wall-clock time."""
    return NOTHING if value is None else f"{value.astimezone(KST):%Y-%m-%d %H:%M:%S}"


def clock_time(value: datetime | None) -> str:
    return NOTHING if value is None else f"{value.astimezone(KST):%H:%M:%S.%f}"[:-3]


def age(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """A table on a terminal, tab-separated lines for a pipe. Columns named with a leading `>` are right-aligned."""
    names = [column.lstrip(">") for column in columns]
    if not is_terminal():
        print("\t".join(names))
        for row in rows:
            print("\t".join(str(cell) for cell in row))
        return
    table = new_table(title, columns)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console.print(table)


def new_table(title: str | None, columns: Sequence[str], *, expand: bool = False) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", expand=expand, pad_edge=False)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return table


def as_plain(item: Any) -> Any:
    """A model or report as what JSON knows; the exact text of every number is kept."""
    return item.to_dict()


def print_json(value: Any) -> None:
    """One line; no text in it can do anything to a terminal."""
    sys.stdout.write(json_line(value, sys.stdout) + "\n")
    sys.stdout.flush()
