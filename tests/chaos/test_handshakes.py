"""Handshakes: whatever answers the door, waiting has an end, limits are obeyed, and no request is sent in a ban."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from tests.chaos.rekeying import RekeyingFront
from tests.chaos.watched import Watched, say, worst_second
from tests.support.waiting import PAUSE, promised, wait_until
from upbit_backbone import DataSource, DataStrategy, MarketDataBackbone
from upbit_backbone.errors import BannedError, TlsError, UpbitBackboneError
from upbit_backbone.models.events import ConnectionEvent, ConnectionState, Event, RateLimitEvent
from upbit_backbone.simulator import FakeUpbit

Watch = Callable[..., Watched]
MakeUpbit = Callable[..., FakeUpbit]
Backbone = Callable[..., MarketDataBackbone]

FALSE_STARTS = ["silence", "drip", "flood", "flood_body", "wrong_accept", "extension", "garbage", "fin", "reset"]
HOPELESS_SECONDS = 45.0  # a minute less what passes until it is told; what may pass by itself is tried in ten


def test_no_false_start_costs_a_trade(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit, connect_timeout_seconds=0.5, reconnect_cap_seconds=0.2)
    for mode in FALSE_STARTS:
        before = seen.reconnects
        upbit.handshake_fault(mode, times=1, interval=0.3)
        began = time.monotonic()
        seen.recovers(lambda: upbit.drop_sessions("fin"), 6.0)
        took = time.monotonic() - began
        say(f"{mode}: {took:.3f} s")
        assert took < promised(3.0), mode
        assert seen.reconnects == before + 1
    assert seen.is_whole()
    assert worst_second(seen.handshakes()) <= 5
    assert all("origin" not in entry["headers"] and "sec-websocket-extensions" not in entry["headers"]
               for entry in upbit.wire_log("handshake", seen.since))  # fmt: skip


@pytest.mark.parametrize("status", [503, 504])
def test_maintenance_is_waited_out_while_rest_answers(watch: Watch, upbit: FakeUpbit, status: int) -> None:
    seen = watch(upbit, reconnect_cap_seconds=0.3)
    page = "<html><body>" + "\x1b[31mmaintenance\r\n" * 500 + "</body></html>"
    upbit.handshake_fault("status", status=status, times=2, body=page)
    upbit.drop_sessions("fin")
    assert seen.market.get_ticker("KRW-BTC").source is DataSource.REST
    wait_until(lambda: seen.reconnects >= 1, seen.reasons)
    told = [event.reason for event in seen.of(ConnectionEvent) if str(status) in event.reason]
    assert len(told) >= 2
    assert all(len(reason) < 400 and reason.isprintable() for reason in told)
    assert seen.is_whole()


@pytest.mark.parametrize(("headers", "pause"), [({"Retry-After": "2"}, 1.95), ({}, 0.95)])
def test_after_a_429_no_handshake_comes_before_its_time(
    watch: Watch, upbit: FakeUpbit, headers: dict[str, str], pause: float
) -> None:
    seen = watch(upbit)
    PAUSE.wait(0.3)
    upbit.handshake_fault("status", status=429, times=1, headers=headers)
    upbit.drop_sessions("rst")
    wait_until(lambda: seen.reconnects >= 1, seen.reasons)
    _, refused, accepted = seen.handshakes()[-3:] if len(seen.handshakes()) > 2 else [0.0, *seen.handshakes()[-2:]]
    assert accepted - refused >= pause
    events = [each for each in seen.of(RateLimitEvent) if each.group == "websocket-connect"]
    assert [event.banned for event in events] == [False], "told once"
    assert seen.is_whole()


@pytest.mark.parametrize(
    ("by", "comebacks"), [("handshake", range(1)), ("rest", range(2, 3)), ("rest, then handshake", range(2))]
)
def test_in_a_ban_nobody_of_this_process_sends_a_request(
    own_upbit: MakeUpbit, backbone: Backbone, by: str, comebacks: range
) -> None:
    """Lines that break come back all the same, one a second, until a handshake is refused as well."""
    server = own_upbit(seed=31, trades_per_second=20.0)
    seen = [Watched(backbone(server, timeout_seconds=promised(2.0)), server, gap_order="strict") for _ in range(2)]
    if by != "rest":
        server.handshake_fault("status", status=418, times=1, headers={"Retry-After": "3"})
    if by != "handshake":
        server.rest_fault("/v1/*", status=418, times=1, headers={"Retry-After": "3"})
        with pytest.raises(BannedError):
            seen[0].market.get_orderbook("KRW-BTC", strategy=DataStrategy.REST_ONLY)
    server.drop_sessions("fin")
    ban = wait_until(lambda: [entry for entry in server.wire_log() if entry.get("status") == 418], "the ban")[0]
    wait_until(lambda: any(event.banned for event in seen[0].of(RateLimitEvent)), "the ban to be told")
    late = backbone(server, timeout_seconds=0.3)
    for market in (seen[1].market, late):
        began = time.monotonic()
        with pytest.raises(UpbitBackboneError):
            market.get_orderbook("KRW-ETH", strategy=DataStrategy.REST_ONLY)
        assert time.monotonic() - began < promised(0.8)
    wait_until(lambda: all(each.reconnects >= 1 for each in seen), lambda: seen[1].reasons())
    for each in seen:
        assert each.is_whole()
    sent = [entry for entry in server.wire_log(since=ban["n"]) if entry["kind"] in ("request", "handshake")]
    # What was already on its way when the 418 left the server cannot be called back.
    under_way = {"request": 0.1, "handshake": 0.1 if by == "handshake" else 0.0}
    early = [entry for entry in sent if under_way[entry["kind"]] < entry["t"] - ban["t"] < 2.95]
    handshakes = [entry["t"] for entry in early if entry["kind"] == "handshake"]
    assert len(early) == len(handshakes)
    assert len(handshakes) in comebacks
    # The second begins when the first is over, so one a second arrives; the log's times are whole milliseconds.
    assert all(later - sooner >= 0.998 for sooner, later in itertools.pairwise(handshakes))


@pytest.mark.parametrize("status", [403, 404, 302])
def test_what_waiting_cannot_repair_is_tried_once_a_minute(
    own_upbit: MakeUpbit, backbone: Backbone, status: int
) -> None:
    server = own_upbit(seed=32)
    server.handshake_fault("redirect" if status == 302 else "status", status=status, times=None, seconds=60.0)
    events: list[Event] = []
    market = backbone(server)
    market.on_event(events.append)
    held = market.subscribe("KRW-BTC")  # noqa: F841
    waits = wait_until(
        lambda: [each for each in events if isinstance(each, ConnectionEvent) and each.retry_in], "the refusal"
    )
    assert (waits[0].retry_in or 0.0) >= HOPELESS_SECONDS, waits[0]
    assert str(status) in waits[0].reason
    assert market.get_ticker("KRW-BTC").source is DataSource.REST
    PAUSE.wait(0.5)
    assert len(server.wire_log("handshake")) == 1


@pytest.mark.parametrize("certificate", ["expired", "wrong-host", "self-signed"])
def test_a_bad_certificate_is_never_trusted_nor_tried_again_soon(
    own_upbit: MakeUpbit, backbone: Backbone, certificate: str
) -> None:
    server = own_upbit(seed=33, tls=True, certificate=certificate)
    events: list[Event] = []
    market = backbone(server, timeout_seconds=1.0)
    market.on_event(events.append)
    with pytest.raises(TlsError, match="certificate"):
        market.get_ticker("KRW-BTC", strategy=DataStrategy.REST_ONLY)
    with pytest.raises(UpbitBackboneError, match="certificate"):
        market.get_ticker("KRW-BTC", timeout=0.5)
    held = market.subscribe("KRW-BTC")  # noqa: F841
    waits = wait_until(
        lambda: [each for each in events if isinstance(each, ConnectionEvent) and each.retry_in], "the refusal"
    )
    assert (waits[0].retry_in or 0.0) >= HOPELESS_SECONDS
    assert "certificate" in waits[0].reason
    assert not server.requests()
    assert not server.wire_log("handshake")


def test_a_tls_handshake_that_is_never_answered_ends_by_the_deadline(own_upbit: MakeUpbit, backbone: Backbone) -> None:
    server = own_upbit(seed=34, tls=True, trades_per_second=20.0)
    seen = Watched(backbone(server, connect_timeout_seconds=0.5), server)
    server.refuse(1.5, instead="silence")
    waits = ConnectionState.WAITING
    wait_until(lambda: any("deadline" in event.reason for event in seen.connections(waits)), seen.reasons)
    wait_until(lambda: seen.reconnects == 1, seen.reasons)
    assert seen.is_whole()


def test_tls_stands_talking_both_ways_at_once(own_upbit: MakeUpbit, backbone: Backbone) -> None:
    """2,000 messages a second come in while pings and subscriptions go out."""
    server = own_upbit(seed=35, tls=True, trades_per_second=1.0)
    market = backbone(server, ping_interval_seconds=0.01, pong_timeout_seconds=5.0)
    seen = Watched(market, server, ["KRW-BTC", "KRW-ETH"], ["ticker", "trade"])
    server.load(2_000)
    end = time.monotonic() + 3.0
    changes = 0

    def received() -> int:
        return market.health().sessions[0].messages

    def pings() -> int:
        return sum(entry.get("what") == "ping" for entry in server.wire_log("control", seen.since, limit=1_000_000))

    # Three seconds are enough, but for a machine that is busy with something else.
    while time.monotonic() < end or received() <= 2_000:
        with market.subscribe("KRW-XRP", ("ticker", "orderbook", "trade")[changes % 3]):
            PAUSE.wait(0.02)
        changes += 1
    wait_until(lambda: pings() > 100, "pings")
    server.load(0)
    say(f"{received()} messages in, {pings()} pings and {len(seen.messages())} subscriptions out, {changes} changes")
    assert seen.breaks == [], seen.reasons()
    assert pings() > 100
    assert received() > 2_000
    assert seen.malformed == 0


def test_new_keys_in_the_middle_of_the_stream_cost_nothing(watch: Watch, upbit: FakeUpbit, tmp_path: Path) -> None:
    """TLS 1.3 lets the server change its keys whenever it likes, and ask us to change ours."""
    authority = trustme.CA()
    ca_file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    parts = urlsplit(upbit.websocket_url)
    assert parts.hostname is not None
    assert parts.port is not None
    with RekeyingFront((parts.hostname, parts.port), authority) as front:
        seen = watch(upbit, websocket_url=front.url, ca_file=str(ca_file), ping_interval_seconds=0.1)
        for number in range(20):
            both_ways = number % 2 == 0
            server, client = front.secrets()
            front.rekey(both_ways=both_ways)
            assert front.secrets()[0] != server
            wait_until(lambda: (front.secrets()[1] != client) == both_ways, "our own new key")  # noqa: B023
            seen.flows()  # what the server says with its new key is understood
            with seen.market.subscribe("KRW-ETH", "trade") as other:
                other.get(timeout=10.0)  # and so is, over there, what we say with ours
        assert seen.is_whole()
        assert (seen.breaks, seen.malformed) == ([], 0)
        seen.market.close()
