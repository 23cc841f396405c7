"""Verbs that put bytes on the WebSockets which Upbit would never send."""

from __future__ import annotations

import asyncio
import base64
import time

from upbit_backbone.simulator.control.base import VerbsBase
from upbit_backbone.simulator.serving.framing import BINARY, CONTINUATION, PING, TEXT, header, pack
from upbit_backbone.simulator.serving.session import Session


class FrameVerbs(VerbsBase):
    """Each answers with the number of WebSockets it was sent to; `session` narrows it to one by its id."""

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

    def send_half_frame(
        self, declared: int = 5_000, sent: int = 3, freeze: bool = True, session: int | None = None
    ) -> int:
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
