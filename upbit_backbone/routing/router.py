"""The router acts on the table's decision: tries the named channels in order and never promises more than it got."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .. import errors
from .._concurrency import Clock, Deadline, ForkGuard, get_logger
from ..channels.stream import topic_of, trimmed
from ..models.enums import Channel, DataStrategy, DataType
from ..models.market import OrderbookData, TickerData
from ..models.metric import PerformanceMetric
from ..models.request import ChannelDecision, DataRequest, Topic
from ..monitoring.metrics import Metrics
from ..store.intelligent_cache import CacheLook
from ..store.live_store import LiveStore
from .context import Observation
from .policy import GOOD_P95_SECONDS, can_stream, choose_channel, is_cut_off, is_poor
from .promotion import Promotions, RequestFrequency

log = get_logger("upbit_backbone.routing")

# A verdict sorts a thousand samples: often while there is a sign of trouble, else now and then.
JUDGE_EVERY_SECONDS, JUDGE_CALMLY_SECONDS = 0.5, 5.0

# While a second channel could still answer, the first one may use this much of the time that is left.
FIRST_CHANNEL_SHARE = {Channel.REST: 0.6, Channel.WEBSOCKET: 0.5, Channel.LIVE: 1.0, Channel.CACHE: 1.0}


class ChannelReader(Protocol):
    """One way to answer: returns the datum, or raises one of our errors by the deadline."""

    def fetch(self, request: DataRequest, deadline: Deadline, look: CacheLook | None = None) -> Any:
        """`look` is one into the cache for this very request, of just now; without it who needs one takes it."""


def marked_degraded(item: Any) -> Any:
    """`item` (one datum, or a collection of them) with `degraded=True`."""
    if isinstance(item, list):
        return [marked_degraded(each) for each in item]
    return dataclasses.replace(item, degraded=True)


def is_mere_silence(channel: Channel, error: errors.UpbitBackboneError) -> bool:
    """Whether a channel failed only because nothing was said on it, which a quiet market explains."""
    return isinstance(error, errors.StaleDataError) or (
        channel is Channel.WEBSOCKET and isinstance(error, errors.RequestTimeoutError)
    )


class Observe(Protocol):
    """States the facts about a request; `known` are fields of the RoutingContext that the router knows itself."""

    def __call__(self, request: DataRequest, **known: Any) -> Observation: ...


class RequestRouter:
    """Decides with `policy`, acts through the channel readers, and learns what to promote. Thread-safe."""

    def __init__(
        self,
        readers: Mapping[Channel, ChannelReader],
        observe: Observe,
        last_known: Callable[[DataRequest], tuple[Any, float] | None],
        refusal: Callable[[DataRequest], errors.UpbitBackboneError | None] = lambda request: None,
        *,
        frequency: RequestFrequency,
        promotions: Promotions,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._readers = readers
        self._observe = observe
        self._last_known = last_known
        self._refusal = refusal
        self._frequency = frequency
        self._promotions = promotions
        self._metrics = metrics
        self._clock = clock
        self._rest_is_poor = False
        self._judged_at = float("-inf")

    def analyze_request(self, request: DataRequest) -> ChannelDecision:
        """What `answer` would do now, and why. Counts nothing, changes nothing, touches no network."""
        known: dict[str, Any] = {}
        if can_stream(request):
            asked = self._frequency.peek(topic_of(request), self._clock.monotonic()) + 1
            known = {"asked": asked, "may_promote": self._promotions.has_room()}
        return choose_channel(request, self._observed(request, **known).context)

    choose_channel = analyze_request  # the specification's name

    def get_performance_metrics(self) -> dict[Channel, PerformanceMetric]:
        """Measured latency and success per channel; a channel's word ("rest") is as good a key as its member."""
        return {channel: self._metrics.channel(channel) for channel in Channel}

    def get_average_latency(self, channel: Channel | str) -> float | None:
        """Mean seconds of the channel's answers in the last five minutes; None without any.

        Live answers take microseconds and are counted rather than timed, so `Channel.LIVE` has a mean only of those
        few that were. InvalidRequestError for a word that names no channel.
        """
        if channel not in tuple(Channel):
            raise errors.InvalidRequestError(f"channel={channel!r}: expected one of {', '.join(Channel)}")
        samples = self._metrics.recent(Channel(channel))
        return sum(sample.seconds for sample in samples) / len(samples) if samples else None

    def update_routing_strategy(self, metrics: Mapping[Channel, PerformanceMetric] | None = None) -> bool:
        """Look at the measurements again; True while REST counts as slow or failing (see the row `rest-poor`).

        Called by the router itself now and then, after REST answers and while REST is avoided for being poor; calling
        it more often changes nothing. `metrics` (as `get_performance_metrics` gives them) are judged instead of our
        own, for instance those of another process on the same machine; our own next look judges anew.
        """
        if metrics is None:
            measured: PerformanceMetric | None = self._metrics.channel(Channel.REST)
        else:
            measured = metrics.get(Channel.REST)
        if measured is not None:
            self._rest_is_poor = is_poor(measured, self._rest_is_poor)
        return self._rest_is_poor

    def _judge_rest(self, *, looks_well: bool = False) -> None:
        now = self._clock.monotonic()
        is_calm = looks_well and not self._rest_is_poor
        if now - self._judged_at >= (JUDGE_CALMLY_SECONDS if is_calm else JUDGE_EVERY_SECONDS):
            # Before judging: of several threads that find it due one pays for the sorting.
            self._judged_at = now
            self.update_routing_strategy()

    def answer(self, request: DataRequest, deadline: Deadline) -> tuple[Any, ChannelDecision]:
        """The answer by the first channel that has one, and the decision behind it.

        Raises our errors only: what the caller did wrong at once, everything else after the last channel failed.
        """
        decision, request, frequent, look = self._decide(request)
        self._metrics.routed(decision.rule)
        failures: list[errors.UpbitBackboneError] = []
        is_degraded = decision.degraded
        for position, channel in enumerate(decision.channels):
            is_last = position == len(decision.channels) - 1
            share = deadline if is_last else self._share(channel, request, decision, deadline)
            started = self._clock.monotonic()
            try:
                # What comes after a channel that failed looks for itself: by then the look is old.
                item = self._readers[channel].fetch(request, share, look if position == 0 else None)
            except (errors.InvalidRequestError, errors.ClosedError, errors.NoTradesYetError, errors.MessageTooBigError):
                raise  # another channel would say the same, or nobody shall wait for it to
            except errors.UpbitBackboneError as error:
                self._record(channel, started, error)
                failures.append(error)
                is_degraded = is_degraded or not is_mere_silence(channel, error)
                # Looked at anew: the ban may have come with this very answer, after the decision was made.
                if isinstance(error, errors.BannedError) and is_cut_off(request, self._observe(request).context):
                    break  # there is nothing to wait for
                continue
            self._record(channel, started)
            # Only what was answered is streamed: an unknown market must never get into a subscription, where Upbit
            # ignores it without a word.
            if frequent:
                self._promotions.promote(frequent, self._clock.monotonic())
            # Marked also where another channel failed first; a channel on which merely nothing was said has not failed.
            return (marked_degraded(item) if is_degraded else item), decision
        if decision.channels[-1:] == (Channel.REST,):
            item = self._from_line_that_came_back(request, deadline, failures)
            if item is not None:
                return marked_degraded(item), decision
        raise self._nothing_left(request, decision, failures)

    def _from_line_that_came_back(
        self, request: DataRequest, deadline: Deadline, failures: list[errors.UpbitBackboneError]
    ) -> Any | None:
        """After REST failed: what the stream has now, or brings by the deadline; None where it does not.

        A line is back within a moment, which REST may spend hanging, or refuse at once: that moment is no reason to
        fail a caller who has seconds left.
        """
        if not can_stream(request) or request.strategy is DataStrategy.REST_ONLY:
            return None
        context = self._observe(request).context
        if not context.is_streamed or is_cut_off(request, context):
            return None
        started = self._clock.monotonic()
        try:
            item = self._readers[Channel.WEBSOCKET].fetch(request, deadline)
        except errors.ClosedError:
            raise
        except errors.UpbitBackboneError as error:
            self._record(Channel.WEBSOCKET, started, error)
            failures.append(error)
            return None
        self._record(Channel.WEBSOCKET, started)
        return item

    def _share(self, channel: Channel, request: DataRequest, decision: ChannelDecision, deadline: Deadline) -> Deadline:
        """How long a channel may try while another could still answer."""
        if decision.rule == "both-closed":
            # No longer than REST is known to be closed: whichever opens first shall answer.
            refused = self._refusal(request)
            return deadline.sooner((refused.retry_after or 0.0) if refused is not None else 0.0)
        return deadline.fraction(FIRST_CHANNEL_SHARE[channel])

    def _observed(self, request: DataRequest, **known: Any) -> Observation:
        if self._rest_is_poor:
            self._judge_rest()  # nobody asks REST now, so only time can clear it
        return self._observe(request, rest_is_poor=self._rest_is_poor, **known)

    def _record(self, channel: Channel, started: float, error: errors.UpbitBackboneError | None = None) -> None:
        seconds = self._clock.monotonic() - started
        if channel is Channel.REST:  # the requests behind the answer were measured where they left
            self._judge_rest(looks_well=error is None and seconds <= GOOD_P95_SECONDS)
        else:
            self._metrics.record(channel, None, seconds, error)

    def _decide(self, request: DataRequest) -> tuple[ChannelDecision, DataRequest, tuple[Topic, ...], CacheLook | None]:
        """The decision, the request as the channels should see it, what is to be streamed if they can answer, and the
        look into the cache that the decision rests on.

        Counts the question.
        """
        if not can_stream(request):
            return choose_channel(request, self._observed(request).context), request, (), None
        topic = topic_of(request)
        asked, sweep = self._frequency.ask(topic, self._clock.monotonic())
        room = self._promotions.has_room()
        context, look = self._observed(request, asked=asked, is_sweep=bool(sweep), may_promote=room)
        decision = choose_channel(request, context)
        if request.realtime:
            # Only what leaves after this call is newer than it: no cache, no joining of earlier calls.
            request = dataclasses.replace(request, max_age=0.0)
        if sweep:
            request = dataclasses.replace(request, is_sweep=True)
        return decision, request, (topic, *sweep) if decision.promote else (), look

    def _nothing_left(
        self, request: DataRequest, decision: ChannelDecision, failures: list[errors.UpbitBackboneError]
    ) -> errors.UpbitBackboneError:
        if not failures and (refused := self._refusal(request)) is not None:
            failures = [refused]
        is_forced = request.strategy in (DataStrategy.REST_ONLY, DataStrategy.WEBSOCKET_ONLY)
        if is_forced and failures:
            return failures[-1]
        ban = next((error for error in failures if isinstance(error, errors.BannedError)), None)
        known = self._last_known(request)
        if known is None and ban is not None:
            return ban  # says until when, which is all there is to say
        unreadable = next((error for error in failures if isinstance(error, errors.MalformedDataError)), None)
        if known is None and unreadable is not None:
            return unreadable  # names what is wrong with this very datum
        error = self._unanswered(request, known, "; ".join(map(str, failures)) or decision.reason)
        error.retry_after = max((each.retry_after for each in failures if each.retry_after is not None), default=None)
        # What will not go away by itself explains more than what might.
        lasting = next((failure for failure in failures if not failure.retryable), None)
        error.__cause__ = ban or lasting or (failures[-1] if failures else None)
        return error

    @staticmethod
    def _unanswered(request: DataRequest, known: tuple[Any, float] | None, why: str) -> errors.UpbitBackboneError:
        asked = f"{request.kind.value} {request.symbol}"
        if known is None:
            return errors.ChannelUnavailableError(f"{asked}: no channel can answer now ({why})")
        item, age = known
        message = f"{asked}: only a value {age:.1f} s old is known, see .last_known ({why})"
        return errors.StaleDataError(message, last_known=item, age=age)

    def __repr__(self) -> str:
        return f"<RequestRouter {self._promotions!r} {self._frequency!r}>"


SmartChannelRouter = RequestRouter


# Hot path: live answers without a question being made; one look into a dict, no lock, about a microsecond.


class HotPath:
    """Knows the symbols that were asked before (so they exist) and gives their live values while they are current."""

    def __init__(self, store: LiveStore, frequency: RequestFrequency, metrics: Metrics, guard: ForkGuard) -> None:
        self._store = store
        self._last_asked = frequency.last_asked
        self._metrics = metrics
        self._mark = guard.mark
        self._tickers: dict[str, Topic] = {}
        self._books: dict[str, Topic] = {}

    def ticker(self, symbol: str, now: float) -> TickerData | None:
        """The current ticker, or None: then the router decides."""
        topic = self._tickers.get(symbol)
        # In a forked child no session writes any more: what is in memory would be called current until the liveness
        # bound is over. The mark itself, because a call more would cost a twentieth of all this.
        if topic is None or not self._mark[0]:
            return None
        ticker = self._store.current(topic, now)
        if ticker is not None:
            # One dict operation instead of the locked count: it keeps the topic from being demoted, and this path costs
            # a microsecond in all.
            self._last_asked[topic] = now
            self._metrics.live.hit()
        return ticker  # type: ignore[return-value]  # a ticker topic holds tickers

    def book(self, symbol: str, levels: int, now: float) -> OrderbookData | None:
        """The current order book without price grouping, or None."""
        topic = self._books.get(symbol)
        if topic is None or not self._mark[0]:
            return None
        book = self._store.current(topic, now)
        if book is None:
            return None
        self._last_asked[topic] = now
        self._metrics.live.hit()
        return trimmed(book, levels)  # type: ignore[arg-type, return-value]  # a book topic holds books

    def learn(self, answered: DataRequest) -> None:
        """From now on its symbol is known here."""
        # After an answer only: a symbol that was never answered may not exist, and then the router has to say so.
        topic = topic_of(answered)
        if topic.data_type is DataType.TICKER:
            self._tickers[topic.symbol] = topic
        elif not topic.level:
            self._books[topic.symbol] = topic

    def __repr__(self) -> str:
        return f"<HotPath {len(self._tickers)} tickers, {len(self._books)} books>"
