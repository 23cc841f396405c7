"""Verbs that make connections, handshakes and REST answers fail."""

from __future__ import annotations

import os
import time

from upbit_backbone.simulator.control.base import VerbsBase, doors_of, end
from upbit_backbone.simulator.engine.book import REMEMBERED_SECONDS
from upbit_backbone.simulator.serving.faults import HANDSHAKE_MODES, REST_MODES, Mute, Rule
from upbit_backbone.simulator.serving.slow_line import LineFault

IS_SWALLOWING = os.name != "nt"  # Windows refuses a connection that the queue of a listener has no room for


class BreakingVerbs(VerbsBase):
    """Ends, stalls and refusals. `session` narrows a verb to one WebSocket by its id."""

    def close_sessions(self, code: int | None = 1000, reason: str = "", session: int | None = None) -> int:
        """Sends a close frame with any code, even a reserved one, to the WebSockets."""
        chosen = self._chosen(session)
        for one in chosen:
            one.close(code, reason)
        return len(chosen)

    def flap(self, times: int = 10, seconds: float = 10.0, code: int = 1000) -> None:
        """Closes all WebSockets again and again, evenly spread over so many seconds."""
        for number in range(times):
            self._later(number * seconds / times, lambda: self.close_sessions(code))

    def drop_sessions(self, how: str = "fin", session: int | None = None) -> int:
        """Ends TCP without a close frame, by `fin` or `rst`."""
        chosen = self._chosen(session)
        for one in chosen:
            self._context.note("close", conn=one.id, by="server", code=None, reason=how)
            end(one.connection, how)
        return len(chosen)

    def drop_connections(self, how: str = "fin", door: str = "rest") -> int:
        """Ends all TCP connections of a door ("rest" or "websocket")."""
        chosen = [one for one in self._server.connections if one.door == door]
        for one in chosen:
            end(one, how)
        return len(chosen)

    def freeze(self, seconds: float | None = None, target: str = "websocket", new_connections: bool = True) -> int:
        """Nothing is read or written, TCP stays open. target: websocket, rest or all."""
        doors = doors_of(target)
        if new_connections:
            self._context.frozen |= set(doors)
        chosen = [one for one in self._server.connections if one.door in doors]
        for one in chosen:
            one.freeze()
        if seconds is not None:
            self._later(seconds, lambda: self.thaw())
        return len(chosen)

    def thaw(self) -> None:
        """Ends `freeze`; what was held back is sent now."""
        self._context.frozen.clear()
        for one in list(self._server.connections):
            one.thaw()

    def mute(
        self, symbols: list[str] | None = None, types: list[str] | None = None, seconds: float | None = None
    ) -> None:
        """A silent stall: no frames for these (None: all), while pings are answered and REST goes on."""
        codes = None if symbols is None else frozenset(symbols)
        until = None if seconds is None else time.monotonic() + seconds
        self._context.faults.mutes.append(Mute(codes, None if types is None else frozenset(types), until))

    def unmute(self) -> None:
        self._context.faults.mutes.clear()

    async def refuse(
        self, seconds: float, target: str = "websocket", drop: str | None = "fin", instead: str = "refuse"
    ) -> None:
        """Stops listening, and drops what is open unless `drop` is null; listens again on the same port afterwards.

        instead: `refuse`, `silence` (accept and say nothing, not even a TLS hello) or `blackhole` (SYNs unanswered).
        """
        if instead not in ("refuse", "silence", "blackhole"):
            raise ValueError(f"unknown {instead!r}")
        if instead == "blackhole" and not IS_SWALLOWING:
            raise ValueError("this system refuses connections for which its queue has no room: take silence")
        doors = doors_of(target)
        if drop is not None:
            for one in [one for one in self._server.connections if one.door in doors]:
                end(one, drop)
        await self._server.shut_for(doors, seconds, instead)

    def handshake_fault(
        self,
        mode: str = "status",
        status: int = 503,
        times: int | None = 1,
        seconds: float | None = None,
        body: str | None = None,
        headers: dict[str, str] | None = None,
        latency: float = 0.0,
        interval: float = 0.5,
        location: str | None = None,
    ) -> None:
        """The next WebSocket handshakes go wrong: `times` of them, or all for `seconds`."""
        if mode not in HANDSHAKE_MODES:
            raise ValueError(f"mode must be one of {', '.join(HANDSHAKE_MODES)}")
        rule = _rule(mode, "*", status, times, seconds, body, headers, latency, interval, location)
        self._context.faults.handshake.append(rule)

    def rest_fault(
        self,
        mode: str = "status",
        path: str = "*",
        status: int = 503,
        times: int | None = 1,
        seconds: float | None = None,
        body: str | None = None,
        headers: dict[str, str] | None = None,
        latency: float = 0.0,
        interval: float = 0.5,
        location: str | None = None,
    ) -> None:
        """The next REST answers of matching paths (`*` matches anything) go wrong."""
        if mode not in REST_MODES:
            raise ValueError(f"mode must be one of {', '.join(REST_MODES)}")
        rule = _rule(mode, path, status, times, seconds, body, headers, latency, interval, location)
        self._context.faults.rest.append(rule)

    def line_fault(
        self,
        bandwidth: float = 0.0,
        latency: float = 0.0,
        jitter: float = 0.0,
        duplicates: float = 0.0,
        reorders: float = 0.0,
        seconds: float | None = None,
        target: str = "websocket",
    ) -> None:
        """Lines towards clients become narrow (bytes a second), long and uneven (seconds), and of the messages with
        market data these shares come twice or after the next one. Replaces what was set before; no arguments end it.
        """
        if min(bandwidth, latency, jitter, duplicates, reorders) < 0 or max(duplicates, reorders) > 1:
            raise ValueError("bandwidth, latency and jitter must not be negative, shares lie between 0 and 1")
        until = None if seconds is None else time.monotonic() + seconds
        is_on = any((bandwidth, latency, jitter, duplicates, reorders))
        for door in doors_of(target):
            self._context.faults.lines.pop(door, None)
            if is_on:
                self._context.faults.lines[door] = LineFault(bandwidth, latency, jitter, duplicates, reorders, until)

    def lagging_replica(self, seconds: float, lasting: float | None = None) -> None:
        """REST shows tickers, books and trades as they were so long ago (a minute at most), for a while or until 0
        ends it.
        """
        if not 0 <= seconds <= REMEMBERED_SECONDS:
            raise ValueError(f"seconds must be between 0 and {REMEMBERED_SECONDS:g}")
        self._context.faults.replica_lag_ms = round(seconds * 1000)
        if lasting is not None:
            self._later(lasting, lambda: self.lagging_replica(0.0))

    def set_limit(self, group: str, per_second: int | None) -> None:
        """Lowers (or with null restores) the limit of market, candle, trade, ticker, orderbook, websocket or origin."""
        if per_second is None:
            self._context.limits.lowered.pop(group, None)
        else:
            self._context.limits.lowered[group] = per_second

    def ban(self, seconds: float) -> None:
        """Every request and handshake is answered with 418 that names the seconds left."""
        self._context.limits.block_everybody(seconds)

    def remaining_req(self, value: str | None) -> None:
        """Replaces the Remaining-Req header; "" leaves it out, null restores it."""
        self._context.faults.remaining_req = value


def _rule(
    mode: str, path: str, status: int, times: int | None, seconds: float | None, body: str | None,
    headers: dict[str, str] | None, latency: float, interval: float, location: str | None,
) -> Rule:  # fmt: skip
    extra = dict(headers or {})
    if mode == "redirect":
        status = status if 300 <= status < 400 else 302
        extra["Location"] = location or "http://127.0.0.1:9/elsewhere"
    # A duration replaces the count, so that `seconds=3` alone means "all of them for three seconds".
    count = None if seconds is not None and times == 1 else times
    until = None if seconds is None else time.monotonic() + seconds
    return Rule(mode, path, status, body, extra, latency, interval, count, until)
