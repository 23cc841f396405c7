"""Proxies: HTTP and SOCKS5, named or found in the environment; in front of a real server, for REST and the stream."""

from __future__ import annotations

import contextlib
import selectors
import socket
import socketserver
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.waiting import PATIENCE_SECONDS
from upbit_backbone import (
    AuthenticationError,
    InvalidRequestError,
    MarketDataBackbone,
    NetworkError,
    ProtocolError,
    RequestTimeoutError,
    UpbitBackboneError,
)
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.exchange import endpoints
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.wire.dialing import Proxy, proxy_for
from upbit_backbone.wire.rest_transport import RestTransport

CALL = endpoints.tickers(["KRW-BTC"])
UPBIT = "https://api.upbit.com"


@pytest.fixture(scope="module")
def upbit() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=17, markets=["KRW-BTC"]) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def no_proxies_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Door(socketserver.ThreadingTCPServer):
    """A proxy. `open_door` reads what it is asked and gives the host and port, or None for no way through."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, open_door: Callable[[socket.socket], tuple[str, int] | None]) -> None:
        self.open_door = open_door
        self.asked: list[tuple[str, int]] = []
        super().__init__(("127.0.0.1", 0), _Visit)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Visit(socketserver.BaseRequestHandler):
    server: Door

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            target = self.server.open_door(self.request)
            if target is not None:
                self.server.asked.append(target)
                # The names of these tests are not in any DNS: as an office's proxy does, this one knows the way.
                with socket.create_connection(("127.0.0.1", target[1])) as there:
                    pump(self.request, there)


def pump(one: socket.socket, other: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                data = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                if not data:
                    return
                key.data.sendall(data)


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise ConnectionError("gone")
        data += piece
    return data


def connect_door(sock: socket.socket) -> tuple[str, int]:
    """An HTTP proxy."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += exactly(sock, 1)
    host, _, port = head.split()[1].decode().rpartition(":")
    sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    return host, int(port)


def socks_door(password: bytes | None = None, reply: int = 0) -> Callable[[socket.socket], tuple[str, int] | None]:
    """A SOCKS5 proxy after RFC 1928 and 1929, which answers `reply`."""

    def serve(sock: socket.socket) -> tuple[str, int] | None:
        methods = exactly(sock, exactly(sock, 2)[1])
        wanted = 0 if password is None else 2
        if wanted not in methods:
            sock.sendall(b"\5\xff")
            return None
        sock.sendall(bytes((5, wanted)))
        if password is not None:
            user = exactly(sock, exactly(sock, 2)[1])
            given = exactly(sock, exactly(sock, 1)[0])
            is_right = (user, given) == (b"me", password)
            sock.sendall(b"\1\0" if is_right else b"\1\1")
            if not is_right:
                return None
        kind = exactly(sock, 4)[3]
        if kind == 3:
            host = exactly(sock, exactly(sock, 1)[0]).decode()
        else:
            host = socket.inet_ntop(
                {1: socket.AF_INET, 4: socket.AF_INET6}[kind], exactly(sock, 4 if kind == 1 else 16)
            )
        port = int.from_bytes(exactly(sock, 2), "big")
        # Where it went out from, as a name: of any length, and to be read to its end.
        sock.sendall(bytes((5, reply, 0)) + (b"\3\4here\0\1" if reply == 0 else b"\1\0\0\0\0\0\0"))
        return None if reply else (host, port)

    return serve


@pytest.fixture
def door() -> Iterator[Callable[..., Door]]:
    """`door(open_door)`: such a proxy, running."""
    with contextlib.ExitStack() as stack:

        def make(open_door: Callable[[socket.socket], Any]) -> Door:
            server = stack.enter_context(Door(open_door))
            thread = spawn(server.serve_forever, "test-proxy")
            stack.callback(lambda: join_all([thread], Deadline.after(PATIENCE_SECONDS)))
            stack.callback(server.shutdown)
            return server

        yield make


def price_and_stream(upbit: FakeUpbit, **options: Any) -> None:
    urls = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url}
    with MarketDataBackbone(**urls, timeout_seconds=PATIENCE_SECONDS, **options) as market:
        assert market.get_ticker("KRW-BTC").current_price > 0
        with market.subscribe("KRW-BTC", "ticker") as tickers:
            assert tickers.get(timeout=PATIENCE_SECONDS).symbol == "KRW-BTC"


def ports(upbit: FakeUpbit) -> set[int]:
    return {int(url.rpartition(":")[2].partition("/")[0]) for url in (upbit.rest_url, upbit.websocket_url)}


@pytest.mark.parametrize(
    ("open_door", "url"),
    [
        (connect_door, "http://127.0.0.1:{}"),
        (socks_door(), "socks5://127.0.0.1:{}"),
        (socks_door(), "socks5h://somebody:ignored@127.0.0.1:{}"),
        (socks_door(b"p@ss:w\xc3\xb6rd"), "socks5://me:p%40ss%3Aw%C3%B6rd@127.0.0.1:{}"),
    ],
    ids=["http", "socks5", "socks5h", "socks5 with a password"],
)
def test_rest_and_stream_go_through_the_proxy_that_is_set(
    upbit: FakeUpbit, door: Callable[..., Door], open_door: Any, url: str
) -> None:
    proxy = door(open_door)
    price_and_stream(upbit, proxy=url.format(proxy.port))
    assert {port for _, port in proxy.asked} == ports(upbit)
    assert {host for host, _ in proxy.asked} == {"127.0.0.1"}


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_the_proxy_is_asked_by_name_and_the_name_is_looked_up_by_nobody_here(
    upbit: FakeUpbit, door: Callable[..., Door], scheme: str
) -> None:
    proxy = door(connect_door if scheme == "http" else socks_door())
    (port,) = {int(upbit.rest_url.rpartition(":")[2])}
    transport = RestTransport(f"http://nobody.invalid:{port}", proxy=f"{scheme}://127.0.0.1:{proxy.port}")
    assert transport.get(CALL, Deadline.after(PATIENCE_SECONDS)).status == 200
    assert proxy.asked == [("nobody.invalid", port)]
    transport.close()


def test_the_environment_is_followed_when_asked_and_not_before(
    upbit: FakeUpbit, door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = door(connect_door)
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
    price_and_stream(upbit)
    assert proxy.asked == []
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    price_and_stream(upbit, proxy="env")
    assert proxy.asked == []
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("UPBIT_BACKBONE_PROXY", "env")
    price_and_stream(upbit)
    assert {port for _, port in proxy.asked} == ports(upbit)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, UPBIT, None),
        ({"HTTPS_PROXY": "http://office:3128"}, UPBIT, Proxy("office", 3128)),
        ({"https_proxy": "office:3128"}, "wss://api.upbit.com/websocket/v1", Proxy("office", 3128)),
        ({"HTTPS_PROXY": "socks5h://office:1080"}, UPBIT, Proxy("office", 1080, "socks5h")),
        ({"ALL_PROXY": "socks5://office:1080"}, UPBIT, Proxy("office", 1080, "socks5")),
        ({"HTTPS_PROXY": "http://a:1", "ALL_PROXY": "http://b:2"}, UPBIT, Proxy("a", 1)),
        ({"HTTP_PROXY": "http://office:3128"}, UPBIT, None),
        ({"HTTP_PROXY": "http://office:3128"}, "ws://127.0.0.1:8080/websocket/v1", Proxy("office", 3128)),
        ({"HTTPS_PROXY": "http://office:3128", "NO_PROXY": ".upbit.com,localhost"}, UPBIT, None),
        ({"HTTPS_PROXY": "http://office:3128", "no_proxy": "*"}, UPBIT, None),
        ({"HTTPS_PROXY": "http://office:3128", "NO_PROXY": "example.com"}, UPBIT, Proxy("office", 3128)),
        (
            {"HTTPS_PROXY": "http://me:p%40ss@office:3128"},
            UPBIT,
            Proxy("office", 3128, "http", "me", "p@ss"),
        ),
    ],
)
def test_the_environment_is_read_as_requests_reads_it(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, proxy: Proxy | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url, "env") == proxy
    assert proxy_for(url, None) is None


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("socks4://127.0.0.1:1080", "no way through socks4 proxies"),
        ("https://office:3128", "no way through https proxies"),
        ("http://me:c4nary@office", "expected http://"),
        ("office", "expected http://"),
        (f"socks5://me:{'c4nary' * 50}@office:1080", "255 bytes at most"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_by_name_at_once(
    monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"proxy: .*{words}") as caught:
        MarketDataBackbone(proxy=proxy)
    assert "c4nary" not in str(caught.value)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    if "://" in proxy:
        with pytest.raises(InvalidRequestError, match=f"HTTPS_PROXY, for proxy='env': .*{words}") as caught:
            MarketDataBackbone(proxy="env")
        assert "c4nary" not in str(caught.value)


@pytest.mark.parametrize(
    ("open_door", "error", "words"),
    [
        (socks_door(b"secret"), AuthenticationError, "wants other credentials"),
        (socks_door(reply=5), NetworkError, "answered: connection refused"),
        (socks_door(reply=99), NetworkError, "answered: failure 99"),
        (lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ProtocolError, "does not speak SOCKS5"),
        (lambda sock: sock.sendall(b"\5\7"), ProtocolError, "was not offered"),
        (lambda sock: exactly(sock, 3) and None, NetworkError, "closed before an answer was complete"),
    ],
    ids=["password", "refused", "unknown", "no socks", "method", "hung up"],
)
@pytest.mark.parametrize("credentials", ["", "me:c4nary@"])
def test_what_a_socks_proxy_says_is_told(
    upbit: FakeUpbit,
    door: Callable[..., Door],
    open_door: Any,
    error: type[UpbitBackboneError],
    words: str,
    credentials: str,
) -> None:
    proxy = door(open_door)
    transport = RestTransport(upbit.rest_url, proxy=f"socks5://{credentials}127.0.0.1:{proxy.port}")
    with pytest.raises(error, match=f"SOCKS proxy .*{words}|{words}") as caught:
        transport.get(CALL, Deadline.after(PATIENCE_SECONDS))
    assert "c4nary" not in f"{caught.value!r} {transport!r} {Proxy.parse(f'socks5://{credentials}h:1')!r}"
    transport.close()


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_cannot_be_reached_is_told_from_the_host_behind_it(upbit: FakeUpbit, scheme: str) -> None:
    transport = RestTransport(upbit.rest_url, proxy=f"{scheme}://127.0.0.1:9")
    with pytest.raises(NetworkError, match=r", through the proxy: cannot connect to 127\.0\.0\.1:9 "):
        transport.get(CALL, Deadline.after(PATIENCE_SECONDS))
    transport.close()


def test_a_socks_proxy_that_says_nothing_costs_no_more_than_the_deadline(
    upbit: FakeUpbit, door: Callable[..., Door]
) -> None:
    proxy = door(lambda sock: sock.recv(65_536) and sock.recv(1) and None)
    transport = RestTransport(upbit.rest_url, proxy=f"socks5://127.0.0.1:{proxy.port}")
    with pytest.raises(RequestTimeoutError):
        transport.get(CALL, Deadline.after(0.2))
    transport.close()
