"""A bounded memory of recent answers and the figures drawn from it. Pure: the time is an argument."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import ClosedError, InvalidRequestError
from ..models.metric import PerformanceMetric

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
