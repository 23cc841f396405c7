"""Upbit's hosts, its public REST endpoints as one table, the calls that can be made, and how many. Pure.

Each region is a venue of its own, with its own hosts, listings, fiat currency and limits. Docs: the REST and WebSocket
guides. All REST paths start with /v1, the public stream is /websocket/v1.

A `RestCall` is made by the functions below and by nothing else: codes, units and counts are checked before they get
into it, values are percent-encoded, paths come from the table. So whatever a user passes, the path on the wire is one
of `PATHS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from .._arguments import aware, whole_number
from ..errors import InvalidRequestError, one_line
from ..models.enums import RateGroup
from .markets import CODE, normalise_quote
from .timeframes import TIMEFRAMES, timeframe_of

REGION_HOSTS: Final = {
    "kr": "api.upbit.com",
    "sg": "sg-api.upbit.com",
    "id": "id-api.upbit.com",
    "th": "th-api.upbit.com",
}

# docs: websocket-guide; the LIST formats came 2025-07-07. The format belongs to the connection, not to a request.
WEBSOCKET_FORMATS: Final = ("SIMPLE", "DEFAULT", "JSON_LIST", "SIMPLE_LIST")

HTTPS_PORT: Final = 443
# What "this machine" is called, and what the name resolves to.
_LOOPBACK: Final = "127.0.0.1"


def normal_host(address: str) -> str:
    """One name for one server, however it is written: for limits and bans, which Upbit counts per server.

    `address` is a URL, or a host with or without a port (then taken for https). `HTTPS://API.Upbit.com.:443` and
    `api.upbit.com` are one server, as are `localhost:8080`, `[::1]:8080` and `127.0.0.1:8080`.
    """
    parts = urlsplit(address if "//" in address else f"//{address}")
    host = _normal_name((parts.hostname or "").rstrip("."))
    port = parts.port or (80 if parts.scheme in ("http", "ws") else HTTPS_PORT)
    if port == HTTPS_PORT:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _normal_name(name: str) -> str:
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761: always this machine
        return _LOOPBACK
    try:
        literal = ip_address(name)
    except ValueError:
        return name
    if isinstance(literal, IPv6Address):
        literal = literal.ipv4_mapped or literal
    return _LOOPBACK if literal == ip_address("::1") else str(literal)


# What can be asked there.

# A page at most; larger counts are cut silently (docs: recent-trades-history, list-candles-minutes).
MAX_TRADES: Final = 500
MAX_CANDLES: Final = 200
# The depths a subscription may ask for; any other suffix makes Upbit send 30 levels (changelog of 2025-07-02).
BOOK_DEPTHS: Final = (1, 5, 15, 30)
MAX_LEVELS: Final = 30  # docs: list-orderbooks and websocket-orderbook
MAX_DAYS_AGO: Final = 7  # docs: recent-trades-history, which keeps trades for so long


class Endpoint(NamedTuple):
    """One row of the table: where, in whose budget, and how many rows at most."""

    path: str
    group: RateGroup
    max_count: int | None = None


MARKETS: Final = Endpoint("/v1/market/all", RateGroup.MARKET)
TICKERS: Final = Endpoint("/v1/ticker", RateGroup.TICKER)
TICKERS_OF_QUOTES: Final = Endpoint("/v1/ticker/all", RateGroup.TICKER)
ORDERBOOKS: Final = Endpoint("/v1/orderbook", RateGroup.ORDERBOOK, MAX_LEVELS)
INSTRUMENTS: Final = Endpoint("/v1/orderbook/instruments", RateGroup.ORDERBOOK)
TRADES: Final = Endpoint("/v1/trades/ticks", RateGroup.TRADE, MAX_TRADES)
CANDLES: Final[Mapping[str, Endpoint]] = MappingProxyType(
    {each.word: Endpoint(f"/v1/candles/{each.rest_path}", RateGroup.CANDLE, MAX_CANDLES) for each in TIMEFRAMES}
)
PATHS: Final = frozenset(
    each.path for each in (MARKETS, TICKERS, TICKERS_OF_QUOTES, ORDERBOOKS, INSTRUMENTS, TRADES, *CANDLES.values())
)


class RestCall(NamedTuple):
    """One GET, ready to be sent; equal calls are equal values."""

    endpoint: Endpoint
    params: tuple[tuple[str, str], ...] = ()

    @property
    def group(self) -> RateGroup:
        return self.endpoint.group

    @property
    def path(self) -> str:
        return self.endpoint.path

    @property
    def target(self) -> str:
        """Path and query as they go on the wire."""
        if not self.params:
            return self.endpoint.path
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in self.params)
        return f"{self.endpoint.path}?{query}"

    def __str__(self) -> str:
        return one_line(f"GET {self.endpoint.path} {' '.join(f'{name}={value}' for name, value in self.params)}", 120)


def markets(*, details: bool = True) -> RestCall:
    return RestCall(MARKETS, (("is_details", "true" if details else "false"),))


def tickers(symbols: Iterable[str]) -> RestCall:
    return RestCall(TICKERS, (("markets", _codes(symbols)),))


def tickers_of_quotes(quotes: Iterable[str]) -> RestCall:
    return RestCall(TICKERS_OF_QUOTES, (("quote_currencies", ",".join(quote_names(quotes))),))


def orderbooks(symbols: Iterable[str], count: int = MAX_LEVELS, level: Decimal | int = 0) -> RestCall:
    """Books with `count` levels a side, prices grouped by `level` (0: not at all; KRW markets only)."""
    params = [("markets", _codes(symbols)), ("count", _count(count, ORDERBOOKS))]
    if level:
        params.append(("level", _level(level)))
    return RestCall(ORDERBOOKS, tuple(params))


def instruments(symbols: Iterable[str]) -> RestCall:
    return RestCall(INSTRUMENTS, (("markets", _codes(symbols)),))


def trades(
    symbol: str,
    count: int,
    *,
    to: datetime | None = None,
    cursor: int | None = None,
    days_ago: int | None = None,
) -> RestCall:
    """Trades of one UTC day, newest first: before the time of day `to`, or before the trade with id `cursor`.

    `days_ago` (1 to 7) chooses the day; None and 0 are today.
    """
    params = [("market", market_code(symbol)), ("count", _count(count, TRADES))]
    if to is not None:
        params.append(("to", aware(to, "to").strftime("%H:%M:%S")))
    if cursor is not None:
        params.append(("cursor", str(whole_number(cursor, "cursor", low=0, high=10**19))))
    if days_ago:
        params.append(("days_ago", str(whole_number(days_ago, "days_ago", low=1, high=MAX_DAYS_AGO))))
    return RestCall(TRADES, tuple(params))


def candles(timeframe: str, symbol: str, count: int, *, to: datetime | None = None) -> RestCall:
    """Candles that start before `to` (aware; default: now), newest first."""
    endpoint = CANDLES[timeframe_of(timeframe).word]
    params = [("market", market_code(symbol)), ("count", _count(count, endpoint))]
    if to is not None:
        # Periods start on whole seconds, so "before 05:14:00.3" is "before 05:14:01".
        whole = aware(to, "to")
        whole = whole.replace(microsecond=0) + timedelta(seconds=bool(whole.microsecond))
        params.append(("to", whole.strftime("%Y-%m-%dT%H:%M:%SZ")))
    return RestCall(endpoint, tuple(params))


def check_levels(levels: int, level: Decimal | int = 0) -> None:
    """InvalidRequestError for a depth or a price step that `orderbooks` would refuse."""
    _count(levels, ORDERBOOKS)
    _level(level)


def quote_names(quotes: Iterable[str]) -> list[str]:
    """Quote currencies as they may be put into a call; InvalidRequestError for anything else."""
    names = [normalise_quote(each) for each in quotes]
    if not names:
        raise InvalidRequestError("quotes: expected at least one quote currency, got none")
    return names


def market_code(symbol: str) -> str:
    """`symbol` as it may be put into a call; InvalidRequestError for anything that is no market code."""
    if not isinstance(symbol, str) or not CODE.fullmatch(symbol):
        raise InvalidRequestError(f"symbol {one_line(repr(symbol), 60)}: expected a market code such as 'KRW-BTC'")
    return symbol


def _codes(symbols: Iterable[str]) -> str:
    codes = [market_code(symbol) for symbol in symbols]
    if not codes:
        raise InvalidRequestError("symbols: expected at least one market code, got none")
    return ",".join(codes)


def _count(count: int, endpoint: Endpoint) -> str:
    return str(whole_number(count, "count", low=1, high=endpoint.max_count or 1))


def _level(level: Decimal | int) -> str:
    number = level if isinstance(level, Decimal) else Decimal(whole_number(level, "level", low=0, high=10**12))
    if not number.is_finite() or not 0 <= number <= 10**12:
        raise InvalidRequestError(f"level={number}: expected a price step such as 0, 1000 or Decimal('0.1')")
    return f"{number.normalize():f}"


# The rate groups, how much each allows, and what `Remaining-Req` says of it.
#
# Docs: rate-limits (2026-09-08). REST groups count per IP, subscription messages per connection.

REQUESTS_PER_SECOND: Final = 10.0  # of each REST group
CONNECTS_PER_SECOND: Final = 5.0  # WebSocket handshakes
MESSAGES_PER_SECOND: Final = 5  # subscription messages of one connection
MESSAGES_PER_MINUTE: Final = 100

# What Upbit calls the groups in `Remaining-Req`, which is not always what the docs call them.
GROUPS_ON_THE_WIRE: Final[Mapping[str, RateGroup]] = MappingProxyType(
    {
        "market": RateGroup.MARKET,
        "candle": RateGroup.CANDLE,
        "candles": RateGroup.CANDLE,
        "trade": RateGroup.TRADE,
        "crix-trades": RateGroup.TRADE,
        "ticker": RateGroup.TICKER,
        "orderbook": RateGroup.ORDERBOOK,
        "websocket": RateGroup.WEBSOCKET_CONNECT,
        "websocket-connect": RateGroup.WEBSOCKET_CONNECT,
    }
)
REST_GROUPS: Final = (
    RateGroup.MARKET,
    RateGroup.CANDLE,
    RateGroup.TRADE,
    RateGroup.TICKER,
    RateGroup.ORDERBOOK,
)


class Remaining(NamedTuple):
    """What `Remaining-Req` says: calls left in the present second, for a group (None: one we do not know)."""

    group: RateGroup | None
    name: str
    per_second: int


_REMAINING = re.compile(r"\s*([a-z_]{1,10})\s*=\s*([a-z0-9_-]{1,40})\s*", re.ASCII | re.IGNORECASE)


def parse_remaining(header: str | None) -> Remaining | None:
    """`group=candles; min=600; sec=9`, in any order; None for anything else. Never raises."""
    return _parsed(header) if header and len(header) <= 200 else None


@lru_cache(maxsize=256)  # with every answer comes one of a few dozen
def _parsed(header: str) -> Remaining | None:
    parts = {match[1].lower(): match[2].lower() for each in header.split(";") if (match := _REMAINING.fullmatch(each))}
    name, seconds = parts.get("group"), parts.get("sec", "")
    if name is None or not re.fullmatch(r"\d{1,6}", seconds, re.ASCII):
        return None
    return Remaining(GROUPS_ON_THE_WIRE.get(name), name, int(seconds))
