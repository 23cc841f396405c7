"""Puts the parts together: the only place that knows them all, and the order in which they start and stop.

questions   router ─▶ live store | stream wait | REST queues ─▶ transport
stream      sessions ─▶ intake ─▶ live store, hub ─▶ mailboxes
at the side event bus, health monitor, promotions

What every question needs is made at once; the past, the monitor and the player of recordings are made, and their
modules loaded, when somebody first asks for them.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ._concurrency import (
    SYSTEM_CLOCK,
    Clock,
    Deadline,
    Flag,
    ForkGuard,
    Once,
    Waitable,
    WorkerPool,
    get_logger,
    is_interrupting,
    is_own_thread,
    raise_if_users,
    spawn,
    spawn_unwaited,
)
from ._language import spoken
from ._lazy import loading
from .backfill.gap_repair import WORKERS, GapRepair
from .channels.markets import Instruments, MarketDirectory
from .channels.rest import AnswerCheck, CacheChannel, RestChannel
from .channels.snapshots import OrderbookSnapshot, TickerSnapshot
from .channels.stream import LiveChannel, StallProbe, StreamWaitChannel
from .config import BackboneConfig, check_surroundings
from .delivery.event_bus import EventBus
from .delivery.hub import Hub
from .errors import BannedError, ClosedError, InvalidRequestError, RateLimitError
from .exchange.endpoints import normal_host
from .intake import Intake, UnreadLog
from .limits.rate_limiter import REST_ALONE, RateLimiter
from .models.enums import Channel, Priority, RateGroup
from .models.events import Event, RateLimitEvent
from .models.market import MarketInfo
from .models.request import Topic
from .monitoring.log_lines import EventLog
from .monitoring.metrics import Metrics
from .resilience.circuit_breaker import CircuitBreaker
from .rest.client import RestClient
from .routing.context import ContextObserver
from .routing.promotion import Promotions, PromotionWorker, RequestFrequency
from .routing.router import HotPath, RequestRouter
from .sessions.session_manager import SessionManager
from .store.exchange_clock import ExchangeClock
from .store.live_store import STATE_TYPES, LiveStore
from .wire.rest_transport import RestTransport

if TYPE_CHECKING:
    from .archive.replay import StoreTransport
    from .archive.store import Store
    from .backfill.sequence import Start
    from .channels.market_watch import MarketWatch
    from .delivery.mailbox import Mailbox
    from .history.candles import CandleHistory, CandlesWithLive
    from .history.trades import TradesHistory
    from .limits.between_processes import InterProcessLimiter
    from .monitoring.health_monitor import HealthMonitor
    from .recorder import Recorder, ReplaySource, ReplayTransport
    from .recorder.replay import Played
    from .sessions.ports import Connection
    from .sinks.base import Sink
    from .sinks.filling import HoleFiller
    from .sinks.sink_recorder import SinkRecorder, Subscribe
    from .upstream.upstream import Upstream
    from .wire.websocket_transport import WebSocketTransport


log = get_logger("upbit_backbone")

RECORDER_SECONDS = 1.0
CLOSING_SECONDS = 0.05
# A recording's answers come at their place in it, however long that takes; one worker asks for them, so that holes are
# filled in the same order each time.
REPLAY_HOLD_SECONDS = 60.0
UNLIMITED = 1e6  # per second
_replays = itertools.count(1)
JOB_WORKERS = 8
# So many that no question of a `submit` waits here for another: whose turn it is is the limiter's to say.
CALL_WORKERS = 64
# The session's own backoff paces attempts; the breaker only tells the router, and forgets quickly.
CONNECT_BREAKER_RESET_SECONDS = 1.0


class History(NamedTuple):
    """All that answers questions about the past, made together."""

    paged: CandleHistory
    candles: CandlesWithLive  # the same with the live candle at its end
    trades: TradesHistory


# From when (inclusive, None: the beginning) until when (exclusive, None: the end).
Span = tuple[datetime | None, datetime | None]


class Assembly:
    """One backbone's parts, wired. `close()` stops them in the order in which data flows, within one deadline."""

    def __init__(
        self,
        config: BackboneConfig,
        *,
        clock: Clock = SYSTEM_CLOCK,
        recording: Played | None = None,
        answers: ReplayTransport | StoreTransport | None = None,
        speed: float | None = None,
        span: Span = (None, None),
    ) -> None:
        check_surroundings()
        self.config = config
        self.clock = clock
        self._recording = recording  # played instead of talking to Upbit, where there is one
        self._answers = answers  # and what stands in for REST then
        self._speed = speed
        self._span = span
        self.guard = ForkGuard("this MarketDataBackbone")
        self._closing = threading.Lock()  # held by whoever closes; others wait for it or go away at their deadline
        self._is_closed = Flag()
        self._is_forgotten = False  # nobody holds the backbone any more
        self._recorder: Recorder | None = None
        self._recording_lock = threading.Lock()  # guards _recorder, and every change of _sinks
        self._sinks: tuple[SinkRecorder, ...] = ()

        self.events = EventBus()
        self._log_event = EventLog(clock=clock)
        self.metrics = Metrics(clock)
        self.jobs = WorkerPool(JOB_WORKERS, "upbit-job")
        self.calls = WorkerPool(CALL_WORKERS, "upbit-call")
        self._monitor = Once(self._make_monitor)
        self._history = Once(self._make_history)
        self._backlogs = Once(self._make_backlogs)
        self._market_watch = Once(self._make_market_watch)
        self._door = Once(self._make_door)
        self.limiter = self._make_limiter()
        shared = self._shared_with_others()
        self.connect_breaker = CircuitBreaker(
            "WebSocket connect",
            failures=config.breaker_failures,
            reset_seconds=CONNECT_BREAKER_RESET_SECONDS,
            probes=1,  # a live session makes no second attempt
            clock=clock,
            emit=self.emit,
            elsewhere=shared.get("circuits"),
        )
        self._make_stores(shared)
        self._make_stream()
        self._make_answers()

    # ── making ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _make_limiter(self) -> RateLimiter:
        if self._recording is not None:
            # Nothing goes on the wire: a replay must neither wait for the limits of a host nor use them up for others.
            return RateLimiter(f"replay {next(_replays)}", UNLIMITED, connects_per_second=UNLIMITED, clock=self.clock)
        return RateLimiter(
            self.config.rest_url,
            self.config.rest_requests_per_second,
            connects_per_second=self.config.connects_per_second,
            clock=self.clock,
            emit=self.emit,
            # By a simulated clock nobody else counts.
            between_processes=self.config.share_limits_between_processes and self.clock is SYSTEM_CLOCK,
            shared=self._fleet_limiter if self.config.share_limits_at else None,
        )

    def _fleet_limiter(self, host: str) -> InterProcessLimiter:
        """The limits that all machines behind one address keep together."""
        try:
            from .upstream.fleet_count import FleetCount
        except ModuleNotFoundError as theirs:
            raise _needs_redis("share_limits_at=") from theirs
        from .limits.between_processes import inter_process_limiter

        where = self.config.share_limits_at, self.config.upstream_prefix, self.config.egress
        url, prefix, egress = where
        return inter_process_limiter(
            host, self.clock, where, lambda: FleetCount(host, self.clock, url=url, prefix=prefix, egress=egress)
        )

    def _make_stores(self, shared: dict[str, Any]) -> None:
        config, clock = self.config, self.clock
        self.exchange_clock = ExchangeClock(clock)
        # A recording is what it is: its stamps and the present have nothing to say to each other.
        self._judging_clock = self.exchange_clock if self._recording is None else None
        self.store = LiveStore(config.liveness_seconds, clock=clock, exchange_clock=self._judging_clock)
        self.unread = UnreadLog(self.emit, clock, self.metrics.count)
        self.transport = self._make_transport()
        self.rest = RestClient(
            config,
            limiter=self.limiter,
            door=lambda call, body, received_at: self.intake.answer(call, body, received_at),
            heard=lambda call, response, received_at: self.intake.heard(call, response, received_at),
            emit=self.emit,
            clock=clock,
            transport=self.transport,
            exchange_clock=self.exchange_clock,
            measure=self._measure,
            **shared,
        )
        self.directory = MarketDirectory(
            self._load_markets,
            refused=self.rest.refuses,
            max_age=config.markets_max_age_seconds,
            clock=clock,
        )

    def _shared_with_others(self) -> dict[str, Any]:
        """What REST has in common with processes that use the same Redis server; the circuits handshakes, too."""
        config = self.config
        if not config.share_limits_at or not config.share_limits_between_processes or self._recording is not None:
            return {}
        try:
            from .upstream.shared_answers import SharedAnswers
            from .upstream.shared_circuits import SharedCircuits
        except ModuleNotFoundError as theirs:
            raise _needs_redis("share_limits_at=") from theirs

        host = normal_host(config.rest_url)
        where = config.share_limits_at, config.upstream_prefix
        return {
            "answers": SharedAnswers(*where, host, clock=self.clock),
            "circuits": SharedCircuits(*where, config.egress, host, clock=self.clock),
        }

    def _make_market_watch(self) -> MarketWatch:
        with loading():
            from .channels.market_watch import MarketWatch

        def streamed(topic: Topic) -> object:
            entry = self.store.entry(topic)
            return None if entry is None else entry.item

        watch = MarketWatch(self.directory, streamed=streamed, emit=self.emit, clock=self.clock)
        # A listener may close from the very event that its subscribing brought: whoever closed knew of no watch yet.
        if self.is_closed:
            watch.close(Deadline.after(0.0))
        return watch

    def watch_markets(self) -> None:
        """Somebody wants to hear what becomes of markets. A recording has no list to ask for."""
        if self._recording is None:
            self.market_watch.start()

    @property
    def market_watch(self) -> MarketWatch:
        return self._market_watch.get()

    def _make_transport(self) -> RestTransport | ReplayTransport | StoreTransport:
        if self._answers is not None:
            return self._answers
        config = self.config
        return RestTransport(
            config.rest_url,
            ca_file=config.ca_file,
            proxy=config.proxy,
            connect_seconds=config.connect_timeout_seconds,
        )

    def _make_stream(self) -> None:
        config, clock = self.config, self.clock
        self.hub = Hub(
            self.events,
            current=lambda topic: self.intake.current(topic),
            acquire=lambda owner, requests: self.sessions.acquire(owner, requests),
            release=self._release,
            run_job=self.jobs.submit,
            queue_size=config.queue_size,
            close_seconds=config.close_timeout_seconds,
            why_silent=self._why_silent,
            clock=clock.monotonic,
        )
        # Not from others: what they were told before this line was there lacks what the gap is about.
        self._trades_now = partial(self.rest.trades_page, is_shared=False)
        self._candles_now = partial(self.rest.candles_page, is_shared=False)
        self.repair = GapRepair(
            trades_page=self._trades_now,
            candles_page=self._candles_now,
            publish=self.hub.publish,
            emit=self.emit,
            run_job=self.jobs.submit,
            wanted=self.hub.is_wanted,
            strict=self.hub.is_strict,
            refuse=self.hub.refuse,
            hold_seconds=config.gap_hold_seconds if self._recording is None else REPLAY_HOLD_SECONDS,
            strict_seconds=config.gap_strict_seconds,
            workers=WORKERS if self._recording is None else 1,
            max_trades=config.backfill_max_trades,
            clock=clock,
        )
        self.intake = Intake(
            self.store,
            self.hub,
            repair=self.repair,
            emit=self.emit,
            clock=clock,
            exchange_clock=self._judging_clock,
            unread=self.unread,
            on_symbols=self.directory.learn,
        )
        # None: Upbit itself. Nor is a recording streamed by anybody.
        self.upstream = self._make_upstream() if config.upstream and self._recording is None else None
        self.probe = StallProbe(self.rest, self.store, clock)
        if self.upstream is not None:
            self.probe.witness = self.upstream.seen
        self.sessions = self._make_sessions()

    def _make_sessions(self) -> SessionManager | ReplaySource:
        clock = self.clock
        if self._recording is not None and self._answers is not None:
            from .recorder import ReplaySource

            return ReplaySource(
                self._recording,
                self.intake,
                clock=clock,  # type: ignore[arg-type]  # assemble_replay passes the replaying one
                rest=self._answers,
                speed=self._speed,
                emit=self.emit,
                backlog=lambda: max((stats.pending for stats in self.hub.stats()), default=0),
                is_settled=lambda: not any(map(self.repair.has_gaps, self.hub.topics)),
                on_end=self.hub.finish,
                since=self._span[0],
                until=self._span[1],
            )
        return SessionManager(
            self.config,
            clock=clock,
            rng=random.random,
            dial=self._dial,
            sink=self.intake,
            emit=self.emit,
            turn_to_connect=self._turn_to_connect,
            probe=self.probe,
            run_job=self.jobs.submit,
            refused=self._handshake_refused,
            silent_topics=self._silent_topics,
            malformed=self.intake.malformed,
            on_late=lambda topics: self.promotions.drop(topics),
        )

    def _make_upstream(self) -> Upstream:
        try:
            from .upstream.relay_connection import RelayTransport
            from .upstream.upstream import Upstream
        except ModuleNotFoundError as theirs:
            raise _needs_redis("upstream=") from theirs

        config, clock = self.config, self.clock
        return Upstream(
            RelayTransport(
                config.upstream,
                config.upstream_prefix,
                last_of=self.repair.last,
                doubt=self.store.doubt,
                clock=clock,
            ),
            self._dial_upbit,
            reconnect=lambda reason: self.sessions.reconnect(reason=reason),
            emit=self.emit,
            clock=clock,
        )

    def _make_answers(self) -> None:
        """Whoever answers questions: by what is asked often, where it can be answered from, and the ways to do it."""
        self._answer_check = AnswerCheck(self.store, self.rest.cache, self.clock, self._judging_clock)
        self._make_frequency()
        self.observer = self._make_observer()
        self.router = self._make_router()
        self.board = TickerSnapshot(
            store=self.store,
            rest=self.rest,
            directory=self.directory,
            check=self._answer_check,
            asked=self.promotion_worker.asked,
            last_asked=self.frequency.last_asked,
            acquire=self.sessions.acquire,
            release=self.sessions.release,
            clock=self.clock,
            max_symbols=self.config.max_subscribed_symbols,
        )
        self.books = OrderbookSnapshot(
            store=self.store,
            rest=self.rest,
            directory=self.directory,
            check=self._answer_check,
            asked=self.promotion_worker.asked,
            last_asked=self.frequency.last_asked,
            clock=self.clock,
            max_symbols=self.config.max_subscribed_symbols,
        )
        self.instruments = Instruments(self.rest, self.directory, max_symbols=self.config.max_subscribed_symbols)
        self.hot = HotPath(self.store, self.frequency, self.metrics, self.guard)

    def _make_frequency(self) -> None:
        config, clock = self.config, self.clock
        self.frequency = RequestFrequency(config.promote_window_seconds)
        self.promotion_worker = PromotionWorker(
            self.frequency, promote_after=config.promote_after_questions, clock=clock
        )
        self.promotions = Promotions(
            self.sessions.acquire,
            limit=config.max_promoted_topics,
            demote_after=config.demote_after_seconds,
            wake=self.promotion_worker.wake,
            exists=self.directory.knows,
        )
        self.promotion_worker.look_after(self.promotions)

    def _make_observer(self) -> ContextObserver:
        config = self.config
        return ContextObserver(
            store=self.store,
            rest=self.rest,
            directory=self.directory,
            limiter=self.limiter,
            streams=self.sessions,
            connect_breaker=self.connect_breaker,
            rest_max_age=config.rest_max_age_seconds,
            markets_max_age=config.markets_max_age_seconds,
            promote_after=config.promote_after_questions,
            exchange_clock=self._judging_clock,
            clock=self.clock,
        )

    def _make_router(self) -> RequestRouter:
        clock = self.clock
        return RequestRouter(
            {
                Channel.LIVE: LiveChannel(self.store, clock),
                Channel.WEBSOCKET: StreamWaitChannel(
                    self.store,
                    self.directory,
                    self.sessions.acquire,
                    self.sessions.release,
                    clock,
                    exchange_clock=self._judging_clock,
                ),
                Channel.REST: RestChannel(self.rest, self.directory, self._answer_check),
                Channel.CACHE: CacheChannel(self.rest.cache),
            },
            self.observer.observe,
            self.observer.last_known,
            self.observer.refusal,
            frequency=self.frequency,
            promotions=self.promotions,
            metrics=self.metrics,
            clock=clock,
        )

    # ── made when they are first asked for ───────────────────────────────────────────────────────────────────────

    @property
    def history(self) -> History:
        """History of candles and trades. ClosedError after `close`, if nobody has asked for it before."""
        return self._history.get()

    @property
    def monitor(self) -> HealthMonitor:
        return self._monitor.get()

    def _make_history(self) -> History:
        with loading():
            from .history.candles import CandleHistory, CandlesWithLive
            from .history.trades import TradesHistory

        config, clock, exchange_now = self.config, self.clock, self.exchange_now
        seconds = config.timeout_seconds
        pages = self.directory.vetted(self.rest.candles_page)
        history = CandleHistory(pages, exchange_now=exchange_now, timeout_seconds=seconds, clock=clock, emit=self.emit)
        candles = CandlesWithLive(
            history,
            live=self.store.current,
            asked=lambda topic: self.promotion_worker.asked([topic]),
            exchange_now=exchange_now,
            cache=self.rest.cache,
            max_age=config.rest_max_age_seconds,
            clock=clock,
        )
        pages_of_trades = self.directory.vetted(self.rest.trades_page)
        trades = TradesHistory(
            pages_of_trades, exchange_now=exchange_now, timeout_seconds=seconds, clock=clock, emit=self.emit
        )
        if self.is_closed:  # meanwhile
            raise ClosedError("this MarketDataBackbone is closed; make a new one")
        return History(history, candles, trades)

    def _make_backlogs(self) -> GapRepair:
        with loading():
            from .backfill.backlog import HOLD_SECONDS, MOST_ITEMS, deliver, owner

        if self._recording is not None:
            raise InvalidRequestError("since=: a replay has no past beyond its recording; see replay(…, start=)")
        rest = self._trades_now
        return GapRepair(
            trades_page=rest if self.upstream is None else self.upstream.past_trades(rest),
            candles_page=self._candles_now,
            publish=deliver,
            emit=self.emit,
            run_job=self.jobs.submit,
            owner=owner,
            hold_seconds=HOLD_SECONDS,
            max_trades=MOST_ITEMS,
            clock=self.clock,
        )

    def mailbox_since(self, starts: Mapping[Topic, Start]) -> Callable[..., Mailbox]:
        """A maker of mailboxes that begin with what was since `starts`."""
        with loading():
            from .backfill.backlog import BacklogMailbox

        return partial(BacklogMailbox, repair=self._backlogs.get(), starts=starts)

    def _make_monitor(self) -> HealthMonitor:
        with loading():
            from .monitoring.health_monitor import HealthMonitor, HealthSources

        monitor = HealthMonitor(
            HealthSources(
                sessions=lambda: self.sessions.stats(),
                groups=lambda: self.rest.stats(),
                subscriptions=lambda: self.hub.stats(),
                cache=lambda: self.rest.cache.stats(),
                breakers=lambda: {self.connect_breaker.name: self.connect_breaker.state},
                recorder=lambda: None if (recorder := self._recorder) is None else recorder.stats,
                sinks=lambda: [each.stats for each in self._sinks if each.has_begun],
                refusals=lambda: self.intake.refusals(),
                ask_rest=lambda deadline: self.rest.markets(deadline=deadline),
                gaps=self.repair.stats,
                ban=self.limiter.ban_in_words,
                limits=self.limiter.trouble,
                upstream=lambda: None if self.upstream is None else (self.upstream.place, self.upstream.trouble),
            ),
            self.metrics,
            clock_offset=lambda: self.exchange_clock.ahead,
            clock=self.clock,
            emit=self.emit,
        )
        if self.is_closed:  # reports are readable after `close`, too
            monitor.close(Deadline.after(0.0))
        return monitor

    # ── what parts tell each other ───────────────────────────────────────────────────────────────────────────────

    def emit(self, event: Event) -> None:
        """To the log, the listeners, the monitor and, where it is a ban, the sessions.

        From any thread. Never waits, and never raises into the place that emits: whoever fails to hear it is logged.
        """
        for tell in (self._log_event, self.events.emit, self._count, self._obey_ban):
            try:
                tell(event)
            except BaseException as error:
                raise_if_users(error)
                log.exception("an event was not told to everyone", extra={"upbit_event": type(event).__name__})

    def _count(self, event: Event) -> None:
        if (monitor := self._monitor.made) is None:
            self.metrics.count_event(event)
        else:
            monitor.observe(event)

    def _obey_ban(self, event: Event) -> None:
        # A ban that REST met is REST's: the limiter knows what a line that breaks may do meanwhile.
        if isinstance(event, RateLimitEvent) and event.banned and event.group != REST_ALONE and not self._is_relayed:
            seconds = max(0.0, (event.until - self.clock.wall()).total_seconds())
            self.sessions.ban(seconds, event.reason)

    def exchange_now(self) -> datetime:
        """Upbit's time, as far as its answers tell (aware UTC)."""
        return self.clock.wall() + timedelta(seconds=self.rest.clock_offset or 0.0)

    def _measure(self, group: str, seconds: float, error: BaseException | None, size: int) -> None:
        self.metrics.record(Channel.REST, group, seconds, error, size)

    def _load_markets(self, deadline: Deadline, priority: Priority) -> list[MarketInfo]:
        return self.rest.markets(deadline=deadline, priority=priority)

    def _silent_topics(self, topics: frozenset[Topic], since: float) -> frozenset[Topic]:
        entries = ((topic, self.store.entry(topic)) for topic in topics)
        return frozenset(topic for topic, entry in entries if entry is None or entry.news_at < since)

    def stale_symbols(self, topics: Iterable[Topic]) -> frozenset[str]:
        """The symbols of those topics that are not provably current, or, of trades and candles, whose line is not;
        and of those whose line owes an answer, which a screen shall show before it is too old to be given."""
        now = self.clock.monotonic()
        return frozenset(topic.symbol for topic in topics if not self._is_current(topic, now))

    def _is_current(self, topic: Topic, now: float) -> bool:
        health = self.sessions.health(topic)
        if health is None or health.is_unanswered(now):
            return False
        if topic.data_type in STATE_TYPES:
            return self.store.current_stored(topic, now) is not None
        # A quiet market has no trade for hours: what counts is whether the line would bring one.
        is_up = health.connected and now - health.heard_at <= self.config.liveness_seconds
        return is_up and not (health.is_late or health.suspect or topic in health.mute)

    def record(self, path: Path, rotate_bytes: int | None = None, rotate_seconds: float | None = None) -> Recorder:
        """Attach a recorder to everything that comes in; one at a time."""
        made: list[Recorder] = []
        try:
            with self._recording_lock:
                if self._recorder is not None:
                    raise InvalidRequestError(f"{self._recorder.path} is being recorded; close that recorder first")
                with loading():
                    from .recorder import Recorder

                self._recorder = Recorder(
                    path,
                    clock=self.clock,
                    about={"rest_url": self.config.rest_url},
                    on_open=made.append,
                    on_close=self._detach,
                    emit=self.emit,
                    rotate_bytes=rotate_bytes,
                    rotate_seconds=rotate_seconds,
                )
            self.intake.attach(made[0])
        except BaseException:  # Ctrl-C: nobody could ever close it, and no other could begin
            for recorder in made:
                recorder.close()
            raise
        return made[0]

    def _detach(self, recorder: Recorder) -> None:
        with self._recording_lock:
            if self._recorder is recorder:
                self._recorder = self.intake.tap = None

    def record_to(self, sink: Sink, subscribe: Subscribe, **options: Any) -> SinkRecorder:
        """Feed a sink from what `subscribe(on_event)` gives; several at a time, each under a name of its own."""
        with loading():
            from .sinks.sink_recorder import SinkRecorder

        with self._recording_lock:
            recorder = SinkRecorder(
                sink,
                self._free_name(sink.name),
                is_settled=self._is_settled,
                make_filler=self._hole_filler,
                emit=self.emit,
                liveness_seconds=self.config.liveness_seconds,
                on_close=self._forget_sink,
                has_past=self._recording is None,
                clock=self.clock,
                **options,
            )
            self._sinks = (*self._sinks, recorder)
        try:
            recorder.begin(subscribe)
            if self.is_closed:  # meanwhile, so that whoever closed knew of it too early
                recorder.close(0.0)
        except BaseException:  # Ctrl-C: nobody could ever close it
            self._forget_sink(recorder)
            recorder.close()
            raise
        return recorder

    def _free_name(self, name: str) -> str:
        """The sink's own name, with a number where another has it: figures are told apart by it. With the lock held."""
        taken = {each.name for each in self._sinks}
        names = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
        return next(each for each in names if each not in taken)

    def _is_settled(self, topic: Topic) -> bool:
        """Whether all that Upbit has sent of the topic is here, and nothing of it is still to be repaired."""
        is_current = self.store.current_stored(topic, self.clock.monotonic()) is not None
        return is_current and not self.repair.has_gaps(topic)

    def _hole_filler(self, cancel: Flag) -> HoleFiller:
        from .sinks.filling import HoleFiller

        # Whoever asks something now goes first.
        options: dict[str, Any] = {"priority": Priority.LOW, "cancel": cancel}
        return HoleFiller(
            lambda symbol, since: self.history.trades.iter(symbol, since=since, **options),
            lambda symbol, unit, start, end: self.history.paged.iter(symbol, unit, start=start, end=end, **options),
            self.exchange_now,
        )

    def _forget_sink(self, recorder: SinkRecorder) -> None:
        with self._recording_lock:
            self._sinks = tuple(each for each in self._sinks if each is not recorder)

    # ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────

    def _dial(self, deadline: Deadline, *, stop: Waitable) -> Connection:
        dial = self._dial_upbit if self.upstream is None else self.upstream.open
        return dial(deadline, stop=stop)

    def _dial_upbit(self, deadline: Deadline, *, stop: Waitable) -> Connection:
        # When to try is the session's to decide: see CONNECT_BREAKER_RESET_SECONDS.
        with self.connect_breaker.admit_anyway() as attempt:
            try:
                connection = self._door.get().open(deadline, stop=stop)
            except (ClosedError, RateLimitError):
                raise  # neither says that it cannot be reached
            except Exception as error:
                attempt.failed(error)
                raise
            attempt.succeeded()
        self.limiter.passed(self.clock.monotonic())  # after a ban: Upbit speaks to us again
        return connection

    def _make_door(self) -> WebSocketTransport:
        # Made on first use: who only asks REST need not load websocket-client. Once: reading all certificate
        # authorities of a system takes as long as a reconnect should.
        with loading():
            from .wire.websocket_transport import WebSocketTransport

        config = self.config
        return WebSocketTransport(
            config.websocket_url,
            ca_file=config.ca_file,
            proxy=config.proxy,
            connect_seconds=config.connect_timeout_seconds,
            clock=self.clock,
        )

    @property
    def _is_relayed(self) -> bool:
        """Whether sessions connect to a relay, which keeps Upbit's limits for all of its clients."""
        return self.upstream is not None and not self.upstream.is_direct

    def _turn_to_connect(self, deadline: Deadline, is_reconnect: bool) -> AbstractContextManager[None]:
        return nullcontext() if self._is_relayed else self.limiter.handshake(deadline, is_reconnect=is_reconnect)

    def _handshake_refused(self, error: RateLimitError) -> None:
        if isinstance(error, BannedError):
            self.limiter.ban(error.until, seconds=error.retry_after, at_connect=True)
        else:
            self.limiter.penalise(RateGroup.WEBSOCKET_CONNECT, error.retry_after)

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _why_silent(self) -> str:
        """What a loop that gets nothing is told: how the connections are."""
        known = [
            f"{each.session} is {each.state.value}" + (f" ({each.last_error})" if each.last_error else "")
            for each in self.sessions.stats()
        ]
        return "; ".join(known) or "no connection was made yet"

    def _release(self, owner: str) -> None:
        self.sessions.release(owner)
        if self._is_forgotten:
            self.abandon()

    def abandon(self) -> None:
        """Close in the background as soon as nobody listens any more. For `__del__`, which must not wait."""
        self._is_forgotten = True
        if not self.is_closed and not self.guard.is_foreign and not self.hub.has_subscribers:
            self._is_closed.set()
            spawn_unwaited(lambda: self.close(Deadline.after(self.config.close_timeout_seconds)), "upbit-closing")

    @property
    def is_closed(self) -> bool:
        return self._is_closed.is_set()

    def close(self, deadline: Deadline) -> list[str]:
        """Stop everything by `deadline`; names of threads that would not. Idempotent, from any thread.

        First whoever takes questions, then the stream from its source on, so that nothing is handed to a part that
        has gone; listeners last, because they may want to hear of it.
        """
        if self.guard.is_foreign:
            return []
        self._is_closed.set()
        if is_interrupting():
            # A finalizer or a signal handler: whatever it interrupts may hold the lock it would wait for.
            spawn_unwaited(lambda: self._stop_alone(deadline), "upbit-closing")
            return []
        if threading.current_thread() is not threading.main_thread():
            # A callback that closes must not wait for somebody who closes and waits for that callback.
            return self._stop_alone(Deadline(0.0) if is_own_thread() else deadline, deadline)
        return self._stop_elsewhere(deadline)

    def _stop_elsewhere(self, deadline: Deadline) -> list[str]:
        """On a thread that no signal reaches: Ctrl-C ends the wait, and not the closing."""
        stubborn: list[str] = []
        try:
            thread = spawn(lambda: stubborn.extend(self._stop_alone(deadline)), "upbit-closing")
        except RuntimeError:  # none to be had; at the interpreter's exit there never is
            return self._stop_alone(deadline)
        thread.join(deadline.remaining())
        thread.join(CLOSING_SECONDS)  # it is at its end, unless somebody else's closing holds it up
        return stubborn

    def _stop_alone(self, patience: Deadline, deadline: Deadline | None = None) -> list[str]:
        """Stop the parts by `deadline`, unless somebody else is doing it until `patience` ends."""
        limit = patience.remaining_or(threading.TIMEOUT_MAX)
        if not self._closing.acquire(timeout=limit):
            return []
        try:
            return self._stop_parts(deadline or patience)
        finally:
            self._closing.release()

    def _stop_parts(self, deadline: Deadline) -> list[str]:
        self.limiter.close()
        self.store.close()
        stubborn = self.promotion_worker.close(deadline)
        if (market_watch := self._market_watch.settled()) is not None:
            stubborn += market_watch.close(deadline)
        stubborn += self.sessions.close(deadline)
        if self.upstream is not None:
            stubborn += self.upstream.close(deadline)
        for recorder in self._sinks:  # while what it has yet to take is there
            stubborn += recorder.close(deadline.remaining_or(RECORDER_SECONDS))
        backlogs = self._backlogs.settled()
        if sum(each.close() for each in (self.repair, backlogs) if each is not None):
            self.events.flush(deadline)  # the receipts are for subscribers, too, whose listeners go with them
        history, monitor = self._history.settled(), self._monitor.settled()
        made = [part for part in (history and history.paged, monitor) if part is not None]
        for part in (self.hub, self.rest, *made, self.calls, self.jobs, self.events):
            stubborn += part.close(deadline)
        if (tap := self._recorder) is not None:
            stubborn += tap.close(deadline.remaining_or(RECORDER_SECONDS))
        return stubborn

    def __repr__(self) -> str:
        return f"<Assembly {'closed' if self.is_closed else 'open'} {self.sessions!r} {self.rest!r}>"


def _needs_redis(setting: str) -> ImportError:
    return ImportError(spoken(f"{setting} needs redis; install it with: pip install 'upbit-backbone[redis]'"))


def assemble(config: BackboneConfig) -> Assembly:
    """The parts of a backbone that talks to Upbit. Starts nothing."""
    return Assembly(config)


def assemble_replay(
    config: BackboneConfig, source: str | Path | Store, speed: float | None, span: Span = (None, None)
) -> Assembly:
    """The same parts, fed from a recording or a store, or from what it has from the first time of `span` on until the
    second."""
    with loading():
        from .archive.replay import StoreRecording, StoreTransport, is_store
        from .recorder import Recording, ReplayClock, ReplayTransport

    path = Path(source) if isinstance(source, str | Path) else source.path
    since, until = span
    if is_store(path):
        store = StoreRecording(path)
        clock = ReplayClock(since or store.began)
        return Assembly(
            config, clock=clock, recording=store, answers=StoreTransport(store, clock), speed=speed, span=span
        )
    recording = Recording(path)
    clock, answers = ReplayClock(since or recording.began), ReplayTransport(recording, since=since, until=until)
    return Assembly(config, clock=clock, recording=recording, answers=answers, speed=speed, span=span)
