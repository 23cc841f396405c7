"""The servers that everything is measured against, each in a process of its own."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.children import Child
from upbit_backbone.simulator import FakeUpbit


@contextmanager
def upbit(**switches: Any) -> Iterator[FakeUpbit]:
    """A simulator that stands still unless told otherwise, and counts neither connections nor messages."""
    unlimited = {"connect_limit": 1000, "message_limit_second": 1000, "message_limit_minute": 100_000}
    settings = {"trades_per_second": 0.0, **unlimited, **switches}
    with FakeUpbit(**settings) as fake:
        _warm(fake)
        yield fake


def _warm(fake: FakeUpbit) -> None:
    """The simulator makes up a market's past when it is first asked; that must not count for anybody."""
    scheme, _, address = fake.rest_url.partition("://")
    host, _, port = address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    if scheme == "https":
        trust = ssl.create_default_context(cafile=fake.ca_file)
        connection = http.client.HTTPSConnection(host, int(port), timeout=30, context=trust)
    for path in ("/v1/market/all?is_details=true", "/v1/ticker/all?quote_currencies=KRW,BTC,USDT"):
        connection.request("GET", path)
        connection.getresponse().read()
    connection.close()
    fake.inject("clear_wire_log")


def some_markets(fake: FakeUpbit, count: int = 20) -> tuple[str, ...]:
    """The first won markets of the simulator."""
    return tuple(code for code in fake.markets() if code.startswith("KRW-"))[:count]


@dataclass(frozen=True, slots=True)
class Stream:
    """An evenly paced stream; REST is answered by the simulator behind it."""

    fake: FakeUpbit
    pacer: Child
    rest_url: str
    websocket_url: str

    def rate(self, per_second: float) -> None:
        self.pacer.ask(f"rate {per_second}")

    def counters(self) -> dict[str, Any]:
        return self.pacer.ask("counters")


@contextmanager
def paced(**switches: Any) -> Iterator[Stream]:
    """A pacer in front of a simulator."""
    with upbit(**switches) as fake, Child("benchmarks.pacer", "--upstream", fake.websocket_url) as pacer:
        yield Stream(fake, pacer, fake.rest_url, pacer.hello["websocket_url"])
