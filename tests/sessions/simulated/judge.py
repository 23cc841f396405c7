"""What must never happen, whatever else does."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable

from upbit_backbone.models.request import Topic

CONNECTS_PER_SECOND = 5
MESSAGES_PER_SECOND = 5
MESSAGES_PER_MINUTE = 100


class Violated(AssertionError):  # noqa: N818  # a verdict
    """An invariant does not hold; the text names the seed that shows it again."""


class Judge:
    """Watches one simulated world."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._connects: deque[float] = deque(maxlen=CONNECTS_PER_SECOND + 1)
        self._forbidden: list[tuple[float, float, str]] = []
        self._epoch = 0
        self.connects = 0
        self.messages = 0
        self.frames = 0
        self.found_out = 0  # topics that were mute alone
        self.stale_seconds = 0.0  # the worst price that was shown as current
        self.looks = 0
        self.recoveries: dict[str, list[float]] = defaultdict(list)

    def check(self, holds: bool, what: str, now: float) -> None:
        if not holds:
            raise Violated(f"{self._name} at {now:.3f} s: {what}")

    def forbid(self, since: float, until: float, why: str) -> None:
        """No connect in this time."""
        self._forbidden.append((since, until, why))

    def connected(self, now: float) -> None:
        self.connects += 1
        self._connects.append(now)
        if len(self._connects) > CONNECTS_PER_SECOND:
            self.check(now - self._connects[0] > 1.0, "more than 5 connects in a second", now)
        for since, until, why in self._forbidden:
            self.check(not since < now < until, f"connect although {why} until {until:.3f}", now)
        self._forbidden = [row for row in self._forbidden if row[1] > now]

    def message(self, sent: deque[float], now: float) -> None:
        """A message arrived on a line; `sent` holds the arrival times on it, this one last."""
        self.messages += 1
        times = list(sent)
        if len(times) > MESSAGES_PER_SECOND:
            self.check(now - times[-1 - MESSAGES_PER_SECOND] > 1.0, "more than 5 messages in a second", now)
        if len(times) > MESSAGES_PER_MINUTE:
            self.check(now - times[-1 - MESSAGES_PER_MINUTE] > 60.0, "more than 100 messages in a minute", now)

    def decoded(self, epoch: int, now: float) -> None:
        self.check(epoch > self._epoch, f"epoch {epoch} after {self._epoch}", now)
        self._epoch = epoch

    def delivered(self, epoch: int, frames: int, is_closed: bool, now: float) -> None:
        self.frames += frames
        self.check(epoch == self._epoch, f"frames of epoch {epoch} in epoch {self._epoch}", now)
        self.check(not is_closed, "frames after close", now)

    def looked_at(self, stale_seconds: float) -> None:
        """A price was shown as current that had been superseded for so long (0.0: it still was true)."""
        self.looks += 1
        self.stale_seconds = max(self.stale_seconds, stale_seconds)

    def recovered(self, kind: str, seconds: float, bound: float, now: float) -> None:
        self.recoveries[kind].append(seconds)
        self.check(seconds <= bound, f"recovery from {kind} took {seconds:.3f} s, at most {bound} allowed", now)


def names(topics: Iterable[Topic]) -> str:
    return ", ".join(sorted(map(str, topics))) or "nothing"


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
