"""Text for people and for scripts: numbers, safe foreign text, tables and JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from .._language import is_korean, spoken, word
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
# A table's cell: text, or a picture that is drawn so many characters wide.
Cell: TypeAlias = str | Text | Callable[[int], Text]

SHORTEST = 8  # of a picture, and of a foreign word that is cut
BETWEEN = 3  # a border and a space on each side of it
WIDEST = 10_000
PIPED_PICTURE = 24

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


# The powers of ten by which large amounts are told, the largest first. Koreans count in ten thousands.
_LARGE = ((12, "T"), (9, "B"), (6, "M"))
_LARGE_IN_KOREAN = ((12, "조"), (8, "억"), (4, "만"))


def short(value: Decimal | None) -> str:
    """Large amounts in millions and billions; in Korean in 만, 억 and 조."""
    if value is None:
        return NOTHING
    for power, unit in _LARGE_IN_KOREAN if is_korean() else _LARGE:
        if abs(value) >= 10**power:
            return f"{value.scaleb(-power):,.2f}{unit}"
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


def side(value: object) -> str:
    """Who was the taker of a trade, in the word of every view: Upbit's BID is a buyer, its ASK a seller."""
    return word({"BID": "buy", "ASK": "sell"}.get(str(value), safe(value)))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], spare: Sequence[str] = ()) -> None:
    """A table on a terminal, tab-separated lines for a pipe. See `fitted`."""
    if not is_terminal():
        print("\t".join(word(_name(column)) for column in columns))
        for row in rows:
            print("\t".join(str(cell(PIPED_PICTURE) if callable(cell) else cell) for cell in row))
        return
    rows = list(rows)
    table = fitted(title, columns, rows, console.width, spare)
    # Wider than the terminal only where not even two numbers fit into it: cut numbers are wrong ones.
    shortest = _natural_width(fitted(title, columns, rows, 0, spare))
    if shortest > console.width:
        table.width = shortest
    console.print(table, crop=False)


def fitted(
    title: str | None, columns: Sequence[str], rows: Iterable[Sequence[Cell]], width: int, spare: Sequence[str] = ()
) -> Table:
    """A table of at most `width`, if that can be: columns named in `spare` go, in that order; numbers are never cut.

    A leading `>` sets a column right, for numbers; `~` marks foreign words, which may end in an ellipsis. Cells that
    can be called are pictures: they are drawn as wide as there is room, or not at all.
    """
    cells = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
    pictures = {place for row in cells for place, cell in enumerate(row) if callable(cell)}
    shown = [place for place in range(len(columns)) if place not in pictures]
    leaving = list(spare)
    table = _table(title, columns, cells, shown)
    while (needed := _natural_width(_table(title, columns, cells, shown, SHORTEST))) > width and leaving:
        name = leaving.pop(0)
        shown = [place for place in shown if _name(columns[place]) != name]
        table = _table(title, columns, cells, shown)
    if needed > width:  # nothing else can go: foreign words are as short as they may be
        table = _table(title, columns, cells, shown, SHORTEST)
    room = width - max(needed, min(width, _natural_width(table))) - BETWEEN
    if pictures and room >= SHORTEST:
        drawn = [[cell(room) if callable(cell) else cell for cell in row] for row in cells]
        table = _table(title, columns, drawn, sorted({*shown, *pictures}))
    return table


def _name(column: str) -> str:
    return column.lstrip(">~")


def _table(
    title: str | None,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    shown: Sequence[int],
    longest: int | None = None,
) -> Table:
    table = Table(
        title=None if title is None else spoken(title), title_justify="left", header_style="bold", pad_edge=False
    )
    for place in shown:
        justify: Literal["left", "right"] = "right" if columns[place].startswith(">") else "left"
        is_foreign = columns[place].startswith("~")
        # rich makes narrow what may be wrapped before it touches anything else.
        limit = longest if is_foreign else None
        table.add_column(word(_name(columns[place])), justify=justify, no_wrap=not is_foreign, max_width=limit)
    for row in rows:
        table.add_row(*(_one_line(row[place]) for place in shown))
    return table


def _one_line(cell: Cell) -> Text:
    text = cell if isinstance(cell, Text) else Text("" if callable(cell) else cell)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _natural_width(table: Table) -> int:
    return Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum


def as_plain(item: Any) -> Any:
    """A model or report as what JSON knows; the exact text of every number is kept."""
    return item.to_dict()


def print_json(value: Any) -> None:
    """One line; no text in it can do anything to a terminal."""
    sys.stdout.write(json_line(value, sys.stdout) + "\n")
    sys.stdout.flush()
