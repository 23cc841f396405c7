"""Plain clients for the simulator's own tests: none of our library, so that the judge is judged independently."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import websocket

from upbit_backbone.simulator import FakeUpbit

WAIT_SECONDS = 30.0
PAIRS = ["KRW-BTC", "KRW-ETH", "KRW-XRP", "BTC-ETH", "USDT-BTC"]


@dataclass
class Answer:
    """A REST answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_float=Decimal)


class Stream:
    """One WebSocket, read as bytes."""

    def __init__(self, url: str, **options: Any) -> None:
        options.setdefault("suppress_origin", True)
        self.socket = websocket.create_connection(url, timeout=WAIT_SECONDS, **options)

    def ask(self, *objects: dict[str, Any]) -> None:
        self.socket.send(json.dumps([{"ticket": "test"}, *objects]))

    def raw(self) -> bytes:
        frame = self.socket.recv_frame()
        return bytes(frame.data)

    def read(self) -> Any:
        """The next data message."""
        return json.loads(self.socket.recv(), parse_float=Decimal)

    def read_until(self, wanted: Callable[[Any], bool]) -> Any:
        while True:
            message = self.read()
            if wanted(message):
                return message

    def close_code(self) -> int | None:
        """Reads to the end: the code of the close frame, or None where there was none."""
        while True:
            try:
                opcode, data = self.socket.recv_data(control_frame=True)
            except (websocket.WebSocketException, OSError):
                return None
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(data[:2], "big") if len(data) >= 2 else None

    def close(self) -> None:
        self.socket.shutdown()


@pytest.fixture(scope="module")
def still() -> Iterator[FakeUpbit]:
    """A simulator in which nothing moves by itself and no limit gets in the way."""
    with FakeUpbit(
        trades_per_second=0, markets=PAIRS, start_time="2026-11-20T05:14:00Z", rest_limit=100_000, connect_limit=1_000
    ) as upbit:
        yield upbit


@pytest.fixture
def upbit(still: FakeUpbit) -> Iterator[FakeUpbit]:
    """The module's simulator, free of faults and connections."""
    yield still
    still.clear_faults()
    still.drop_connections("rst", "websocket")
    still.drop_connections("rst", "rest")


@pytest.fixture
def get() -> Callable[..., Answer]:
    """`get(upbit, path, **query)`: one request on a connection of its own."""

    def ask(upbit: FakeUpbit, path: str, headers: dict[str, str] | None = None, **query: Any) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(upbit.rest_url).netloc, timeout=WAIT_SECONDS)
        try:
            connection.request("GET", path + ("?" + urlencode(query) if query else ""), headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    return ask


@pytest.fixture
def connect() -> Iterator[Callable[..., Stream]]:
    """`connect(upbit)`: a WebSocket that is closed when the test ends."""
    with ExitStack() as stack:

        def open_one(upbit: FakeUpbit, **options: Any) -> Stream:
            stream = Stream(upbit.websocket_url, **options)
            stack.callback(stream.close)
            return stream

        yield open_one
