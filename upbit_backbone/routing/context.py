"""Routing context: the facts that the routing table needs, read off the parts. Touches no network."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from .._concurrency import Clock, Deadline
from ..channels.markets import MarketDirectory
from ..channels.stream import topic_of
from ..errors import UpbitBackboneError
from ..exchange.timeframes import timeframe_of
from ..limits.rate_limiter import RateLimiter
from ..models.enums import DataSource, RateGroup, RequestKind
from ..models.events import ConnectionState
from ..models.lazy_book import decoded
from ..models.market import CandleData
from ..models.request import DataRequest, Topic
from ..models.session import SessionHealth
from ..resilience.circuit_breaker import CircuitBreaker
from ..rest.client import RestClient
from ..store.exchange_clock import ExchangeClock
from ..store.intelligent_cache import CacheLook
from ..store.live_store import LiveStore
from .policy import RoutingContext, can_stream

GROUP_OF_KIND = {
    RequestKind.TICKER: RateGroup.TICKER,
    RequestKind.ORDERBOOK: RateGroup.ORDERBOOK,
    RequestKind.TRADES: RateGroup.TRADE,
    RequestKind.CANDLES: RateGroup.CANDLE,
    RequestKind.MARKETS: RateGroup.MARKET,
}


class Streams(Protocol):
    """What is asked of the sessions."""

    def health(self, topic: Topic) -> SessionHealth | None: ...

    def states(self) -> dict[str, ConnectionState]: ...


def stream_of(request: DataRequest) -> Topic | None:
    """The stream that tells the present state of what is asked; None for what Upbit does not stream."""
    if can_stream(request):
        return topic_of(request)
    if request.kind is RequestKind.CANDLES:
        data_type = timeframe_of(request.timeframe or "1m").data_type
        return None if data_type is None else Topic(data_type, request.symbol)
    return None


class Observation(NamedTuple):
    """The facts about a question, and the look into the cache behind the fact `cache_age`, where one was taken.

    It is handed down to the first channel: what was decided by an answer's age is what is given, and none is looked for
    twice.
    """

    context: RoutingContext
    look: CacheLook | None


class ContextObserver:
    """Called for every question that the live store could not answer by itself.

    While all is well, what it reads of breaker and ban are single attributes: they are asked by the attempt that needs
    their permission.
    """

    def __init__(
        self,
        *,
        store: LiveStore,
        rest: RestClient,
        directory: MarketDirectory,
        limiter: RateLimiter,
        streams: Streams,
        connect_breaker: CircuitBreaker,
        rest_max_age: float,
        markets_max_age: float,
        promote_after: int,
        exchange_clock: ExchangeClock | None = None,
        clock: Clock,
    ) -> None:
        self._store = store
        self._rest = rest
        self._directory = directory
        self._limiter = limiter
        self._streams = streams
        self._connect_breaker = connect_breaker
        self._rest_max_age = rest_max_age
        self._markets_max_age = markets_max_age
        self._promote_after = promote_after
        self._exchange_clock = exchange_clock
        self._clock = clock

    def observe(self, request: DataRequest, **known: Any) -> Observation:
        """The facts about `request`, besides those that are `known` already (fields of RoutingContext)."""
        topic = stream_of(request)
        health = None if topic is None else self._streams.health(topic)
        # Once for both texts: a ban that ends in between would give a reason for one channel and none for the other.
        banned_for = self._limiter.banned_for()
        rest_text = self._why_rest_is_closed(GROUP_OF_KIND[request.kind], banned_for)
        stream_text = self._why_stream_is_closed(health, banned_for)
        facts: dict[str, Any] = {} if topic is None else self._live(topic, health)
        look = self._rest.cache.look(request) if can_stream(request) else None
        context = RoutingContext(
            **facts,
            is_streamed=health is not None,
            is_banned=banned_for > 0,
            line_may_return=self._may_return(health),
            rest_is_open=rest_text is None,
            rest_text=rest_text or "REST is open",
            stream_is_open=stream_text is None,
            stream_text=stream_text or "the stream is open",
            cache_age=self._cache_age(request, look),
            cache_limit=self._markets_max_age if request.kind is RequestKind.MARKETS else self._rest_max_age,
            promote_after=self._promote_after,
            **known,
        )
        return Observation(context, look)

    def refusal(self, request: DataRequest) -> UpbitBackboneError | None:
        """The error with which REST would refuse the question at once (a ban, an open breaker), or None."""
        group = GROUP_OF_KIND[request.kind]
        try:
            self._limiter.forecast(group, 0, Deadline.after(None))
        except UpbitBackboneError as error:
            return error
        return self._rest.refusal(group)  # type: ignore[return-value]  # it is one of ours

    def last_known(self, request: DataRequest) -> tuple[Any, float] | None:
        """The newest value ever seen, with its age in seconds."""
        if not request.symbols:
            return None
        item = self._store.last_known(request.kind, request.symbol, timeframe=request.timeframe, level=request.level)
        if item is None:
            return None
        return item, self._age_of(item, stream_of(request))

    def _age_of(self, item: Any, topic: Topic | None) -> float:
        """How long ago `item` was true: what came late, or from a stream that is gone, is as old as its stamp."""
        now = self._clock.monotonic()
        entry = None if topic is None else self._store.entry(topic)
        if topic is not None and entry is not None and decoded(entry.item) is item:
            return self._store.age(topic, now) or 0.0
        is_stamped = item.source in (DataSource.WEBSOCKET, DataSource.RELAY) and not isinstance(item, CandleData)
        # A candle's stamp is the start of its period and says nothing about its age.
        since_stamp = self._exchange_clock.seconds_since(item.timestamp, now) if self._exchange_clock else None
        if is_stamped and since_stamp is not None:
            return since_stamp
        seen = item.received_at or item.timestamp
        age: float = (self._clock.wall() - seen).total_seconds()
        return max(0.0, age)

    def _live(self, topic: Topic, health: SessionHealth | None) -> dict[str, Any]:
        now = self._clock.monotonic()
        if health is None:
            return {"live_text": "not subscribed"}
        why_not = self._store.why_not(topic, now)
        if why_not is not None:
            return {"live_text": f"not current: {why_not}"}
        age = self._store.age(topic, now)
        text = "stream proven alive" if age is None else f"stream proven alive {age:.1f} s ago"
        return {"live_is_current": True, "live_text": text, "live_age": age}

    def _cache_age(self, request: DataRequest, look: CacheLook | None) -> float | None:
        if request.kind is RequestKind.MARKETS:
            return self._directory.age()
        answer = None if look is None else look.answer
        return None if answer is None else answer.age(self._clock.monotonic(), request.max_age)

    def _why_rest_is_closed(self, group: RateGroup, banned_for: float) -> str | None:
        if banned_for:
            return self._limiter.ban_in_words() or f"Upbit blocks this IP for {banned_for:.0f} s more"
        refusal = self._rest.refusal(group)
        return None if refusal is None else f"the breaker of REST group {group.value} is open"

    def _why_stream_is_closed(self, health: SessionHealth | None, banned_for: float) -> str | None:
        """Of the session that streams the topic in question; where none does, of any that could."""
        states = self._streams.states()
        if health is not None and health.session in states:
            states = {health.session: states[health.session]}
        # One that lives is enough: a first subscription goes to whatever session has room.
        if ConnectionState.LIVE in states.values():
            return None
        if not self._connect_breaker.is_untroubled and self._connect_breaker.refusal() is not None:
            return "connecting failed too often lately"
        if ConnectionState.WAITING in states.values():
            return "the stream waits for its next attempt to connect"
        return f"Upbit blocks this IP for {banned_for:.0f} s more" if banned_for else None

    def _may_return(self, health: SessionHealth | None) -> bool:
        """Whether the line broke and may try to come back whatever REST does; a first one waits for a ban's end."""
        return health is not None and health.epoch > 0 and not self._limiter.ban_covers_connects

    def __repr__(self) -> str:
        return f"<ContextObserver {self._store!r}>"
