"""Lines that are open and yet no good, and lines that are merely slow."""

from __future__ import annotations

import gc
import os
import socket
import sysconfig
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.chaos.proxy import ChaosProxy
from tests.chaos.watched import Watched, say, worst_second
from tests.support.waiting import PATIENCE_SECONDS, PAUSE, crowding, promised, wait_until
from upbit_backbone import ChannelUnavailableError, DataSource, MarketDataBackbone, UpbitBackboneError
from upbit_backbone.models.events import BreakerEvent, StaleEvent
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.wire.websocket_transport import WebSocketConnection

Watch = Callable[..., Watched]
Proxy = Callable[..., ChaosProxy]

FREEZE_SECONDS = 3.0  # generous: ping and pong time are 0.7 s
SYMBOLS = ["KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-SOL"]

# Their full set is longer than what the smallest buffers of both sides take.
KINDS_ENOUGH = ("ticker", "candle.1s", "candle.1m", "candle.3m", "candle.5m", "candle.15m", "candle.30m", "candle.60m",
                "candle.240m", "orderbook")  # fmt: skip

NOT_ON_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="refuses where others swallow")


def watchful() -> dict[str, float]:
    """Settings that find a dead peer out in 0.7 s; longer where the simulator itself must wait for a processor."""
    settings = {"ping_interval_seconds": 0.3, "pong_timeout_seconds": 0.4, "liveness_seconds": 1.0}
    return {name: seconds * crowding() for name, seconds in settings.items()}


def through(proxy: ChaosProxy) -> dict[str, str]:
    host, port = proxy.address
    return {"websocket_url": f"ws://{host}:{port}/websocket/v1"}


def test_a_frozen_peer_is_left_and_what_it_kept_to_itself_is_fetched(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit, **watchful())
    took = seen.recovers(lambda: upbit.freeze(new_connections=False))
    say(f"freeze: {took:.3f} s")
    assert took < promised(FREEZE_SECONDS)
    wait_until(lambda: "pings unanswered" in seen.reasons(), seen.reasons)
    assert seen.is_whole()
    assert [gap.complete for gap in seen.receipts()] == [True]


def test_half_a_frame_before_the_freeze_is_never_delivered(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit, **watchful())
    took = seen.recovers(lambda: upbit.send_half_frame())
    say(f"half a frame: {took:.3f} s")
    assert took < promised(FREEZE_SECONDS)
    assert seen.is_whole()
    assert seen.malformed == 0


def test_closing_beside_half_a_frame_takes_no_time(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit)
    upbit.send_half_frame()
    began = time.monotonic()
    seen.market.close()
    assert time.monotonic() - began < promised(1.0)


def test_old_connections_dead_and_new_ones_fine_costs_one_freeze(watch: Watch, upbit: FakeUpbit, proxy: Proxy) -> None:
    line = proxy(upbit.websocket_url)
    seen = watch(upbit, **through(line), **watchful())
    took = seen.recovers(line.freeze)
    say(f"old connections dead: {took:.3f} s")
    assert took < promised(FREEZE_SECONDS)
    assert seen.is_whole()
    wait_until(lambda: seen.breaks, "the break to be told")
    assert len(seen.breaks) == 1


def test_a_mute_stream_is_found_out_by_rest_and_left(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit, SYMBOLS, ["trade", "ticker"], stall_probe_seconds=0.8)
    pongs = len(upbit.wire_log("control", seen.since))
    began = time.monotonic()
    upbit.mute()
    wait_until(lambda: any(event.stale for event in seen.of(StaleEvent)), "the alarm")
    say(f"silent stall found after {time.monotonic() - began:.3f} s")
    assert seen.market.get_ticker("KRW-BTC").source is DataSource.REST
    assert "trades" in next(event for event in seen.of(StaleEvent) if event.stale).reason
    upbit.unmute()
    wait_until(lambda: not seen.of(StaleEvent)[-1].stale, "the all-clear")
    wait_until(lambda: seen.reconnects >= 1, "a reconnection")
    assert len(upbit.wire_log("control", seen.since)) >= pongs
    assert seen.is_whole(*SYMBOLS)


@pytest.mark.parametrize("trouble", ["ban", "outage"])
def test_a_mute_stream_is_found_out_while_rest_cannot_be_asked(
    own_upbit: Callable[..., FakeUpbit], watch: Watch, trouble: str
) -> None:
    server = own_upbit(seed=23, trades_per_second=80.0)
    seen = watch(server, SYMBOLS, ["trade", "ticker"], stall_probe_seconds=0.8)
    server.rest_fault("*", status=418 if trouble == "ban" else 503, times=None, headers={"Retry-After": "600"})
    with pytest.raises(UpbitBackboneError):
        seen.market.get_candles("KRW-BTC", "1d", count=1)
    server.mute()
    began = time.monotonic()
    wait_until(lambda: any(event.stale for event in seen.of(StaleEvent)), "the alarm")
    say(f"silent stall during a {trouble} found after {time.monotonic() - began:.3f} s")
    assert "no snapshot" in next(event for event in seen.of(StaleEvent) if event.stale).reason
    assert seen.market.explain("ticker", "KRW-BTC").rule != "live"
    assert any("no snapshot" in (each.last_error or "") for each in seen.market.health().sessions)
    server.unmute()
    wait_until(lambda: not seen.of(StaleEvent)[-1].stale, "the all-clear")
    seen.flows(more=5)


def test_a_quiet_line_is_kept_while_rest_cannot_be_asked(own_upbit: Callable[..., FakeUpbit], watch: Watch) -> None:
    server = own_upbit()
    server.publish_trade("KRW-BTC")
    seen = watch(server, kinds=["trade", "ticker"], stall_probe_seconds=0.3)
    server.rest_fault("*", status=503, times=None)
    messages = len(seen.messages())
    wait_until(lambda: len(seen.messages()) >= messages + 4, "the stream to be asked again and again")
    assert (seen.of(StaleEvent), seen.breaks) == ([], [])
    made = server.publish_trade("KRW-BTC")
    seen.arrives(made, seconds=PATIENCE_SECONDS)


def test_one_mute_market_concerns_nobody_else(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit, SYMBOLS, ["ticker", "trade"], stall_probe_seconds=0.4)
    wait_until(lambda: seen.market.explain("ticker", "KRW-ETH").rule == "live", "the ticker to be live")
    PAUSE.wait(1.2)  # the habits of the markets are learned
    upbit.mute(symbols=["KRW-ETH"])
    wait_until(lambda: any(event.stale for event in seen.of(StaleEvent)), "the alarm")
    (alarm,) = [event for event in seen.of(StaleEvent) if event.stale][:1]
    assert alarm.symbols == ("KRW-ETH",)
    wait_until(
        lambda: seen.market.explain("ticker", "KRW-ETH").rule != "live", "the ticker not to be believed", promised(6.0)
    )
    assert seen.market.get_ticker("KRW-ETH").source is DataSource.REST
    assert seen.market.get_ticker("KRW-BTC").source is DataSource.WEBSOCKET
    upbit.unmute()
    wait_until(lambda: not seen.of(StaleEvent)[-1].stale, "the all-clear")
    assert seen.is_whole("KRW-BTC", "KRW-XRP", "KRW-SOL")
    assert (seen.reconnects, seen.breaks) == (0, [])


@pytest.mark.parametrize("kind", ["ticker", "orderbook"])
def test_a_quiet_market_that_goes_mute_alone_is_found_out(watch: Watch, quiet: FakeUpbit, kind: str) -> None:
    """Nobody knows its habits, because it has none: its turn to be put to REST comes all the same."""
    quiet.publish_trade("KRW-ETH")
    seen = watch(quiet, SYMBOLS, [kind], stall_probe_seconds=0.3, **watchful())
    wait_until(lambda: seen.market.explain(kind, "KRW-ETH").rule == "live", "the market to be live")
    PAUSE.wait(1.5)
    assert seen.of(StaleEvent) == []
    quiet.mute(symbols=["KRW-ETH"])
    made = quiet.publish_trade("KRW-ETH", price=987_654_000)

    def alarm() -> bool:
        quiet.publish_trade("KRW-BTC")  # others flow
        return any(event.stale for event in seen.of(StaleEvent))

    wait_until(alarm, "the alarm")
    assert {event.symbols for event in seen.of(StaleEvent) if event.stale} == {("KRW-ETH",)}
    assert seen.market.explain(kind, "KRW-ETH").rule != "live"
    if kind == "ticker":
        assert str(seen.market.get_ticker("KRW-ETH").current_price) == made["price"]
    assert seen.market.explain(kind, "KRW-BTC").rule == "live"
    quiet.unmute()
    quiet.publish_trade("KRW-ETH")
    wait_until(lambda: not seen.of(StaleEvent)[-1].stale, "the all-clear")
    assert (seen.reconnects, seen.breaks) == (0, [])


def test_a_market_in_which_nobody_trades_raises_no_alarm(watch: Watch, upbit: FakeUpbit) -> None:
    seen = watch(upbit, SYMBOLS, ["trade", "ticker"], stall_probe_seconds=0.3, **watchful())
    PAUSE.wait(1.0)
    upbit.pause(["KRW-ETH"])
    PAUSE.wait(1.0)
    upbit.pause()
    silent = len(seen.items)
    PAUSE.wait(2.8)
    assert len(seen.items) - silent < 50
    assert len(upbit.requests(group="ticker")) >= 1, "nobody asked REST"
    upbit.resume()
    seen.flows()
    assert (seen.breaks, seen.of(StaleEvent)) == ([], [])


def test_a_peer_that_stops_reading_blocks_nobody_and_is_left(
    own_upbit: Any, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its window is closed while we have much to say; half a frame went out, so the line is of no use."""
    connect = socket.socket.connect_ex

    def with_small_buffer(self: socket.socket, where: Any) -> int:
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        return connect(self, where)

    monkeypatch.setattr(socket.socket, "connect_ex", with_small_buffer)
    server = own_upbit(markets=600, receive_buffer=2048, trades_per_second=20.0)
    settings = {"ping_interval_seconds": 30.0, "pong_timeout_seconds": 30.0, "max_topics_per_connection": 10_000}
    market: MarketDataBackbone = backbone(server, **settings)
    codes = [info.symbol for info in market.get_markets()]
    seen = Watched(market, server, codes[:1])
    server.freeze(new_connections=False)
    began = time.monotonic()
    handles = [market.subscribe(codes, kind) for kind in KINDS_ENOUGH]
    assert market.get_ticker(codes[0])
    wait_until(lambda: seen.reconnects == 1, seen.reasons, promised(8.0))
    left = wait_until(lambda: seen.breaks, "the break to be told")[0]  # events come on a thread of their own
    say(f"left and replaced after {time.monotonic() - began:.3f} s: {left.reason}")
    wait_until(lambda: len(server.subscribed()) == 1 + len(codes) * len(KINDS_ENOUGH), "the whole set")
    assert not any(handle.closed for handle in handles)


def test_nobody_waits_for_a_message_that_is_being_sent(
    watch: Watch, upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch(upbit)
    send, sending, go_on = WebSocketConnection.send_text, threading.Event(), threading.Event()
    sent: list[str] = []

    def stuck(self: WebSocketConnection, text: str) -> None:
        sending.set()
        assert go_on.wait(30.0)
        send(self, text)
        sent.append(text)

    monkeypatch.setattr(WebSocketConnection, "send_text", stuck)
    first = seen.market.subscribe("KRW-ETH", "trade")
    assert sending.wait(10.0)
    second = seen.market.subscribe(["KRW-XRP", "KRW-SOL"], ["trade", "orderbook"])
    second.close()
    assert seen.market.get_ticker("KRW-SOL")
    assert seen.market.health().sessions
    assert sent == [], "somebody waited for the wire"
    go_on.set()
    assert first.get(timeout=10.0).symbol == "KRW-ETH"
    assert seen.is_whole()


@pytest.mark.parametrize("instead", [pytest.param("blackhole", marks=NOT_ON_WINDOWS), "refuse"])
def test_a_door_that_is_shut_is_tried_again_and_calls_are_answered_by_rest(
    watch: Watch, upbit: FakeUpbit, instead: str
) -> None:
    seen = watch(upbit, connect_timeout_seconds=0.6, healthy_after_seconds=30.0)
    upbit.refuse(2.0, instead=instead)
    began = time.monotonic()
    assert seen.market.get_ticker("KRW-BTC").source is DataSource.REST
    assert time.monotonic() - began < promised(1.0)
    took = seen.recovers(lambda: PAUSE.wait(max(0.0, began + 2.0 - time.monotonic())))
    say(f"{instead}: {took:.3f} s after the door was open again")
    assert took < promised(2.5)
    assert seen.is_whole()


def test_late_and_uneven_delivery_is_no_reason_to_reconnect(watch: Watch, upbit: FakeUpbit, proxy: Proxy) -> None:
    line = proxy(upbit.websocket_url)
    line.set(latency=0.5, jitter=0.4)
    seen = watch(
        upbit, SYMBOLS, ["trade", "ticker"], **through(line),
        ping_interval_seconds=2.0, pong_timeout_seconds=2.5, stall_probe_seconds=1.0,
    )  # fmt: skip
    PAUSE.wait(2.5)
    wait_until(lambda: (seen.market.health().sessions[0].pong_seconds or 0.0) > 0.2, "the latency to be seen")
    line.set()
    assert seen.is_whole(*SYMBOLS)
    assert (seen.breaks, seen.of(StaleEvent)) == ([], [])


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="without a GIL nobody can hold it")
def test_a_program_that_computes_all_the_time_does_not_blame_the_peer(watch: Watch, upbit: FakeUpbit) -> None:
    """Three seconds beside a loop in Python, then two in which no other thread runs at all."""
    seen = watch(upbit, SYMBOLS, ["trade", "ticker"], **watchful())
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        sum(each * each for each in range(1_000))
    held = _hold_the_interpreter(2.0)
    seen.flows(more=20)
    assert seen.is_whole(*SYMBOLS)
    assert (seen.breaks, seen.malformed) == ([], 0), seen.reasons()
    # Each item says itself how late it is: those made while nobody could read are that much older than the others.
    ages = [(trade.received_at - trade.timestamp).total_seconds() for trade in seen.trades("KRW-BTC")[1:]]
    say(f"held for {held:.2f} s; ages {min(ages):.3f} to {max(ages):.3f} s")
    assert max(ages) - min(ages) > held / 2


def _hold_the_interpreter(seconds: float) -> float:
    """Compute in one call that never lets go, for about so long; how long it took."""
    count = 1_000_000
    while True:
        began = time.monotonic()
        sum(range(count))
        took = time.monotonic() - began
        if took > seconds / 2:
            return took
        count *= 2


def test_a_narrow_line_is_no_frozen_one(watch: Watch, upbit: FakeUpbit, proxy: Proxy) -> None:
    line = proxy(upbit.websocket_url)
    seen = watch(upbit, SYMBOLS, ["trade", "ticker", "orderbook"], **through(line), **watchful())
    line.set(bandwidth=20_000)
    PAUSE.wait(2.5)
    line.set()
    assert seen.is_whole(*SYMBOLS)
    assert (seen.breaks, seen.of(StaleEvent)) == ([], [])


def test_messages_in_crumbs_are_the_same_to_the_last_digit(watch: Watch, quiet: FakeUpbit, proxy: Proxy) -> None:
    line = proxy(quiet.websocket_url)
    kinds = ["trade", "ticker", "candle.1m"]
    direct, crumbs = watch(quiet, kinds=kinds), watch(quiet, kinds=kinds, **through(line))
    line.set(slices=3)
    for number in range(40):
        quiet.publish_trade("KRW-BTC", price=130_000_000 + 1000 * number, volume=f"0.{number + 1:08d}")
    for each in (direct, crumbs):
        each.arrives(quiet.trades("KRW-BTC")[-1])
    assert direct.trades("KRW-BTC")[-40:] == crumbs.trades("KRW-BTC")[-40:]
    assert crumbs.is_whole()
    assert crumbs.malformed == 0


def test_a_name_that_moves_is_followed(
    watch: Watch, upbit: FakeUpbit, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail-over by DNS; the name is asked anew for each connection, of either kind."""
    ask = socket.getaddrinfo
    where = ["127.0.0.1"]
    monkeypatch.setattr(
        socket, "getaddrinfo",
        lambda host, *more, **options: ask(where[0] if host == "localhost" else host, *more, **options),
    )  # fmt: skip
    one, rest_one = proxy(upbit.websocket_url), proxy(upbit.rest_url)
    ports = one.address[1], rest_one.address[1]
    two = proxy(upbit.websocket_url, host="127.0.0.2", port=ports[0])
    rest_two = proxy(upbit.rest_url, host="127.0.0.2", port=ports[1])
    path = urlsplit(upbit.websocket_url).path
    seen = watch(
        upbit, websocket_url=f"ws://localhost:{ports[0]}{path}", rest_url=f"http://localhost:{ports[1]}",
        reconnect_cap_seconds=0.3,
    )  # fmt: skip

    def move() -> None:
        one.go_away()
        rest_one.go_away()
        where[0] = "127.0.0.2"

    took = seen.recovers(move)
    say(f"moved: {took:.3f} s")
    assert took < promised(3.0)
    assert two.accepted
    assert seen.market.get_trades("KRW-BTC", 5)
    assert rest_two.accepted
    assert seen.is_whole()


def no_such_name(host: str) -> str:
    return "x" * 64  # longer than a label may be, so that the real resolver refuses it without asking anybody


def no_answer(host: str) -> str:
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.mark.parametrize("fail", [no_such_name, no_answer])
def test_names_that_cannot_be_resolved_are_an_outage_like_any_other(
    watch: Watch, upbit: FakeUpbit, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, fail: Callable[[str], str]
) -> None:
    """The network is gone, and DNS with it; then both are back."""
    ask = socket.getaddrinfo
    is_gone = threading.Event()

    def look_up(host: str, *more: Any, **options: Any) -> Any:
        return ask(fail(host) if host == "localhost" and is_gone.is_set() else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    line, rest = proxy(upbit.websocket_url), proxy(upbit.rest_url)
    path = urlsplit(upbit.websocket_url).path
    seen = watch(
        upbit, websocket_url=f"ws://localhost:{line.address[1]}{path}", rest_url=f"http://localhost:{rest.address[1]}",
        reconnect_cap_seconds=0.3, healthy_after_seconds=30.0,
    )  # fmt: skip
    is_gone.set()
    line.go_away()
    rest.go_away()
    opened = wait_until(lambda: [e for e in seen.of(BreakerEvent) if e.breaker == "WebSocket connect"], "the breaker")
    assert opened[0].new == "open"
    assert "cannot resolve localhost" in seen.reasons()
    began = time.monotonic()
    with pytest.raises(ChannelUnavailableError):
        seen.market.get_ticker("KRW-ETH", timeout=0.5)
    assert time.monotonic() - began < promised(0.8)
    line.come_back()
    rest.come_back()
    is_gone.clear()
    took = seen.recovers(lambda: None)
    say(f"names are known again: {took:.3f} s")
    assert took < promised(2.5)
    assert seen.market._parts.connect_breaker.state == "closed", "one line that lives is proof enough"
    assert seen.is_whole()


def test_an_outage_costs_no_work_and_ends_well(watch: Watch, upbit: FakeUpbit, proxy: Proxy) -> None:
    """With REST gone as well: typed errors by the deadline, few attempts, hardly any work."""
    line, rest = proxy(upbit.websocket_url), proxy(upbit.rest_url)
    host, port = rest.address
    settings = {"healthy_after_seconds": 30.0, "reconnect_cap_seconds": 2.0, "rest_url": f"http://{host}:{port}"}
    seen = watch(upbit, **through(line), **settings)
    line.go_away()
    rest.go_away()
    wait_until(lambda: seen.breaks, "the break")
    began = time.monotonic()
    with pytest.raises(Exception) as caught:
        seen.market.get_ticker("KRW-BTC", timeout=0.5)
    assert time.monotonic() - began < promised(0.8)
    assert type(caught.value).__module__ == "upbit_backbone.errors"
    gc.collect()
    gc.freeze()  # or the collector would walk what the tests before this one have left, which is no work of an outage
    try:
        work = time.process_time()
        PAUSE.wait(3.0)
        work = time.process_time() - work
    finally:
        gc.unfreeze()
    say(f"work in three seconds of outage: {work * 1000:.0f} ms")
    assert work < 0.3
    waits = [event for event in seen.events if getattr(event, "retry_in", None) is not None]
    assert len(waits) <= 12
    line.come_back()
    rest.come_back()
    took = seen.recovers(lambda: None)
    say(f"outage end: {took:.3f} s")
    assert took < promised(2.5 + 0.5)
    assert seen.is_whole()
    assert worst_second(line.accepted) <= 5
