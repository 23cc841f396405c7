"""Questions about one market, put to REST in the way that costs least over time, or answered with what it said a moment
ago."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from .. import errors
from .._concurrency import Clock, Deadline, get_logger
from ..exchange.markets import QUOTES
from ..models.enums import RequestKind
from ..models.market import OrderbookData, TickerData
from ..models.request import DataRequest, Topic
from ..rest.batching import Answers
from ..rest.client import RestClient
from ..rest.group_queue import JOINABLE_SECONDS
from ..store.exchange_clock import ExchangeClock
from ..store.intelligent_cache import CacheLook, IntelligentCache, Key
from ..store.live_store import LiveStore
from .markets import MarketDirectory
from .stream import topic_of, trimmed

log = get_logger("upbit_backbone.rest")
State = TypeVar("State", TickerData, OrderbookData)


class AnswerCheck:
    """Whether what REST answered is as young as was asked for, and the newest there is. Thread-safe, without a lock.

    An answer is true as of its stamp, or of the moment its request left, whichever is later: how long it was on its way
    makes it older. A replica that lags shows what was; where a stream, or another answer, has shown the market moving
    since, that is given instead. Either way the caller is told by `degraded`.
    """

    def __init__(
        self, store: LiveStore, cache: IntelligentCache, clock: Clock, exchange_clock: ExchangeClock | None
    ) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._exchange_clock = exchange_clock

    def checked(self, item: State, topic: Topic, key: Key | DataRequest, max_age: float | None) -> State:
        """`item`, kept in the cache under `key`; `max_age` None or 0 says that whatever came just now will do."""
        known = self._store.overtakes(topic, item)
        if known is not None:
            return dataclasses.replace(known, degraded=True)  # type: ignore[no-any-return]  # of the topic's type
        if max_age and self._age(item, key) > max_age:
            return dataclasses.replace(item, degraded=True)
        return item

    def _age(self, item: State, key: Key | DataRequest) -> float:
        since_request = self._cache.age_of(key)
        since_stamp = None
        if self._exchange_clock is not None:
            since_stamp = self._exchange_clock.seconds_since(item.timestamp, self._clock.monotonic())
        return min((each for each in (since_request, since_stamp) if each is not None), default=0.0)

    def __repr__(self) -> str:
        return f"<AnswerCheck by {self._store!r}>"


class CacheChannel:
    """Never waits: an answer at most `max_age` seconds old (default: its kind's own measure), or StaleDataError."""

    def __init__(self, cache: IntelligentCache) -> None:
        self._cache = cache

    def fetch(
        self, request: DataRequest, deadline: Deadline, look: CacheLook | None = None
    ) -> TickerData | OrderbookData:
        look = look or self._cache.look(request)
        item = self._cache.given(look, request.max_age)
        wanted = OrderbookData if request.kind is RequestKind.ORDERBOOK else TickerData
        if not isinstance(item, wanted):
            raise errors.StaleDataError(f"{request.kind.value} {request.symbol}: no cached answer is young enough")
        return trimmed(item, request.levels)

    def __repr__(self) -> str:
        return f"<CacheChannel of {self._cache!r}>"


class RestChannel:
    """The first question about a quote currency, and every sweep over its markets, is one list of all of them.

    That list answers the question in the same single round trip, tells which markets exist, and answers whoever asks
    for the next market a moment later.
    """

    def __init__(self, rest: RestClient, directory: MarketDirectory, check: AnswerCheck) -> None:
        self._rest = rest
        self._check = check
        self._directory = directory

    def fetch(
        self, request: DataRequest, deadline: Deadline, look: CacheLook | None = None
    ) -> TickerData | OrderbookData:
        """UnknownSymbolError for a market that does not exist, NoTradesYetError for one without a price,
        MalformedDataError where its row cannot be read; otherwise what `RestClient` raises."""
        item: Any = None if look is None else self._rest.cache.given(look, request.max_age)
        if item is None:
            ask = self._orderbook if request.kind is RequestKind.ORDERBOOK else self._ticker
            item = ask(request, deadline, has_looked=look is not None)
        return trimmed(self._check.checked(item, topic_of(request), request, request.max_age), request.levels)

    def _ticker(self, request: DataRequest, deadline: Deadline, *, has_looked: bool) -> TickerData:
        symbol = request.symbol
        quote = symbol.partition("-")[0]
        is_first = not self._directory.knows(symbol)
        # A list under way left before this call.
        may_be_shared = request.max_age is None or request.max_age >= JOINABLE_SECONDS
        if quote in QUOTES and may_be_shared and (request.is_sweep or is_first):
            found = self._all_of(quote, request, deadline)
            if symbol in found:
                return found[symbol]
            if symbol in found.refused:
                raise found.refused[symbol]
        self._directory.require((symbol,), deadline)
        answers = self._rest.tickers(
            (symbol,),
            deadline=deadline,
            priority=request.priority,
            max_age=request.max_age,
            has_looked=has_looked,
        )
        if symbol in answers.refused:
            raise answers.refused[symbol]
        if symbol not in answers:
            raise self._directory.verdict(symbol, deadline)
        return answers[symbol]

    def _all_of(self, quote: str, request: DataRequest, deadline: Deadline) -> Answers[TickerData]:
        try:
            return self._rest.tickers_of_quotes(
                [quote], deadline=deadline, priority=request.priority, max_age=request.max_age
            )
        except errors.MessageTooBigError:
            raise  # once is enough
        except (errors.InvalidRequestError, errors.ServerError, errors.ProtocolError):
            return Answers()  # a region without this board, or only this endpoint is ill: ask for the one market

    def _orderbook(self, request: DataRequest, deadline: Deadline, *, has_looked: bool) -> OrderbookData:
        symbol = request.symbol
        self._directory.require((symbol,), deadline)
        symbols: tuple[str, ...] = (symbol,)
        if request.is_sweep:
            symbols, has_looked = self._directory.listed(symbol.partition("-")[0]) or symbols, False
        answers = self._rest.orderbooks(
            symbols,
            levels=request.levels,
            level=request.level,
            deadline=deadline,
            priority=request.priority,
            max_age=request.max_age,
            has_looked=has_looked,
        )
        if symbol in answers:
            return answers[symbol]
        if symbol in answers.refused:
            raise answers.refused[symbol]
        if request.level:
            raise self._unsupported(symbol, request, deadline)
        raise self._directory.verdict(symbol, deadline)

    def _unsupported(self, symbol: str, request: DataRequest, deadline: Deadline) -> errors.InvalidRequestError:
        try:
            instrument = self._rest.instruments((symbol,), deadline=deadline, priority=request.priority).get(symbol)
        except errors.ClosedError:
            raise
        except errors.UpbitBackboneError as error:  # without the list the question is as wrong
            log.warning("price groupings not looked up", extra={"symbol": symbol, "why": errors.one_line(error)})
            instrument = None
        levels = None if instrument is None else instrument.supported_levels
        there_are = "level=0 is always possible" if levels is None else f"there are {', '.join(map(str, levels))}"
        asked = f"order book of {symbol} with level={request.level}"
        return errors.InvalidRequestError(f"{asked}: Upbit does not group this market's prices so; {there_are}")

    def __repr__(self) -> str:
        return f"<RestChannel {self._rest!r}>"
