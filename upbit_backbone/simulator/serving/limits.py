"""Upbit's rate limits, kept strictly, so that a client that passes here passes there.

A REST group allows `rest_limit` requests in *every* sliding second, counted on arrival by the monotonic clock (the real
algorithm is not known; a sliding window is the strictest reading of the documented one). `Remaining-Req` nevertheless
counts fixed wall-clock seconds, as Upbit's does: it can promise more than the sliding window then gives.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from upbit_backbone.simulator.serving.options import Options

WIRE_NAMES = {"candle": "candles", "trade": "crix-trades"}
"""Groups that Remaining-Req calls otherwise than the documentation."""
REJECTIONS_SECONDS = 10.0


class Window:
    """At most `limit` events in any `seconds`."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._times: deque[float] = deque()

    def admit(self, now: float, count_rejected: bool = False) -> bool:
        while self._times and self._times[0] <= now - self.seconds:
            self._times.popleft()
        allowed = len(self._times) < self.limit
        if allowed or count_rejected:
            self._times.append(now)
        return allowed


@dataclass(slots=True)
class Verdict:
    """What the limits say about one request: 200, 429 or 418, and the Remaining-Req header."""

    status: int
    remaining: str
    group: str
    blocked_seconds: int = 0


@dataclass(slots=True)
class _Address:
    """All that is remembered about one client address."""

    windows: dict[str, Window] = field(default_factory=dict)
    seconds: dict[str, tuple[int, int]] = field(default_factory=dict)
    rejections: deque[float] = field(default_factory=deque)
    blocked_until: float = 0.0
    blocks: int = 0


class Limits:
    """The limits of all addresses. `lowered` overrides the limit of a group for everybody."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._addresses: dict[str, _Address] = {}
        self._blocked_until = 0.0
        self.lowered: dict[str, int] = {}
        self.rejected: dict[str, int] = {}

    def block_everybody(self, seconds: float) -> None:
        self._blocked_until = time.monotonic() + seconds

    def clear(self) -> None:
        """Ends blocks and lowered limits; windows keep what they have counted."""
        self._blocked_until = 0.0
        self.lowered.clear()
        for address in self._addresses.values():
            address.blocked_until = 0.0
            # So that the next block takes as many offences as the first did.
            address.rejections.clear()

    def rest(self, ip: str, group: str, has_origin: bool, wall_ms: int) -> Verdict:
        return self._admit(ip, "origin" if has_origin else group, wall_ms)

    def handshake(self, ip: str, has_origin: bool, wall_ms: int) -> Verdict:
        return self._admit(ip, "origin" if has_origin else "websocket", wall_ms)

    def message_windows(self) -> tuple[Window, Window]:
        """The two windows that belong to one connection."""
        options = self._options
        return Window(options.message_limit_second, 1.0), Window(options.message_limit_minute, 60.0)

    def _admit(self, ip: str, group: str, wall_ms: int) -> Verdict:
        now, address = time.monotonic(), self._addresses.setdefault(ip, _Address())
        blocked_until = max(self._blocked_until, address.blocked_until)
        if now < blocked_until:
            self._count_rejection("418")
            return Verdict(418, "", group, max(1, round(blocked_until - now + 0.4999)))
        limit, seconds, per_minute = self._rule(group)
        window = address.windows.setdefault(group, Window(limit, seconds))
        window.limit = limit
        second = wall_ms // 1000
        used = address.seconds.get(group, (second, 0))
        count = used[1] if used[0] == second else 0
        name = WIRE_NAMES.get(group, group)
        if not window.admit(now, self._options.count_rejected):
            self._count_rejection(group)
            self._remember_rejection(address, now)
            return Verdict(429, f"group={name}; min={per_minute}; sec=0", group)
        address.seconds[group] = (second, count + 1)
        return Verdict(200, f"group={name}; min={per_minute}; sec={max(0, limit - count - 1)}", group)

    def _rule(self, group: str) -> tuple[int, float, int]:
        """(limit, seconds, the constant `min` of the header)"""
        if group == "origin":
            return self.lowered.get(group, 1), self._options.origin_seconds, 6
        if group == "websocket":
            return self.lowered.get(group, self._options.connect_limit), 1.0, 300
        return self.lowered.get(group, self._options.rest_limit), 1.0, 600

    def _count_rejection(self, what: str) -> None:
        self.rejected[what] = self.rejected.get(what, 0) + 1

    def _remember_rejection(self, address: _Address, now: float) -> None:
        """Going on after many 429s blocks the address; each block is twice as long as the one before."""
        address.rejections.append(now)
        while address.rejections[0] <= now - REJECTIONS_SECONDS:
            address.rejections.popleft()
        if self._options.ban_after and len(address.rejections) >= self._options.ban_after:
            address.rejections.clear()
            address.blocked_until = now + self._options.ban_seconds * 2**address.blocks
            address.blocks += 1
