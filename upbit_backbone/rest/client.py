"""REST client: answers that are limited, merged, cached, retried, and always there by the deadline.

    question → cache → one call with everybody who asks the same → a turn → breaker → transport → door → cache

Every rate group has a queue and a breaker of its own, so that nothing which hangs in one delays another.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .._concurrency import SYSTEM_CLOCK, Clock, Deadline, ForkGuard, SingleFlight
from ..config import BackboneConfig
from ..errors import ClosedError, UpbitBackboneError
from ..exchange import endpoints
from ..exchange.endpoints import BOOK_DEPTHS, REST_GROUPS, RestCall
from ..exchange.markets import quote_of
from ..limits.rate_limiter import RateLimiter
from ..models.enums import Priority, RateGroup
from ..models.events import Event
from ..models.market import CandleData, Instrument, MarketInfo, OrderbookData, TickerData, TradeData
from ..models.request import ZERO
from ..resilience.circuit_breaker import CircuitBreaker
from ..store.exchange_clock import ExchangeClock
from ..store.intelligent_cache import LIFETIMES, IntelligentCache, Key, Lifetime
from ..unify.rest import Rows, UnreadablePageError, decode_answer, unread_of
from ..wire.rest_transport import RestResponse, RestTransport, Transport
from .batching import Answers, Batcher, Listing, left_out, refused_in
from .group_queue import Door, GroupQueue, Heard, Measure, SingleCall

if TYPE_CHECKING:
    from ..models.report import GroupStats
    from ..upstream.shared_answers import SharedAnswers
    from ..upstream.shared_circuits import SharedCircuits

TICKERS_PER_CALL: Final = 400
BOOKS_PER_CALL: Final = 400
INSTRUMENT_SECONDS: Final = 5.0
QUOTES_PER_CALL: Final = 10  # more than Upbit has: whoever asks at one time shares one request
# One for each depth and grouping, and groupings are the callers' numbers: without a bound a loop over them would grow.
MAX_BOOK_BATCHERS: Final = 64
FIRST_RESET_SHARE: Final = 0.2  # a short trouble closes a group for a short time only
# A market list at most this old may tell which code of a list does not exist.
MARKET_LIST_SECONDS: Final = 10.0

Model = TypeVar("Model", TickerData, OrderbookData)


class RestClient:
    """All of Upbit's public REST questions. Blocking; usable from any number of threads.

    Every method ends by its deadline with an answer or with one of our errors: InvalidRequestError before anything is
    sent; RateLimitError, BannedError and ChannelUnavailableError (breaker open) at once, with `retry_after`;
    RequestTimeoutError, NetworkError, ServerError, MalformedDataError after what attempts the deadline allowed;
    ClosedError after `close`. A row that cannot be read costs only itself: see `Answers.refused` and `Rows.unread`.
    Every good answer goes through the `door`, which decodes it, on the thread that fetched
    it: the asker's own or a worker's; `heard` is told of every answer, in whatever status.
    """

    def __init__(
        self,
        config: BackboneConfig,
        *,
        limiter: RateLimiter,
        door: Door = decode_answer,
        emit: Callable[[Event], object] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = random.random,
        transport: Transport | None = None,
        exchange_clock: ExchangeClock | None = None,
        measure: Measure = lambda *_: None,
        heard: Heard = lambda *_: None,
        answers: SharedAnswers | None = None,
        circuits: SharedCircuits | None = None,
    ) -> None:
        self._config = config
        self._answers = answers  # with other processes, as the circuits
        self._circuits = circuits
        self._clock = clock
        self._limiter = limiter
        self._door = door
        self._measure = measure
        self._heard = heard
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
        # Upbit counts each group by itself, and so do we: candles that hang take no ticker's place.
        self._queues = {group: self._queue(group, emit, random) for group in REST_GROUPS}
        self._calls: SingleFlight[RestCall, SingleCall] = SingleFlight()
        self._tickers = self._batcher(RateGroup.TICKER, (), endpoints.tickers, TICKERS_PER_CALL)
        self._quotes = self._quote_batcher()
        self._lock = threading.Lock()  # guards _books
        self._books: dict[tuple[int, Decimal], Batcher[OrderbookData]] = {}
        self._absent_until = float("-inf")  # when the last market that does not exist is forgotten
        self._is_closed = False

    def _queue(
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
            elsewhere=self._circuits,
        )
        return GroupQueue(
            group,
            per_market=config.rest_workers_per_group,
            transport=self._transport,
            limiter=self._limiter,
            breaker=breaker,
            attempts=config.rest_attempts,
            clock=self._clock,
            random=random,
            on_response=self._heard_of,
            measure=self._measure,
            shared=self._answers,
        )

    # --- questions about many markets -----------------------------------------------------------------------

    def tickers(
        self,
        symbols: Iterable[str],
        *,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        max_age: float | None = None,
        has_looked: bool = False,
    ) -> Answers[TickerData]:
        """Tickers at most `max_age` seconds old (None: `config.rest_max_age_seconds`); markets that Upbit refuses as
        unknown are absent, those that it only left out are in `left_out`. Who `has_looked` into the cache, just now
        and in vain, spares the second look."""
        return self._ask(self._tickers, symbols, deadline, priority, max_age, has_looked=has_looked)

    def refuses(self, symbol: str, deadline: Deadline) -> bool:
        """Whether Upbit says that there is no such market, when asked for its ticker by name. MalformedDataError where
        it says nothing."""
        answers = self.tickers((symbol,), deadline=deadline, max_age=60.0)
        if symbol in answers.left_out:
            raise answers.refused[symbol]
        return symbol not in answers and symbol not in answers.refused

    def tickers_of_quotes(
        self,
        quotes: Iterable[str],
        *,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        max_age: float | None = None,
    ) -> Answers[TickerData]:
        """The tickers of all markets priced in `quotes` (such as ["KRW", "BTC"]), by one request, together with what
        others ask for at the same time."""
        self._check()
        wanted = endpoints.quote_names(quotes)
        # Which markets a quote has may be a minute old; their prices have an age of their own.
        listed = [self.cache.get_cached_data(("quote", quote), 60.0, counted=False) for quote in wanted]
        if None not in listed:
            symbols = [symbol for each in listed for symbol in each or ()]
            found, missing = self._from_cache(self._tickers, symbols, max_age)
            if not missing:
                return Answers(found.items())
        return self._quotes.ask(wanted, deadline, priority, max_age)

    def orderbooks(
        self,
        symbols: Iterable[str],
        *,
        levels: int = endpoints.MAX_LEVELS,
        level: Decimal | int = ZERO,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        max_age: float | None = None,
        has_looked: bool = False,
    ) -> Answers[OrderbookData]:
        """Books with at most `levels` levels a side, prices grouped by `level`; unknown markets are absent.

        They are asked in few depths and trimmed, so that different requests meet in one batch; `has_looked` as in
        `tickers`.
        """
        endpoints.check_levels(levels, level)
        depth = next(each for each in BOOK_DEPTHS if each >= levels)
        batcher = self._books_of(depth, Decimal(level))
        books = self._ask(batcher, symbols, deadline, priority, max_age, has_looked=has_looked)
        if depth == levels:
            return books
        cut = (
            (symbol, replace(book, asks=book.asks[:levels], bids=book.bids[:levels])) for symbol, book in books.items()
        )
        return Answers(cut, books.refused, books.left_out)

    def _ask(
        self,
        batcher: Batcher[Model],
        symbols: Iterable[str],
        deadline: Deadline,
        priority: Priority,
        max_age: float | None,
        *,
        has_looked: bool = False,
    ) -> Answers[Model]:
        """From the cache what is young enough, the rest from Upbit; in the order asked.

        With `max_age=0` nothing that left before this call counts.
        """
        self._check()
        # Before anything is sent, so that nobody's bad code gets into a batch with others.
        wanted = dict.fromkeys(map(endpoints.market_code, symbols))
        found: dict[str, Model] = {}
        if has_looked:
            missing = [symbol for symbol in wanted if not self._is_absent(symbol)]
        else:
            found, missing = self._from_cache(batcher, wanted, max_age)
        answers: Answers[Model] = Answers()
        if missing:
            answers = batcher.ask(missing, deadline, priority, max_age)
            found.update(answers)
        in_order = ((symbol, found[symbol]) for symbol in wanted if symbol in found)
        return Answers(in_order, answers.refused, answers.left_out)

    def _from_cache(
        self, batcher: Batcher[Model], symbols: Iterable[str], max_age: float | None
    ) -> tuple[dict[str, Model], list[str]]:
        """What is known of `symbols`, and those that have to be asked for."""
        found: dict[str, Model] = {}
        missing: list[str] = []
        for symbol in symbols:
            item = self.cache.get_cached_data(batcher.key(symbol), max_age)
            if item is not None:
                found[symbol] = item
            elif not self._is_absent(symbol):
                missing.append(symbol)
        return found, missing

    def _is_absent(self, symbol: str) -> bool:
        # Nearly always: no unknown market was asked for lately, and a look into the cache for each symbol is saved.
        if self._clock.monotonic() > self._absent_until:
            return False
        return self.cache.get_cached_data(("unknown", symbol), counted=False) is not None

    def _note_absent(self, symbol: str, generation: int) -> None:
        self.cache.cache_data(("unknown", symbol), True, generation=generation)
        self._absent_until = self._clock.monotonic() + LIFETIMES["unknown"].kept

    def _batcher(
        self,
        group: RateGroup,
        variant: tuple[Hashable, ...],
        make_call: Callable[[Iterable[str]], RestCall],
        limit: int,
        *,
        may_leave_out: bool = False,
    ) -> Batcher[Any]:
        def key(symbol: str) -> Key:
            return (group.value, symbol, *variant)

        def keep(names: Sequence[str], items: Sequence[Any], generation: int, asked_at: float, age: float) -> None:
            values = {key(item.symbol): item for item in items}
            self.cache.cache_list(values, generation=generation, asked_at=asked_at, age=age)

        listing: Listing[Any] = Listing(
            kind=group.value,
            make_call=make_call,
            name_of=lambda symbol: symbol,
            key=key,
            keep=keep,
            limit=limit,
            known_markets=self._known_markets,
            note_absent=self._note_absent,
            may_leave_out=may_leave_out,
        )
        return self._batcher_of(listing, group)

    def _quote_batcher(self) -> Batcher[TickerData]:
        def keep(
            quotes: Sequence[str], items: Sequence[TickerData], generation: int, asked_at: float, age: float
        ) -> None:
            listed: dict[str, list[str]] = {quote: [] for quote in quotes}
            for item in items:
                listed.setdefault(quote_of(item.symbol), []).append(item.symbol)
            values = {self._tickers.key(item.symbol): item for item in items}
            self.cache.cache_list(values, generation=generation, asked_at=asked_at, age=age)
            self.cache.cache_list({("quote", quote): tuple(listed[quote]) for quote in quotes}, 60.0, generation)

        listing: Listing[TickerData] = Listing(
            kind="tickers of all markets",
            make_call=endpoints.tickers_of_quotes,
            name_of=quote_of,
            key=lambda quote: (RateGroup.TICKER.value,),
            keep=keep,
            limit=QUOTES_PER_CALL,
        )
        return self._batcher_of(listing, RateGroup.TICKER)

    def _batcher_of(self, listing: Listing[Model], group: RateGroup) -> Batcher[Model]:
        return Batcher(
            listing,
            queue=self._queues[group],
            door=self._door,
            cache=self.cache,
            clock=self._clock,
            window_seconds=self._config.merge_window_seconds,
            max_age=self._config.rest_max_age_seconds,
        )

    def _books_of(self, depth: int, level: Decimal) -> Batcher[OrderbookData]:
        """The batcher of one depth and price grouping, made when first asked for."""
        with self._lock:
            batcher = self._books.get((depth, level))
            if batcher is None:
                if len(self._books) >= MAX_BOOK_BATCHERS:
                    self._books.clear()  # whoever waits at one of them keeps it
                batcher = self._books[depth, level] = self._batcher(
                    RateGroup.ORDERBOOK,
                    (depth, level),
                    partial(endpoints.orderbooks, count=depth, level=level),
                    BOOKS_PER_CALL,
                    may_leave_out=level != 0,  # a market whose prices cannot be grouped so has no such book
                )
            return batcher

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
        is_shared: bool = True,
    ) -> list[TradeData]:
        """At most 500 trades of one UTC day, newest first; see `endpoints.trades`. UnknownSymbolError if delisted.
        Without `is_shared` it is asked here and now, whatever other processes ask."""
        call = endpoints.trades(symbol, count, to=to, cursor=cursor, days_ago=days_ago)
        return _page(self._call(call, deadline, priority, market=symbol, shared_age=0.0 if is_shared else None))

    def candles_page(
        self,
        symbol: str,
        timeframe: str,
        *,
        count: int = 1,
        to: datetime | None = None,
        deadline: Deadline,
        priority: Priority = Priority.NORMAL,
        is_shared: bool = True,
    ) -> list[CandleData]:
        """At most 200 candles that start before `to` (None: now), newest first; the first may still be forming.
        `is_shared` as in `trades_page`."""
        call = endpoints.candles(timeframe, symbol, count, to=to)
        return _page(self._call(call, deadline, priority, market=symbol, shared_age=0.0 if is_shared else None))

    def instruments(
        self, symbols: Iterable[str], *, deadline: Deadline, priority: Priority = Priority.NORMAL
    ) -> Answers[Instrument]:
        """What Upbit allows in these markets, at most INSTRUMENT_SECONDS old: ticks change with the price. What it says
        nothing readable about is in `refused`."""
        found: dict[str, Instrument] = {}
        refused: dict[str, UpbitBackboneError] = {}
        wanted = tuple(dict.fromkeys(map(endpoints.market_code, symbols)))
        for code in wanted:
            item = self.cache.get_cached_data(("instrument", code), counted=False)
            if item is not None:
                found[code] = item
        for _ in range(2):  # what an answer only left out is asked for once more, as with every list
            missing = [code for code in wanted if code not in found and code not in refused]
            for start in range(0, len(missing), BOOKS_PER_CALL):
                asked = missing[start : start + BOOKS_PER_CALL]
                rows = self._call(endpoints.instruments(asked), deadline, priority)
                refused |= refused_in(rows, asked)
                for item in rows:
                    self.cache.cache_data(("instrument", item.symbol), item, INSTRUMENT_SECONDS)
                    found[item.symbol] = item
        refused |= {code: left_out("instruments", code) for code in wanted if code not in found and code not in refused}
        return Answers(((code, found[code]) for code in wanted if code in found), refused)

    def markets(self, *, deadline: Deadline, priority: Priority = Priority.NORMAL) -> list[MarketInfo]:
        """Every market, with warnings, straight from Upbit."""

        def keep(items: Sequence[MarketInfo]) -> None:
            known = frozenset(item.symbol for item in items)
            self.cache.cache_data(("known",), known, MARKET_LIST_SECONDS)

        call = endpoints.markets(details=True)
        return self._call(call, deadline, priority, keep=keep, shared_age=MARKET_LIST_SECONDS)

    def _call(
        self,
        call: RestCall,
        deadline: Deadline,
        priority: Priority,
        *,
        market: str | None = None,
        keep: Callable[[Rows[Any]], object] = lambda items: None,
        shared_age: float | None = 0.0,
    ) -> Rows[Any]:
        """The answer to one call by `deadline`, or the error. Equal calls at the same time share both, and the answer
        with other processes; theirs may be `shared_age` seconds old (0: of a call under way; None: none will do)."""
        self._check()
        while True:
            job = self._shared(call, deadline, priority, market, keep, shared_age if self._answers else None)
            try:
                items = job.answer(deadline, str(call))
            except UpbitBackboneError as error:
                if not job.is_to_be_asked_again(error, deadline):
                    raise
            else:
                return items.copy()  # one for each, so that nobody's sorting is another's surprise

    def _shared(
        self,
        call: RestCall,
        deadline: Deadline,
        priority: Priority,
        market: str | None,
        keep: Callable[[Rows[Any]], object],
        shared_age: float | None,
    ) -> SingleCall:
        """The equal call that is under way, or a new one. None is shared any more once its kind was invalidated."""

        def may_join(job: SingleCall) -> bool:
            # Asked before the job is joined: to join it extends its deadline, which nobody could take back.
            is_outdated = self.cache.is_outdated((call.group.value, market), job.generation)
            is_elsewhere = shared_age is None and job.shared_age is not None
            if is_outdated or is_elsewhere or not job.is_joinable(self._clock.monotonic()):
                return False
            job.join(deadline, priority)
            return True

        new = SingleCall(call, self._door, keep, market, self.cache.generation(), priority, deadline, shared_age)
        try:
            job, leads = self._calls.join(call, lambda: new, may_join)
            if leads:
                self._queues[call.group].execute(job)
            else:
                self.cache.count_merged()
        except BaseException:
            # Ctrl-C between entering it and handing it on: others may have joined by now, and would wait for nobody.
            new.abandon()
            raise
        return job

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
        return self._queues[group].refusal()

    def stats(self) -> list[GroupStats]:
        return [queue.stats() for queue in self._queues.values()]

    def _heard_of(self, call: RestCall, response: RestResponse, received_at: datetime) -> None:
        self._heard(call, response, received_at)
        if response.asked_at is not None:
            # In this order: a thread that waits for a core in between must not make the answer's way too short.
            now = self._clock.monotonic()
            self._exchange_clock.learn_date(response.headers.get("date"), now, time.monotonic() - response.asked_at)

    def _check(self) -> None:
        self._guard.check()
        if self._is_closed:
            raise ClosedError("the REST channel is closed; make a new backbone")

    def close(self, deadline: Deadline) -> list[str]:
        """End everything: questions under way get ClosedError. Names of workers that would not stop in time."""
        if self._guard.is_foreign:
            return []
        # New questions first, then those that wait, then those on the wire; only then are threads waited for.
        self._is_closed = True
        for queue in self._queues.values():
            queue.stop()
        self._transport.close()
        for shared in (self._answers, self._circuits):
            if shared is not None:
                shared.close()
        return [name for queue in self._queues.values() for name in queue.close(deadline)]

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{sum(queue.requests for queue in self._queues.values())} requests"
        return f"<RestClient {self._config.rest_url} {state}>"


def _page(rows: Rows[Any]) -> Rows[Any]:
    """A page of history. One without a single row that can be read is an error: taken for an empty one, it would be the
    end of history."""
    unread = unread_of(rows)
    if unread and not rows:
        raise UnreadablePageError(unread)
    return rows
