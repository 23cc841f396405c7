"""Sessions over real sockets: a manager, a sink that remembers, and the simulator as the other side."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.waiting import PATIENCE_SECONDS, wait_until
from upbit_backbone._concurrency import SYSTEM_CLOCK, Deadline, spawn
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import BannedError, RateLimitError
from upbit_backbone.limits.rate_limiter import RateLimiter
from upbit_backbone.models.enums import DataType, RateGroup
from upbit_backbone.models.events import ConnectionEvent, ConnectionState, Event
from upbit_backbone.models.request import SubscriptionRequest, Topic
from upbit_backbone.models.session import FirstFrame, Notice, SessionHealth, StreamError, SubscriptionList
from upbit_backbone.sessions.ports import Dial
from upbit_backbone.sessions.session_manager import SessionManager
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.wire.websocket_transport import WebSocketTransport


class Sink:
    """Remembers what sessions deliver; fails on demand."""

    def __init__(self) -> None:
        self.frames_seen = 0
        self.at_frame: Callable[[], None] | None = None
        self.epochs: list[int] = []
        self.interruptions: list[tuple[int, frozenset[Topic], str]] = []
        self.subscriptions: list[tuple[int, frozenset[Topic]]] = []
        self._seen: set[tuple[int, str, str]] = set()

    def frames(self, health: SessionHealth, epoch: int, frames: list[bytes], monotonic: float) -> Sequence[Notice]:
        if self.at_frame is not None:
            self.at_frame()
        health.news_at = monotonic
        self.frames_seen += len(frames)
        self.epochs.append(epoch)
        notices: list[Notice] = []
        for frame in frames:
            notices += self._read(frame, epoch)
        return notices

    def _read(self, frame: bytes, epoch: int) -> list[Notice]:
        message = json.loads(frame)
        if "mthd" in message:
            return [self._list(message)]
        if "error" in message:
            return [StreamError(message["error"]["name"], message["error"]["message"])]
        key = (epoch, message["ty"], message["cd"])
        if key in self._seen:
            return []
        self._seen.add(key)
        return [FirstFrame(Topic(DataType(message["ty"]), message["cd"]))]

    @staticmethod
    def _list(message: dict[str, Any]) -> SubscriptionList:
        rows = ((row["ty"], tuple(row["cds"]), None if "lv" not in row else str(row["lv"])) for row in message["rslt"])
        return SubscriptionList(tuple(rows), message["tckt"])

    def subscribed(self, health: SessionHealth, epoch: int, topics: frozenset[Topic]) -> None:
        self.subscriptions.append((epoch, topics))

    def interrupted(self, health: SessionHealth, epoch: int, topics: frozenset[Topic], reason: str) -> None:
        self.interruptions.append((epoch, topics, reason))


class SleepyClock:
    """The machine's clocks; the wall clock is ahead by as long as the machine is said to have slept."""

    asleep = 0.0
    monotonic = staticmethod(time.monotonic)

    def wall(self) -> datetime:
        return SYSTEM_CLOCK.wall() + timedelta(seconds=self.asleep)


class Rig:
    """A SessionManager with everything around it, pointed at a simulator."""

    def __init__(self, upbit: FakeUpbit, **settings: Any) -> None:
        self.upbit = upbit
        self.config = BackboneConfig(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url, **settings)
        self.sink = Sink()
        self.events: list[Event] = []
        self.verdict: bool | None = None  # of REST, about whatever it is asked
        self.limiter = RateLimiter(upbit.rest_url, emit=self.events.append)
        self.clock = SleepyClock()
        self._dial: Dial = WebSocketTransport(upbit.websocket_url, ca_file=upbit.ca_file).open
        self.manager = SessionManager(
            self.config,
            clock=self.clock,
            rng=random.random,
            dial=lambda deadline, *, stop: self._dial(deadline, stop=stop),
            sink=self.sink,
            emit=self.events.append,
            turn_to_connect=self._turn,
            probe=self._probe,
            run_job=lambda job: spawn(job, "test-probe"),
            refused=self._refused,
        )

    def _turn(self, deadline: Deadline, is_reconnect: bool) -> AbstractContextManager[None]:
        return self.limiter.handshake(deadline, is_reconnect=is_reconnect)

    def _probe(self, topics: frozenset[Topic]) -> frozenset[Topic] | None:
        return None if self.verdict is None else topics if self.verdict else frozenset()

    def _refused(self, error: RateLimitError) -> None:
        if isinstance(error, BannedError):
            self.limiter.ban(error.until, seconds=error.retry_after, at_connect=True)
        else:
            self.limiter.penalise(RateGroup.WEBSOCKET_CONNECT, error.retry_after)

    def set_dial(self, dial: Dial) -> None:
        self._dial = dial

    def acquire(self, *topics: Topic) -> Rig:
        """Want these: for an owner called like the one topic, or like all of them."""
        owner = topics[0] if len(topics) == 1 else topics
        self.manager.acquire(owner, map(SubscriptionRequest, topics))
        return self

    def live(self, *topics: Topic) -> Rig:
        """Wanting these and receiving the first frame."""
        self.acquire(*topics)
        self.until(lambda: self.sink.frames_seen > 0, "the first frame")
        return self

    def until(self, holds: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> float:
        """Wait until it holds; the seconds it took."""
        started = time.monotonic()
        wait_until(holds, lambda: f"{what}: {self.events[-3:]}", seconds)
        return time.monotonic() - started

    def recovers(self, act: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> float:
        """Do it, and wait for the first frame of a later epoch; the seconds that took."""
        epoch = self.epoch
        act()
        return self.until(lambda: self.sink.epochs and self.sink.epochs[-1] > epoch, "recovery", seconds)

    @property
    def epoch(self) -> int:
        return max((stats.epoch for stats in self.manager.stats()), default=0)

    def states(self) -> list[ConnectionState]:
        return [event.state for event in self.events if isinstance(event, ConnectionEvent)]

    def waits(self) -> list[ConnectionEvent]:
        connection_events = [event for event in self.events if isinstance(event, ConnectionEvent)]
        return [event for event in connection_events if event.state is ConnectionState.WAITING]

    def waits_for(self, reason: str) -> list[ConnectionEvent]:
        """Those of them whose reason says so: another may be our own limiter's, since all share one server."""
        return [event for event in self.waits() if reason in event.reason]

    def reasons(self) -> str:
        return " | ".join(event.reason for event in self.events if isinstance(event, ConnectionEvent))

    def close(self, seconds: float = 2.0) -> float:
        started = time.monotonic()
        stubborn = self.manager.close(Deadline.after(seconds))
        took = time.monotonic() - started
        self.limiter.close()
        assert not stubborn
        return took


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=3, markets=["KRW-BTC", "KRW-ETH", "KRW-XRP"], trades_per_second=60.0) as server:
        yield server


@pytest.fixture
def rig(upbit: FakeUpbit) -> Iterator[Callable[..., Rig]]:
    """Makes rigs and closes them; the simulator is healed after each test."""
    rigs: list[Rig] = []

    def make(server: FakeUpbit = upbit, **settings: Any) -> Rig:
        rigs.append(Rig(server, **settings))
        return rigs[-1]

    yield make
    upbit.clear_faults()
    upbit.thaw()
    upbit.unmute()
    for each in rigs:
        each.close()
