"""The REST endpoints: one table of routes, each a function from parameters to rows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from upbit_backbone.simulator.engine.history import DAY_MS
from upbit_backbone.simulator.engine.market import Market, TickerState
from upbit_backbone.simulator.payloads import rest_payloads
from upbit_backbone.simulator.payloads.moments import without_kst
from upbit_backbone.simulator.serving.context import Context
from upbit_backbone.simulator.serving.http_wire import Request, Response, etag
from upbit_backbone.simulator.serving.limits import Verdict
from upbit_backbone.simulator.serving.rest_candles import days, make_days, minutes, periods, seconds, unmade_days

MISSING = "Missing request parameter error. Check the required parameters!"
MISMATCH = "Type mismatch error. Check the parameters type!"
INVALID = "Invalid parameter. Check the given value!"
BAD_UNIT = "specified unit is not valid."
_NUMBER = re.compile(r"^[+-]?\d{1,18}$")
_FIXED_HEADERS = {
    "Cache-Control": "no-cache, no-store, max-age=0, must-revalidate", "Pragma": "no-cache", "Expires": "0",
    "Vary": "origin,access-control-request-method,access-control-request-headers,accept-encoding",
}  # fmt: skip


class RestError(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Answer:
    response: Response
    group: str | None


class Params:
    """Query parameters, read the way Upbit reads them; `legacy` is an old camelCase name that still works."""

    def __init__(self, query: dict[str, str]) -> None:
        self._query = query

    def text(self, name: str, legacy: str = "") -> str | None:
        return self._query.get(name) or self._query.get(legacy) or None

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise RestError(400, MISSING)
        return value

    def number(self, name: str, default: int, legacy: str = "") -> int:
        value = self.text(name, legacy)
        if value is None:
            return default
        if not _NUMBER.match(value):
            raise RestError(400, MISMATCH)
        return int(value)

    def flag(self, name: str, legacy: str = "") -> bool:
        value = (self.text(name, legacy) or "false").lower()
        if value not in ("true", "false"):
            raise RestError(400, MISMATCH)
        return value == "true"

    def moment(self, name: str) -> datetime | None:
        """ISO 8601; without an offset it is UTC."""
        value = self.text(name)
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            raise RestError(400, INVALID) from None
        # fromisoformat takes more than Upbit does: a bare date, for one.
        if len(value) < 19:
            raise RestError(400, INVALID)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Handler = Callable[[Context, Params, str], list[str]]


def answer(context: Context, request: Request, ip: str) -> Answer:
    """The whole way of a request: route, limits, parameters, rows."""
    route = _route(request.path)
    if route is None:
        return Answer(_error(404, "not_found", "no Route matched with those values"), None)
    group, handler, rest_of_path = route
    verdict = context.limits.rest(ip, group, "origin" in request.headers, context.clock.now_ms())
    if verdict.status != 200:
        return Answer(refusal(context, verdict), verdict.group)
    if request.method not in ("GET", "HEAD"):
        response = _error(405, 405, "Method Not Allowed")
    else:
        response = _rows(context, handler, Params(request.query), rest_of_path)
    response.headers |= {"Remaining-Req": verdict.remaining, "Limit-By-Ip": "Yes", **_FIXED_HEADERS}
    if response.status == 200:
        response.headers["ETag"] = etag(response.body)
    return Answer(response, verdict.group)


def preparation(context: Context, request: Request) -> Coroutine[Any, Any, None] | None:
    """What has to be awaited before `answer`, lest that takes so long that streams stand still; None for most."""
    unit = _LONG.get(request.path)
    if unit is None:
        return None
    try:
        market, before, count = _candle_span(context, Params(request.query))
    except RestError:
        return None  # the answer will say so
    days = unmade_days(market, before, count, unit)
    return make_days(market, days) if days else None


def refusal(context: Context, verdict: Verdict) -> Response:
    """429 or 418 in the spelling that the options ask for."""
    headers = {"Retry-After": str(verdict.blocked_seconds or 1)} if context.options.retry_after else {}
    if verdict.status == 418:
        message = (f"과도한 요청으로 인해 일시적으로 차단되었습니다. {verdict.blocked_seconds}초 후 다시 시도해주세요. "
                   f"(Too many requests. Blocked for {verdict.blocked_seconds} seconds.)")  # fmt: skip
        response = _error(418, 418, message)
        response.headers |= headers
        return response
    headers |= {"Remaining-Req": verdict.remaining, "Limit-By-Ip": "Yes"}
    if context.options.body_429 == "json":
        response = _error(429, 429, "요청 수 제한을 초과했습니다. (Too many API requests.)")
        response.headers |= headers
        return response
    body = b"" if context.options.body_429 == "empty" else b"Too many API requests."
    return Response(429, body, "text/plain", headers)


def _rows(context: Context, handler: Handler, params: Params, rest_of_path: str) -> Response:
    try:
        rows = handler(context, params, rest_of_path)
    except RestError as problem:
        return _error(problem.status, problem.status, str(problem))
    text = "[" + ",".join(rows) + "]"
    return Response(200, (text if context.options.kst_fields else without_kst(text)).encode())


def _error(status: int, name: int | str, message: str) -> Response:
    return Response(status, rest_payloads.error(name, message).encode())


def _route(path: str) -> tuple[str, Handler, str] | None:
    if path in _ROUTES:
        return (*_ROUTES[path], "")
    stem, _, last = path.rpartition("/")
    return ("candle", _minutes, last) if stem == "/v1/candles/minutes" else None


def _market(context: Context, params: Params) -> Market:
    market = context.exchange.markets.get(params.required("market"))
    if market is None:
        raise RestError(404, "Code not found")
    return market


def _markets(context: Context, params: Params, upper: bool = False) -> list[Market]:
    """The pairs of a comma list in its order; one that does not exist fails the whole call."""
    text = params.required("markets")
    codes = [code.strip() for code in (text.upper() if upper else text).split(",")]
    known = context.exchange.markets
    # All or nothing, and without saying which, as Upbit does: a client has to find the culprit by itself.
    if not all(code in known for code in codes):
        raise RestError(404, "Code not found")
    return [known[code] for code in codes]


def _market_all(context: Context, params: Params, _: str) -> list[str]:
    details = params.flag("is_details", "isDetails")
    return [rest_payloads.market(market.listing, details) for market in context.exchange.markets.values()]


def _ticker(context: Context, params: Params, _: str) -> list[str]:
    return [rest_payloads.ticker(market, _state(context, market)) for market in _markets(context, params)]


def _state(context: Context, market: Market) -> TickerState:
    now, lag = context.clock.now_ms(), context.faults.replica_lag_ms
    return market.ticker_at(now - lag, now) if lag else market.ticker(now)


def _ticker_all(context: Context, params: Params, _: str) -> list[str]:
    wanted = [quote.strip().upper() for quote in params.required("quote_currencies").split(",")]
    everything = context.exchange.markets.values()
    if not set(wanted) <= {"KRW", "BTC", "USDT"} | {market.grid.quote for market in everything}:
        raise RestError(400, INVALID)
    return [
        rest_payloads.ticker(market, _state(context, market)) for market in everything if market.grid.quote in wanted
    ]


def _orderbook(context: Context, params: Params, _: str) -> list[str]:
    markets = _markets(context, params, upper=True)
    count = params.number("count", 30)
    try:
        scaled = float(params.text("level") or "0") * 1e8
        # -1 is a level that no market offers: "inf" and "nan" get the same empty list as any other odd number.
        level = round(scaled) if math.isfinite(scaled) else -1
    except ValueError:
        raise RestError(400, MISMATCH) from None
    then = context.clock.now_ms() - context.faults.replica_lag_ms
    is_past = context.faults.replica_lag_ms > 0 and level == 0  # grouped books are shown as they are
    views = [(market, market.book.view_at(then) if is_past else market.book.view(level)) for market in markets]
    # One market without that grouping leaves the whole answer empty, with status 200.
    if any(view is None for _, view in views):
        return []
    depth = count if 1 <= count <= 30 else 30
    return [rest_payloads.orderbook(market.code, view, depth) for market, view in views if view is not None]


def _instruments(context: Context, params: Params, _: str) -> list[str]:
    return [rest_payloads.instrument(market) for market in _markets(context, params)]


def _supported_levels(context: Context, params: Params, _: str) -> list[str]:
    return [rest_payloads.supported_levels(market) for market in _markets(context, params)]


def _trades(context: Context, params: Params, _: str) -> list[str]:
    market, now = _market(context, params), context.clock.now_ms()
    count, days_ago = params.number("count", 1), params.number("days_ago", 0, "daysAgo")
    # Zero is refused where it is said, though it is what leaving it out means (documented: 1 to 7).
    if count < 1 or not 0 <= days_ago <= 7 or (days_ago == 0 and params.text("days_ago", "daysAgo") is not None):
        raise RestError(400, INVALID)
    day = now // DAY_MS - days_ago
    then = now - context.faults.replica_lag_ms
    trades = [trade for trade in market.trades_of_day(day) if trade.ms <= then]
    end = _time_of_day(params.text("to"))
    if end is not None:
        trades = [trade for trade in trades if trade.ms < day * DAY_MS + end]
    if params.text("cursor") is not None:
        cursor = params.number("cursor", 0)
        # By its place, where the id is known: ids need not be in order, and paging by "smaller than" would skip trades.
        at = next((index for index, trade in enumerate(trades) if trade.id == cursor), None)
        trades = [trade for trade in trades if trade.id < cursor] if at is None else trades[:at]
    base = market.prev_close(day)
    return [rest_payloads.trade(market.code, trade, base) for trade in reversed(trades[-min(count, 500) :])]


def _time_of_day(text: str | None) -> int | None:
    """`HHmmss` or `HH:mm:ss` in milliseconds since midnight."""
    if text is None:
        return None
    for pattern in ("%H%M%S", "%H:%M:%S"):
        try:
            moment = datetime.strptime(text, pattern)
        except ValueError:
            continue
        return int(timedelta(hours=moment.hour, minutes=moment.minute, seconds=moment.second).total_seconds() * 1000)
    raise RestError(400, INVALID)


def _candle_span(context: Context, params: Params) -> tuple[Market, int, int]:
    """(pair, exclusive upper bound in ms, count)"""
    market, count, to = _market(context, params), params.number("count", 1), params.moment("to")
    if count < 1 or (count > 200 and context.options.candle_count_over_200 == "error"):
        raise RestError(400, INVALID)
    now = context.clock.now_ms()
    # `to` is exclusive and its fraction counts: rounded down, a page would lose the candle of that very second.
    before = now + 1 if to is None else min(now + 1, math.ceil(to.timestamp() * 1000))
    return market, before, min(count, 200)


def _minutes(context: Context, params: Params, unit: str) -> list[str]:
    if unit not in ("1", "3", "5", "10", "15", "30", "60", "240"):
        raise RestError(400, BAD_UNIT)
    return minutes(*_candle_span(context, params), int(unit))


def _seconds(context: Context, params: Params, _: str) -> list[str]:
    return seconds(*_candle_span(context, params), context.clock.now_ms())


def _days(context: Context, params: Params, _: str) -> list[str]:
    span, currency = _candle_span(context, params), params.text("converting_price_unit", "convertingPriceUnit")
    if currency not in (None, "KRW"):
        raise RestError(400, INVALID)
    return days(*span, None if currency is None else context.exchange)


def _long(unit: str) -> Handler:
    return lambda context, params, _: periods(*_candle_span(context, params), unit)


_LONG = {
    "/v1/candles/days": "day", "/v1/candles/weeks": "week", "/v1/candles/months": "month", "/v1/candles/years": "year",
}  # fmt: skip
_ROUTES: dict[str, tuple[str, Handler]] = {
    "/v1/market/all": ("market", _market_all),
    "/v1/candles/seconds": ("candle", _seconds),
    "/v1/candles/days": ("candle", _days),
    **{path: ("candle", _long(unit)) for path, unit in _LONG.items() if unit != "day"},
    "/v1/trades/ticks": ("trade", _trades),
    "/v1/ticker": ("ticker", _ticker),
    "/v1/ticker/all": ("ticker", _ticker_all),
    "/v1/orderbook": ("orderbook", _orderbook),
    "/v1/orderbook/instruments": ("orderbook", _instruments),
    "/v1/orderbook/supported_levels": ("orderbook", _supported_levels),
}
