"""How quickly and how well something answers: what the router decides by, and reports are full of."""

from __future__ import annotations

from dataclasses import dataclass

from .._language import told
from .jsonable import Jsonable


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceMetric(Jsonable):
    """How quickly and how well one channel or one REST group answers.

    `requests`, `failures`, `errors` (by class) and `bytes` count since the start. The percentiles and `success_rate`
    look at the last `samples` answers of the last `window_seconds`, and are None without any. Mistakes of the caller
    (an unknown symbol) are listed in `errors` but do not count as failures.
    """

    name: str
    window_seconds: float
    samples: int
    requests: int
    failures: int
    success_rate: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    slowest: float | None
    errors: dict[str, int]
    bytes: int

    def __str__(self) -> str:
        if self.p50 is None or self.p95 is None or self.p99 is None:
            return told("{}: {} answers, none lately", self.name, self.requests)
        rate = "-" if self.success_rate is None else f"{self.success_rate:.1%}"
        times = " / ".join(duration(each) for each in (self.p50, self.p95, self.p99))
        return told("{}: {} answers, {} good, p50/p95/p99 {}", self.name, self.requests, rate, times)


def duration(seconds: float) -> str:
    """For people."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
