"""Every recorded candle page follows the rules that paging is built on.

Folders are named by UPBIT_BACKBONE_PAYLOADS (separated like PATH), beside our own payloads.
"""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.samples import payload_files
from upbit_backbone.exchange.timeframes import TIMEFRAMES, Timeframe, timeframe_of
from upbit_backbone.history.paging import Area, Page
from upbit_backbone.unify.rest import decode_candles

LONG = {
    "candles-seconds": "1s",
    "candles-days": "1d",
    "candles-weeks": "1w",
    "candles-months": "1M",
    "candles-years": "1y",
}
# The documentation prints a week's candle as its example of a month.
MISPRINTS = {"candles-months--docs-ref--1.json": "1w"}


def pages() -> list[Path]:
    files = {path.name: path for path in payload_files("candles-*.json")}
    return [files[name] for name in sorted(files)]


def unit_of(path: Path, rows: list[dict[str, Any]]) -> Timeframe:
    kind = path.name.partition("--")[0]
    if path.name in MISPRINTS:
        return timeframe_of(MISPRINTS[path.name])
    if kind in LONG:
        return timeframe_of(LONG[kind])
    return next(each for each in TIMEFRAMES if each.rest_path == f"minutes/{rows[0]['unit']}")


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_recorded_page_is_taken_in_whole(path: Path) -> None:
    body = path.read_bytes()
    raw = json.loads(body)
    if not raw:
        pytest.skip("an empty page")
    unit = unit_of(path, raw)
    rows = decode_candles(body, unit.word)
    assert len(rows) == len(raw)
    starts = [row.timestamp for row in rows]
    assert [unit.floor(start) for start in starts] == starts, "periods start where the table says"
    assert all(newer > older for newer, older in pairwise(starts)), "newest first, each once"
    end = unit.next_start(starts[0])
    area = Area(unit, starts[-1], end, now=end + timedelta(days=1))
    page = area.next_page()
    assert page == Page(end, min(200, unit.periods(starts[-1], end)))
    area.asked(page)
    area.answered(page, rows[::-1])
    assert [row for chunk in area.take() for row in chunk] == rows[::-1]
