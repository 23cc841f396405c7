"""Upbit's many ways to write a time, from epoch milliseconds (UTC)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_KST_FIELDS = re.compile(r',"(?:candle_date_time_kst|cdttmk|trade_date_kst|trade_time_kst)":"[^"]*"')
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS, _MONTHS = "MonTueWedThuFriSatSun", "JanFebMarAprMayJunJulAugSepOctNovDec"
KST_MS = 9 * 3_600_000


@lru_cache(maxsize=65_536)
def _second(second: int) -> datetime:
    return _EPOCH + timedelta(seconds=second)


@lru_cache(maxsize=16_384)
def iso(ms: int) -> str:
    """`2026-11-20T05:14:00`"""
    return _second(ms // 1000).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=16_384)
def _parts(second: int) -> tuple[str, str, str, str]:
    date, time = _second(second).strftime("%Y-%m-%d %H:%M:%S").split()
    return date, time, date.replace("-", ""), time.replace(":", "")


def date(ms: int) -> str:
    """`2026-11-20`"""
    return _parts(ms // 1000)[0]


def time(ms: int) -> str:
    """`05:14:00`"""
    return _parts(ms // 1000)[1]


def compact_date(ms: int) -> str:
    """`20261120`"""
    return _parts(ms // 1000)[2]


def compact_time(ms: int) -> str:
    """`051400`"""
    return _parts(ms // 1000)[3]


def without_kst(text: str) -> str:
    """JSON text less the fields in Korean time, which only the Korean venue has."""
    return _KST_FIELDS.sub("", text)


def http_date(ms: int) -> str:
    """`Wed, 11 Mar 2026 14:40:59 GMT`, whatever the locale."""
    moment = _second(ms // 1000)
    day = _DAYS[3 * moment.weekday() :][:3]
    month = _MONTHS[3 * (moment.month - 1) :][:3]
    return f"{day}, {moment.day:02d} {month} {moment:%Y %H:%M:%S} GMT"
