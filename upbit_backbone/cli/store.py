"""`store`: what a recorded store has and lacks, and what is missing fetched."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ..archive.store import FillReport, Store, TopicQuality
from ..errors import InvalidRequestError
from . import output
from .running import FOUND_TROUBLE, Json, command, moment_of, open_market, say_error


@command
def store(
    file: Annotated[Path, typer.Argument(help="A store that `record --sqlite` has written.")],
    day: Annotated[
        str | None, typer.Option(help="The UTC day to look at (default: the last that was recorded).")
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="First fetch what is missing, as far as Upbit still has it.")
    ] = False,
    json: Json = False,
) -> int:
    """What of a day is in a store, topic by topic, and what of it is missing."""
    found = Store(file)
    if fill:
        with open_market() as market:
            _say(found.fill(market))
    moment = moment_of(day, "--day") or _last_day(found)
    topics = found.quality(moment)
    if json:
        output.print_json([output.as_plain(each) for each in topics])
    else:
        _show(topics)
    return 0 if any(each.rows for each in topics) else FOUND_TROUBLE


def _last_day(found: Store) -> datetime:
    reached = found.reached()
    if reached is None:
        raise InvalidRequestError(f"{output.safe(found.path)}: nothing was recorded yet")
    return reached


def _say(report: FillReport) -> None:
    say_error(str(report), label="note")
    for each in report.left:
        say_error(str(each), label="note")


def _show(topics: list[TopicQuality]) -> None:
    for each in topics:
        print(each)
        for hole in each.holes:
            print(f"  {hole}")
