"""The routing table: pure, deterministic, first match wins, every decision with a reason in words.

A `RoutingContext` holds every fact a row may look at, so that the same context always gets the same answer and
`explain()` can show it. Measured performance enters only as the fact `rest_is_poor`, in the rows that name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..models.enums import Channel, DataStrategy, RequestKind
from ..models.metric import PerformanceMetric
from ..models.request import ChannelDecision, DataRequest

LIVE, WEBSOCKET, REST, CACHE = Channel.LIVE, Channel.WEBSOCKET, Channel.REST, Channel.CACHE


@dataclass(frozen=True, slots=True)
class RoutingContext:
    """What is known when a question comes in. The texts explain the facts beside them."""

    live_is_current: bool = False
    live_text: str = "not subscribed"
    live_age: float | None = None  # seconds since the stream last proved itself
    is_streamed: bool = False  # subscribed to or promoted, whether it works or not
    cache_age: float | None = None  # seconds since a REST answer that could be given again, None: there is none
    cache_limit: float = 1.0
    rest_is_open: bool = True
    rest_text: str = ""
    is_banned: bool = False  # Upbit blocks this IP: neither REST nor a first connection
    line_may_return: bool = False  # the topic's line was open before, and may try to connect even in a ban
    rest_is_poor: bool = False  # measured, with hysteresis: see is_poor
    stream_is_open: bool = True
    stream_text: str = ""
    asked: int = 1  # questions about this topic within the promotion window, this one included
    promote_after: int = 3
    is_sweep: bool = False
    may_promote: bool = True


class Rule(NamedTuple):
    """One row: when it applies, which channels it names in order, and why, with `{}` fields from the context."""

    name: str
    when: Callable[[DataRequest, RoutingContext], bool]
    channels: tuple[Channel, ...]
    reason: str
    promote: bool = False
    degraded: bool = False


def can_stream(request: DataRequest) -> bool:
    """Upbit streams the present state of tickers and books; everything else is history or a list."""
    return request.kind in (RequestKind.TICKER, RequestKind.ORDERBOOK)


def live_suffices(request: DataRequest, context: RoutingContext) -> bool:
    return context.live_is_current and _is_young_enough(context.live_age, request.max_age) and not request.realtime


def cache_suffices(request: DataRequest, context: RoutingContext) -> bool:
    limit = context.cache_limit if request.max_age is None else request.max_age
    return context.cache_age is not None and _is_young_enough(context.cache_age, limit) and not request.realtime


def _is_young_enough(age: float | None, limit: float | None) -> bool:
    # Nothing that is there already is young enough for 0, though a coarse clock may call it no time old.
    return limit is None or (age is not None and limit != 0 and age <= limit)


def is_about_now(request: DataRequest) -> bool:
    return request.to is None and request.start is None and request.end is None


def wants(*strategies: DataStrategy) -> Callable[[DataRequest, RoutingContext], bool]:
    return lambda request, _: request.strategy in strategies


def is_frequent(request: DataRequest, context: RoutingContext) -> bool:
    return context.may_promote and context.asked >= context.promote_after


def is_cut_off(request: DataRequest, context: RoutingContext) -> bool:
    """Banned, so that nothing new can be asked or subscribed, and nothing in memory will do."""
    stream_may_come = context.is_streamed and (context.stream_is_open or context.line_may_return)
    is_in_cache = request.strategy is not DataStrategy.WEBSOCKET_ONLY and cache_suffices(request, context)
    has_hope = stream_may_come or is_in_cache or live_suffices(request, context)
    return context.is_banned and can_stream(request) and not has_hope


TABLE: tuple[Rule, ...] = (
    Rule(
        "rest-forced",
        lambda request, context: wants(DataStrategy.REST_ONLY)(request, context) and context.rest_is_open,
        (REST,),
        "the caller allows REST only",
    ),
    Rule(
        "rest-forced-closed",
        wants(DataStrategy.REST_ONLY),
        (),
        "the caller allows REST only, and {rest_text}",
    ),
    Rule(
        "stream-forced-impossible",
        lambda request, _: request.strategy is DataStrategy.WEBSOCKET_ONLY and not can_stream(request),
        (),
        "the caller allows WebSocket only, and Upbit does not stream this",
    ),
    Rule(
        # Before all that would wait: nothing new can be asked or subscribed, so waiting for a deadline would only delay
        # the same error.
        "banned",
        is_cut_off,
        (),
        "{rest_text}, and {stream_text}",
        degraded=True,
    ),
    Rule(
        "stream-forced-live",
        lambda request, context: request.strategy is DataStrategy.WEBSOCKET_ONLY and live_suffices(request, context),
        (LIVE,),
        "the caller allows WebSocket only; {live_text}",
    ),
    Rule(
        "stream-forced",
        wants(DataStrategy.WEBSOCKET_ONLY),
        (WEBSOCKET,),
        "the caller allows WebSocket only; {live_text}",
        promote=True,
    ),
    Rule(
        "history-cached",
        lambda request, context: not can_stream(request) and cache_suffices(request, context),
        (CACHE, REST),
        "an answer {cache_age:.1f} s old is young enough",
    ),
    Rule(
        "history-closed",
        lambda request, context: not can_stream(request) and not context.rest_is_open,
        (CACHE,),
        "only REST has history, and {rest_text}",
        degraded=True,
    ),
    Rule(
        "history-joined",
        lambda request, context: (
            request.kind is RequestKind.CANDLES and is_about_now(request) and context.live_is_current
        ),
        (REST, LIVE),
        "closed candles are kept or come from REST, the forming one from the stream ({live_text})",
    ),
    Rule(
        "history",
        lambda request, _: not can_stream(request),
        (REST,),
        "history and lists come from REST",
    ),
    Rule(
        # Before "realtime", which would spend half of the deadline on a stream that is known not to come.
        "realtime-stream-closed",
        lambda request, context: request.realtime and not context.stream_is_open and context.rest_is_open,
        (REST,),
        "a value newer than the call is wanted, but {stream_text}",
        degraded=True,
    ),
    Rule(
        "realtime",
        lambda request, _: request.realtime,
        (WEBSOCKET, REST),
        "a value newer than the call is wanted: the next frame, or REST at half the deadline",
        promote=True,
    ),
    Rule(
        "live-preferred-against",
        lambda request, context: request.strategy is DataStrategy.PREFER_REST and context.rest_is_open,
        (REST, LIVE, WEBSOCKET),
        "the caller prefers REST",
    ),
    # After the forced and realtime rows, before everything that costs a request.
    Rule("live", live_suffices, (LIVE, REST), "{live_text}"),
    Rule(
        "stream-preferred",
        lambda request, context: request.strategy is DataStrategy.PREFER_WEBSOCKET and context.stream_is_open,
        (WEBSOCKET, REST),
        "the caller prefers WebSocket; {live_text}",
        promote=True,
    ),
    Rule(
        # Before "cache": where the stream was lost, an answer has to say so by being marked, and REST is asked.
        "stream-lost",
        lambda _, context: context.is_streamed and not context.stream_is_open and context.rest_is_open,
        (REST, WEBSOCKET),
        "{stream_text}: REST answers instead",
        degraded=True,
    ),
    Rule(
        "cache",
        cache_suffices,
        (CACHE, REST, WEBSOCKET),
        "a REST answer {cache_age:.1f} s old is young enough",
    ),
    Rule(
        # Both open again by themselves: giving up at once would turn a short trouble into an outage.
        "both-closed",
        lambda _, context: not context.rest_is_open and not context.stream_is_open,
        (WEBSOCKET, REST),
        "{rest_text}, and {stream_text}: whichever opens first will answer",
        promote=True,
        degraded=True,
    ),
    Rule(
        "rest-closed",
        lambda _, context: not context.rest_is_open,
        (WEBSOCKET,),
        "{rest_text}: the stream answers instead",
        promote=True,
        degraded=True,
    ),
    Rule(
        "rest-poor",
        lambda _, context: context.rest_is_poor and context.stream_is_open,
        (WEBSOCKET, REST),
        "REST is measured slow or failing: the stream is asked first",
        promote=True,
    ),
    Rule(
        "sweep",
        lambda request, context: context.is_sweep and context.may_promote,
        (REST, WEBSOCKET),
        "many symbols are asked one after another: one list request answers the sweep, a stream the next one",
        promote=True,
    ),
    Rule(
        "frequent",
        is_frequent,
        (REST, WEBSOCKET),
        "asked {asked} times lately: REST now, and a subscription for the next time",
        promote=True,
    ),
    Rule(
        "rest",
        lambda request, context: True,
        (REST, WEBSOCKET),
        "{live_text}; REST answers within one round trip",
    ),
)


NOTHING_KNOWN = RoutingContext()


def choose_channel(request: DataRequest, context: RoutingContext = NOTHING_KNOWN) -> ChannelDecision:
    """The first row that applies, as a decision with its reason filled in. Pure: the same facts, the same decision.

    Without a `context` the facts are those of a fresh start: nothing streams, nothing is cached, both ways are open.
    `RequestRouter.choose_channel` decides with what is the case now.
    """
    # The last row always applies, so there is one.
    rule = next(rule for rule in TABLE if rule.when(request, context))
    # Whatever answers now: a topic asked often is streamed for the next time, if the caller left the choice to us.
    is_worth_streaming = request.strategy is DataStrategy.AUTO and (is_frequent(request, context) or context.is_sweep)
    facts = {name: getattr(context, name) for name in RoutingContext.__slots__}
    return ChannelDecision(
        channels=rule.channels,
        reason=rule.reason.format(**facts),
        rule=rule.name,
        degraded=rule.degraded,
        promote=(rule.promote or is_worth_streaming) and context.may_promote and can_stream(request),
        facts=facts,
    )


# Two thresholds with room between them, so that a channel on the edge does not flap between two decisions.
MIN_SAMPLES = 10
POOR_SUCCESS_RATE, GOOD_SUCCESS_RATE = 0.7, 0.9
POOR_P95_SECONDS, GOOD_P95_SECONDS = 2.0, 1.0


def is_poor(metric: PerformanceMetric, was_poor: bool) -> bool:
    """Whether a channel counts as poor now, given whether it did before. Few samples change nothing."""
    # A few answers are no verdict; and with none left for five minutes, an old verdict is no reason to avoid REST for
    # ever.
    if metric.samples < MIN_SAMPLES or metric.success_rate is None or metric.p95 is None:
        return was_poor and metric.samples > 0
    success_needed = GOOD_SUCCESS_RATE if was_poor else POOR_SUCCESS_RATE
    p95_allowed = GOOD_P95_SECONDS if was_poor else POOR_P95_SECONDS
    return metric.success_rate < success_needed or metric.p95 > p95_allowed
