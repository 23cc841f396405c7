"""What can be asked of a running simulator and done to it: the verbs of the control port."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any

from upbit_backbone.simulator.connection import Connection
from upbit_backbone.simulator.faults import HANDSHAKE_MODES, REST_MODES, Mute, Rule
from upbit_backbone.simulator.framing import BINARY, CONTINUATION, PING, TEXT, header, pack
from upbit_backbone.simulator.session import Session

if TYPE_CHECKING:
    from upbit_backbone.simulator.server import Server

PRICE_UNIT = 100_000_000


class Verbs:
    """Each public method is a verb; arguments are JSON. `session` narrows a verb to one WebSocket by its id."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._context = server.context

    # -- what is ---------------------------------------------------------------------------------------------------

    def urls(self) -> dict[str, Any]:
        return self._server.urls()

    def markets(self) -> list[str]:
        return list(self._context.exchange.markets)

    def sessions(self) -> list[dict[str, Any]]:
        """The open WebSockets with their present subscriptions."""
        return [session.describe() for session in self._context.sessions.values()]

    def wire_log(
        self, kind: str | None = None, since: int | None = None, where: dict[str, Any] | None = None, limit: int = 10_000
    ) -> list[dict[str, Any]]:
        """The newest entries of the wire log, oldest first."""
        return self._context.log.entries(kind, since, where, limit)

    def clear_wire_log(self) -> None:
        self._context.log.clear()

    def counters(self) -> dict[str, Any]:
        context = self._context
        return {
            **context.log.counters, "open_connections": len(context.connections), "sessions": len(context.sessions),
            "rejected": dict(context.limits.rejected), "load_sent": self._server.load.sent,
            "load_skipped": self._server.load.skipped, "now_ms": context.clock.now_ms(), "monotonic": time.monotonic(),
        }  # fmt: skip

    def faults(self) -> dict[str, Any]:
        """The faults that are on."""
        return {**self._context.faults.describe(), "frozen": sorted(self._context.frozen)}

    def trades(self, symbol: str, since_ms: int = 0, until_ms: int | None = None) -> list[dict[str, Any]]:
        """All trades since the start that are still retained, in order; what a client should have seen."""
        return [
            {"sequential_id": one.id, "trade_timestamp": one.ms, "price": one.price / PRICE_UNIT,
             "volume": one.volume / PRICE_UNIT, "ask_bid": "BID" if one.is_bid else "ASK"}
            for one in self._context.exchange.markets[symbol].live
            if one.ms >= since_ms and (until_ms is None or one.ms < until_ms)
        ]  # fmt: skip

    # -- ending and stalling connections -----------------------------------------------------------------------------

    def close_sessions(self, code: int | None = 1000, reason: str = "", session: int | None = None) -> int:
        """Sends a close frame with any code, even a reserved one, to the WebSockets."""
        chosen = self._chosen(session)
        for one in chosen:
            one.close(code, reason)
        return len(chosen)

    def drop_sessions(self, how: str = "fin", session: int | None = None) -> int:
        """Ends TCP without a close frame, by `fin` or `rst`."""
        chosen = self._chosen(session)
        for one in chosen:
            self._context.note("close", conn=one.id, by="server", code=None, reason=how)
            _end(one.connection, how)
        return len(chosen)

    def drop_connections(self, how: str = "fin", door: str = "rest") -> int:
        """Ends all TCP connections of a door ("rest" or "websocket")."""
        chosen = [one for one in self._context.connections if one.door == door]
        for one in chosen:
            _end(one, how)
        return len(chosen)

    def freeze(self, seconds: float | None = None, target: str = "websocket", new_connections: bool = True) -> int:
        """Nothing is read or written, TCP stays open. target: websocket, rest or all."""
        doors = _doors(target)
        if new_connections:
            self._context.frozen |= set(doors)
        chosen = [one for one in self._context.connections if one.door in doors]
        for one in chosen:
            one.freeze()
        if seconds is not None:
            self._later(seconds, lambda: self.thaw())
        return len(chosen)

    def thaw(self) -> None:
        """Ends `freeze`; what was held back is sent now."""
        self._context.frozen.clear()
        for one in list(self._context.connections):
            one.thaw()

    def mute(self, symbols: list[str] | None = None, types: list[str] | None = None, seconds: float | None = None) -> None:
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
        doors = _doors(target)
        if drop is not None:
            for one in [one for one in self._context.connections if one.door in doors]:
                _end(one, drop)
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

    # -- REST ----------------------------------------------------------------------------------------------------

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
        """Replaces the Remaining-Req header; "" leaves it out in practice, null restores it."""
        self._context.faults.remaining_req = value

    # -- bytes and frames ------------------------------------------------------------------------------------------

    def send_raw(self, data: str, session: int | None = None) -> int:
        """Raw bytes (base64) on the WebSockets, outside any frame."""
        return self._send(base64.b64decode(data), session)

    def send_text(self, text: str, session: int | None = None) -> int:
        """A text frame."""
        return self._send(pack(text.encode("utf-8", "surrogatepass"), TEXT), session)

    def send_binary(self, data: str, session: int | None = None) -> int:
        """A binary frame (payload in base64)."""
        return self._send(pack(base64.b64decode(data), BINARY), session)

    def send_json(self, text: str, session: int | None = None) -> int:
        """A binary frame with this text, as Upbit sends its messages."""
        return self._send(pack(text.encode("utf-8", "surrogatepass"), BINARY), session)

    def send_half_frame(self, declared: int = 5_000, sent: int = 3, freeze: bool = True, session: int | None = None) -> int:
        """A frame that stops after a few bytes; then (by default) nothing at all any more."""
        count = self._send(header(declared) + b"{" * sent, session)
        for one in self._chosen(session) if freeze else []:
            asyncio.get_running_loop().call_later(0.02, one.connection.freeze)
        return count

    def send_huge_frame(self, declared: int = 2**40, seconds: float = 5.0, session: int | None = None) -> int:
        """A frame that declares a huge length and keeps sending for a while."""
        chosen = self._chosen(session)
        for one in chosen:
            one.connection.write(header(declared))
            self._context.start(_keep_sending(one, b"x" * 65_536, seconds))
        return len(chosen)

    def send_fragments(self, count: int = 32_000, size: int = 1_024, session: int | None = None) -> int:
        """One message in very many fragments; the last is never sent."""
        first = pack(b"x" * size, BINARY, fin=False)
        more = pack(b"x" * size, CONTINUATION, fin=False)
        return self._send(first + more * (count - 1), session)

    def send_pings(self, count: int = 1, per_second: float = 0.0, session: int | None = None) -> int:
        """Ping frames, at once or at a rate."""
        chosen = self._chosen(session)
        for one in chosen:
            self._context.start(_ping(one, count, per_second))
        return len(chosen)

    # -- the market ------------------------------------------------------------------------------------------------

    def publish_trade(
        self, symbol: str, price: float | str | None = None, volume: float | str | None = None, ask_bid: str | None = None
    ) -> dict[str, Any]:
        """A trade now, on REST and WebSocket; what is not given is chosen."""
        exchange = self._context.exchange
        is_bid = None if ask_bid is None else ask_bid == "BID"
        market, trade = exchange.publish(symbol, _units(price), _units(volume), is_bid)
        self._context.hub.happened([(market, trade)], {market})
        return {"sequential_id": trade.id, "trade_timestamp": trade.ms, "price": trade.price / PRICE_UNIT,
                "volume": trade.volume / PRICE_UNIT, "ask_bid": "BID" if trade.is_bid else "ASK"}  # fmt: skip

    def touch_book(self, symbol: str) -> None:
        """A few sizes of the book change; it is published like any other change."""
        market = self._context.exchange.markets[symbol]
        market.book.flicker(self._context.clock.now_ms())
        self._context.hub.happened([], {market})

    def pause(self, symbols: list[str] | None = None) -> None:
        """Nobody trades any more (in these pairs): legal silence."""
        if symbols is None:
            self._context.exchange.paused = True
        else:
            self._context.exchange.paused_codes |= set(symbols)

    def resume(self) -> None:
        self._context.exchange.paused = False
        self._context.exchange.paused_codes.clear()

    def set_rate(self, trades_per_second: float) -> None:
        self._context.exchange.trades_per_second = trades_per_second

    def load(self, messages_per_second: float) -> None:
        """Load mode: so many made-up frames a second to every session; 0 ends it."""
        self._server.load.set_rate(messages_per_second)

    def delist(self, symbol: str) -> None:
        """The pair is gone: from market/all, REST (404) and WebSocket (silence)."""
        self._context.exchange.delist(symbol)

    def announce_delisting(self, symbol: str, date: str | None) -> None:
        """The WebSocket ticker carries this `delisting_date` (yyyy-MM-dd)."""
        if date is None:
            self._context.delisting_dates.pop(symbol, None)
        else:
            self._context.delisting_dates[symbol] = date

    def advance_clock(self, seconds: float) -> int:
        """Moves the simulator's time forward; limits, idle and UP timers keep to real time. Answers with the new time."""
        self._context.clock.advance(seconds)
        self._context.hub.tick()
        return self._context.clock.now_ms()

    def stale_timestamps(self, milliseconds: int) -> None:
        """Tickers, trades and books on the WebSocket carry times that are so much older; 0 ends it."""
        self._context.faults.stale_ms = milliseconds

    def duplicate_trades(self, on: bool = True) -> None:
        """Every trade frame is sent twice."""
        self._context.faults.duplicate_trades = on

    def replay_trades(self, symbol: str, count: int = 1) -> int:
        """Sends the last trades of a pair once more."""
        return self._context.hub.publish_again(symbol, count)

    def shuffle_trades(self, seconds: float = 2.0) -> None:
        """Trade frames are collected for so long and sent in random order; 0 ends it."""
        self._context.faults.shuffle_seconds = seconds

    def clear_faults(self) -> None:
        """Everything well-behaved again, except for listeners that were closed for a time."""
        self._context.faults.clear()
        self._context.limits.clear()
        self.thaw()
        self.resume()

    def set_options(self, **changes: Any) -> None:
        """Changes switches while running; those that matter only at the start or for new connections act from then."""
        for name, value in changes.items():
            if not hasattr(self._context.options, name):
                raise ValueError(f"no option {name!r}")
            setattr(self._context.options, name, value)

    def stop(self) -> None:
        """Ends the simulator."""
        self._later(0.01, self._server.stop)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _chosen(self, session: int | None) -> list[Session]:
        sessions = list(self._context.sessions.values())
        return sessions if session is None else [one for one in sessions if one.id == session]

    def _send(self, data: bytes, session: int | None) -> int:
        chosen = self._chosen(session)
        for one in chosen:
            one.send_frames(data, {"injected": 1})
        return len(chosen)

    def _later(self, seconds: float, action: Any) -> None:
        asyncio.get_running_loop().call_later(seconds, action)


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


def _doors(target: str) -> list[str]:
    known = {"websocket": ["websocket"], "rest": ["rest"], "all": ["rest", "websocket"]}
    if target not in known:
        raise ValueError(f"target must be one of {', '.join(known)}")
    return known[target]


def _end(connection: Connection, how: str) -> None:
    if how not in ("fin", "rst"):
        raise ValueError("how must be fin or rst")
    (connection.fin if how == "fin" else connection.reset)()


def _units(value: float | str | None) -> int | None:
    from decimal import Decimal

    return None if value is None else int(Decimal(str(value)) * PRICE_UNIT)


async def _keep_sending(session: Session, data: bytes, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and session.connection.is_open:
        if session.connection.unsent < 4 * 1024 * 1024:
            session.connection.write(data)
        await asyncio.sleep(0.001)


async def _ping(session: Session, count: int, per_second: float) -> None:
    if per_second <= 0:
        session.send_frames(pack(b"ping", PING) * count, {"ping": count})
        return
    sent, began = 0, time.monotonic()
    while sent < count and session.connection.is_open:
        due = min(count, int((time.monotonic() - began) * per_second)) - sent
        if due > 0:
            session.send_frames(pack(b"ping", PING) * due, {"ping": due})
            sent += due
        await asyncio.sleep(0.01)
