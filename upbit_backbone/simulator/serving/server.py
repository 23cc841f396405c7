"""Puts the parts together: two doors for clients, one for control, and the loop that moves the market."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from upbit_backbone.simulator.serving import handshake, rest, rest_faults
from upbit_backbone.simulator.serving.connection import Connection
from upbit_backbone.simulator.serving.context import Context
from upbit_backbone.simulator.serving.http_wire import Request
from upbit_backbone.simulator.serving.hub import Hub
from upbit_backbone.simulator.serving.load import Load
from upbit_backbone.simulator.serving.options import Options
from upbit_backbone.simulator.serving.tls import server_context

STEP_SECONDS = 0.01
UNSEEN_STEP_SECONDS = 0.05  # while no client is connected: a quarter of the CPU, and the first to come finds a market
DOORS = ("rest", "websocket")
BACKLOG = 512

# Serves one connection of the control port.
ServeControl = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Silent(asyncio.Protocol):
    """Accepts and never says a word."""

    def __init__(self, guests: list[asyncio.BaseTransport]) -> None:
        self._guests = guests

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._guests.append(transport)


class Server:
    """A running simulator. Both doors serve REST and WebSocket; they are two so that one can fail alone."""

    def __init__(self, options: Options, control: Callable[[Server], ServeControl]) -> None:
        """`control` makes whoever serves the control port: it knows us, and we need not know it."""
        self.options = options
        self.context = Context(options)
        self.hub = Hub(self.context)
        self.load = Load(self.context, self.hub)
        self.connections: set[Connection] = set()
        self._serve_control = control(self)
        self.ports: dict[str, int] = {}
        self.ca_file: Path | None = None
        self._tls: ssl.SSLContext | None = None
        self._listeners: dict[str, asyncio.Server] = {}
        self._fillers: list[socket.socket] = []
        self._guests: list[asyncio.BaseTransport] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._shut_count = dict.fromkeys(DOORS, 0)
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        """Opens all doors; `ports` is known afterwards."""
        if self.options.tls:
            self._folder = tempfile.TemporaryDirectory(prefix="upbit-simulator-")
            self._tls, self.ca_file = server_context(self.options.certificate, Path(self._folder.name))
        for door, port in zip(DOORS, (self.options.rest_port, self.options.websocket_port), strict=True):
            self.ports[door] = port
            await self.open_door(door)
        self._listeners["control"] = await asyncio.start_server(
            self._serve_control, self.options.host, self.options.control_port, backlog=BACKLOG
        )
        self.ports["control"] = self._listeners["control"].sockets[0].getsockname()[1]
        self.context.start(self._move())

    def urls(self) -> dict[str, Any]:
        s, host = "s" if self.options.tls else "", self.options.host
        return {
            "rest_url": f"http{s}://{host}:{self.ports['rest']}",
            "websocket_url": f"ws{s}://{host}:{self.ports['websocket']}/websocket/v1",
            "control_url": f"http://{host}:{self.ports['control']}",
            "ca_file": str(self.ca_file) if self.ca_file is not None else None,
        }

    def stop(self) -> None:
        self._stopped.set()

    async def run_until_stopped(self) -> None:
        await self._stopped.wait()
        for listener in self._listeners.values():
            listener.close()
        for connection in list(self.connections):
            connection.reset()
        for filler in self._fillers:
            filler.close()
        self.clean_up()

    def clean_up(self) -> None:
        """Take the certificates out of the temporary folder; from any thread."""
        if self._folder is not None:
            self._folder.cleanup()

    # -- doors ---------------------------------------------------------------------------------------------------

    async def open_door(self, door: str) -> None:
        """Listens, on the port the door had before if it had one."""
        loop = asyncio.get_running_loop()
        self._listeners[door] = await loop.create_server(
            lambda: Connection(self.context, door, self._serve, self.connections),
            self.options.host, self.ports[door], ssl=self._tls, backlog=BACKLOG,
            ssl_handshake_timeout=10.0 if self._tls else None,
        )  # fmt: skip
        self.ports[door] = self._listeners[door].sockets[0].getsockname()[1]

    def _serve(self, connection: Connection, request: Request) -> None:
        if request.headers.get("upgrade", "").lower() == "websocket":
            handshake.answer(connection, request, self.hub)
        else:
            _serve_rest(connection, request)

    def shut_door(self, door: str) -> None:
        """New connections are refused; those that are open stay."""
        # Counted, because two outages may overlap: the end of the first must not open what the second has shut.
        self._shut_count[door] += 1
        self._listeners[door].close()

    async def shut_for(self, doors: list[str], seconds: float, instead: str = "refuse") -> None:
        """Refuses connections for a while, or accepts them in `silence`, or lets SYNs rot in a `blackhole`."""
        for door in doors:
            self.shut_door(door)
        await asyncio.sleep(0)
        stands = [await self._stand_in(door, instead) for door in doors] if instead != "refuse" else []
        self.context.start(self._reopen({door: self._shut_count[door] for door in doors}, seconds, stands))

    async def _reopen(self, shut: dict[str, int], seconds: float, stands: list[asyncio.Server | None]) -> None:
        """`shut` says which closing this opening belongs to; a door that was shut again meanwhile stays shut."""
        await asyncio.sleep(seconds)
        for stand in stands:
            if stand is not None:
                stand.close()
        while self._guests:
            self._guests.pop().close()
        while self._fillers:
            self._fillers.pop().close()
        doors = [door for door, count in shut.items() if self._shut_count[door] == count]
        for door in doors:
            await self._open_when_free(door)
        self.context.note("fault", what="listening again", doors=doors)

    async def _open_when_free(self, door: str) -> None:
        # The port is the same as before, and the system may hold it for a moment after the last connection ended.
        for _ in range(200):
            with contextlib.suppress(OSError):
                await self.open_door(door)
                return
            await asyncio.sleep(0.01)
        await self.open_door(door)

    async def _stand_in(self, door: str, instead: str) -> asyncio.Server | None:
        if instead == "silence":
            loop = asyncio.get_running_loop()
            return await loop.create_server(lambda: _Silent(self._guests), self.options.host, self.ports[door])
        # A listener whose queue is full lets the system drop SYNs: the only way to a black hole without a firewall.
        full = socket.create_server((self.options.host, self.ports[door]), backlog=0)
        self._fillers.append(full)
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((self.options.host, self.ports[door]))
            self._fillers.append(filler)
        return None

    # -- the market ----------------------------------------------------------------------------------------------

    async def _move(self) -> None:
        """Moves the market every few milliseconds, seldom while nobody sees it; idle time prepares pairs that nobody
        has asked for yet.
        """
        exchange, hub = self.context.exchange, self.hub
        # The first question about a pair makes its past, which takes milliseconds; done in idle time, no test waits for
        # it.
        unprepared = list(exchange.markets.values())[::-1]
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            trades, moved = exchange.advance()
            hub.happened(trades, moved)
            while unprepared and loop.time() - began < STEP_SECONDS / 4:
                unprepared.pop().ticker(self.context.clock.now_ms())
            step = STEP_SECONDS if self.connections or unprepared else UNSEEN_STEP_SECONDS
            await asyncio.sleep(max(0.0, step - (loop.time() - began)))


def _serve_rest(connection: Connection, request: Request) -> None:
    preparation = rest.preparation(connection.context, request)
    if preparation is None:
        _answer(connection, request)
    else:
        connection.context.start(_answer_after(preparation, connection, request))


async def _answer_after(preparation: Coroutine[Any, Any, None], connection: Connection, request: Request) -> None:
    await preparation
    _answer(connection, request)


def _answer(connection: Connection, request: Request) -> None:
    """Answers as Upbit would, or as the fault that is due says."""
    context = connection.context
    answer = rest.answer(context, request, connection.ip)
    rule = context.faults.next_rest(request.path)
    entry = context.note(
        "request", conn=connection.id, port=connection.port, ip=connection.ip, method=request.method, path=request.path,
        query=request.query, raw_query=request.raw_query, headers=request.headers,
        origin="origin" in request.headers, group=answer.group, status=answer.response.status,
        bytes=len(answer.response.body), fault=None if rule is None else rule.mode,
    )  # fmt: skip
    if context.faults.remaining_req is not None:
        answer.response.headers.pop("Remaining-Req", None)
        answer.response.headers |= (
            {"Remaining-Req": context.faults.remaining_req} if context.faults.remaining_req else {}
        )
    if rule is None and answer.response.status == 200:
        context.remember(request, answer.response.body)
    if rule is not None:
        context.start(rest_faults.misbehave(connection, request, answer.response, rule, entry))
    elif context.options.latency:
        context.start(rest_faults.respond_late(connection, request, answer.response, context.options.latency))
    else:
        connection.respond(request, answer.response)
