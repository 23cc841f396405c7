"""Small pictures made of characters. Pure."""

from __future__ import annotations

from collections.abc import Sequence

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
