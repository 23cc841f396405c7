"""Candle rows for REST, newest first, at most `count` of those that start before `before` (ms)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date, timedelta
from itertools import groupby, islice

from upbit_backbone.simulator.engine.exchange import Exchange
from upbit_backbone.simulator.engine.history import DAY_MS, Candle, merge
from upbit_backbone.simulator.engine.market import Market, day_label
from upbit_backbone.simulator.payloads import rest_payloads
from upbit_backbone.simulator.payloads.spelling import plain

SECONDS_DEPTH_MS = 92 * DAY_MS
_DAY_ZERO = date(1970, 1, 1)


def seconds(market: Market, before: int, count: int, now: int) -> list[str]:
    """Only the last three months exist."""
    found = islice(market.candles_back(1_000, before, now - SECONDS_DEPTH_MS), count)
    return [rest_payloads.candle(market.code, one) for one in found]


def minutes(market: Market, before: int, count: int, unit: int) -> list[str]:
    found = islice(market.candles_back(unit * 60_000, before), count)
    return [rest_payloads.candle(market.code, one, f',"unit":{unit}') for one in found]


def days(market: Market, before: int, count: int, exchange: Exchange | None) -> list[str]:
    """With an `exchange`, each row also has its close in KRW."""
    # One more than asked for, because a day's change is counted from the day before it.
    found = list(islice(market.day_candles_back(before), count + 1))
    rows = []
    for index, one in enumerate(found[:count]):
        base = found[index + 1].close if index + 1 < len(found) else one.open
        converted = None if exchange is None else _in_krw(exchange, market, one)
        rows.append(rest_payloads.candle(market.code, one, rest_payloads.day_extra(one, base, converted)))
    return rows


def periods(market: Market, before: int, count: int, unit: str) -> list[str]:
    """Weeks (from Monday), months and years."""
    first_day = _FIRST_DAY[unit]
    newest = first_day((before - 1) // DAY_MS)
    # To the end of the period that contains `before`: a week in progress consists of all its days so far.
    upper = (_next_period(newest, unit) if newest is not None else 0) * DAY_MS
    rows: list[str] = []
    for start, group in groupby(market.day_candles_back(upper), lambda one: first_day(one.start_ms // DAY_MS)):
        if start * DAY_MS >= before:
            continue
        one = merge(list(group)[::-1], start * DAY_MS)
        rows.append(rest_payloads.candle(market.code, one, f',"first_day_of_period":"{day_label(start)}"'))
        if len(rows) == count:
            break
    return rows


def unmade_days(market: Market, before: int, count: int, unit: str) -> list[int]:
    """The past days that `days` and `periods` would have to make."""
    end = -(-before // DAY_MS) if unit == "day" else _next_period(_FIRST_DAY[unit]((before - 1) // DAY_MS), unit)
    return list(market.unmade_days(end - count * _LONGEST[unit] - 1, end))


async def make_days(market: Market, days: list[int]) -> None:
    """A day at a time: a thousand at once would hold up all streams for a second."""
    for day in days:
        market.day_candle(day)
        await asyncio.sleep(0)


def _in_krw(exchange: Exchange, market: Market, one: Candle) -> str:
    if market.grid.quote == "KRW":
        return "null"
    quote = exchange.markets.get(f"KRW-{market.grid.quote}")
    quote_day = quote.day_candle(one.start_ms // DAY_MS) if quote is not None else None
    return "null" if quote_day is None else plain(one.close * quote_day.close // 10**8)


def _monday(day: int) -> int:
    return day - (day + 3) % 7


def _month(day: int) -> int:
    return ((_DAY_ZERO + timedelta(days=day)).replace(day=1) - _DAY_ZERO).days


def _year(day: int) -> int:
    return ((_DAY_ZERO + timedelta(days=day)).replace(month=1, day=1) - _DAY_ZERO).days


def _next_period(start: int, unit: str) -> int:
    return _FIRST_DAY[unit](start + _LONGEST[unit])


_LONGEST = {"day": 1, "week": 7, "month": 31, "year": 366}
_FIRST_DAY: dict[str, Callable[[int], int]] = {"week": _monday, "month": _month, "year": _year}
