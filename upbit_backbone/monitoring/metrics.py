"""What is measured: answers per channel and REST group, routing by rule, and plain counters.

An answer from a live stream takes about a microsecond, so it is only counted, by one call into C without a lock;
everything that goes on the wire is timed.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .._concurrency import SYSTEM_CLOCK, Clock
from ..models.enums import Channel
from ..models.events import Event
from ..models.metric import PerformanceMetric
from .window import WINDOW_SECONDS, AnswerWindow, Sample

if TYPE_CHECKING:
    from ..models.report import CacheStats, PerformanceReport

K = TypeVar("K")


class Tally:
    """A counter that many threads advance without a lock: `hit()` is a single call into C (about 30 ns).

    `hit()` returns its own number, so that a caller can time every n-th answer: `if not hit() & 1023: …`.
    """

    __slots__ = ("_lock", "_looks", "hit")

    def __init__(self) -> None:
        self.hit: Callable[[], int] = itertools.count().__next__
        self._lock = threading.Lock()  # guards _looks and makes looking exclusive
        self._looks = 0

    @property
    def value(self) -> int:
        # A C counter can be read only by advancing it, so the looks are counted and taken off again.
        with self._lock:
            value = self.hit() - self._looks
            self._looks += 1
            return value

    def __repr__(self) -> str:
        return f"<Tally {self.value}>"


class Metrics:
    """Thread-safe; recording costs about a microsecond and never blocks on anything but its own short lock."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.live = Tally()
        self._lock = threading.Lock()  # guards everything below
        self._channels: dict[Channel, AnswerWindow] = {}
        self._groups: dict[str, AnswerWindow] = {}
        self._routing: Counter[str] = Counter()
        self._counters: Counter[str] = Counter()

    def live_hit(self) -> int:
        """One answer came straight from a stream. Keep `metrics.live.hit` at hand where every nanosecond counts."""
        return self.live.hit()

    def record(
        self,
        channel: Channel | None,
        group: str | None,
        seconds: float,
        error: BaseException | None = None,
        size: int = 0,
    ) -> None:
        """One answer took `seconds` and `size` bytes.

        The router records with a `channel` and no group, whoever speaks to Upbit with a rate `group` and no channel,
        so that nothing is counted twice; a caller that is both may give both.
        """
        at = self._clock.monotonic()
        with self._lock:
            if channel is not None:
                self._window(self._channels, channel, channel.value).add(at, seconds, error, size)
            if group is not None:
                self._window(self._groups, str(group), f"rest:{group}").add(at, seconds, error, size)

    def routed(self, rule: str) -> None:
        """One question was answered by this row of the routing table."""
        with self._lock:
            self._routing[rule] += 1

    def count(self, name: str, n: int = 1) -> None:
        with self._lock:
            self._counters[name] += n

    def count_event(self, event: Event) -> None:
        self.count(f"event.{type(event).__name__.removesuffix('Event').lower()}")

    def channel(self, channel: Channel) -> PerformanceMetric:
        """Figures of one channel, for the router."""
        now = self._clock.monotonic()
        with self._lock:
            return self._window(self._channels, channel, channel.value).metric(now)

    def recent(self, channel: Channel, seconds: float = WINDOW_SECONDS) -> list[Sample]:
        """The answers of one channel in the last `seconds`, oldest first."""
        now = self._clock.monotonic()
        with self._lock:
            window = self._channels.get(channel)
            return window.recent(now, seconds) if window else []

    def report(self, cache: CacheStats | None = None) -> PerformanceReport:
        from ..models.report import PerformanceReport

        now = self._clock.monotonic()
        with self._lock:
            channels = tuple(window.metric(now) for _, window in sorted(self._channels.items()))
            groups = tuple(window.metric(now) for _, window in sorted(self._groups.items()))
            routing, counters = dict(self._routing), dict(self._counters)
        timed_live = sum(metric.requests - metric.failures for metric in channels if metric.name == Channel.LIVE)
        live = self.live.value + timed_live
        asked = live + sum(metric.requests for metric in channels if metric.name != Channel.LIVE)
        return PerformanceReport(
            at=self._clock.wall(),
            channels=channels,
            groups=groups,
            routing=routing,
            counters=counters,
            live_answers=live,
            live_share=live / asked if asked else None,
            cache=cache,
        )

    @staticmethod
    def _window(windows: dict[K, AnswerWindow], key: K, name: str) -> AnswerWindow:
        if (window := windows.get(key)) is None:
            window = windows[key] = AnswerWindow(name)
        return window

    def __repr__(self) -> str:
        return f"<Metrics {self.live.value} live answers, {len(self._groups)} REST groups>"
