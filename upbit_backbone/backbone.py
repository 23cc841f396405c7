"""The one door for people.

    with MarketDataBackbone() as market:
        market.get_ticker("KRW-BTC").current_price

Every method is blocking and thread-safe. Every `get_*` ends by its `timeout` (seconds in all; default
`config.timeout_seconds`) with an answer or one of our errors: InvalidRequestError at once for a question that cannot
be asked, RequestTimeoutError / ChannelUnavailableError / StaleDataError (which carries `last_known`) when no channel
could answer, ClosedError after `close()`. Arguments are checked before anything goes on the wire.

This module is long because it is one door: half of it is promises, and no method does more than check its arguments
and hand over to the part that knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from datetime import datetime, time
from decimal import Decimal
from functools import partial
from pathlib import Path
from queue import Queue, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from ._arguments import Moment, aware, whole_number
from ._concurrency import Deadline, at_exit, calls_users, check_timeout, get_logger, wait_future
from ._lazy import loading
from .assembly import Assembly, Span, assemble, assemble_replay
from .config import BackboneConfig
from .delivery.subscription import NO_MARK, Subscription, SubscriptionId, check_arguments
from .errors import (
    ClosedError,
    InvalidRequestError,
    SubscriptionError,
    UpbitBackboneError,
    one_line,
)
from .exchange.endpoints import MAX_LEVELS
from .exchange.markets import normalise_quote, normalise_symbol, normalise_symbols, swapped
from .exchange.timeframes import LAST_MOMENT, timeframe_of
from .models.enums import DataStrategy, DataType, HealthStatus, Overflow, Priority, RequestKind
from .models.request import ZERO, SubscriptionRequest, Topic
from .routing.requests import (
    build_request,
    cache_key,
    check_callable,
    data_types,
    described,
    member,
    price_level,
)
from .sessions.session_manager import SessionManager

if TYPE_CHECKING:
    from .archive.store import Store
    from .backfill.sequence import Start
    from .delivery.event_bus import Listening
    from .delivery.hub import Hub
    from .delivery.subscription import (
        CandleKind,
        OneOrMore,
        OrderbookKind,
        Strategy,
        SubscribeOptions,
        Symbols,
        TickerKind,
        TradeKind,
    )
    from .export.dataframe import Rows
    from .history.download import CancelToken
    from .history.pages import Progress
    from .history.ranges import Fill
    from .live.candle_series import CandleSeries
    from .live.orderbook import LiveOrderbook
    from .models.events import Event
    from .models.lazy_book import Datum
    from .models.market import CandleData, Instrument, MarketInfo, OrderbookData, TickerData, TradeData
    from .models.report import Alert, DownloadEstimate, HealthReport, PerformanceReport
    from .models.request import ChannelDecision, DataRequest
    from .monitoring.alerts import AlertRule
    from .monitoring.health_monitor import HealthMonitor
    from .monitoring.prometheus import PrometheusCollector
    from .recorder import Recorder
    from .routing.router import RequestRouter
    from .sinks import Sink, SinkRecorder

log = get_logger("upbit_backbone")

T = TypeVar("T")
AUTO, NORMAL = DataStrategy.AUTO, Priority.NORMAL
# What subscribe() gives the first market list, which takes 50 to 250 ms, and for ever where REST hangs.
LIST_SECONDS = 0.04
# Downloads of more requests are worth asking where the candles begin, which takes about five.
SHORT_DOWNLOAD = 50


class MarketDataBackbone:
    """Upbit's market data through one object.

    `config` is a BackboneConfig; `overrides` are its fields (`url=…`, `region="sg"`); what is given neither way
    comes from the environment (UPBIT_BACKBONE_*) and then from the defaults. Nothing is started before the first
    question. Use it as a context manager, or call `close()`; a forgotten one never keeps the process alive.
    """

    def __init__(
        self,
        config: BackboneConfig | None = None,
        *,
        on_event: Callable[[Event], object] | None = None,
        **overrides: Any,
    ) -> None:
        if config is not None and not isinstance(config, BackboneConfig):
            raise InvalidRequestError(f"config={config!r}: expected a BackboneConfig, or its fields as arguments")
        if config is not None and overrides:
            raise InvalidRequestError("give either config= or single settings, not both")
        self._take(assemble(config or BackboneConfig.from_environment(**overrides)))
        if on_event is not None:
            self.on_event(on_event)

    def _take(self, parts: Assembly) -> None:
        self._parts = parts
        self.config = parts.config
        # The hot paths' own references: one attribute each instead of two.
        self._live_ticker = parts.hot.ticker
        self._live_book = parts.hot.book
        at_exit(parts.close)

    @classmethod
    def replay(
        cls,
        path: str | Path | Store,
        *,
        speed: float | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        on_event: Callable[[Event], object] | None = None,
        **overrides: Any,
    ) -> Self:
        """A backbone fed from a recording instead of Upbit: the same subscriptions, no network at all.

        `speed` 1.0 keeps the recording's pace, 10.0 is ten times as fast, None as fast as the consumers read. Only
        what came from `start` on and before `end` (times with their zone) is played. Its clock stands at the first
        record (or at `start`) until the first subscription, with which playing starts. A hole in the recording is a
        GapEvent; `on_event` hears everything from the first record on. Raises InvalidRequestError for what is no
        recording.

        Of a `Store` (or its path) everything comes at Upbit's own time, and whatever is asked is answered as of the
        time that is played: history as well, and never by what was known later. Where something is missing it does not
        stream, `get_…` raises ChannelUnavailableError, and a GapEvent tells at the end of it what was.
        """
        span = _span(start, end)
        self = cls.__new__(cls)
        self._take(assemble_replay(BackboneConfig.from_environment(**overrides), path, speed, span))
        if on_event is not None:
            self.on_event(on_event)
        return self

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def get_ticker(
        self,
        symbol: str,
        realtime: bool = False,
        priority: Priority = NORMAL,
        *,
        strategy: Strategy = AUTO,
        max_age: float | None = None,
        timeout: float | None = None,
    ) -> TickerData:
        """The present state of one market.

        Answered from the running stream when that is provably current (`source` is WEBSOCKET), else by REST; a symbol
        asked often is streamed by itself. `realtime=True` wants a value newer than this call: the next frame that Upbit
        stamps after it, or REST at half the deadline. `max_age` is how many seconds ago at most the value must have
        been true: when Upbit stamped it, or, where nothing newer came, when that was last proven.
        """
        is_plain = realtime is False and max_age is None and strategy is AUTO and type(priority) is Priority
        if is_plain and type(symbol) is str:
            ticker = self._live_ticker(symbol, monotonic())
            if ticker is not None:
                if timeout is not None:
                    check_timeout(timeout)
                return ticker
        asked = self._request(
            RequestKind.TICKER,
            symbol,
            timeout,
            realtime=realtime,
            priority=priority,
            strategy=strategy,
            max_age=max_age,
        )
        return self._answer(asked, timeout)  # type: ignore[no-any-return]

    def get_tickers(
        self,
        symbols: Iterable[str] | None = None,
        *,
        quote: str | None = None,
        priority: Priority = NORMAL,
        max_age: float | None = None,
        timeout: float | None = None,
    ) -> dict[str, TickerData]:
        """Many markets at once, by symbol: those given, or all of one `quote` currency ("KRW"), or all there are.

        What streams currently comes from the streams, the rest from as few REST requests as possible. An unknown
        symbol raises UnknownSymbolError that names it. A market that has no price yet, or of which Upbit sends nothing
        that can be read, is absent; `get_ticker` says why. Where that leaves none, that error is raised here.
        """
        deadline = self._deadline(timeout)
        return self._open().board.tickers(
            symbols, quote, member(Priority, priority, "priority"), _age(max_age), deadline
        )

    def get_orderbook(
        self,
        symbol: str,
        levels: int = 30,
        *,
        level: Decimal | int | str = 0,
        realtime: bool = False,
        priority: Priority = NORMAL,
        strategy: Strategy = AUTO,
        max_age: float | None = None,
        timeout: float | None = None,
    ) -> OrderbookData:
        """The order book, at most `levels` (1 to 30) price levels a side; answered like `get_ticker`.

        `level` groups prices (KRW markets only; Upbit publishes which groupings a market supports).
        """
        is_plain = realtime is False and max_age is None and strategy is AUTO and type(priority) is Priority
        is_usual = type(symbol) is str and type(levels) is int and 1 <= levels <= MAX_LEVELS and level == 0
        if is_plain and is_usual and type(level) is int and timeout is None:
            book = self._live_book(symbol, levels, monotonic())
            if book is not None:
                return book
        asked = self._request(
            RequestKind.ORDERBOOK,
            symbol,
            timeout,
            levels=levels,
            level=level,
            realtime=realtime,
            priority=priority,
            strategy=strategy,
            max_age=max_age,
        )
        return self._answer(asked, timeout)  # type: ignore[no-any-return]

    def get_orderbooks(
        self,
        symbols: Iterable[str],
        levels: int = 30,
        *,
        priority: Priority = NORMAL,
        max_age: float | None = None,
        timeout: float | None = None,
    ) -> dict[str, OrderbookData]:
        """The order books of many markets, by symbol, with at most `levels` price levels a side.

        What streams currently comes from the streams, the rest from as few REST requests as possible. One that Upbit
        does not have raises UnknownSymbolError that names it; one of which nothing comes that can be read is absent,
        and `get_orderbook` says why. Where that leaves none, that error is raised here.
        """
        depth, deadline = whole_number(levels, "levels", low=1, high=MAX_LEVELS), self._deadline(timeout)
        urgency = member(Priority, priority, "priority")
        return self._open().books.orderbooks(symbols, depth, urgency, _age(max_age), deadline)

    def get_trades(
        self,
        symbol: str,
        count: int | None = None,
        *,
        since: Moment | None = None,
        days_ago: int | None = None,
        priority: Priority = NORMAL,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
        timeout: float | None = None,
    ) -> Rows[TradeData]:
        """Past trades, oldest first, each once: the newest `count` (default 200), or all since a time with its zone.

        `days_ago` (0 to 7, 0 is today) picks one UTC day. Upbit keeps seven days. `progress(trades, count or None)` is
        called on this thread after each page; soon after `cancel.is_set()` comes DownloadCancelledError. Errors carry
        in `.partial` what came before them.
        """
        code, urgency, parts = normalise_symbol(symbol), member(Priority, priority, "priority"), self._open()
        _check_download(progress, cancel)
        trades = parts.history.trades
        deadline = trades.deadline_for(count=count, since=since, days_ago=days_ago, timeout=timeout)
        code = parts.directory.meant(code, deadline)
        # Nobody waits for the list of markets first: Upbit refuses the first page of one that does not exist.
        with loading():
            from .export.dataframe import Rows
            from .models.market import TradeData

        rows = trades.get(
            code,
            count=count,
            since=since,
            days_ago=days_ago,
            timeout=deadline.remaining(),
            priority=urgency,
            progress=progress,
            cancel=cancel,
        )
        return Rows.of(TradeData, rows)

    def iter_trades(
        self,
        symbol: str,
        *,
        count: int | None = None,
        since: Moment | None = None,
        days_ago: int | None = None,
        priority: Priority = NORMAL,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
        timeout: float | None = None,
    ) -> Iterator[TradeData]:
        """The trades of `get_trades` one by one as the pages come: newest first, each once, holding one page.

        `timeout` limits the whole walk (default: none). Wrong arguments raise here, not at the first trade.
        """
        code, urgency, parts = normalise_symbol(symbol), member(Priority, priority, "priority"), self._open()
        _check_download(progress, cancel)
        parts.history.trades.deadline_for(count=count, since=since, days_ago=days_ago)  # raises for wrong arguments
        code = parts.directory.meant(code, self._deadline(timeout))
        walk = parts.history.trades.iter(
            code,
            count=count,
            since=since,
            days_ago=days_ago,
            timeout=timeout,
            priority=urgency,
            progress=progress,
            cancel=cancel,
        )
        parts.directory.require((code,), self._deadline(timeout))
        return walk

    def get_candles(
        self,
        symbol: str,
        timeframe: str = "1m",
        count: int | None = None,
        strategy: Strategy = AUTO,
        *,
        to: Moment | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        fill: Fill = "none",
        day_start: time | None = None,
        priority: Priority = NORMAL,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
        timeout: float | None = None,
    ) -> Rows[CandleData]:
        """Candles, oldest first, each once: the newest `count` (before `to`, exclusive), or those of [start, end).

        Times say their zone: aware datetimes (pandas.Timestamp included) or ISO 8601 text ("2026-01-31 09:30+09:00").
        `fill="forward"` adds candles for periods without trades (`is_filled`). The forming candle
        is the last one, `is_closed=False`; it is taken from the stream where one runs.

        `day_start=time(0)` gives days ("1d") that begin at that time of day instead of 09:00 in Korea (Korean time
        unless it has a zone), made of hours where it is a full one, else of minutes: 24 times the rows are asked for.
        """
        asked = self._request(RequestKind.CANDLES, symbol, timeout, strategy=strategy, priority=priority)
        self._history_allowed(asked)
        _check_download(progress, cancel)
        parts = self._open()
        history = parts.history
        if day_start is not None:
            return self._days(asked, timeframe, fill, day_start, timeout, progress, cancel, count, to, start, end)
        bounds: dict[str, Any] = {"count": count, "to": to, "start": start, "end": end, "fill": fill}
        deadline = history.paged.deadline_for(asked.symbol, timeframe, **bounds, timeout=timeout)
        # As with trades, the list of markets is not waited for.
        get = history.paged.get if asked.strategy is DataStrategy.REST_ONLY else history.candles.get
        with loading():
            from .export.dataframe import Rows
            from .models.market import CandleData

        rows = get(
            asked.symbol,
            timeframe,
            **bounds,
            timeout=deadline.remaining(),
            priority=asked.priority,
            progress=progress,
            cancel=cancel,
        )
        return Rows.of(CandleData, rows)

    def iter_candles(
        self,
        symbol: str,
        timeframe: str = "1m",
        *,
        count: int | None = None,
        to: Moment | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        fill: Fill = "none",
        newest_first: bool = False,
        priority: Priority = NORMAL,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
        timeout: float | None = None,
    ) -> Iterator[CandleData]:
        """The candles of `get_candles` one by one, for any number of them: a range comes oldest first and holds only a
        few pages in memory; `newest_first=True` does the same for a count. `timeout` limits the whole walk (default:
        none). Wrong arguments raise here, not at the first candle."""
        code, urgency, parts = normalise_symbol(symbol), member(Priority, priority, "priority"), self._open()
        _check_download(progress, cancel)
        code = parts.directory.meant(code, self._deadline(timeout))
        walk = parts.history.paged.iter(
            code,
            timeframe,
            count=count,
            to=to,
            start=start,
            end=end,
            fill=fill,
            newest_first=newest_first,
            timeout=timeout,
            priority=urgency,
            progress=progress,
            cancel=cancel,
        )
        parts.directory.require((code,), self._deadline(timeout))
        return walk

    def history_start(
        self, symbol: str, timeframe: str = "1d", *, priority: Priority = NORMAL, timeout: float | None = None
    ) -> datetime | None:
        """Where the candles of a market begin: the start (aware UTC) of its oldest one, None where there is none.

        Costs about five requests (some twenty for "1s", which Upbit keeps for three months), and none once known.
        """
        code, urgency, parts = normalise_symbol(symbol), member(Priority, priority, "priority"), self._open()
        unit, deadline = timeframe_of(timeframe), self._deadline(timeout)
        code = parts.directory.meant(code, deadline)
        parts.directory.require((code,), deadline)
        return parts.history.paged.history_start(
            code, unit, priority=urgency, timeout=None if timeout is None else deadline.remaining()
        )

    def estimate(
        self,
        symbol: str,
        timeframe: str = "1m",
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        count: int | None = None,
        timeout: float | None = None,
    ) -> DownloadEstimate:
        """What `get_candles` or `iter_candles` with these arguments would take at most: requests, seconds and rows.

        Costs nothing for a short range; for a long one the beginning of the market's candles is asked for (about five
        requests, none once known), since nobody waits for what was before it. If Upbit does not tell within `timeout`,
        all of the range counts.
        """
        with loading():
            from .history.ranges import candle_range, estimated

        code, parts, unit = normalise_symbol(symbol), self._open(), timeframe_of(timeframe)
        now, deadline = parts.exchange_now(), self._deadline(timeout)
        wanted = candle_range(code, unit, now=now, count=count, start=start, end=end, max_candles=None)
        rate = self.config.rest_requests_per_second
        found = estimated(wanted, None, now, rate)
        if wanted.count is None and found.requests > SHORT_DOWNLOAD:
            try:
                beginning = self.history_start(symbol, timeframe, timeout=deadline.remaining())
            except (InvalidRequestError, ClosedError):
                raise
            except UpbitBackboneError as error:
                # The estimate stays true without it: at most.
                log.info("an estimate without the beginning of history", extra={"why": one_line(error)})
            else:
                found = estimated(wanted, beginning or now, now, rate)
        return found

    def get_markets(
        self, quote: str | None = None, *, max_age: float | None = None, timeout: float | None = None
    ) -> list[MarketInfo]:
        """All listed markets, or those priced in `quote`, with their warnings; at most `max_age` seconds old (default
        `config.markets_max_age_seconds`; an older list, should Upbit not give it now)."""
        wanted = None if quote is None else normalise_quote(quote)
        markets = self._open().directory.markets(self._deadline(timeout), max_age=_age(max_age))
        return [market for market in markets if wanted is None or market.quote == wanted]

    def get_instruments(
        self,
        symbols: Iterable[str] | None = None,
        *,
        quote: str | None = None,
        priority: Priority = NORMAL,
        timeout: float | None = None,
    ) -> dict[str, Instrument]:
        """What Upbit allows in these markets, by symbol; in all of one `quote` currency, or in all there are.

        `tick_size` is the step of prices at the present price, `supported_levels` the groupings of the order book.
        Some seconds old at most.
        """
        deadline, urgency = self._deadline(timeout), member(Priority, priority, "priority")
        return self._open().instruments.instruments(symbols, quote, urgency, deadline)

    def round_price(
        self,
        symbol: str,
        price: Decimal | float | str,
        direction: Literal["down", "up", "nearest"] = "down",
        *,
        timeout: float | None = None,
    ) -> Decimal:
        """`price` as an order in this market may have it, exact: the allowed price below, above or nearest.

        Upbit's own word on the step counts wherever it speaks of that price, its published table elsewhere. A float
        counts as what it prints. Raises InvalidRequestError for what is no price, UnknownSymbolError for no market.
        """
        with loading():
            from .exchange.markets import checked_direction, checked_price

        code, wanted, way = normalise_symbol(symbol), checked_price(price), checked_direction(direction)
        parts, deadline = self._open(), self._deadline(timeout)
        code = parts.directory.meant(code, deadline)
        parts.directory.require((code,), deadline)

        def present(market: str) -> Decimal:
            return self.get_ticker(market, timeout=deadline.remaining()).current_price

        return parts.instruments.rounded(code, wanted, way, present, deadline)

    # ── live data ────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def subscribe(  # type: ignore[overload-overlap]  # by an empty list, which is refused
        self,
        symbols: Symbols | None = ...,
        data_types: OneOrMore[TickerKind] = ...,
        **options: Unpack[SubscribeOptions],
    ) -> Subscription[TickerData]: ...
    @overload
    def subscribe(  # type: ignore[overload-overlap]  # by an empty list, which is refused
        self, symbols: Symbols | None, data_types: OneOrMore[TradeKind], **options: Unpack[SubscribeOptions]
    ) -> Subscription[TradeData]: ...
    @overload
    def subscribe(  # type: ignore[overload-overlap]  # by an empty list, which is refused
        self, symbols: Symbols | None, data_types: OneOrMore[OrderbookKind], **options: Unpack[SubscribeOptions]
    ) -> Subscription[OrderbookData]: ...
    @overload
    def subscribe(
        self, symbols: Symbols | None, data_types: OneOrMore[CandleKind], **options: Unpack[SubscribeOptions]
    ) -> Subscription[CandleData]: ...
    @overload
    def subscribe(
        self, symbols: Symbols | None, data_types: OneOrMore[DataType | str], **options: Unpack[SubscribeOptions]
    ) -> Subscription[Datum]: ...
    @overload
    def subscribe(
        self, symbols: None = ..., *, data_types: OneOrMore[DataType | str], **options: Unpack[SubscribeOptions]
    ) -> Subscription[Datum]: ...
    def subscribe(
        self,
        symbols: Symbols | None = None,
        data_types: OneOrMore[DataType | str] = DataType.TICKER,
        *,
        overflow: Overflow | str | None = None,
        maxsize: int | None = None,
        queue: Queue[Any] | SimpleQueue[Any] | None = None,
        levels: int | None = None,
        level: Decimal | int | str = 0,
        gap_order: Literal["live", "strict"] = "live",
        timeout: float | None = None,
        end: object = NO_MARK,
        since: Moment | int | None = None,
        quote: str | None = None,
        on_event: Callable[[Any], object] | None = None,
    ) -> Subscription[Datum]:
        """Live data to read with a `for` loop, `.get(timeout=)` or `.queue`; the current values come first.

        `overflow` says what a full mailbox does (`help(Overflow)`); by default tickers, books and candles keep the
        latest per market, and trades drop the oldest beyond `maxsize` (default `config.queue_size`), counted in
        `.stats`. `levels` cuts order books. A loop, or a `get`, that waits longer than `timeout` seconds for an item
        raises RequestTimeoutError (default: it waits, and warns once if nothing has come within ten). It ends with the
        last reference to it.

        `queue` delivers into a queue of your own instead, until it is closed; `end=None` (or any mark) is put there
        after the last item, so that workers end, and `.stats.ahead_of_end` counts what stood in front of it. `on_event`
        hears, on its own thread, what concerns this subscription (breaks, gaps, overflow).

        This waits for Upbit 0.04 s at most; the first of a process loads what streams need meanwhile. Unknown symbols
        raise UnknownSymbolError; more than `config.max_subscribed_symbols` InvalidRequestError.
        Where the first market list takes longer, the stream begins without it, and an unknown symbol ends the
        subscription as soon as the list is there: the loop, `get` or `on_error` gets the UnknownSymbolError.
        `submit(market.subscribe, …).result()` waits for the list, for 0.4 of `config.timeout_seconds` and three seconds
        at most, as every call does for a symbol that a list lacks, and as `since=` does for one that may be said the
        other way round. Where REST gives none, symbols go unchecked, and one that brings nothing is told by a
        SubscriptionEvent.

        After a break, what was missed of trades and candles comes before the live data if REST has it within
        `config.gap_hold_seconds`; else live data goes on, and the rest comes late, marked `is_backfilled` and followed
        by a GapEvent with `late=True`. With `gap_order="strict"` nothing comes out of order unless REST needs longer
        than `config.gap_strict_seconds`.

        `since` gives trades and candles from a past time on, then live ones, in order and each once: a time with its
        zone, "today" (from 00:00 UTC, 09:00 in Korea, by our clock until Upbit's is known), the `sequential_id` of the
        last trade you have of one market, or the `position` of a subscription, of this program or of one that ran
        before: after what that had given you. The past is marked `is_backfilled`, is never dropped for want of room,
        and comes whole once REST has given all of it (a busy market's day takes about a minute). Then a GapEvent with
        this `subscription` tells how many items that were, and, `complete=False`, what is missing: Upbit keeps trades
        of seven days.

        `quote="KRW"` instead of symbols follows all markets of that currency: a market that Upbit lists comes in by
        itself within half a minute, and one that is gone leaves with a SubscriptionEvent. Before there is a market list
        it is about those that are known, perhaps none; a currency without markets then ends it by the
        InvalidRequestError. It does not go with `since`.
        """
        return self._subscribe(
            symbols,
            data_types,
            level,
            levels,
            overflow=overflow,
            maxsize=maxsize,
            queue=queue,
            gap_order=gap_order,
            timeout=timeout,
            end=end,
            since=since,
            quote=quote,
            on_event=on_event,
        )

    def subscribe_realtime(
        self,
        symbol: Symbols,
        data_types: OneOrMore[DataType | str] = DataType.TICKER,
        callback: Callable[[Any], object] | None = None,
        *,
        overflow: Overflow | str | None = None,
        maxsize: int | None = None,
        levels: int | None = None,
        level: Decimal | int | str = 0,
        gap_order: Literal["live", "strict"] = "live",
        since: Moment | int | None = None,
        on_error: Callable[[BaseException], object] | None = None,
        on_event: Callable[[Any], object] | None = None,
    ) -> SubscriptionId:
        """Call `callback(item)` with live data, on a thread of this subscription's own, until `unsubscribe`.

        A slow callback loses what `overflow` says and delays nobody else; one that raises is reported to `on_error`,
        to `on_event` and to the log, and goes on. Inside it every method may be called, `close()` included. The other
        arguments are those of `subscribe`.
        """
        check_callable("callback", callback, required=True)
        return self._subscribe(
            symbol,
            data_types,
            level,
            levels,
            overflow=overflow,
            maxsize=maxsize,
            callback=callback,
            gap_order=gap_order,
            since=since,
            on_error=on_error,
            on_event=on_event,
        ).id

    def unsubscribe(self, subscription: SubscriptionId | Subscription[Any] | str) -> bool:
        """End a subscription; after this returns its callback is not called again. False if it had ended before."""
        if not isinstance(subscription, (str, Subscription)):
            raise InvalidRequestError(f"{subscription!r}: expected what subscribe() or subscribe_realtime() returned")
        name = subscription.id if isinstance(subscription, Subscription) else subscription
        return self._open().hub.unsubscribe(name)

    def stale_symbols(self, source: Subscription[Any] | CandleSeries) -> frozenset[str]:
        """The markets of a subscription or candle series of which something is not provably current now: what a screen
        must not show as if it were live. Asks nobody and waits for nothing; about a microsecond a market. Before the
        first value of a market has come it is among them, and all are once the subscription is closed. On a line that
        brought data and froze they are among them within about a second; on one that was quiet before, a ping later
        (`ping_interval_seconds`)."""
        if isinstance(source, Subscription):
            topics, is_in_doubt = source.topics, source.closed
        else:
            from .live.candle_series import CandleSeries

            if not isinstance(source, CandleSeries):
                raise InvalidRequestError(f"{source!r}: expected what subscribe() or candle_series() returned")
            topics, is_in_doubt = frozenset([source.topic]), not source.is_current
        if is_in_doubt or self.closed:
            return frozenset(topic.symbol for topic in topics)
        return self._parts.stale_symbols(topics)

    def candle_series(
        self,
        symbol: str,
        timeframe: str = "1m",
        size: int = 200,
        *,
        on_update: Callable[[CandleData, bool], object] | None = None,
        timeout: float | None = None,
    ) -> CandleSeries:
        """The newest `size` candles, kept current by the stream and repaired after every break; see CandleSeries."""
        with loading():
            from .live.candle_series import MAX_SIZE, CandleSeries

        code, unit = normalise_symbol(symbol), timeframe_of(timeframe)
        whole_number(size, "size", low=1, high=MAX_SIZE)
        check_callable("on_update", on_update)
        parts, deadline = self._open(), Deadline.after(timeout)
        code = parts.directory.meant(code, self._deadline(timeout))
        parts.directory.require((code,), self._deadline(timeout))
        opened: list[Subscription] = []

        def subscribe(topic: Topic, listen: Callable[[Any], object]) -> Subscription:
            requests = [SubscriptionRequest(topic)]
            # Each state of a bar counts: the last one before the next bar begins is the bar.
            options: dict[str, Any] = {"overflow": Overflow.DROP_OLDEST, "gap_order": "strict", "on_event": listen}
            opened.append(parts.hub.subscribe(requests, **options))
            return opened[0]

        try:
            return CandleSeries(
                code,
                unit,
                size,
                history=parts.history.paged,
                subscribe=subscribe,
                exchange_now=parts.exchange_now,
                on_update=on_update,
                emit=parts.emit,
                timeout=deadline.remaining(),
                clock=parts.clock,
            )
        except BaseException:  # Ctrl-C, also on the way out: nobody could ever close it
            for feed in opened:
                feed.close()
            raise

    def live_orderbook(
        self,
        symbol: str,
        levels: int = MAX_LEVELS,
        level: Decimal | int | str = 0,
        *,
        timeout: float | None = None,
    ) -> LiveOrderbook:
        """An order book that is current whenever it is read, or raises StaleDataError; see LiveOrderbook.

        Waits up to `timeout` for the first book; after that it is returned without one.
        """
        with loading():
            from .live.orderbook import LiveOrderbook

        topic = Topic(DataType.ORDERBOOK, normalise_symbol(symbol), price_level(level))
        whole_number(levels, "levels", low=1, high=MAX_LEVELS)
        parts, deadline = self._open(), self._deadline(timeout)
        topic = topic._replace(symbol=parts.directory.meant(topic.symbol, deadline))
        parts.directory.require((topic.symbol,), deadline)
        asked_at = monotonic()
        opened: list[Subscription] = []

        def subscribe(callback: Callable[[OrderbookData], object]) -> Subscription:
            opened.append(parts.hub.subscribe([SubscriptionRequest(topic)], callback=callback))
            return opened[0]

        try:
            book = LiveOrderbook(
                topic.symbol,
                levels=levels,
                current=lambda: parts.store.current(topic, monotonic()),  # type: ignore[arg-type, return-value]
                last_known=lambda: parts.store.last_known(topic.data_type, topic.symbol, level=topic.level),  # type: ignore[arg-type, return-value]
                subscribe=subscribe,
                is_closing=lambda: parts.is_closed,
            )
            if not book.is_current:
                parts.store.wait_newer(topic, asked_at, deadline)
            return book
        except BaseException:  # Ctrl-C, also on the way out: nobody could ever close it
            for subscription in opened:
                subscription.close()
            raise

    def on_event(self, listener: Callable[[Any], object]) -> Listening:
        """Call `listener(event)` for everything that happens to the streams and limits (see `models/events.py`), on a
        thread of its own. `.close()` what is returned to stop."""
        check_callable("on_event", listener, required=True)
        parts = self._open()
        parts.monitor.watch()  # somebody wants to hear when the health changes
        parts.watch_markets()
        return parts.events.listen(listener)

    # ── how it is done, and how it is ────────────────────────────────────────────────────────────────────────────

    def explain(self, kind: str | RequestKind | DataType, symbol: str | None = None, **options: Any) -> ChannelDecision:
        """Which way a question would be answered now, and why: `print(market.explain("ticker", "KRW-BTC"))`.

        `options` are those of the `get_*` method (`realtime`, `strategy`, `max_age`, `levels`, …). Asks nobody.
        """
        parts, asked = self._open(), described(kind, symbol, options)
        meant = tuple(parts.directory.meant(code, None) for code in asked.symbols)
        return parts.router.analyze_request(replace(asked, symbols=meant))

    @property
    def router(self) -> RequestRouter:
        """What decides: `choose_channel`, `get_average_latency` and other measurements, `update_routing_strategy`."""
        return self._open().router

    @property
    def session_manager(self) -> SessionManager:
        """What keeps the WebSockets alive: `initialize`, `maintain_connections`, `handle_disconnection`, `stats`.

        InvalidRequestError in a replay, which has no connections.
        """
        sessions = self._open().sessions
        if not isinstance(sessions, SessionManager):
            raise InvalidRequestError("a replay reads a recording: there are no connections to manage")
        return sessions

    def health(self) -> HealthReport:
        """How everything is now, with reasons; `str()` of it is made for people. Readable after `close()`, too."""
        return self._report().health()

    def performance(self) -> PerformanceReport:
        """What was answered how, and how fast. Readable after `close()`, too."""
        return self._report().performance()

    get_performance_report = performance

    def check_rest_api_health(self, timeout: float = 2.0) -> HealthStatus:
        """REST alone; asks Upbit once if nothing was measured lately."""
        self._open()
        return self._parts.monitor.check_rest_api_health(check_timeout(timeout))

    def check_websocket_health(self) -> HealthStatus:
        """The streams alone."""
        return self._open().monitor.check_websocket_health()

    def prometheus_collector(self) -> PrometheusCollector:
        """A collector for prometheus-client (extra `[prometheus]`): `REGISTRY.register(...)` it, once. For several
        backbones in one registry see `monitoring.prometheus.PrometheusCollector`."""
        with loading():
            from .monitoring.prometheus import PrometheusCollector

        return PrometheusCollector(self.health)

    def alert(
        self, callback: Callable[[Alert], object], rules: Sequence[AlertRule] | None = None
    ) -> Callable[[], None]:
        """Call `callback(alert)` when a rule begins or ceases to hold; call what is returned to stop."""
        check_callable("callback", callback, required=True)
        return self._open().monitor.alert(callback, *(() if rules is None else (rules,)))

    def record(
        self, path: str | Path, *, rotate_bytes: int | None = None, rotate_seconds: float | None = None
    ) -> Recorder:
        """Record everything that comes in from now on, until `.close()`; play it again with `replay`.

        An existing recording is continued. With `rotate_bytes` (no file larger) or `rotate_seconds` (none longer) the
        files are numbered, day.0001.rec and so on, and a new one is begun each time; `replay("day.rec")` plays them in
        a row. Raises InvalidRequestError for what cannot be recorded to (a pipe, another kind of file), FileInUseError
        where somebody else writes. A disk that is full or too slow never holds up the data: it is told as a
        RecordingEvent and in `health()`, and `.stats` counts what is safely written and what is lost.
        """
        return self._open().record(Path(path), rotate_bytes, rotate_seconds)

    def record_to(
        self,
        sink: Sink,
        symbols: Symbols | None = None,
        data_types: OneOrMore[DataType | str] = DataType.TRADE,
        *,
        quote: str | None = None,
        levels: int | None = None,
        batch_rows: int = 4_000,
        flush_seconds: float = 1.0,
        spill_bytes: int = 1 << 30,
    ) -> SinkRecorder:
        """Keep what comes in from now on in a `sink`, until `.close()`: `SqliteSink("day.db")`, or one of your own.

        Every item is written, none conflated, in batches of `batch_rows` or after `flush_seconds` (seconds). A sink
        that fails is asked again and again; meanwhile the stream goes on and batches wait: some thousand rows in
        memory, then up to `spill_bytes` in a file. What finds no room is lost, counted (`.stats`, `health()`,
        Prometheus) and told as a SinkEvent, and never counts as complete. A sink that knows what it has, as
        SqliteSink does, gets what was missed since the last recording from REST, in the background.

        `symbols`, `quote` and `levels` are those of `subscribe`. Raises what `subscribe` and opening the sink raise.
        """
        from .sinks.sink_recorder import MAILBOX_ITEMS

        rows = whole_number(batch_rows, "batch_rows", low=1, high=100_000)
        room = whole_number(spill_bytes, "spill_bytes", low=0)
        if not callable(getattr(sink, "write", None)) or not callable(getattr(sink, "holes", None)):
            raise InvalidRequestError(f"sink={sink!r}: expected a Sink, such as SqliteSink('day.db')")

        def subscribe(on_event: Callable[[Any], object]) -> Subscription[Any]:
            options: dict[str, Any] = {"overflow": Overflow.BLOCK, "maxsize": MAILBOX_ITEMS}
            return self._subscribe(
                symbols, data_types, 0, levels, quote=quote, on_event=on_event, waits_for_list=True, **options
            )

        seconds = check_timeout(flush_seconds, "flush_seconds")
        return self._open().record_to(sink, subscribe, batch_rows=rows, flush_seconds=seconds, spill_bytes=room)

    def submit(self, method: Callable[..., T], *args: Any, **options: Any) -> Future[T]:
        """Run one of the blocking methods on a background thread: `market.submit(market.get_ticker, "KRW-BTC")`.

        For GUIs, which must not block. The Future gets its answer or error.
        """
        check_callable("method", method, required=True)
        return self._open().calls.submit(calls_users(lambda: method(*args, **options)), _urgency(args, options))

    # ── the cache of REST answers ────────────────────────────────────────────────────────────────────────────────

    def get_cached_data(self, key: tuple[Any, ...] | DataRequest, max_age: float | None = None) -> Any | None:
        """What the cache of REST answers holds for `key`, a DataRequest or ("ticker", "KRW-BTC"). Never live data."""
        return self._open().rest.cache.get_cached_data(cache_key(key), _age(max_age))

    def cache_data(self, key: tuple[Any, ...] | DataRequest, value: Any, ttl: float | None = None) -> bool:
        """Keep `value` in the cache of REST answers for `ttl` seconds (default: its kind's lifetime)."""
        return self._open().rest.cache.cache_data(cache_key(key), value, _age(ttl, "ttl"))

    def invalidate_cache(self, symbol: str | None = None, data_type: str | None = None) -> int:
        """Forget cached REST answers of a symbol, a kind, or all; how many. Answers under way are not kept either."""
        if data_type is not None and not isinstance(data_type, str):
            raise InvalidRequestError(f"data_type={data_type!r}: expected a kind such as 'ticker', or None for all")
        parts = self._open()
        code = None if symbol is None else parts.directory.meant(normalise_symbol(symbol), None)
        return parts.rest.cache.invalidate_cache(code, data_type)

    def forget_candles(self, symbol: str | None = None) -> None:
        """Forget the closed candles that were kept of a market, or of all: the next questions ask Upbit for them again.

        Needed only where Upbit has changed the past, as after a coin was redenominated.
        """
        parts = self._open()
        code = None if symbol is None else parts.directory.meant(normalise_symbol(symbol), None)
        parts.history.paged.kept.forget(code)

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def closed(self) -> bool:
        """True after `close()`, and in a forked child, which must make its own."""
        return self._parts.is_closed or self._parts.guard.is_foreign

    def close(self, timeout: float | None = None) -> None:
        """Stop everything within `timeout` seconds (default: `config.close_timeout_seconds`, with which it takes two
        at most unless you set more). Idempotent; from any thread and from inside callbacks.

        Waiting calls end with ClosedError, loops over subscriptions end.
        """
        limit = self.config.close_timeout_seconds if timeout is None else check_timeout(timeout)
        self._parts.close(Deadline.after(limit))

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Forgotten without a subscription left: nobody will ever hear from it again. One with subscriptions lives on
        # until the interpreter exits, because its callbacks and queues are still in use.
        parts = getattr(self, "_parts", None)
        if parts is not None:
            parts.abandon()

    def __getstate__(self) -> Any:
        raise TypeError("a MarketDataBackbone cannot be pickled: it owns threads and sockets; make one per process")

    def __repr__(self) -> str:
        where = f"{self.config.rest_url} {self.config.websocket_url}"
        if self._parts.guard.is_foreign:
            return f"<{type(self).__name__} {where} of another process>"  # where its locks are
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {where} {state}, {self._parts.sessions!r}>"

    # ── within ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _request(self, kind: RequestKind, symbol: str, timeout: float | None, **options: Any) -> DataRequest:
        """A checked question about the market that `symbol` means."""
        asked = build_request(kind, symbol, **options)
        if swapped(asked.symbol) is None:
            return asked
        return replace(asked, symbols=(self._open().directory.meant(asked.symbol, self._deadline(timeout)),))

    def _days(
        self,
        asked: DataRequest,
        timeframe: str,
        fill: str,
        day_start: time,
        timeout: float | None,
        progress: Progress | None,
        cancel: CancelToken | None,
        count: int | None,
        to: Moment | None,
        start: Moment | None,
        end: Moment | None,
    ) -> Rows[CandleData]:
        with loading():
            from .export.dataframe import Rows
            from .history.days import DaysHistory, day_grid
            from .models.market import CandleData

        grid, parts = day_grid(day_start), self._open()
        if timeframe_of(timeframe).word != "1d" or fill != "none":
            raise InvalidRequestError(f"day_start={day_start!r}: is for timeframe='1d' without fill=")
        days = DaysHistory(parts.history.paged, grid, parts.exchange_now())
        options = {"timeout": timeout, "priority": asked.priority, "progress": progress, "cancel": cancel}
        return Rows.of(CandleData, days.get(asked.symbol, count=count, to=to, start=start, end=end, **options))

    def _answer(self, asked: DataRequest, timeout: float | None) -> Any:
        parts = self._open()
        item, _ = parts.router.answer(asked, self._deadline(timeout))
        parts.hot.learn(asked)
        return item

    def _open(self) -> Assembly:
        self._parts.guard.check()
        if self._parts.is_closed:
            raise ClosedError("this MarketDataBackbone is closed; make a new one")
        return self._parts

    def _report(self) -> HealthMonitor:
        self._parts.guard.check()
        return self._parts.monitor

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline.after(self.config.timeout_seconds if timeout is None else timeout)

    def _history_allowed(self, asked: DataRequest) -> None:
        if asked.strategy is DataStrategy.WEBSOCKET_ONLY:
            raise InvalidRequestError("strategy=websocket_only: Upbit streams no history; leave it out, or subscribe()")

    def _subscribe(
        self,
        symbols: object,
        types: object,
        level: object,
        levels: int | None,
        *,
        since: Moment | int | None = None,
        quote: str | None = None,
        waits_for_list: bool = False,
        **delivery: Any,
    ) -> Subscription[Datum]:
        """Every argument is checked before the market list is asked for, and that before anything is subscribed."""
        kinds, grouping = data_types(types), price_level(level)
        depth = None if levels is None else whole_number(levels, "levels", low=1, high=MAX_LEVELS)
        most, parts, deadline = self.config.max_subscribed_symbols, self._open(), self._deadline(None)
        meanwhile: tuple[str, ...]
        if quote is None:
            meanwhile = normalise_symbols(symbols, limit=most)
            find = partial(_existing, parts, meanwhile, deadline)
            # With a list nobody waits, but for a symbol that it lacks.
            is_known = parts.directory.age() is not None or all(map(parts.directory.knows, meanwhile))
        else:
            self._check_quote(symbols, quote, since)
            meanwhile = parts.directory.listed(quote)
            find, is_known = partial(_of_quote, parts, quote, most, deadline), False  # a list may be too old for that
            delivery["may_be_empty"] = True
        about = partial(_requests, kinds, grouping)
        check_arguments(about(meanwhile), **delivery)
        if since is not None:
            _starts(since, about(meanwhile), LAST_MOMENT)  # raises for what cannot be asked
        # Whose past is wanted must be told at once.
        is_unclear = since is not None and any(map(swapped, meanwhile))
        if waits_for_list or is_unclear or is_known or parts.calls.is_own_thread:
            codes, finding = find(), None
        else:
            codes, finding = _soon(parts, find, meanwhile)
        if since is not None:
            try:
                starts = _starts(since, about(codes), parts.exchange_now())
            except InvalidRequestError:
                if finding is None:
                    raise
                # Yet to come by our own clock, which may be behind Upbit's: any answer of Upbit's tells that.
                codes, finding = wait_future(finding, deadline, "the market list"), None
                starts = _starts(since, about(codes), parts.exchange_now())
            delivery["make_mailbox"] = parts.mailbox_since(starts)
        subscription = parts.hub.subscribe(about(codes), levels=depth, **delivery)
        name = subscription.id  # what follows holds no subscription: it ends with the last reference to it
        try:
            if finding is not None:
                finding.add_done_callback(partial(_settle, parts.hub, name, about))
            if quote is not None:
                parts.market_watch.follow(quote, partial(_follow, parts, name, quote, most, about))
            elif delivery.get("on_event") is not None:
                parts.watch_markets()
        except BaseException:  # Ctrl-C, or no thread to be had: nobody could ever close it
            subscription.close()
            raise
        return subscription

    def _check_quote(self, symbols: object, quote: str, since: object) -> None:
        if symbols is not None or since is not None:
            raise InvalidRequestError("quote= stands alone: without symbols, which it finds itself, and without since=")
        if not isinstance(self._open().sessions, SessionManager):
            raise InvalidRequestError("quote=: a replay has no market list; name the markets")
        normalise_quote(quote)


UnifiedMarketDataAPI = MarketDataBackbone


About = Callable[[Iterable[str]], list[SubscriptionRequest]]


def _requests(kinds: Iterable[DataType], grouping: Decimal, codes: Iterable[str]) -> list[SubscriptionRequest]:
    codes = tuple(codes)
    return [
        SubscriptionRequest(Topic(kind, code, grouping if kind is DataType.ORDERBOOK else ZERO))
        for kind in kinds
        for code in codes
    ]


# Which markets a subscription is about: at once where that is known, else as soon as the market list tells.


def _existing(parts: Assembly, codes: tuple[str, ...], deadline: Deadline) -> tuple[str, ...]:
    """The markets that `codes` mean; UnknownSymbolError for those that do not exist."""
    meant = tuple(dict.fromkeys(parts.directory.meant(code, deadline) for code in codes))
    parts.directory.require(meant, deadline)
    return meant


def _of_quote(parts: Assembly, quote: str, most: int, deadline: Deadline) -> tuple[str, ...]:
    """The markets of a quote currency; InvalidRequestError where there are none, or too many."""
    return normalise_symbols(parts.directory.of_quote(quote, NORMAL, deadline), limit=most)


def _soon(
    parts: Assembly, find: Callable[[], tuple[str, ...]], meanwhile: tuple[str, ...]
) -> tuple[tuple[str, ...], Future[tuple[str, ...]] | None]:
    """The markets found or, where the market list takes longer or is not to be had, `meanwhile` and the search."""
    try:
        finding = parts.calls.submit(find)
    except RuntimeError:  # the system has no thread to give
        return find(), None
    until = Deadline.after(LIST_SECONDS)
    with loading():  # what streaming needs, while Upbit is at work
        from .sessions import lifecycle, session  # noqa: F401
    try:
        return wait_future(finding, until, "the market list"), None
    except (InvalidRequestError, ClosedError):
        raise
    except UpbitBackboneError:
        return meanwhile, finding


def _settle(hub: Hub, name: str, about: About, found: Future[tuple[str, ...]]) -> None:
    """What became of the search of a subscription that had begun without it."""
    try:
        hub.change(name, about(found.result()), why="the symbol was written the other way round")
    except (CancelledError, ClosedError):
        return
    except (InvalidRequestError, SubscriptionError) as error:
        hub.fail(name, error)
    except UpbitBackboneError as error:
        log.warning("no market list yet, %s waits for it", name, extra={"why": one_line(error)})


def _follow(parts: Assembly, name: str, quote: str, most: int, about: About, codes: Iterable[str]) -> bool:
    """Have a subscription be about the `codes` of its quote currency from now on; False if it has ended."""
    subscription = parts.hub.get(name)
    if subscription is not None and not subscription.topics:  # it began before there was a list
        try:
            codes = _of_quote(parts, quote, most, Deadline.after(0.0))  # and now there is one
        except InvalidRequestError as error:
            parts.hub.fail(name, error)
            return False
    return parts.hub.change(name, about(codes))


def parts_of(market: MarketDataBackbone) -> Assembly:
    """What a backbone is made of, for those parts of this library that are built upon one: the relay."""
    return market._parts


def subscribe_to_existing(
    market: MarketDataBackbone,
    symbols: object,
    types: object,
    *,
    level: object = 0,
    levels: int | None = None,
    **delivery: Any,
) -> Subscription[Any]:
    """As `market.subscribe`, but an unknown symbol is refused before anything begins, and the list waited for: for
    those parts of this library that make a file or a connection next."""
    return market._subscribe(symbols, types, level, levels, waits_for_list=True, **delivery)


def markets_of_quote(market: MarketDataBackbone, symbols: object, quote: str) -> tuple[str, ...]:
    """The markets that `market.subscribe(symbols, …, quote=quote)` would begin with; raises what it does. For those
    parts of this library that follow a currency by themselves."""
    market._check_quote(symbols, quote, None)
    return _of_quote(market._open(), quote, market.config.max_subscribed_symbols, market._deadline(None))


def _starts(since: Moment | int, requests: Iterable[SubscriptionRequest], now: datetime) -> dict[Topic, Start]:
    with loading():
        from .backfill.backlog import starts_of

    return starts_of(since, [request.topic for request in requests], now)


def _age(max_age: float | None, name: str = "max_age") -> float | None:
    return None if max_age is None else check_timeout(max_age, name)


def _span(start: Moment | None, end: Moment | None) -> Span:
    first, stop = (None if moment is None else aware(moment, name) for name, moment in (("start", start), ("end", end)))
    if first is not None and stop is not None and stop <= first:
        raise InvalidRequestError(f"start={start} and end={end}: the end must come after the start")
    return first, stop


def _check_download(progress: object, cancel: object) -> None:
    check_callable("progress", progress)
    if cancel is not None and not callable(getattr(cancel, "is_set", None)):
        raise InvalidRequestError(f"cancel={cancel!r}: expected something with is_set(), such as a threading.Event")


def _urgency(args: Iterable[object], options: Mapping[str, object]) -> Priority:
    """The priority among a method's arguments. What is none, the method itself will complain of."""
    said = options.get("priority")
    named = Priority.__members__.get(str(said).upper(), NORMAL)
    return next((each for each in (said, *args) if isinstance(each, Priority)), named)
