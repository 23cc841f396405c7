"""One simulated world: a heap of future events, the real lifecycle, and a driver that carries out its effects."""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from upbit_backbone.config import BackboneConfig
from upbit_backbone.delivery.event_bus import EventBus
from upbit_backbone.delivery.hub import Hub
from upbit_backbone.errors import BannedError, RateLimitError, RequestTimeoutError, UpbitBackboneError
from upbit_backbone.exchange.endpoints import RestCall, tickers
from upbit_backbone.intake import Intake
from upbit_backbone.models.events import ConnectionState, StaleEvent, SubscriptionEvent
from upbit_backbone.models.request import SubscriptionRequest, Topic
from upbit_backbone.models.session import FirstFrame, Notice, SessionHealth, StreamError, SubscriptionList
from upbit_backbone.sessions import messages as do
from upbit_backbone.sessions import messages as on
from upbit_backbone.sessions.lifecycle import Lifecycle
from upbit_backbone.sessions.stall_detectors import UNUSUAL, UNUSUAL_ALONE
from upbit_backbone.store.exchange_clock import ExchangeClock
from upbit_backbone.store.live_store import STATE_TYPES, LiveStore

from .judge import CONNECTS_PER_SECOND, Judge, names
from .server import (
    IDLE_CLOSE_SECONDS,
    NAMES,
    OFFENSIVE,
    SYMBOLS,
    TOPICS,
    UNKNOWN,
    OpenConnection,
    close_frame,
    frame,
    frames_of,
    pong_frame,
    subscription_of,
)
from .spelling import rest_tickers, speller

ALL = TOPICS + UNKNOWN + OFFENSIVE
NUMBER = {topic: number for number, topic in enumerate(ALL)}
STATES = {topic for topic in TOPICS if topic.data_type in STATE_TYPES}
OF_SYMBOL = {symbol: [topic for topic in TOPICS if topic.symbol == symbol] for symbol in SYMBOLS}
EPOCH = datetime(2026, 11, 22, tzinfo=UTC)
BEGINS_AT_MS = round(EPOCH.timestamp() * 1000)
spelled = speller(ALL, BEGINS_AT_MS)
SETTLED_SECONDS = 1.1
SILENCE_SECONDS = 10.0
CONNECT_SECONDS = 3.0
COMPLAINT_SECONDS = 20.0  # until the next attempt after a complaint has had its chance
HUNT_SECONDS = 150.0  # halving suspects costs a reconnect each time, ten seconds apart in bad times
# A quiet topic's turn comes every thirty seconds, but for a minute after it was subscribed anew.
MUTE_BOUND_SECONDS = 60.0 + 30.0 + 2 * SILENCE_SECONDS + 5.0
LATE_TROUBLE_SECONDS = 60.0  # so long after a slow network or a starved client a session may still count as late
# What is shown as current was superseded this long ago at most: the lag allowed, and a second until that shows.
STALE_SECONDS = 3.0
# Where nothing comes at all, or the client does not get to run, a value is believed for the bound of liveness, counted
# from when the line was last heard; what came then may have been as late as is allowed. The half second is for a line
# that was heard, but whose newest message was still on its way.
UNHEARD_SECONDS = BackboneConfig().liveness_seconds + BackboneConfig().max_lag_seconds + 0.5
LOOK_SECONDS = 0.7
REST_EVERY_SECONDS = 5.0
REST_SECONDS = 1.0  # for so long an answer of REST's is on its way at most
HELD_SECONDS = 0.5  # for so long a message is overtaken at most
USUAL_LATENCY = (0.002, 0.03)
NEVER = float("inf")


class World:
    """A client, a server and the network between them. `run` ends early with Violated if the judge objects."""

    def __init__(self, seed: int, *, trade_rate: float | None = None, rest_fails: float | None = None) -> None:
        self.random = rng = random.Random(seed)
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self.judge = Judge(f"seed {seed}")
        self._reads_on_the_fast_path = seed % 2 == 0
        self.wall_ahead = 0.0
        audit = rng.random() < 0.2
        config = BackboneConfig(region="kr", audit_subscriptions=audit)
        self.lifecycle = Lifecycle(
            "simulated",
            config,
            random=rng.random,
            wall=self._wall,
            next_epoch=itertools.count(1).__next__,
        )
        self.exchange_clock = ExchangeClock(self)
        self.store = LiveStore(config.liveness_seconds, clock=self, exchange_clock=self.exchange_clock)
        hub = Hub(EventBus(), current=lambda topic: None)
        self.intake = Intake(self.store, hub, clock=self, exchange_clock=self.exchange_clock)
        # the client's side
        self.line: OpenConnection | None = None
        self.dialling = False
        self.busy_until = 0.0
        self._waiting: deque[Callable[[], None]] = deque()
        self._tick_at = NEVER
        self._dialled: deque[float] = deque(maxlen=CONNECTS_PER_SECOND)
        self.gate_until = 0.0
        self.requested: set[Topic] = set()
        self.requested_at = 0.0
        self.has_requested = False
        self.refused: set[Topic] = set()
        self.reported_missing: set[Topic] = set()
        self._seen: set[Topic] = set()
        self._told: frozenset[Topic] = frozenset()
        self._heard_at: dict[Topic, float] = {}
        self._last_number = -1
        # the server's side
        self.lines: list[OpenConnection] = []
        self.answer: Callable[[], UpbitBackboneError | None] = lambda: None  # to a handshake; None: welcome
        self.answers_slowly = False
        self.crash_loop_until = 0.0
        self.server_mute_until = 0.0
        self.latency = USUAL_LATENCY
        self.bandwidth = 0.0  # bytes a second towards the client; 0: no limit
        self.duplicates = 0.0  # the share of frames that come twice
        self.reorders = 0.0  # the share of messages that Upbit holds for a moment, so that later ones overtake them
        self.replica_lag = 0.0  # by how many seconds REST shows what was
        self.unordered_until = 0.0  # until then what was overtaken may still be on its way
        self.late_until = 0.0  # until then a session may count as late, and be given up for it
        self._trades: dict[str, list[float]] = {symbol: [] for symbol in SYMBOLS}
        self.trade_rate = rng.choice((0.02, 0.2, 0.5, 1.0)) if trade_rate is None else trade_rate
        self._rest_fails = rng.choice((*[0.0] * 8, 0.3, 1.0)) if rest_fails is None else rest_fails
        # the judge's notes
        self.must_be_ok_at = 0.0
        self.last_trouble = 0.0
        self.hold_until = 0.0
        self.hunting_until = 0.0  # Upbit complains about topics, which costs reconnects
        self.stirred = 0  # counts what may disturb a measurement
        self.measured: tuple[str, float, float, int] | None = None
        self._numbers = itertools.count()
        self._shown: dict[Topic, datetime] = {}  # the stamp of what was last given as current
        self.later(rng.expovariate(1.0), self._trade)
        self.later(1.0, self._drop_idle_lines)
        self.later(0.0, self._tell_date)
        self.later(rng.uniform(0.0, REST_EVERY_SECONDS), self._ask_rest)
        self.later(1.0, self._look_at_prices)

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return self._wall()

    def _wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self.now + self.wall_ahead)

    # Time

    def later(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + seconds, action, *arguments)

    def at(self, instant: float, action: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._heap, (instant, next(self._order), action, arguments))

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(self._heap)
            action(*arguments)
        self.now = until

    def _delay(self) -> float:
        return self.random.uniform(*self.latency)

    # The driver: what sessions/session.py does with sockets

    def feed(self, happened: on.Input, excuse: str = "") -> None:
        """Something reaches the client; it waits while the client's thread is dialling or starved.

        With an `excuse` the client may then give up its line.
        """
        self._waiting.append(lambda: self._take(happened, excuse))
        self._work()

    def _take(self, happened: on.Input, excuse: str) -> None:
        if self.line is not None and excuse:
            self.line.excuses.add(excuse)
        self.perform(happened)

    def _work(self) -> None:
        if self.dialling or self.now < self.busy_until:
            return
        while self._waiting and not self.dialling:
            self._waiting.popleft()()
        if not self.dialling:
            if self.now >= self._tick_at:
                self._tick_at = NEVER
                self.perform(on.Tick())
            self._plan_tick()

    def starve(self, seconds: float) -> None:
        self.busy_until = max(self.busy_until, self.now + seconds)
        self.at(self.busy_until, self._work)

    def _plan_tick(self) -> None:
        wake = self.lifecycle.next_wake()
        if wake < self._tick_at:
            self._tick_at = max(wake, self.now)
            self.at(self._tick_at, self._tick, self._tick_at)

    def _tick(self, planned: float) -> None:
        if planned == self._tick_at:
            self._work()

    def perform(self, happened: on.Input) -> None:
        self._do(self.lifecycle.handle(happened, self.now))

    def _do(self, effects: Iterable[do.Effect]) -> None:
        queue = deque(effects)
        while queue:
            result = _PERFORM[type(effect := queue.popleft())](self, effect)
            if result is not None:
                queue.extend(self.lifecycle.handle(result, self.now))

    def _dial(self, _: do.Dial) -> on.Input | None:
        if self.now < self.gate_until:
            return on.OpenDeferred(BannedError("banned", retry_after=self.gate_until - self.now))
        if len(self._dialled) == CONNECTS_PER_SECOND and self.now - self._dialled[0] < 1.05:
            return on.OpenDeferred(RateLimitError("5/s", retry_after=self._dialled[0] + 1.05 - self.now))
        self._dialled.append(self.now)
        self.judge.connected(self.now)
        self.dialling = True
        self.later(self._delay(), self._knock)
        return None

    def _knock(self) -> None:
        if not self.dialling:  # called off by close
            return
        error = self.answer()
        if error is not None:
            slow = 5.0 if isinstance(error, RequestTimeoutError) else self._delay()
            self.later(slow, self._dialled_with, on.OpenFailed(error), None)
            return
        line = OpenConnection(next(self._numbers), self.now, active_at=self.now)
        self.lines.append(line)
        self.later(self._delay(), self._dialled_with, on.Opened(), line)
        if self.now < self.crash_loop_until:
            line.excuses.add("crash loop")
            self.later(0.04, self.end_line, line, None)

    def _dialled_with(self, result: on.Input, line: OpenConnection | None) -> None:
        if not self.dialling:
            return
        self.dialling = False
        self.line = line
        self._seen.clear()
        self._told = frozenset()
        self.perform(result)
        if line is not None:
            self.judge.decoded(self.lifecycle.health.epoch, self.now)
            if not line.is_open:  # it ended before the client knew it was open
                self.later(self._delay(), self._reach_client, line, None)
            self.later(SETTLED_SECONDS + 0.1 + 2 * self.latency[1], self.check_settled)
        self._work()

    def _send_text(self, effect: do.SendText) -> None:
        self._up(self._message_arrives, effect.text)

    def _send_ping(self, effect: do.SendPing) -> None:
        self._up(self._ping_arrives, effect.payload)

    def _send_pong(self, effect: do.SendPong) -> None:
        self._up(lambda line, _: None, effect.payload)

    def _up(self, arrives: Callable[[OpenConnection, Any], None], content: object) -> None:
        line = self.line
        if line is not None:
            if line.sent_at < self.now:  # what is sent in one go travels together
                line.sent_at, line.reaches_at = self.now, max(line.reaches_at, self.now + self._delay())
            self.later(line.reaches_at - self.now, self._arrive, line, arrives, content)

    def _arrive(self, line: OpenConnection, arrives: Callable[[OpenConnection, Any], None], content: object) -> None:
        if line.is_open and not line.is_frozen:
            line.active_at = self.now
            arrives(line, content)
        elif isinstance(content, str):
            line.unpictured |= subscription_of(content) or frozenset()

    def _drop(self, effect: do.Drop) -> None:
        line, self.line = self.line, None
        if line is None:
            return
        is_idle = not (self.requested - self.refused)
        is_closing = self.lifecycle.state is ConnectionState.CLOSED
        is_silent = (
            bool(line.missed or line.unpictured)
            and self.now - max(self._heard_at.values(), default=0.0) >= SILENCE_SECONDS
        )
        excused = line.excuses or self.now < self.late_until or is_idle or is_closing or not line.is_open or is_silent
        self.judge.check(bool(excused), f"line given up for no reason: {self.lifecycle.status.last_error}", self.now)
        line.is_open = False

    def _deliver(self, effect: do.Deliver) -> on.Input:
        notices = self._frames(self.lifecycle.health, effect.epoch, effect.frames, self.now)
        return on.Noticed(effect.epoch, len(effect.frames), notices)

    def _frames(self, health: SessionHealth, epoch: int, frames: Sequence[bytes], now: float) -> list[Notice]:
        is_closed = self.lifecycle.state is ConnectionState.CLOSED
        self.judge.delivered(epoch, len(frames), is_closed, now)
        notices: list[Notice] = []
        self.intake.frames(health, epoch, [spelled(each) for each in frames if each[:1] == b"D"], now)
        for each in frames:
            kind, _, rest = each.decode().partition("|")
            if kind == "D":
                health.news_at = now
                number, serial, _ = map(int, rest.split("|"))
                notices.extend(self._take_data(number, serial))
            elif kind == "E":
                notices.append(StreamError(rest, "no"))
            elif kind == "L":
                topics = [NAMES[name] for name in rest.split(",") if name]
                entries = tuple((topic.data_type.value, (topic.symbol,), None) for topic in topics)
                notices.append(SubscriptionList(entries, "t"))
        return notices

    def _take_data(self, number: int, serial: int) -> list[Notice]:
        is_repeated = serial == self._last_number and self.now < self.late_until
        is_overtaken = self.now < self.unordered_until
        is_in_order = serial > self._last_number or is_repeated or is_overtaken
        self.judge.check(is_in_order, "messages out of order", self.now)
        self._last_number = max(serial, self._last_number)
        topic = ALL[number]
        self._heard_at[topic] = self.now
        if self.measured is not None:
            self._measure()
        if topic in self._seen:
            return []
        self._seen.add(topic)
        return [FirstFrame(topic)]

    def _measure(self) -> None:
        assert self.measured is not None
        kind, since, bound, epoch = self.measured
        if self.lifecycle.health.epoch > epoch and self.now >= since:
            self.measured = None
            self.judge.recovered(kind, self.now - since, bound, self.now)

    def _subscribed(self, effect: do.TellSubscribed) -> None:
        self.intake.subscribed(self.lifecycle.health, effect.epoch, effect.topics)
        self._seen &= self._told & effect.topics
        self._told = effect.topics

    def _interrupted(self, effect: do.TellInterrupted) -> None:
        self.intake.interrupted(self.lifecycle.health, effect.epoch, effect.topics, effect.reason)
        self.judge.check(effect.topics <= self.lifecycle.topics, "interruption of unwanted topics", self.now)

    def _emit(self, effect: do.Emit) -> None:
        event = effect.event
        if isinstance(event, StaleEvent) and event.stale:
            assert self.line is not None
            missed = {topic.symbol for topic in self.line.missed.keys() | self.line.unpictured}
            # A stall of the whole line is told for all that is wanted by now.
            is_alone = "other topics" in event.reason
            is_true: object = missed & set(event.symbols) if is_alone else missed
            if "behind Upbit" in event.reason:
                is_true = self.now <= max(self.late_until, self.last_trouble + LATE_TROUBLE_SECONDS)
            if event.reason == UNUSUAL:  # a guess, and called one: in a ban nobody can be asked
                is_true = self.now < max(self.gate_until, self.hold_until)
            if event.reason == UNUSUAL_ALONE:  # the same, of one topic
                is_true = self._rest_fails > 0.0
            is_true = is_true or self.now < self.late_until  # what is late is silent for as long
            self.judge.found_out += is_alone
            self.judge.check(bool(is_true), f"false alarm: {event.reason}", self.now)
        elif isinstance(event, SubscriptionEvent) and event.error is not None:
            topics = {NAMES[name] for name in event.topics}
            if "refused" in event.reason:
                self.judge.check(topics <= set(OFFENSIVE), f"refused by us: {names(topics)}", self.now)
                self.refused |= topics
            elif "no first frame" in event.reason:
                self.reported_missing |= topics

    def _ask_silent(self, effect: do.AskSilent) -> on.Input:
        question = effect.question
        silent = frozenset(t for t in question.topics if self._heard_at.get(t, -1.0) < question.since)
        return on.SilentFound(effect.epoch, question, silent)

    def _hear_pong(self, effect: do.HearPong) -> on.Input:
        return on.Ponged(effect.epoch, effect.payload)

    def _start_probe(self, effect: do.StartProbe) -> None:
        self.later(self.random.uniform(0.03, 1.0), self._answer_probe, effect)

    def _answer_probe(self, effect: do.StartProbe) -> None:
        behind: frozenset[Topic] | None = frozenset(
            topic
            for topic in effect.topics
            if self.last_trade(topic.symbol, self.now - self.replica_lag) > self._heard_at.get(topic, -1.0)
        )
        if self.random.random() < self._rest_fails:
            behind = None
        self.feed(on.ProbeAnswered(effect.epoch, effect.topics, effect.whole_line, behind))

    def _refused(self, effect: do.ReportRefusal) -> None:
        if isinstance(effect.error, BannedError):
            self.gate_until = self.now + (effect.error.retry_after or 60.0)

    def _idle(self, _: do.BecameIdle) -> None:
        nothing_wanted = not (self.requested - self.refused) or self._waiting
        self.judge.check(bool(nothing_wanted), "at rest although something is wanted", self.now)

    # The server

    def publish(self, line: OpenConnection, frames: list[bytes]) -> None:
        """Market data on its way to the line. TCP keeps a line's order, but Upbit's backends have none between topics,
        nor between two messages of one: some come after those that were made later."""
        in_order = []
        for each in frames:
            if self.reorders and self.random.random() < self.reorders:
                self.later(self.random.uniform(0.0, HELD_SECONDS), self.send, line, each)
            else:
                in_order.append(each)
        if in_order:
            self.send(line, b"".join(in_order))

    def send(self, line: OpenConnection, data: bytes) -> None:
        """Bytes on their way to the client, in order."""
        if not line.is_open or line.is_frozen:
            return
        line.active_at = self.now
        line.arrives_at = max(line.arrives_at, self.now + self._delay())
        for piece in frames_of(data) if self.bandwidth else [data]:  # a narrow line brings one after the other
            if self.bandwidth:
                line.arrives_at += len(piece) / self.bandwidth
            self.later(line.arrives_at - self.now, self._reach_client, line, piece)

    def _reach_client(self, line: OpenConnection, data: bytes | None) -> None:
        if line.is_frozen and data is not None:
            line.unpictured |= line.subscribed
        elif line is self.line:
            self.arrived(line, data)

    def arrived(self, line: OpenConnection, data: bytes | None) -> None:
        """Bytes, or the end (None), lie ready for the client to read."""
        self._waiting.append(lambda: self._hear(line, data))
        self._work()

    def _hear(self, line: OpenConnection, data: bytes | None) -> None:
        if line is not self.line:  # the client may have hung up meanwhile
            return
        if data is None:
            self.perform(on.ConnectionLost("ended without a close frame", 1006))
        elif self._reads_on_the_fast_path:
            self._do(self.lifecycle.take(data, self._frames, self.now))
        else:
            self.perform(on.Received(data))

    def end_line(self, line: OpenConnection, code: int | None, *, rst: bool = False) -> None:
        """The server ends a line: with a close frame, or by FIN or RST."""
        if not line.is_open:
            return
        line.excuses.add("ended by the server")
        if code is not None:
            self.send(line, close_frame(code))
        line.arrives_at = max(line.arrives_at, self.now + (0.0 if rst else self._delay()))
        line.is_open = False
        self.later(line.arrives_at - self.now, self._reach_client, line, None)

    def _message_arrives(self, line: OpenConnection, text: str) -> None:
        line.messages.append(self.now)
        self.judge.message(line.messages, self.now)
        topics = subscription_of(text)
        if topics is None:
            self.send(line, frame(b"L|" + ",".join(map(str, line.subscribed)).encode()))
            return
        self.judge.check(bool(topics), "empty subscription on the wire", self.now)
        line.subscriptions += 1
        if topics & set(OFFENSIVE):
            line.excuses.add("error")
            self.must_be_ok_at = max(self.must_be_ok_at, self.now + COMPLAINT_SECONDS)
            self.later(self.must_be_ok_at - self.now + 0.001, self._check_ok)
            self.send(line, frame(b"E|INVALID_PARAM"))
            self.later(0.15, self.end_line, line, 1000)
            return
        line.subscribed = topics
        line.topic_stalls.clear()
        if self._is_mute(line):
            line.unpictured |= topics
            line.excuses.add("mute")
        else:
            self.publish(line, [self._data(t) for t in sorted(topics) if t not in UNKNOWN])

    def _data(self, topic: Topic) -> bytes:
        made_at = self.last_trade(topic.symbol, self.now)
        data = frame(b"D|%d|%d|%d" % (NUMBER[topic], next(self._numbers), round(made_at * 1000)))
        return data + data if self.duplicates and self.random.random() < self.duplicates else data

    def last_trade(self, symbol: str, at: float) -> float:
        """When the market last moved before `at`; an hour before the beginning, if it never did."""
        trades = self._trades.get(symbol, [])
        place = bisect_right(trades, at)
        return trades[place - 1] if place else -3600.0

    def _is_mute(self, line: OpenConnection) -> bool:
        return line.is_mute or self.now < self.server_mute_until

    def _ping_arrives(self, line: OpenConnection, payload: bytes) -> None:
        self.send(line, pong_frame(payload))

    def _trade(self) -> None:
        symbol = self.random.choice(SYMBOLS[:4] if self.random.random() < 0.8 else SYMBOLS)
        if self.trade_rate > 0:
            self._trades[symbol].append(self.now)
            for line in self.lines:
                self._tell_trade(line, symbol)
        self.later(self.random.expovariate(self.trade_rate or 0.02), self._trade)

    def _tell_trade(self, line: OpenConnection, symbol: str) -> None:
        topics = [topic for topic in OF_SYMBOL[symbol] if topic in line.subscribed]
        if self._is_mute(line) or line.is_frozen:
            for topic in topics:
                self._missed(line, topic)
            return
        for topic in topics:
            if topic in line.topic_stalls:
                self._missed(line, topic)
                self.later(MUTE_BOUND_SECONDS, self._check_found_out, line, topic, line.subscriptions)
        self.publish(line, [self._data(topic) for topic in topics if topic not in line.topic_stalls])

    # What a reader is told

    def _tell_date(self) -> None:
        """An answer of REST, now and then, shows what Upbit's clock says."""
        moment = (EPOCH + timedelta(seconds=self.now)).replace(microsecond=0)
        self.exchange_clock.learn_date(format_datetime(moment, usegmt=True), self.now, 0.05)
        self.later(self.random.uniform(1.0, 20.0), self._tell_date)

    def _ask_rest(self) -> None:
        """A question to REST about a few markets: shown as its replica knows them when it arrives there."""
        symbols = self.random.sample(SYMBOLS, 4)
        if self.random.random() >= self._rest_fails:
            self.later(self._delay(), self._rest_shows, symbols)
        self.later(self.random.uniform(0.5, 1.5) * REST_EVERY_SECONDS, self._ask_rest)

    def _rest_shows(self, symbols: list[str]) -> None:
        rows = [(symbol, self.last_trade(symbol, self.now - self.replica_lag)) for symbol in symbols]
        body = rest_tickers([(symbol, BEGINS_AT_MS + round(made_at * 1000)) for symbol, made_at in rows])
        # No order between REST and a line, nor between two answers: an older one may come after the newer.
        self.later(self.random.uniform(0.01, REST_SECONDS), self._rest_answers, tickers(symbols), body)

    def _rest_answers(self, call: RestCall, body: bytes) -> None:
        self.intake.answer(call, body, self.wall())

    def _look_at_prices(self) -> None:
        """Whatever is given as current now: for how long has it not been true?"""
        for topic in self.requested & STATES:
            item = self.store.current(topic, self.now)
            if item is None:
                continue
            is_newest = item.timestamp >= self._shown.get(topic, item.timestamp)
            self.judge.check(is_newest, f"{topic} was shown newer before", self.now)
            self._shown[topic] = item.timestamp
            shown = (item.timestamp - EPOCH).total_seconds()
            trades = self._trades[topic.symbol]
            place = bisect_right(trades, shown + 0.001)
            self._judge_staleness(topic, self.now - trades[place] if place < len(trades) else 0.0)
        self.later(self.random.uniform(0.5, 1.5) * LOOK_SECONDS, self._look_at_prices)

    def _judge_staleness(self, topic: Topic, seconds: float) -> None:
        line = self.line
        is_cut_off = line is None or line.is_frozen or not line.is_open or self.now < self.busy_until
        is_mute = line is not None and (self._is_mute(line) or topic in line.topic_stalls or bool(line.missed))
        if is_mute:
            return  # only REST can tell: how soon that is found out is judged where it is caused
        bound = UNHEARD_SECONDS if is_cut_off else STALE_SECONDS
        if bound == STALE_SECONDS:
            self.judge.looked_at(seconds)
        self.judge.check(seconds <= bound, f"{topic} is {seconds:.2f} s stale and unmarked", self.now)

    def _check_found_out(self, line: OpenConnection, topic: Topic, subscriptions: int) -> None:
        """A topic that was mute alone since then, on an undisturbed line, was subscribed anew, or waits for that."""
        is_as_it_was = line is self.line and line.is_open and not line.is_frozen and not self._is_mute(line)
        if is_as_it_was and topic in self.requested and not self._rest_fails:
            is_known = line.subscriptions > subscriptions or topic in self.lifecycle.health.mute
            self.judge.check(is_known, f"{topic} is mute, and nobody noticed", self.now)

    def _missed(self, line: OpenConnection, topic: Topic) -> None:
        line.missed.setdefault(topic, self.now)
        if self._is_mute(line):
            line.excuses.add("mute")

    def _drop_idle_lines(self) -> None:
        self.lines = [line for line in self.lines if line.is_open]
        for line in self.lines:
            if not line.is_frozen and self.now - line.active_at > IDLE_CLOSE_SECONDS:
                self.judge.check(line is not self.line, "idle for 60 s: nobody pinged", self.now)
                line.is_open = False
        self.later(1.0, self._drop_idle_lines)

    # Requests and their judgement

    def request(self, topics: set[Topic]) -> None:
        self.requested = topics
        self.stirred += 1
        if not topics or self._is_stall_of_no_interest(topics):
            self.measured = None
        elif not self.has_requested:
            self.must_be_ok_at = max(self.must_be_ok_at, self.now + CONNECT_SECONDS)
        self.has_requested = bool(topics)
        self.requested_at = self.now
        self.refused &= topics
        self.reported_missing &= topics
        self.feed(on.SubscriptionsChanged(frozenset(map(SubscriptionRequest, topics))))
        self.later(SETTLED_SECONDS + 2 * self.latency[1], self.check_settled)

    def _is_stall_of_no_interest(self, topics: set[Topic]) -> bool:
        """Nothing of what is wanted from now on has been kept from the client so far, so there is nothing to notice."""
        is_stall = self.measured is not None and self.measured[0] == "stall"
        return is_stall and self.line is not None and topics.isdisjoint(self.line.missed)

    def check_settled(self) -> None:
        """The server's set is the requested set, 1.1 s after the last change on a quiet line."""
        line = self.line
        is_disturbed = (
            self.lifecycle.state is not ConnectionState.LIVE
            or line is None
            or not line.is_open
            or line.is_frozen
            or self.now < self.busy_until + SETTLED_SECONDS
            or self.now < self.hold_until + SETTLED_SECONDS
            or self.now - self.requested_at < SETTLED_SECONDS
            or self.now - line.opened_at < SETTLED_SECONDS
            or bool(self.requested & set(OFFENSIVE))
        )
        if is_disturbed or not self.requested:
            return
        assert line is not None
        difference = (line.subscribed ^ self.requested) - self.lifecycle.held_back
        self.judge.check(not difference, f"request and subscription differ: {names(difference)}", self.now)

    def is_ok(self) -> bool:
        if not (self.requested - set(OFFENSIVE)):
            return True
        line = self.line
        is_live = self.lifecycle.state is ConnectionState.LIVE and line is not None
        if not is_live or line is None:
            return False
        return line.is_open and not line.is_frozen and not (self._is_mute(line) and bool(line.missed))

    def disturb(self, bound: float, until: float | None = None) -> None:
        """A fault begins now and lasts until then; `bound` seconds later everything is well, unless disturbed again."""
        self.stirred += 1
        self.last_trouble = max(self.now, until or 0.0)
        if self.last_trouble < self.hunting_until:
            bound += HUNT_SECONDS
        self.must_be_ok_at = max(self.must_be_ok_at, self.last_trouble + bound)
        self.measured = None
        self.later(self.must_be_ok_at - self.now + 0.001, self._check_ok)

    def measure(self, kind: str, bound: float, since: float | None = None) -> None:
        """How long from `since` (the end of the fault) to the first fresh message of a new connection."""
        self.measured = (kind, self.now if since is None else since, bound, self.lifecycle.health.epoch)

    def _check_ok(self) -> None:
        if self.now >= self.must_be_ok_at:
            state = self.lifecycle.state
            self.judge.check(self.is_ok(), f"not recovered: {state}, {self.lifecycle.status.last_error}", self.now)


_PERFORM: dict[type, Callable[[World, Any], on.Input | None]] = {
    do.Dial: World._dial,
    do.SendText: World._send_text,
    do.SendPing: World._send_ping,
    do.SendPong: World._send_pong,
    do.Drop: World._drop,
    do.Deliver: World._deliver,
    do.HearPong: World._hear_pong,
    do.TellSubscribed: World._subscribed,
    do.TellInterrupted: World._interrupted,
    do.Emit: World._emit,
    do.AskSilent: World._ask_silent,
    do.StartProbe: World._start_probe,
    do.ShedLoad: lambda world, _: None,  # a line of its own is all this world has
    do.ReportRefusal: World._refused,
    do.BecameIdle: World._idle,
}
