"""`--help`: commands grouped by what people come for, in columns that know wide characters, and in their language."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from rich.cells import cell_len
from typer.core import TyperGroup

from .._language import spoken, word
from .characters import as_written

JOBS: Final = {
    "Prices now": ("ticker", "watch", "book", "markets", "explain"),
    "The past and files": ("candles", "trades"),
    "Recordings": ("record", "replay", "store"),
    "When something is wrong": ("doctor",),
    "To try and to operate": ("demo", "simulator", "serve-replay", "serve-metrics", "relay"),
}
EXAMPLES: Final = {
    "ticker": "upbit-backbone ticker KRW-BTC KRW-ETH",
    "watch": "upbit-backbone watch KRW-BTC --type trade --seconds 10",
    "book": "upbit-backbone book KRW-BTC --levels 5",
    "candles": "upbit-backbone candles KRW-BTC 1d --start 2026-01-01 --csv btc.csv",
    "trades": "upbit-backbone trades KRW-BTC --count 50 --json",
    "markets": "upbit-backbone markets --quote KRW",
    "explain": "upbit-backbone explain ticker KRW-BTC",
    "doctor": "upbit-backbone doctor",
    "record": "upbit-backbone record day.rec KRW-BTC KRW-ETH --type trade --type orderbook",
    "replay": "upbit-backbone replay day.rec --speed 10",
    "store": "upbit-backbone store day.db --fill",
    "demo": "upbit-backbone demo --seconds 20",
    "serve-metrics": "upbit-backbone serve-metrics KRW-BTC --port 9100",
    "serve-replay": "upbit-backbone serve-replay day.db --speed 10",
    "relay": "upbit-backbone relay --redis redis://localhost:6379 --quote KRW --types ticker,trade",
    "simulator": "upbit-backbone simulator --rest-port 8765",
}
_BOUNDS: Final = re.compile(r"required(?=[;\]])|default(?=:)")
WIDEST_NAME, GAP, NARROWEST_TEXT = 30, 2, 10


class ByJob(TyperGroup):
    """The commands under the headings of JOBS, each with its whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for job, names in JOBS.items():
            with formatter.section(job):
                formatter.write_dl([(name, (self.commands[name].help or "").split("\n")[0]) for name in names])


def speaking(group: Any) -> Any:
    """`group`, whose help and whose commands' help is written by `_formatter`."""
    for command in (group, *group.commands.values()):
        context = command.context_class
        formatter = {"formatter_class": _formatter(context.formatter_class)}
        command.context_class = type("Context", (context,), formatter)
    return group


def _formatter(base: Any) -> Any:
    class Formatter(base):  # type: ignore[misc]
        """typer's own counts characters, of which a Korean one is two columns wide."""

        def getvalue(self) -> str:
            # typer takes an ASCII output for a mistake and writes UTF-8 into it, past the stream's own error handler.
            return as_written(super().getvalue(), sys.stdout)

        def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
            head = f"{spoken('Usage: ') if prefix is None else prefix}{prog} "
            indent = " " * self.current_indent
            said = " ".join(map(word, args.split(" ")))
            lines = wrapped(said, max(NARROWEST_TEXT, self.width - len(indent) - cell_len(head)))
            self.write(indent + head + ("\n" + indent + " " * cell_len(head)).join(lines) + "\n")

        def write_heading(self, heading: str) -> None:
            super().write_heading(spoken(heading))

        def write_text(self, text: str) -> None:
            indent = " " * self.current_indent
            paragraphs = [spoken(each) for each in spoken(text).split("\n\n")]
            lines = [wrapped(each, max(NARROWEST_TEXT, self.width - self.current_indent)) for each in paragraphs]
            self.write("\n\n".join("\n".join(indent + line for line in each) for each in lines) + "\n")

        def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = WIDEST_NAME, col_spacing: int = GAP) -> None:
            indent = " " * self.current_indent
            first = min(max((cell_len(name) for name, _ in rows), default=0), col_max) + col_spacing
            for name, text in rows:
                what, extra, bounds = text.partition("  [")
                bounds = _BOUNDS.sub(lambda each: word(each.group()), bounds)
                lines = wrapped(spoken(what) + extra + bounds, max(NARROWEST_TEXT, self.width - first - len(indent)))
                room = first - cell_len(name)
                lead = " " * room if room >= col_spacing else "\n" + indent + " " * first
                self.write(indent + name + lead + ("\n" + indent + " " * first).join(lines) + "\n")

    return Formatter


def wrapped(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns, broken between words."""
    lines, line = list[str](), ""
    for each in text.split():
        if line and cell_len(line) + 1 + cell_len(each) > width:
            lines.append(line)
            line = each
        else:
            line = f"{line} {each}" if line else each
    return [*lines, line]
