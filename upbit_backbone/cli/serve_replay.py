"""`serve-replay`: a store as a server that speaks Upbit's protocol on this machine, for clients in any language."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from ..archive.replay import Change, StoreRecording, StoreTransport
from ..errors import ChannelUnavailableError, InvalidRequestError
from ..exchange.fields import Spelling
from ..models.enums import DataType, StreamType
from ..models.market import OrderbookData
from ..models.request import Topic
from ..recorder.replay import ReplayClock
from ..simulator.serving import handshake, rest
from ..simulator.serving.connection import Connection
from ..simulator.serving.context import Context
from ..simulator.serving.http_wire import Request, Response
from ..simulator.serving.options import Options
from ..simulator.serving.session import Session
from ..sinks.columns import from_micros
from ..unify.writer import encode_frame, type_of
from . import output

LOOK_SECONDS: Final = 0.02  # how often the time that is played is looked at while nothing happens
UNSENT_BYTES: Final = 1024 * 1024  # that wait for a client, before a replay without a pace waits for it
LEVELS: Final = 100_000_000  # the server counts price groupings in units of 1e-8

GROUPS: Final = ("candle", "trade", "ticker", "orderbook")

# What a client subscribed to: its session, and how many levels of a book it wants.
Interest = tuple[Session, int]


class ReplayHub:
    """Who wants what; as the simulator's hub, but what leaves through it comes from a store."""

    def __init__(self, answers: StoreTransport, clock: ReplayClock, on_first: Callable[[], object]) -> None:
        self.sessions: dict[int, Session] = {}
        self._interest: dict[Topic, dict[int, Interest]] = {}
        self._answers = answers
        self._clock = clock
        self._on_first = on_first

    def enter(self, session: Session) -> None:
        self.sessions[session.id] = session

    def leave(self, session: Session) -> None:
        self.sessions.pop(session.id, None)
        self._forget(session)

    def _forget(self, session: Session) -> None:
        for interested in self._interest.values():
            interested.pop(session.id, None)

    def subscribe(self, session: Session) -> None:
        """What a session subscribes to replaces what it had; what is known by now comes at once."""
        self._forget(session)
        for wanted in session.subscriptions:
            for code, depth in zip(wanted.codes, wanted.depths, strict=True):
                topic = Topic(DataType(wanted.type), code, Decimal(wanted.level) / LEVELS)
                known = None if wanted.only_realtime else self._answers.latest(topic, self._clock.wall())
                if known is not None:
                    _send(session, replace(known, stream_type=StreamType.SNAPSHOT), depth)
                if not wanted.only_snapshot:
                    self._interest.setdefault(topic, {})[session.id] = session, depth
        session.flush()
        self._on_first()

    def publish(self, item: Any) -> None:
        """Give an item to whoever wants it."""
        level = item.level if isinstance(item, OrderbookData) else Decimal(0)
        topic = Topic(DataType(type_of(item)), item.symbol, level)
        for session, depth in list(self._interest.get(topic, {}).values()):
            if not session.is_ending:
                _send(session, item, depth)

    def flush(self) -> None:
        for session in self.sessions.values():
            session.flush()

    @property
    def unsent(self) -> int:
        """The most bytes that wait for any client."""
        return max((session.connection.unsent for session in self.sessions.values()), default=0)


def _send(session: Session, item: Any, depth: int) -> None:
    if isinstance(item, OrderbookData):
        item = replace(item, asks=item.asks[:depth], bids=item.bids[:depth])
    spelling = Spelling.SIMPLE if session.format.startswith("SIMPLE") else Spelling.DEFAULT
    session.send_item(encode_frame(item, spelling).decode(), type_of(item))


class ReplayServer:
    """REST and WebSocket on one port, as of the time that is played: from the first subscription on, or at once."""

    def __init__(self, recording: StoreRecording, speed: float | None, since: datetime | None) -> None:
        began = since or recording.began
        if began is None:
            raise InvalidRequestError(f"{output.safe(recording.path)}: nothing was recorded yet")
        self._recording = recording
        self._speed = speed
        self._since = since
        self._began = began
        self.clock = ReplayClock(began)
        self.answers = StoreTransport(recording, self.clock)
        self._begun = asyncio.Event()
        # Of the simulator only what moves bytes: it has no market of its own here.
        self.context = Context(Options(markets=["KRW-BTC"]))
        self.hub = ReplayHub(self.answers, self.clock, self._begun.set)
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Open the port; its number."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self.context, "rest", self._serve, self._connections), host, port
        )
        found: int = self._listener.sockets[0].getsockname()[1]
        return found

    def close(self) -> None:
        """Nobody is served any more."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.reset()

    def _serve(self, connection: Connection, request: Request) -> None:
        if request.headers.get("upgrade", "").lower() == "websocket":
            handshake.answer(connection, request, self.hub)
        else:
            connection.respond(request, self.answer(request, connection.ip))

    def answer(self, request: Request, ip: str) -> Response:
        """What REST says at the time that is played, within the limits that Upbit has now."""
        group = next((name for name in GROUPS if request.path.startswith(f"/v1/{name}")), "market")
        verdict = self.context.limits.rest(ip, group, "origin" in request.headers, self.context.clock.now_ms())
        if verdict.status != 200:
            return rest.refusal(self.context, verdict)
        response = self._as_of_now(request)
        # Programs read what is left of their budget, and some insist on it.
        response.headers |= {"Remaining-Req": verdict.remaining, "Limit-By-Ip": "Yes"}
        return response

    def _as_of_now(self, request: Request) -> Response:
        try:
            return Response(200, self.answers.body(request.path, request.query, self.clock.wall()))
        except ChannelUnavailableError as error:
            return _refusal(404, str(error))
        except (KeyError, ValueError, ArithmeticError, InvalidRequestError) as error:
            return _refusal(400, f"Invalid parameter. Check the given value! ({error})")

    async def play(self, until: datetime | None, is_at_once: bool) -> None:
        """All of it, at its pace; then every client is told goodbye."""
        if not is_at_once:
            await self._begun.wait()
        began = asyncio.get_running_loop().time()
        for micros, found in self._recording.moments(self._since, until):
            moment = from_micros(micros)
            await self._pace(moment, began)
            self.clock.now = moment
            for item in found:
                if not isinstance(item, Change):
                    self.hub.publish(item)
            self.hub.flush()
        for session in list(self.hub.sessions.values()):
            session.close(1000, "the replay is over")

    async def _pace(self, moment: datetime, began: float) -> None:
        loop = asyncio.get_running_loop()
        if self._speed is None:
            # Others go on meanwhile, and a client that is slower than this machine is waited for.
            await asyncio.sleep(0)
            while self.hub.unsent > UNSENT_BYTES:
                await asyncio.sleep(LOOK_SECONDS)
            return
        while (left := (moment - self._began).total_seconds() / self._speed - (loop.time() - began)) > 0:
            # Between two events time goes on for whoever asks.
            self.clock.now = min(moment, self._began + timedelta(seconds=(loop.time() - began) * self._speed))
            await asyncio.sleep(min(left, LOOK_SECONDS))


def _refusal(status: int, message: str) -> Response:
    return Response(status, json.dumps({"error": {"name": status, "message": message}}).encode())


async def serve(
    recording: StoreRecording,
    host: str,
    port: int,
    *,
    speed: float | None,
    since: datetime | None,
    until: datetime | None,
    is_at_once: bool,
    tell: Callable[[str, str], object],
) -> None:
    """Serve until cancelled; `tell` is called with the URLs of REST and the WebSocket once they are open."""
    server = ReplayServer(recording, speed, since)
    found = await server.listen(host, port)
    try:
        tell(f"http://{host}:{found}", f"ws://{host}:{found}{handshake.PATH}")
        await server.play(until, is_at_once)
        await asyncio.Event().wait()  # REST goes on to answer as of the end
    finally:
        server.close()
