"""What is measured: answers per channel and REST group, routing by rule, and plain counters.

An answer from a live stream takes about a microsecond, so it is only counted, by one call into C without a lock;
everything that goes on the wire is timed.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from .._concurrency import SYSTEM_CLOCK, Clock
from .._lazy import loading
from ..errors import ClosedError, InvalidRequestError
from ..models.enums import Channel
from ..models.events import Event
from ..models.metric import PerformanceMetric

if TYPE_CHECKING:
    from ..models.report import CacheStats, PerformanceReport

# A bounded memory of recent answers and the figures drawn from it. Pure: the time is an argument.

WINDOW_SAMPLES = 1024
WINDOW_SECONDS = 300.0
# The caller's mistakes and our own closing say nothing about a channel.
NEUTRAL_ERRORS = (InvalidRequestError, ClosedError)


class Sample(NamedTuple):
    at: float
    seconds: float
    good: bool


class AnswerWindow:
    """Answers of one channel or group: totals since the start, samples of the last few minutes."""

    __slots__ = ("_bytes", "_errors", "_failures", "_name", "_requests", "_samples")

    def __init__(self, name: str) -> None:
        self._name = name
        self._samples: deque[Sample] = deque(maxlen=WINDOW_SAMPLES)
        self._errors: Counter[str] = Counter()
        self._requests = self._failures = self._bytes = 0

    def add(self, at: float, seconds: float, error: BaseException | None, size: int) -> None:
        self._requests += 1
        self._bytes += size
        if error is not None:
            self._errors[type(error).__name__] += 1
            if isinstance(error, NEUTRAL_ERRORS):
                return
            self._failures += 1
        # After the neutral errors: a caller's own hurry, or a market that does not exist, says nothing about the
        # channel.
        self._samples.append(Sample(at, seconds, error is None))

    def recent(self, now: float, seconds: float = WINDOW_SECONDS) -> list[Sample]:
        return [sample for sample in self._samples if now - sample.at <= seconds]

    def metric(self, now: float) -> PerformanceMetric:
        samples = self.recent(now)
        times = sorted(sample.seconds for sample in samples)
        return PerformanceMetric(
            name=self._name,
            window_seconds=WINDOW_SECONDS,
            samples=len(samples),
            requests=self._requests,
            failures=self._failures,
            success_rate=sum(sample.good for sample in samples) / len(samples) if samples else None,
            p50=percentile(times, 0.50),
            p95=percentile(times, 0.95),
            p99=percentile(times, 0.99),
            slowest=times[-1] if times else None,
            errors=dict(self._errors),
            bytes=self._bytes,
        )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest of the ascending values that at least `share` of them do not exceed; None without values."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


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
        with loading():
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
