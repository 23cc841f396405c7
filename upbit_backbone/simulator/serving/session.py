"""One WebSocket: what the client says, what it subscribed to, and how it is kept alive or ended."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any, Protocol

from upbit_backbone.simulator.payloads import spelling, stream_payloads
from upbit_backbone.simulator.serving import framing
from upbit_backbone.simulator.serving.connection import Connection
from upbit_backbone.simulator.serving.stream_requests import RequestError, StreamRequest, Subscription, parse

CLOSE_WAIT_SECONDS = 1.0


class Publisher(Protocol):
    """The hub, as a session sees it."""

    def enter(self, session: Session) -> None: ...

    def subscribe(self, session: Session) -> None: ...

    def leave(self, session: Session) -> None: ...


class Session:
    """A subscription set and a format. What is sent to it is decided by the hub."""

    def __init__(self, connection: Connection, deflate: bool, hub: Publisher) -> None:
        self.connection = connection
        self._hub = hub
        self.context = connection.context
        self.id = connection.id
        self.format = "DEFAULT"
        self.ticket = ""
        self.subscriptions: tuple[Subscription, ...] = ()
        self.sent: Counter[str] = Counter()
        self.messages = 0
        self.is_ending = False
        self._deflate = deflate
        self._unpacker = framing.Unpacker(deflate)
        self._windows = self.context.limits.message_windows()
        self._batch: list[str] = []
        self._overtaken: tuple[str, str] | None = None  # leaves after the next one
        self._chance = random.Random(f"{self.context.options.seed}/{self.id}/order")
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._idle_timer = self._loop.call_later(self.context.options.idle_seconds, self._check_idle)
        self._up_timer: asyncio.TimerHandle | None = None
        hub.enter(self)

    def describe(self) -> dict[str, Any]:
        """What tests want to know: the subscriptions as (type, code, level) and the counters."""
        subscriptions = [
            {"type": one.type, "codes": list(one.asked_codes), "level": spelling.plain(one.level),
             "is_only_snapshot": one.only_snapshot, "is_only_realtime": one.only_realtime}
            for one in self.subscriptions
        ]  # fmt: skip
        return {
            "id": self.id, "port": self.connection.port, "format": self.format, "ticket": self.ticket,
            "subscriptions": subscriptions, "messages": self.messages, "sent": dict(self.sent),
            "bytes_sent": self.connection.bytes_sent, "frozen": self.connection.frozen, "deflate": self._deflate,
        }  # fmt: skip

    # -- what arrives --------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            messages = self._unpacker.feed(data)
        except framing.FrameError as problem:
            self.context.note("fault", what="client broke the protocol", conn=self.id, reason=str(problem))
            self.close(problem.code, str(problem))
            return
        for opcode, payload in messages:
            self._handle(opcode, payload)

    def lost(self) -> None:
        """The connection is gone."""
        self._hub.leave(self)
        self.subscriptions = ()
        self.is_ending = True
        self._idle_timer.cancel()
        if self._up_timer is not None:
            self._up_timer.cancel()

    def _handle(self, opcode: int, payload: bytes) -> None:
        if opcode == framing.PING:
            self.context.note("control", conn=self.id, what="ping", bytes=len(payload))
            self._send_frame(framing.pack(payload, framing.PONG), "pong")
        elif opcode == framing.CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None
            self.context.note("close", conn=self.id, by="client", code=code)
            # An answer to our own close frame needs no second one.
            if not self.is_ending:
                self._send_frame(framing.pack(framing.close_payload(code), framing.CLOSE), "close")
            self.is_ending = True
            self.connection.fin()
        elif opcode in (framing.TEXT, framing.BINARY) and not self.is_ending:
            self._message(payload.decode("utf-8", errors="replace"))

    def _message(self, text: str) -> None:
        self.messages += 1
        self.context.note("message", conn=self.id, port=self.connection.port, text=text)
        is_ping = text.strip() in ("PING", "ping")
        if (not is_ping or self.context.options.ping_counts) and not self._within_limits():
            self.context.limits.rejected["message"] = self.context.limits.rejected.get("message", 0) + 1
            self._refuse(
                "Too Many Requests", "요청 수 제한을 초과했습니다.", self.context.options.close_after_message_limit
            )
        elif is_ping:
            self._start_up()
        else:
            self._request(text)

    def _within_limits(self) -> bool:
        per_second, per_minute = self._windows
        now = self._loop.time()
        return per_second.admit(now) and per_minute.admit(now)

    def _request(self, text: str) -> None:
        try:
            request = parse(text)
        except RequestError as problem:
            self._refuse(problem.name, str(problem), True)
            return
        self.format = request.format
        if request.lists:
            self._list(request)
        else:
            self.subscriptions, self.ticket = request.subscriptions, request.ticket
            # What was gathered for the subscriptions before must not come after the ones that replace them.
            self._batch.clear()
            self._hub.subscribe(self)

    def _list(self, request: StreamRequest) -> None:
        rows = [
            (one.type, list(one.codes), spelling.plain(one.level) if one.type == "orderbook" else None)
            for one in self.subscriptions
        ]
        self.send_text(stream_payloads.subscriptions(rows, request.ticket, self.format), "list")

    def _refuse(self, name: str, message: str, then_close: bool) -> None:
        """An error object, and a little later the close frame."""
        self.send_text(stream_payloads.error(name, message), "error")
        if then_close:
            self.is_ending = True
            # Upbit's close frame comes a moment after its complaint; a client that waits for the close alone never
            # learns why.
            self._loop.call_later(self.context.options.error_close_delay, self.close, 1000)

    # -- what is sent --------------------------------------------------------------------------------------------

    def send_item(self, text: str, kind: str) -> None:
        """One object in the session's format; LIST formats wrap it, in batches if so configured."""
        if not stream_payloads.is_list(self.format):
            self._send_unevenly(text, kind)
            return
        self._batch.append(text)
        self.sent[kind] += 1
        # Whatever is left of a batch leaves with the next step of the market: see `Hub.tick`.
        if len(self._batch) >= self.context.options.list_batch:
            self.flush()

    def _send_unevenly(self, text: str, kind: str) -> None:
        """As the line's fault says: some come twice, some after the next one."""
        fault = self.connection.line_fault
        if fault is None and self._overtaken is None:
            self.send_text(text, kind)
            return
        overtaken, self._overtaken = self._overtaken, None
        if fault is not None and overtaken is None and self._chance.random() < fault.reorders:
            self._overtaken = (text, kind)
            return
        self.send_text(text, kind)
        if fault is not None and self._chance.random() < fault.duplicates:
            self.send_text(text, kind)
        if overtaken is not None:
            self.send_text(*overtaken)

    def flush(self) -> None:
        """Sends a batch that is not full."""
        if self._batch:
            text, self._batch = "[" + ",".join(self._batch) + "]", []
            self._send_payload(text.encode())

    def send_text(self, text: str, kind: str) -> None:
        self.sent[kind] += 1
        self._send_payload(text.encode())

    def send_frames(self, frames: bytes, counts: dict[str, int]) -> None:
        """Ready frames, many at once."""
        self.sent.update(counts)
        self._heard = self._loop.time()
        self.connection.write(frames)

    def _send_payload(self, payload: bytes) -> None:
        opcode = framing.TEXT if self.context.options.text_frames else framing.BINARY
        self._heard = self._loop.time()
        if self._deflate:
            self.connection.write(framing.pack(framing.Deflater.compress(payload), opcode, rsv1=True))
        else:
            self.connection.write(framing.pack(payload, opcode))

    def _send_frame(self, frame: bytes, kind: str) -> None:
        self.sent[kind] += 1
        self._heard = self._loop.time()
        self.connection.write(frame)

    def close(self, code: int | None, reason: str = "") -> None:
        """Sends a close frame with any code (None: without one); TCP ends when the client answers, or soon after."""
        if not self.connection.is_open:
            return
        self.is_ending = True
        self.context.note("close", conn=self.id, by="server", code=code, reason=reason)
        self._send_frame(framing.pack(framing.close_payload(code, reason), framing.CLOSE), "close")
        self._loop.call_later(CLOSE_WAIT_SECONDS, self.connection.fin)

    # -- keeping alive -------------------------------------------------------------------------------------------

    def _start_up(self) -> None:
        if self._up_timer is None:
            self._up_timer = self._loop.call_later(self.context.options.up_seconds, self._send_up)

    def _send_up(self) -> None:
        if not self.is_ending:
            self.send_text('{"status":"UP"}', "up")
            self._up_timer = self._loop.call_later(self.context.options.up_seconds, self._send_up)

    def _check_idle(self) -> None:
        """Upbit drops a silent connection without a close frame."""
        left = self._heard + self.context.options.idle_seconds - self._loop.time()
        # A frozen server notices nothing, not even that it should have hung up.
        if left > 0 or self.connection.frozen:
            self._idle_timer = self._loop.call_later(max(left, 0.05), self._check_idle)
            return
        self.context.note("close", conn=self.id, by="server", code=None, reason="idle")
        self.is_ending = True
        self.connection.fin()
