"""Load mode: many frames a second at almost no cost, so that the simulator is never the bottleneck.

Frames are rendered once a second per (type, pair, format); between that only the publication timestamp, the trade's
timestamp and its id are patched, and a few sizes of a book, and all frames of a tick leave in one write. These frames
are made up: they do not enter REST, candles or tickers.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from upbit_backbone.simulator.engine.history import Trade
from upbit_backbone.simulator.payloads import stream_payloads
from upbit_backbone.simulator.serving.context import Context
from upbit_backbone.simulator.serving.framing import header
from upbit_backbone.simulator.serving.hub import Hub
from upbit_backbone.simulator.serving.session import Session

STAMP_BASE = 10**16
"""With stamped ids, `sequential_id - STAMP_BASE` is the monotonic clock in nanoseconds at sending."""
MAX_UNSENT_BYTES = 8 * 1024 * 1024
_STAMP, _TRADE_STAMP, _ID, _SIZE = 1_111_111_111_111, 1_222_222_222_222, 11_333_333_333_333_333, b"1.44444441"
_MARKS = re.compile(b"|".join(str(mark).encode() for mark in (_STAMP, _TRADE_STAMP, _ID)) + b"|" + re.escape(_SIZE))
_PLACES = {str(_STAMP).encode(): 0, str(_TRADE_STAMP).encode(): 1, str(_ID).encode(): 2, _SIZE: 3}
_SIZES = re.compile(rb'(?<="(?:as|bs)":)[0-9.E-]+|(?<="(?:ask_size|bid_size)":)[0-9.E-]+')
SIZES_CHANGED = 4
"""Of 120 numbers in a book of thirty levels: 3 of 100 do not stand in the one before, as recorded from Upbit."""


class Piece(NamedTuple):
    """One ready frame, cut at the places that are patched."""

    kind: str
    parts: tuple[bytes, ...]
    marks: tuple[int, ...]


class Load:
    """Sends `rate` frames a second to each session, round robin over what it has subscribed to."""

    def __init__(self, context: Context, hub: Hub) -> None:
        self._context = context
        self._hub = hub
        self._task: asyncio.Task[None] | None = None
        self.rate, self.tick, self.stamped_ids = 0.0, 0.01, False
        self.sent = 0
        self.skipped = 0

    def set_rate(self, rate: float, tick: float = 0.01, stamped_ids: bool = False) -> None:
        """0 ends load mode. Frames leave every `tick` seconds, so many that the rate is kept."""
        self.rate, self.tick, self.stamped_ids = rate, tick, stamped_ids
        if rate > 0 and self._task is None:
            self._task = self._context.start(self._run())

    async def _run(self) -> None:
        decks: dict[int, tuple[object, int, Iterator[Piece]]] = {}
        due, last, counter = 0.0, time.monotonic(), 0
        while self.rate > 0:
            await asyncio.sleep(self.tick)
            now = time.monotonic()
            # At most a second's worth is made up for: after a pause the client must not be hit by all that was missed.
            due, last = min(due + (now - last) * self.rate, self.rate), now
            count, due = int(due), due - int(due)
            for session in list(self._hub.sessions.values()):
                if not session.subscriptions or session.is_ending or session.connection.frozen:
                    continue
                # Counted instead of piled up: a client that reads too slowly must not fill this machine's memory.
                if session.connection.unsent > MAX_UNSENT_BYTES:
                    self.skipped += count
                    continue
                second = int(now)
                deck = decks.get(session.id)
                if deck is None or deck[0] is not session.subscriptions or deck[1] != second:
                    pieces = self._pieces(session)
                    if not pieces:
                        continue
                    deck = decks[session.id] = (session.subscriptions, second, _cycle(pieces, counter))
                self._send(session, deck[2], count, counter)
            counter += count
        self._task = None

    def _send(self, session: Session, deck: Iterator[Piece], count: int, counter: int) -> None:
        now_ms = self._context.clock.now_ms()
        out: list[bytes] = []
        counts: dict[str, int] = {}
        stamps = [b"%d" % now_ms, b"%d" % now_ms, b"", b""]
        # Ids of one tick share its time; a counter keeps them apart.
        base, modulo = (now_ms * 10_000, 10_000) if not self.stamped_ids else (STAMP_BASE + time.monotonic_ns(), 10**9)
        start = 0 if self.stamped_ids else counter
        for number in range(count):
            kind, parts, marks = next(deck)
            stamps[2] = b"%d" % (base + (start + number) % modulo)
            stamps[3] = b"0.%07d1" % ((counter + number) % 10**7)
            for part, mark in zip(parts, marks, strict=False):
                out.append(part)
                out.append(stamps[mark])
            out.append(parts[-1])
            counts[kind] = counts.get(kind, 0) + 1
        session.send_frames(b"".join(out), counts)
        self.sent += count

    def _pieces(self, session: Session) -> list[Piece]:
        style = stream_payloads.style_of(session.format)
        pieces = []
        for one in session.subscriptions:
            for code, depth in zip(one.codes, one.depths, strict=True):
                text = self._text(one.type, code, depth, style)
                if text is not None:
                    pieces.append(_cut(one.type, f"[{text}]" if stream_payloads.is_list(session.format) else text))
        return pieces

    def _text(self, kind: str, code: str, depth: int, style: stream_payloads.Style) -> str | None:
        market = self._context.exchange.markets.get(code)
        if market is None:
            return None
        now, options = self._context.clock.now_ms(), self._context.options
        if kind == "ticker":
            state = market.ticker(now)
            state.ms = _STAMP
            traded = f":{state.last.ms},"
            text = stream_payloads.ticker(market, state, style, "REALTIME", options.deprecated_ticker_fields, None)
            # A market this busy trades between two of its tickers; repeating the last trade would measure what is done
            # about a stream that says nothing new.
            return text.replace(traded, f":{_TRADE_STAMP},")
        if kind == "trade":
            last = market.last_trade()
            made_up = Trade(now, last.price, last.volume, last.is_bid, _ID)
            short_time = options.short_trade_time
            text = stream_payloads.trade(market, made_up, last.price, style, "REALTIME", short_time, _STAMP)
            return text.replace(f":{now},", f":{_TRADE_STAMP},")
        if kind == "orderbook":
            view = market.book.view(0)
            if view is not None:
                return stream_payloads.orderbook(code, replace(view, ms=_STAMP), depth, style, "REALTIME")
        return None


def _cycle(pieces: list[Piece], start: int) -> Iterator[Piece]:
    while True:
        for at in range(len(pieces)):
            yield pieces[(start + at) % len(pieces)]


def _cut(kind: str, text: str) -> Piece:
    payload = text.encode()
    if kind == "orderbook":
        sizes = list(_SIZES.finditer(payload))
        for size in reversed(sizes[:: -(-len(sizes) // SIZES_CHANGED)]):
            payload = payload[: size.start()] + _SIZE + payload[size.end() :]
    whole = header(len(payload)) + payload
    parts, marks, at = [], [], 0
    for mark in _MARKS.finditer(whole):
        parts.append(whole[at : mark.start()])
        marks.append(_PLACES[mark[0]])
        at = mark.end()
    return Piece(kind, (*parts, whole[at:]), tuple(marks))
