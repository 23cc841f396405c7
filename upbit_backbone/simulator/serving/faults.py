"""The faults that are switched on right now. Bookkeeping only: the connections and the hub act on it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from upbit_backbone.simulator.serving.slow_line import LineFault

REST_MODES = ("status", "latency", "drip", "garbage", "truncated", "html", "shape", "empty", "gzip_bomb", "hang",
              "reset", "fin", "fin_mid_body", "reset_mid_body", "redirect", "charset", "stale",
              "odd_rows")  # fmt: skip
HANDSHAKE_MODES = ("status", "drip", "silence", "flood", "flood_body", "redirect", "wrong_accept", "close_after_101",
                   "reset_after_101", "fin", "reset", "extension", "garbage", "delay")  # fmt: skip


@dataclass(slots=True)
class Rule:
    """A fault that applies to the next `times` requests whose path matches, or to all until `until`."""

    mode: str
    path: str = "*"
    status: int = 503
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    latency: float = 0.0
    interval: float = 0.5
    times: int | None = None
    until: float | None = None

    def matches(self, path: str, now: float) -> bool:
        return self.is_on(now) and fnmatchcase(path, self.path)

    def is_on(self, now: float) -> bool:
        return (self.times is None or self.times > 0) and (self.until is None or now < self.until)


@dataclass(slots=True)
class Mute:
    """Frames that are not sent: of these codes (None: all) and types (None: all; `candle` means every unit)."""

    codes: frozenset[str] | None
    types: frozenset[str] | None
    until: float | None

    def covers(self, kind: str, code: str) -> bool:
        if self.until is not None and time.monotonic() >= self.until:
            return False
        kind_matches = self.types is None or kind in self.types or kind.partition(".")[0] in self.types
        return kind_matches and (self.codes is None or code in self.codes)


class Faults:
    """What is wrong at the moment."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.rest: list[Rule] = []
        self.handshake: list[Rule] = []
        self.mutes: list[Mute] = []
        self.stale_ms = 0
        self.duplicate_trades = False
        self.shuffle_seconds = 0.0
        self.remaining_req: str | None = None
        self.lines: dict[str, LineFault] = {}
        self.replica_lag_ms = 0

    def line(self, door: str) -> LineFault | None:
        """What is wrong with the lines of a door."""
        fault = self.lines.get(door)
        return fault if fault is not None and fault.is_on else None

    def next_rest(self, path: str) -> Rule | None:
        """The first rule for this request; that rule is used up by one."""
        return _take(self.rest, path)

    def next_handshake(self, path: str) -> Rule | None:
        return _take(self.handshake, path)

    def is_muted(self, kind: str, code: str) -> bool:
        return bool(self.mutes) and any(mute.covers(kind, code) for mute in self.mutes)

    def describe(self) -> dict[str, Any]:
        """What is on, for people."""
        now = time.monotonic()
        return {
            "rest": [asdict(rule) for rule in self.rest if rule.is_on(now)],
            "handshake": [asdict(rule) for rule in self.handshake if rule.is_on(now)],
            "mutes": len(self.mutes), "stale_ms": self.stale_ms, "duplicate_trades": self.duplicate_trades,
            "shuffle_seconds": self.shuffle_seconds, "remaining_req": self.remaining_req,
            "lines": {door: asdict(fault) for door, fault in self.lines.items() if fault.is_on},
            "replica_lag_ms": self.replica_lag_ms,
        }  # fmt: skip


def _take(rules: list[Rule], path: str) -> Rule | None:
    now = time.monotonic()
    rules[:] = [rule for rule in rules if rule.is_on(now)]
    for rule in rules:
        if rule.matches(path, now):
            if rule.times is not None:
                rule.times -= 1
            return rule
    return None
