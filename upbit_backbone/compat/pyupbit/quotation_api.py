"""pyupbit's quotation functions: the same signatures, shapes, types and quirks, answered by the backbone."""

from __future__ import annotations

import contextlib
import itertools
import operator
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from time import monotonic
from typing import Any, Final

from ..._concurrency import Flag
from ...backbone import MarketDataBackbone
from ...errors import InvalidRequestError, ProtocolError, ServerError, UpbitBackboneError
from ...exchange.endpoints import REQUESTS_PER_SECOND
from ...exchange.markets import QUOTES, normalise_symbol, swapped
from ...exchange.timeframes import Timeframe, timeframe_of
from ...export.dataframe import load_pandas, to_dataframe
from ...models.market import KST, CandleData, TickerData
from .asking import answer_or_error, answer_or_none, backbone, log, remaining, unknown
from .payloads import market_row, orderbook_row, ticker_row

MARKETS_MAX_AGE_SECONDS: Final = 1.0  # programs look for new listings in it
HOURS_FOR_DAYS: Final = 200
PAGE: Final = 200  # candles of one request
PAGES_AT_ONCE: Final = int(REQUESTS_PER_SECOND)  # what is asked beyond waits for its turn
_UNITS: Final = ("minute", "second", "day", "week", "month", "year")  # before "s" and a number
_FIRST: Final = datetime(2000, 1, 1)
BOARD_SECONDS: Final = 0.5
PAUSE_SECONDS: Final = 0.02
# By quote currency: None where its markets were listed and none was priced since, then for a moment all its prices.
_boards: dict[str, _Board | None] = {}


# ── which markets there are ──────────────────────────────────────────────────────────────────────────────────────────


def get_tickers(fiat: Any = "", is_details: Any = False, limit_info: Any = False, verbose: Any = False) -> Any:
    """The market codes that begin with `fiat` ("KRW"), in Upbit's order; with `verbose` or `is_details` Upbit's rows.

    `limit_info` gives a tuple: the list, and what is left of the limit.
    """
    markets = answer_or_error(lambda: backbone().get_markets(max_age=MARKETS_MAX_AGE_SECONDS))
    found = [each for each in markets if each.symbol.startswith(fiat)]
    if fiat in QUOTES:
        _boards[fiat] = None
    if verbose or is_details:
        answer: list[Any] = [market_row(each, details=bool(is_details)) for each in found]
    else:
        answer = [each.symbol for each in found]
    return (answer, remaining("market")) if limit_info else answer


# ── candles ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def get_url_ohlcv(interval: Any) -> str:
    """Where Upbit gives the candles that `interval` names."""
    return f"https://api.upbit.com/v1/candles/{_timeframe(interval).rest_path}"


def get_ohlcv(
    ticker: Any = "KRW-BTC", interval: Any = "day", count: Any = 200, to: Any = None, period: Any = 0.1
) -> Any:
    """The newest `count` candles before `to` as a DataFrame (open high low close volume value), oldest first; None
    where there are none or it failed, with the reason in the log.

    The index is Korean time without a zone, and a `to` without one is read as UTC: both as in pyupbit. `to` with a zone
    means what it says. `period` is not needed: requests keep Upbit's limits by themselves.
    """
    timeframe = _timeframe(interval)

    def question() -> Any:
        market, wanted = _one_market(ticker), _count(count)
        end = None if to is None else _moment(to, "to", UTC)
        progress = _load_pandas_while_waiting() if wanted > PAGES_AT_ONCE * PAGE else None
        candles = backbone().get_candles(market, timeframe.word, wanted, to=end, progress=progress)
        if not candles:
            raise _NoCandlesError(f"there are no candles of {market} before {to or 'now'}")
        return _frame(_checked(market, candles))

    return answer_or_none(f"get_ohlcv({ticker!r}, {interval!r}, to={to!r})", question)


def _load_pandas_while_waiting() -> Callable[[int, int | None], object]:
    """A `progress` that has pandas loaded once the rest of the pages waits for its turns.

    Its import takes as long as some of them; begun any sooner, it would hold up the first ones, and so all that follow.
    One that is missing or broken is told by whoever needs it.
    """
    pages = itertools.count(1)

    def progress(done: int, total: int | None) -> None:
        if next(pages) == PAGES_AT_ONCE:
            backbone().submit(load_pandas)

    return progress


def get_ohlcv_from(
    ticker: Any = "KRW-BTC",
    interval: Any = "day",
    fromDatetime: Any = None,
    to: Any = None,
    period: Any = 0.1,
) -> Any:
    """All candles from `fromDatetime` (Korean time, as in the index) up to `to` (UTC, exclusive; default now), as
    `get_ohlcv` gives them; None likewise. Times with a zone mean what they say."""
    timeframe = _timeframe(interval)

    def question() -> Any:
        market = _one_market(ticker)
        start = _moment(_FIRST if fromDatetime is None else fromDatetime, "fromDatetime", KST)
        end = datetime.now(UTC) if to is None else _moment(to, "to", UTC)
        if start >= end:
            raise InvalidRequestError(f"fromDatetime={fromDatetime!r} is not before to={to!r}")
        candles = list(backbone().iter_candles(market, timeframe.word, start=start, end=end))
        if not candles and not backbone().get_candles(market, timeframe.word, 1, to=end):
            raise _NoCandlesError(f"there are no candles of {market} before {end}")
        return _frame(_checked(market, candles))

    return answer_or_none(f"get_ohlcv_from({ticker!r}, {interval!r}, {fromDatetime!r}, to={to!r})", question)


def get_daily_ohlcv_from_base(ticker: Any = "KRW-BTC", base: Any = 0) -> Any:
    """Days that begin at `base` o'clock (Korean time; 9.5 is half past nine), made from the newest 200 hours: open high
    low close volume. None like `get_ohlcv`. The first day is whole only by chance; `get_candles(day_start=…)` has whole
    days only."""

    def question() -> Any:
        hours = get_ohlcv(ticker, interval="minute60")
        if hours is None:
            raise _NoCandlesError("there are no hours to make days from")
        pandas = load_pandas()
        try:
            offset = pandas.Timedelta(hours=float(base or 0))
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidRequestError(f"base={base!r}: expected the hour at which days begin") from error
        if isinstance(base, str) or offset is pandas.NaT:
            raise InvalidRequestError(f"base={base!r}: expected the hour at which days begin")
        how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
        return hours.resample(pandas.offsets.Hour(24), offset=offset).agg(how)

    return answer_or_none(f"get_daily_ohlcv_from_base({ticker!r}, {base!r})", question)


class _NoCandlesError(UpbitBackboneError):
    """Nothing was wrong, and there is nothing: pyupbit gives None for that, too."""

    whose_fault = "nobody's"


def _timeframe(interval: Any) -> Timeframe:
    """The unit meant; days for what pyupbit does not know, as there, but not without a word."""
    if isinstance(interval, str):
        name, number = interval.rstrip("0123456789"), interval.lstrip("abcdefghijklmnopqrstuvwxyz")
        unit = name.removesuffix("s")
        is_known = unit in _UNITS and bool(number) is (unit == "minute") and interval == f"{name}{number}"
        try:
            if is_known:
                return timeframe_of(f"{unit}{number}")
        except InvalidRequestError:
            pass  # minutes that Upbit does not have
    warnings.warn(
        f"interval={interval!r} is none of pyupbit's, and gives days: expected day, week, month, year, second, "
        "or minute with 1, 3, 5, 10, 15, 30, 60 or 240 after it",
        stacklevel=3,
    )
    return timeframe_of("1d")


def _one_market(ticker: Any) -> str:
    if isinstance(ticker, list | tuple) and len(ticker) == 1:
        (ticker,) = ticker
    if not isinstance(ticker, str):
        raise InvalidRequestError(f"ticker={ticker!r}: expected a market code such as 'KRW-BTC'")
    return ticker


def _count(count: Any) -> int:
    try:
        return max(operator.index(count), 1)
    except TypeError as error:
        raise InvalidRequestError(f"count={count!r}: expected a whole number") from error


def _moment(said: Any, name: str, zone: Any) -> datetime:
    """What `said` means, in whole seconds; without a zone of its own it is read as of `zone`."""
    pandas = load_pandas()
    try:
        moment = pandas.to_datetime(said) if isinstance(said, str) else said
        if isinstance(moment, pandas.Timestamp):
            moment = moment.to_pydatetime(warn=False)
        elif not isinstance(moment, datetime) and isinstance(moment, date):
            moment = datetime.combine(moment, time())
        if not isinstance(moment, datetime) or moment is pandas.NaT:
            raise ValueError("no date and time")
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidRequestError(
            f"{name}={said!r}: expected a datetime, or a text such as '2026-01-05 03:00:00'"
        ) from error
    moment = moment.replace(microsecond=0)
    return moment.replace(tzinfo=zone) if moment.utcoffset() is None else moment


def _checked(market: str, candles: Sequence[CandleData]) -> Sequence[CandleData]:
    """`candles`, if they are of the market as it was said: the backbone also understands "BTC/KRW" and "BTC-KRW"."""
    if candles and candles[0].symbol != market:
        raise unknown(market, candles[0].symbol)
    return candles


def _frame(candles: Sequence[CandleData]) -> Any:
    frame = to_dataframe(candles, style="ohlcv", kind=CandleData)
    pandas = load_pandas()
    unit = "ns" if int(pandas.__version__.partition(".")[0]) < 3 else "us"  # what pandas makes of pyupbit's datetimes
    frame.index = frame.index.tz_localize(None).astype(f"datetime64[{unit}]").rename(None)  # Korean, unsaid
    return frame


# ── prices and books ─────────────────────────────────────────────────────────────────────────────────────────────────


def get_current_price(ticker: Any = "KRW-BTC", limit_info: Any = False, verbose: Any = False) -> Any:
    """The price of one market as a float; of a list of markets a dict by code. A list of one is one market.

    `verbose` gives Upbit's rows instead (a list, for one market, too); `limit_info` a tuple of the answer and what is
    left of the limit. Raises pyupbit's UpbitError or TooManyRequests (`pyupbit.errors`), for one unknown market of a
    list, too. Asked in a loop it is answered from the stream, without a request.
    """
    markets, is_one = _markets(ticker)
    if len(markets) == 1 and is_one:
        row = answer_or_error(lambda: _priced(markets[0]))
        answer: Any = [ticker_row(row)] if verbose is not False else float(row.current_price)
    else:
        found = answer_or_error(lambda: _several(markets, backbone().get_tickers)) if markets else {}
        if is_one:  # "KRW-BTC,KRW-ETH" is one text, and the price of its first
            # Where nothing readable came of that one, never the price of the next.
            first = found[markets[0]] if markets[0] in found else answer_or_error(lambda: _priced(markets[0]))
            answer = list(map(ticker_row, found.values())) if verbose is not False else float(first.current_price)
        elif verbose is not False:
            answer = list(map(ticker_row, found.values()))
        else:
            answer = {code: float(each.current_price) for code, each in found.items()}
    return (answer, remaining("ticker")) if limit_info else answer


def get_orderbook(ticker: Any = "KRW-BTC", limit_info: Any = False, *, tickers: Any = None) -> Any:
    """The order book of one market (or of a list of one) as Upbit's dict; of several markets a list of them.

    `tickers=` is the argument's old name, and `[0]` of the dict is the dict, as it was in pyupbit's first versions.
    Raises like `get_current_price`.
    """
    asked = ticker if tickers is None else tickers
    is_whole = isinstance(asked, str | list | tuple) or not isinstance(asked, Iterable)
    markets, is_one = _markets(asked if is_whole else tuple(asked))  # here pyupbit takes sets and generators, too
    markets = [each.upper() for each in markets]  # as Upbit does, with books alone
    if not markets:
        raise TypeError("ticker: expected at least one market code, got none")
    found = answer_or_error(lambda: _several(markets, backbone().get_orderbooks))
    if is_one and markets[0] not in found:  # never the book of the next
        found = {markets[0]: answer_or_error(lambda: backbone().get_orderbook(markets[0]))}
    rows = [_Orderbook(orderbook_row(book)) for book in found.values()]
    answer = rows[0] if is_one else rows
    return (answer, remaining("orderbook")) if limit_info else answer


class _Orderbook(dict[str, Any]):
    """A dict like any other, in which `[0]` is the dict itself: pyupbit used to give a list of one."""

    def __missing__(self, key: object) -> Any:
        if key == 0:
            return self
        raise KeyError(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


_Orderbook.__name__ = "dict"  # programs print `type(book).__name__`


def _markets(ticker: Any) -> tuple[list[str], bool]:
    """The codes asked for, and whether one market was meant."""
    if isinstance(ticker, str):
        return ticker.split(","), True
    has_places = hasattr(ticker, "__len__") and hasattr(ticker, "__getitem__") and not isinstance(ticker, Mapping)
    is_empty = hasattr(ticker, "__len__") and not len(ticker)
    if not has_places and not is_empty:
        raise TypeError(f"ticker={ticker!r}: expected a market code such as 'KRW-BTC', or a list of them")
    if not all(isinstance(each, str) for each in ticker):
        raise TypeError(f"ticker={ticker!r}: expected market codes such as 'KRW-BTC'")
    return [code for each in ticker for code in each.split(",")], isinstance(ticker, list) and len(ticker) == 1


def _priced(market: str) -> TickerData:
    asked = backbone()
    ticker = _of_board(asked, market) if _boards else None
    if ticker is None:
        ticker = asked.get_ticker(market)
    if ticker.symbol != market:
        raise unknown(market, ticker.symbol)
    return ticker


def _of_board(asked: MarketDataBackbone, market: str) -> TickerData | None:
    """From the list of all prices, for who has just asked which markets there are: he goes on to ask each of them."""
    quote = market.partition("-")[0]
    if quote not in _boards:
        return None
    board = _boards[quote]
    if board is None:
        _boards.pop(quote, None)  # one list, whatever comes of it
        with contextlib.suppress(InvalidRequestError, ServerError, ProtocolError):  # this list alone is ill
            board = _boards[quote] = _Board(asked, quote)
    if board is None or board.is_over(asked):
        _boards.pop(quote, None)
        return None
    return board.take(market)


class _Board:
    """All prices of a quote currency by one request; each answers the first question about its market.

    A question costs the router a tenth of a millisecond, and 289 of them more than the request did. So it hears of them
    on another thread, once nobody has taken a price for a moment: beside the round it would take that its processor.
    What was asked here streams from then on like anything that is asked often.
    """

    def __init__(self, asked: MarketDataBackbone, quote: str) -> None:
        self._asked = asked
        self._tickers = asked.get_tickers(quote=quote)
        self._ends_at = monotonic() + BOARD_SECONDS
        self._given: deque[str] = deque()  # and not yet told
        self._is_telling = False
        self._all_taken = Flag()

    def is_over(self, asked: MarketDataBackbone) -> bool:
        return asked is not self._asked or monotonic() >= self._ends_at

    def take(self, market: str) -> TickerData | None:
        """Once: who asks again wants to know what has changed."""
        ticker = self._tickers.pop(market, None)
        if ticker is not None:
            self._given.append(market)
            if not self._tickers:
                self._all_taken.set()
            if not self._is_telling:
                self._is_telling = True
                self._asked.submit(self._tell)
        return ticker

    def _tell(self) -> None:
        while self._given:
            self._wait_for_pause()
            try:
                while (market := self._next()) is not None:
                    self._asked.get_ticker(market)
            except UpbitBackboneError as error:  # the price was given already; whoever asks next hears for himself
                log.info("a price is not streamed yet", extra={"why": str(error)})
            # In this order: what is given after the inner loop and before this is seen by the outer one.
            self._is_telling = False

    def _wait_for_pause(self) -> None:
        before = 0
        while len(self._given) > before:
            before = len(self._given)
            self._all_taken.wait(PAUSE_SECONDS)

    def _next(self) -> str | None:
        try:
            return self._given.popleft()
        except IndexError:
            return None


def _several(markets: list[str], ask: Callable[[list[str]], Mapping[str, Any]]) -> Mapping[str, Any]:
    found = ask(markets)
    for said in markets:
        meant = normalise_symbol(said)
        if meant != said or (said not in found and swapped(said) in found):
            raise unknown(said, next((code for code in (swapped(said) or meant, meant) if code in found), meant))
    return found
