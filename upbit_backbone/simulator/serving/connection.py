"""One TCP connection: HTTP requests one after the other, until it is upgraded to a WebSocket or ends."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Protocol, cast

from upbit_backbone.simulator.payloads.moments import http_date
from upbit_backbone.simulator.serving.context import Context
from upbit_backbone.simulator.serving.http_wire import MAX_HEAD_BYTES, BadRequestError, Request, Response, parse_head
from upbit_backbone.simulator.serving.slow_line import LineFault, SlowLine

MAX_UNSENT_BYTES = 64 * 1024 * 1024
MAX_HELD_BYTES = 16 * 1024 * 1024


class Upgraded(Protocol):
    """Whom a connection belongs to once it is a WebSocket."""

    sent: Counter[str]

    def feed(self, data: bytes) -> None: ...

    def lost(self) -> None: ...


# Answers one request, or upgrades its connection.
Serve = Callable[["Connection", Request], object]


class Connection(asyncio.Protocol):
    """Bytes in, bytes out, and the two ways to end. `door` is the port it came in by: "rest" or "websocket".

    `serve` is called with one request after the other; while it is open, the connection is one of `opened`.
    """

    def __init__(self, context: Context, door: str, serve: Serve, opened: set[Connection]) -> None:
        self.context = context
        self.door = door
        self._serve = serve
        self._opened = opened
        self.id = context.next_serial()
        self.ip, self.port = "", 0
        self.session: Upgraded | None = None
        self.bytes_sent = 0
        self.frozen = False
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._busy = False
        self._mute = False
        self._held = bytearray()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._slow: SlowLine | None = None  # once its line has been slow, so that nothing overtakes what is under way

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.door} port={self.port}{' frozen' if self.frozen else ''}>"

    # -- asyncio's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.is_open = cast(asyncio.Transport, transport), True
        if self.context.options.receive_buffer:
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.context.options.receive_buffer)
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        peer = transport.get_extra_info("peername") or ("", 0)
        self.ip, self.port = peer[0], peer[1]
        self._opened.add(self)
        self.context.note("connect", conn=self.id, door=self.door, port=self.port, ip=self.ip)
        if self.door in self.context.frozen:
            self.freeze()
        self._restart_idle_timer()

    def data_received(self, data: bytes) -> None:
        if self.session is not None:
            self.session.feed(data)
            return
        if self._mute:
            return
        self._buffer += data
        self._next_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._slow is not None:
            self._slow.drop()
        self._stop_idle_timer()
        self._opened.discard(self)
        sent = {} if self.session is None else dict(self.session.sent)
        self.context.note(
            "disconnect", conn=self.id, door=self.door, port=self.port, bytes_sent=self.bytes_sent, sent=sent
        )
        if self.session is not None:
            self.session.lost()

    # -- what handlers use ---------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken yet."""
        on_its_way = 0 if self._slow is None else self._slow.size
        return on_its_way + (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    @property
    def line_fault(self) -> LineFault | None:
        """What is wrong with its line at the moment, if anything."""
        return self.context.faults.line(self.door)

    def write(self, data: bytes) -> None:
        """Sends, or holds back while frozen. A client that stops reading for too long is dropped."""
        if not self.is_open or self._transport is None:
            return
        if self.frozen and self._slow is None:
            if len(self._held) + len(data) <= MAX_HELD_BYTES:
                self._held += data
            return
        if self._slow is None and self.line_fault is not None:
            seed = f"{self.context.options.seed}/{self.id}"
            self._slow = SlowLine(self._put, lambda: self.line_fault, lambda: self.frozen, seed)
        (self._put if self._slow is None else self._slow.write)(data)
        if self.unsent > MAX_UNSENT_BYTES:
            self.context.note("fault", what="client does not read", conn=self.id)
            self.reset()

    def respond(self, request: Request, response: Response) -> None:
        """Sends a whole answer, then serves the next request or ends."""
        accepts_gzip = "gzip" in request.headers.get("accept-encoding", "").lower()
        date = http_date(self.context.clock.now_ms())
        self.write(response.render(date, request.keep_alive, accepts_gzip, request.method != "HEAD"))
        self.finish(request.keep_alive)

    def finish(self, keep_alive: bool) -> None:
        """The answer is complete."""
        self._busy = False
        if not keep_alive:
            self.fin()
            return
        self._restart_idle_timer()
        if self._buffer:
            self._next_request()

    def upgrade(self, session: Upgraded) -> None:
        """From now on bytes belong to the session."""
        self._stop_idle_timer()
        self.session = session
        if self._buffer:
            data, self._buffer = bytes(self._buffer), bytearray()
            session.feed(data)

    def ignore_input(self) -> None:
        """The connection stays open and whatever arrives is thrown away."""
        self._mute = True
        self._stop_idle_timer()

    def _put(self, data: bytes) -> None:
        # Once a write has failed, asyncio tells of the end in the next turn of its loop only; of what the rest of this
        # turn sends all the same it warns a line each.
        if self.is_open and self._transport is not None and not self._transport.is_closing():
            self.bytes_sent += len(data)
            self._transport.write(data)

    def fin(self) -> None:
        """Ends by FIN after what is queued has been sent."""
        if self._transport is not None:
            self._resume_for_ending()
            (self._transport.close if self._slow is None else self._close_when_sent)()

    def _close_when_sent(self) -> None:
        assert self._slow is not None  # noqa: S101
        assert self._transport is not None  # noqa: S101
        self._slow.when_empty(self._transport.close)

    def reset(self) -> None:
        """Ends by RST at once."""
        if self._slow is not None:
            self._slow.drop()
        if self._transport is None:
            return
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            # Zero seconds of lingering make the kernel send RST; Windows packs the two numbers as shorts.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
        self._transport.abort()

    def freeze(self) -> None:
        """Nothing is read or written any more; TCP stays open."""
        if not self.frozen and self._transport is not None:
            self.frozen = True
            self._transport.pause_reading()

    def thaw(self) -> None:
        """Goes on where `freeze` stopped: what was held back is sent now."""
        if not self.frozen or self._transport is None:
            return
        self.frozen = False
        if not self.is_open or self._transport.is_closing():
            return
        self._transport.resume_reading()
        held, self._held = bytes(self._held), bytearray()
        if held:
            self.write(held)

    # -- inside --------------------------------------------------------------------------------------------------

    def _next_request(self) -> None:
        if self._busy:
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                self.fin()
            return
        head = bytes(self._buffer[:end])
        # A body would be read as the next request: public endpoints have none, and what sends one is no client of ours.
        del self._buffer[: end + 4]
        self._stop_idle_timer()
        try:
            request = parse_head(head)
        except BadRequestError as problem:
            self.context.note("request", conn=self.id, port=self.port, path=None, status=400, bad=str(problem))
            self.fin()
            return
        self._busy = True
        self._serve(self, request)

    def _resume_for_ending(self) -> None:
        if self.frozen and self._transport is not None and not self._transport.is_closing():
            self.frozen = False
            self._transport.resume_reading()

    def _restart_idle_timer(self) -> None:
        self._stop_idle_timer()
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(self.context.options.keepalive_seconds, self._idle)

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _idle(self) -> None:
        if self.session is None and not self._busy and not self.frozen:
            self.fin()
