"""Relays and their clients in bad company: TLS, wrong clocks, a leader that is killed, a client that stands still."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.chaos.proxy import ChaosProxy
from tests.relay.conftest import MARKETS
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from upbit_backbone import DataSource, DataType, HealthStatus, MarketDataBackbone, TradeData
from upbit_backbone._concurrency import SystemClock
from upbit_backbone.errors import NetworkError
from upbit_backbone.relay import Relay
from upbit_backbone.simulator import FakeUpbit

TICKER, TRADE = DataType.TICKER, DataType.TRADE
# The command line, in a process whose clock is an hour slow.
SLOW_CLOCK = """
import runpy, sys
from datetime import timedelta
from upbit_backbone._concurrency import SystemClock
right, seconds = SystemClock.wall, SystemClock.wall_seconds
SystemClock.wall = staticmethod(lambda: right() - timedelta(hours=1))
SystemClock.wall_seconds = staticmethod(lambda: seconds() - 3600)
sys.argv[0] = "upbit-backbone"
runpy.run_module("upbit_backbone.cli", run_name="__main__")
"""


@pytest.fixture
def things() -> Iterator[ExitStack]:
    with ExitStack() as things:
        yield things


def client_of(things: ExitStack, upbit: FakeUpbit, url: str) -> MarketDataBackbone:
    addresses = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url}
    return things.enter_context(MarketDataBackbone(upstream=url, **addresses))


def relay_here(things: ExitStack, upbit: FakeUpbit, url: str) -> Relay:
    market = things.enter_context(MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url))
    return things.enter_context(Relay(market, url, MARKETS, [TICKER, TRADE]))


def relay_elsewhere(things: ExitStack, upbit: FakeUpbit, url: str, *program: str) -> subprocess.Popen[str]:
    """One in a process of its own, once it leads."""
    command = [sys.executable, *(program or ("-m", "upbit_backbone.cli")), "relay", "--symbols", ",".join(MARKETS)]
    surroundings = os.environ | upbit.environment() | {"UPBIT_BACKBONE_REDIS": url}
    process = subprocess.Popen(
        [*command, "--types", "ticker,trade"], stdout=subprocess.PIPE, text=True, env=surroundings
    )
    things.enter_context(process)
    things.callback(process.kill)
    assert process.stdout is not None
    assert "leads" in process.stdout.readline()
    return process


class Trades:
    """What a subscription to one market's trades gave."""

    def __init__(self, things: ExitStack, market: MarketDataBackbone, upbit: FakeUpbit) -> None:
        self._upbit = upbit
        self.got: list[TradeData] = []
        things.callback(market.unsubscribe, market.subscribe_realtime("KRW-BTC", TRADE, self.got.append))
        wait_until(lambda: self.got and self.got[-1].source is DataSource.RELAY, "a trade from the relay")

    def more(self, count: int = 20) -> None:
        enough = len(self.got) + count
        wait_until(lambda: len(self.got) >= enough, f"{count} more trades")

    def burst(self, count: int) -> None:
        """So many trades at once."""
        enough = len(self.got) + count
        self._upbit.burst("KRW-BTC", count)
        wait_until(lambda: len(self.got) >= enough, f"{count} trades at once")

    def check(self) -> None:
        """Nobody trades any more: all that were made since the first have come, and once."""
        self._upbit.pause()
        since = round(self.got[0].timestamp.timestamp() * 1000) + 1
        made = {each["sequential_id"] for each in self._upbit.trades("KRW-BTC", since)}
        assert made
        wait_until(lambda: made <= {trade.sequential_id for trade in list(self.got)}, "every trade")
        numbers = [trade.sequential_id for trade in list(self.got)]
        assert len(set(numbers)) == len(numbers)


# --- TLS ---


@pytest.fixture
def secure() -> Iterator[tuple[RedisServer, str]]:
    """A server that speaks TLS and asks for a password, and its URL without who vouches for it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        files = [word for each in ("cert", "key") for word in (f"--tls-{each}-file", str(folder / "server.pem"))]
        options = (*files, "--tls-ca-cert-file", str(folder / "ca.pem"), "--tls-auth-clients", "no")
        server, port = _at_a_free_port(folder, options)
        server.client.execute_command("ACL", "SETUSER", "desk", "on", ">geheim", "~{upbit}:*", "&{upbit}:*", "+@all")
        yield server, f"rediss://desk:geheim@127.0.0.1:{port}"
        server.close()


def _at_a_free_port(folder: Path, options: tuple[str, ...]) -> tuple[RedisServer, int]:
    for attempt in range(10):
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        try:
            return RedisServer(folder, options=(*options, "--tls-port", str(port))), port
        except AssertionError as ended:
            if "Bad directive" in str(ended):
                pytest.skip("this Redis server was built without TLS")
            if attempt == 9:  # the port may be somebody else's by now, but not ten times
                raise
    raise AssertionError("unreachable")


def test_all_goes_over_tls_to_whom_an_authority_vouches_for(
    things: ExitStack, upbit: FakeUpbit, secure: tuple[RedisServer, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server, url = secure
    trusted = f"{url}?ssl_ca_certs={server.socket.with_name('ca.pem')}"
    relay_here(things, upbit, trusted)
    market = client_of(things, upbit, trusted)
    trades = Trades(things, market, upbit)
    trades.burst(3_000)  # more than one record of TLS holds, and more than one read takes
    trades.check()
    assert "geheim" not in repr(market) + str(market.health()) + caplog.text


def test_a_server_that_nobody_vouches_for_is_told_nothing(
    things: ExitStack, upbit: FakeUpbit, secure: tuple[RedisServer, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server, url = secure
    with pytest.raises(NetworkError, match="certificate") as refused:
        relay_here(things, upbit, url)
    market = client_of(things, upbit, url)
    with market.subscribe("KRW-BTC", TICKER) as subscription:
        assert subscription.get(timeout=30).source is DataSource.WEBSOCKET
        assert "certificate" in " ".join(market.health().reasons)
    assert "geheim" not in str(refused.value) + str(market.health()) + caplog.text
    assert server.client.keys("*") == []


# --- clocks, kills, and clients that stand ---


@pytest.mark.slow
def test_clocks_that_are_an_hour_apart_from_upbits_change_nothing(
    things: ExitStack, upbit: FakeUpbit, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay_elsewhere(things, upbit, server.url, "-c", SLOW_CLOCK)
    right, seconds = SystemClock.wall, SystemClock.wall_seconds
    monkeypatch.setattr(SystemClock, "wall", staticmethod(lambda: right() + timedelta(hours=1)))
    monkeypatch.setattr(SystemClock, "wall_seconds", staticmethod(lambda: seconds() + 3600))
    market = client_of(things, upbit, server.url)
    trades = Trades(things, market, upbit)
    with market.subscribe("KRW-ETH", [TICKER, DataType.ORDERBOOK]) as subscription:
        wait_until(lambda: not market.stale_symbols(subscription), "all is current")
        wait_until(lambda: ("orderbook", "KRW-ETH") in upbit.subscribed(), "what is asked for is streamed")
        wait_until(lambda: market.get_ticker("KRW-ETH").source is DataSource.RELAY, "a live price")
    trades.more()
    trades.check()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_client_of_a_leader_that_is_killed_is_fed_on_by_the_next(
    things: ExitStack, upbit: FakeUpbit, server: RedisServer
) -> None:
    first = relay_elsewhere(things, upbit, server.url)
    second = relay_here(things, upbit, server.url)
    wait_until(lambda: second.stats.waiting >= 10, "the second has what it may have to publish")
    market = client_of(things, upbit, server.url)
    trades = Trades(things, market, upbit)
    first.kill()
    wait_until(lambda: second.is_leading, "the second leads")
    wait_until(lambda: trades.got[-1].source is DataSource.RELAY and not trades.more(40), "trades from it")
    trades.check()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a stopped process")
def test_a_leader_that_stood_still_writes_nothing_when_it_wakes(
    things: ExitStack, upbit: FakeUpbit, server: RedisServer
) -> None:
    first = relay_elsewhere(things, upbit, server.url)
    second = relay_here(things, upbit, server.url)
    market = client_of(things, upbit, server.url)
    trades = Trades(things, market, upbit)
    first.send_signal(signal.SIGSTOP)
    wait_until(lambda: second.is_leading, "the second leads")
    trades.more()
    first.send_signal(signal.SIGCONT)
    assert first.stdout is not None
    assert "stands by" in first.stdout.readline()
    assert second.is_leading
    trades.more()
    trades.check()


@pytest.mark.slow
def test_a_client_that_does_not_read_holds_up_nobody_and_loses_nothing(
    things: ExitStack, upbit: FakeUpbit, server: RedisServer
) -> None:
    server.client.config_set("client-output-buffer-limit", "pubsub 256kb 256kb 1")
    relay = relay_here(things, upbit, server.url)
    proxy = things.enter_context(ChaosProxy(str(server.socket)))
    slow = client_of(things, upbit, f"redis://{proxy.address[0]}:{proxy.address[1]}")
    others = Trades(things, client_of(things, upbit, server.url), upbit)
    trades = Trades(things, slow, upbit)
    proxy.freeze()
    others.burst(5_000)
    wait_until(lambda: len(trades.got) > 5_000, "what came meanwhile")
    assert relay.stats.lost == relay.stats.dropped == 0
    others.check()
    trades.check()
    wait_until(lambda: slow.health().status is HealthStatus.HEALTHY, "health says so")


@pytest.mark.slow
def test_a_server_that_is_full_costs_its_clients_nothing(
    things: ExitStack, upbit: FakeUpbit, server: RedisServer
) -> None:
    relay = relay_here(things, upbit, server.url)
    trades: Any = Trades(things, client_of(things, upbit, server.url), upbit)
    server.client.config_set("maxmemory", "1")
    wait_until(lambda: "maxmemory" in (relay.stats.error or ""), "the relay knows")
    trades.more()  # from Upbit itself, once the lease is over
    server.client.config_set("maxmemory", "0")
    wait_until(lambda: trades.got[-1].source is DataSource.RELAY, "trades from the relay")
    trades.more()
    trades.check()
    assert relay.stats.lost == 0
