"""Answers by REST: limited, merged, cached, retried, and always by the deadline.

    question → cache → one call with everybody who asks the same → a turn → breaker → transport → models → cache

Every rate group has a lane of its own (workers, queue, breaker), so that nothing which hangs in one delays another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, ForkGuard
from ..config import BackboneConfig
from ..errors import ClosedError
from ..exchange import endpoints
from ..exchange.endpoints import RestCall
from ..exchange.rates import REST_GROUPS
from ..exchange.timeframes import timeframe_of
from ..limits.rate_limiter import RateLimiter
from ..models.enums import Priority, RateGroup
from ..models.events import Event
from ..models.market import CandleData, MarketInfo, OrderbookData, TickerData, TradeData
from ..models.topic import ZERO
from ..resilience.circuit_breaker import CircuitBreaker
from ..store.exchange_clock import ExchangeClock
from ..store.intelligent_cache import IntelligentCache, Lifetime
from ..unify.rest import (
    Rows,
    decode_candles,
    decode_markets,
    decode_orderbooks,
    decode_tickers,
    decode_trades,
    unread_of,
)
from ..wire.rest_transport import RestResponse, RestTransport, Transport
from .attempt import Measure, RetryingCaller
from .batching import Answers, BookDesks, ListDesk, refused_in
from .group_queue import GroupQueue
from .single_flight import CallMerger

if TYPE_CHECKING:
    from ..models.report import GroupStats

TICKERS_PER_CALL: Final = 400
BOOKS_PER_CALL: Final = 400
FIRST_RESET_SHARE: Final = 0.2  # a short trouble closes a group for a short time only
# A market list at most this old may tell which code of a list does not exist.
MARKET_LIST_SECONDS: Final = 10.0

Model = TypeVar("Model")


class RestClient:
    """All of Upbit's public REST questions. Blocking; usable from any number of threads.

    Every method ends by its deadline with an answer or with one of our errors: InvalidRequestError before anything is
    sent; RateLimitError, BannedError and ChannelUnavailableError (breaker open) at once, with `retry_after`;
    RequestTimeoutError, NetworkError, ServerError, MalformedDataError after what attempts the deadline allowed;
    ClosedError after `close`. A row that cannot be read costs only itself: see `Answers.refused` and `Rows.unread`.
    `remember` is told of every fresh answer, and `unread` of all in it that could not be read, on the thread that
    fetched it: the asker's own or a worker's.
    """

    def __init__(
        self,
        config: BackboneConfig,
        *,
        limiter: RateLimiter,
        remember: Callable[[Sequence[Any]], object] = lambda items: None,
        unread: Callable[[str, Rows[Any]], object] = lambda kind, rows: None,
        emit: Callable[[Event], object] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = random.random,
        transport: Transport | None = None,
        exchange_clock: ExchangeClock | None = None,
        measure: Measure = lambda *_: None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._limiter = limiter
        self._remember = remember
        self._measure = measure
        self._unread = unread
        self._guard = ForkGuard("REST channel")
        self._transport: Transport = transport or RestTransport(
            config.rest_url,
            ca_file=config.ca_file,
            proxy=config.proxy,
            connect_seconds=config.connect_timeout_seconds,
        )
        max_age = config.rest_max_age_seconds
        lifetime = Lifetime(max_age, max(60.0, max_age))
        self.cache = IntelligentCache({"ticker": lifetime, "orderbook": lifetime}, clock=clock)
        self._exchange_clock = exchange_clock or ExchangeClock(clock)
        self._lanes = {group: self._lane(group, emit, random) for group in REST_GROUPS}
        self._calls: dict[RateGroup, CallMerger[Any]] = {
            group: CallMerger(group.value, lane, self.cache, clock) for group, lane in self._lanes.items()
        }
        self._tickers: ListDesk[TickerData] = self._list_desk(
            RateGroup.TICKER, (), endpoints.tickers, self._telling("ticker", decode_tickers), TICKERS_PER_CALL
        )
        self._books = BookDesks(
            lambda depth, level: self._list_desk(
                RateGroup.ORDERBOOK,
                (depth, level),
                partial(endpoints.orderbooks, count=depth, level=level),
                self._telling("orderbook", decode_orderbooks),
                BOOKS_PER_CALL,
                may_leave_out=level != 0,  # a market whose prices cannot be grouped so has no such book
            )
        )
        self._is_closed = False

    def _lane(
        self, group: RateGroup, emit: Callable[[Event], object] | None, random: Callable[[], float]
    ) -> GroupQueue:
        config = self._config
        breaker = CircuitBreaker(
            f"REST {group.value}",
            failures=config.breaker_failures,
            reset_seconds=config.breaker_reset_seconds,
            first_reset_seconds=config.breaker_reset_seconds * FIRST_RESET_SHARE,
            clock=self._clock,
            emit=emit,
        )
        caller = RetryingCaller(
            group,
            transport=self._transport,
            limiter=self._limiter,
            breaker=breaker,
            attempts=config.rest_attempts,
            clock=self._clock,
            random=random,
            on_response=self._learn_offset,
            measure=self._measure,
        )
        return GroupQueue(caller, workers=config.rest_workers_per_group)

    def _telling(
        self, kind: str, decode: Callable[[bytes, datetime], Rows[Model]]
    ) -> Callable[[bytes, datetime], list[Model]]:
        """`decode`, telling what could not be read."""

        def decoded(body: bytes, received_at: datetime) -> list[Model]:
            rows = decode(body, received_at)
            if rows.unread or rows.unread_fields:
                self._unread(kind, rows)
            return rows

        return decoded

    # --- questions about many markets -----------------------------------------------------------------------

    def tickers(
        self,
        symbols: Iterable[str],
        *,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        max_age: float | None = None,
    ) -> Answers[TickerData]:
        """Tickers at most `max_age` seconds old (None: `config.rest_max_age_seconds`); markets that Upbit refuses as
        unknown are absent, one that it only left out is MalformedDataError."""
        self._check()
        return self._tickers.ask(symbols, deadline, priority, max_age)

    def refuses(self, symbol: str, deadline: Deadline) -> bool:
        """Whether Upbit says that there is no such market, when asked for its ticker by name."""
        answers = self.tickers((symbol,), deadline=deadline, max_age=60.0)
        return symbol not in answers and symbol not in answers.refused

    def tickers_of_quotes(
        self,
        quotes: Iterable[str],
        *,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        max_age: float | None = None,
    ) -> Answers[TickerData]:
        """The tickers of all markets priced in `quotes` (such as ["KRW", "BTC"]), by one request."""
        self._check()
        call = endpoints.tickers_of_quotes(quotes)
        wanted = tuple(call.params[0][1].split(","))
        listed = [self.cache.get_cached_data(("quote", quote), 60.0, counted=False) for quote in wanted]
        if None not in listed:
            kept = self._tickers.from_cache([symbol for symbols in listed for symbol in symbols or ()], max_age)
            if kept is not None:
                return Answers(kept.items())
        generation = self.cache.generation()

        def keep(items: Sequence[TickerData], sent_at: float) -> None:
            for quote in wanted:
                symbols = tuple(item.symbol for item in items if item.symbol.startswith(f"{quote}-"))
                self.cache.cache_data(("quote", quote), symbols, 60.0, generation)
            self._tickers.keep(items, generation, sent_at)

        items = self._calls[RateGroup.TICKER].ask(
            call, self._telling("ticker", decode_tickers), deadline, priority, keep
        )
        named = [row.symbol for row in unread_of(items) if row.symbol is not None]
        return Answers(((item.symbol, item) for item in items), refused_in(items, named))

    def orderbooks(
        self,
        symbols: Iterable[str],
        *,
        levels: int = endpoints.MAX_LEVELS,
        level: Decimal | int = ZERO,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        max_age: float | None = None,
    ) -> Answers[OrderbookData]:
        """Books with at most `levels` levels a side, prices grouped by `level`; unknown markets are absent."""
        self._check()
        return self._books.ask(symbols, levels, level, deadline, priority, max_age)

    def _list_desk(
        self,
        group: RateGroup,
        variant: tuple[object, ...],
        make_call: Callable[[Iterable[str]], RestCall],
        decode: Callable[[bytes, datetime], list[Any]],
        limit: int,
        *,
        may_leave_out: bool = False,
    ) -> ListDesk[Any]:
        return ListDesk(
            group.value,
            variant,
            lane=self._lanes[group],
            cache=self.cache,
            clock=self._clock,
            make_call=make_call,
            decode=decode,
            remember=self._remember,
            known_markets=self._known_markets,
            window_seconds=self._config.merge_window_seconds,
            limit=limit,
            may_leave_out=may_leave_out,
        )

    # --- questions about one market ---------------------------------------------------------------------------

    def trades_page(
        self,
        symbol: str,
        *,
        count: int = 1,
        to: datetime | None = None,
        cursor: int | None = None,
        days_ago: int | None = None,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
    ) -> list[TradeData]:
        """At most 500 trades of one UTC day, newest first; see `endpoints.trades`. UnknownSymbolError if delisted."""
        self._check()
        call = endpoints.trades(symbol, count, to=to, cursor=cursor, days_ago=days_ago)
        desk = self._calls[RateGroup.TRADE]
        return _page(desk.ask(call, self._telling("trade", decode_trades), deadline, priority, self._tell, symbol))

    def candles_page(
        self,
        symbol: str,
        timeframe: str,
        *,
        count: int = 1,
        to: datetime | None = None,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
    ) -> list[CandleData]:
        """At most 200 candles that start before `to` (None: now), newest first; the first may still be forming."""
        self._check()
        call = endpoints.candles(timeframe, symbol, count, to=to)
        word = timeframe_of(timeframe).word

        def decode(body: bytes, received_at: datetime) -> Rows[CandleData]:
            return decode_candles(body, word, received_at)

        desk = self._calls[RateGroup.CANDLE]
        return _page(desk.ask(call, self._telling("candle", decode), deadline, priority, self._tell, symbol))

    def _tell(self, items: Sequence[Any], _: float) -> None:
        self._remember(items)

    def markets(self, *, deadline: Deadline, priority: Priority = Priority.NORMAL) -> list[MarketInfo]:
        """Every market, with warnings, straight from Upbit."""
        self._check()

        def keep(items: Sequence[MarketInfo], sent_at: float) -> None:
            known = frozenset(item.symbol for item in items)
            self.cache.cache_data(("known",), known, MARKET_LIST_SECONDS)
            self._remember(items)

        call = endpoints.markets(details=True)
        return self._calls[RateGroup.MARKET].ask(
            call, self._telling("market", decode_markets), deadline, priority, keep
        )

    def _known_markets(self, deadline: Deadline, priority: Priority) -> frozenset[str]:
        known: frozenset[str] | None = self.cache.get_cached_data(("known",), counted=False)
        if known is None:
            known = frozenset(item.symbol for item in self.markets(deadline=deadline, priority=priority))
        return known

    # --- about itself -----------------------------------------------------------------------------------------

    @property
    def clock_offset(self) -> float | None:
        """Upbit's clock minus ours in seconds, as far as REST and the streams tell; None before the first answer."""
        return self._exchange_clock.ahead

    def refusal(self, group: RateGroup) -> Exception | None:
        """Why a question to `group` would fail at once (breaker open), or None. Bans are the limiter's to tell."""
        return self._lanes[group].refusal()

    def stats(self) -> list[GroupStats]:
        return [lane.stats() for lane in self._lanes.values()]

    def _learn_offset(self, response: RestResponse, received_at: datetime) -> None:
        self._exchange_clock.learn_date(response.headers.get("date"), response.elapsed)

    def _check(self) -> None:
        self._guard.check()
        if self._is_closed:
            raise ClosedError("the REST channel is closed; make a new backbone")

    def close(self, deadline: Deadline) -> list[str]:
        """End everything: questions under way get ClosedError. Names of workers that would not stop in time."""
        if self._guard.is_foreign:
            return []
        self._is_closed = True
        for lane in self._lanes.values():
            lane.stop()
        self._transport.close()
        return [name for lane in self._lanes.values() for name in lane.close(deadline)]

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{sum(lane.requests for lane in self._lanes.values())} requests"
        return f"<RestClient {self._config.rest_url} {state}>"


def _page(rows: list[Model]) -> list[Model]:
    """A page of history. One without a single row that can be read is an error: taken for an empty one, it would be the
    end of history."""
    unread = unread_of(rows)
    if unread and not rows:
        raise unread[0].error
    return rows
