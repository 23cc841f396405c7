"""Faults on demand: what a client sees on its socket when each is on."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import websocket

from tests.support.waiting import wait_until
from upbit_backbone.simulator import FakeUpbit, SimulatorError
from upbit_backbone.simulator.control import breaking

Connect = Callable[..., Any]
Get = Callable[..., Any]

NOT_ON_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="refuses where others swallow")


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1006, 1011, 1015, 3000, 4999])
def test_any_close_code_can_be_sent(upbit: FakeUpbit, connect: Connect, code: int) -> None:
    stream = connect(upbit)
    assert upbit.close_sessions(code, "because") == 1
    assert stream.socket.sock.recv(100) == b"\x88\x09" + code.to_bytes(2, "big") + b"because"


@pytest.mark.parametrize(("how", "error"), [("fin", websocket.WebSocketConnectionClosedException), ("rst", OSError)])
def test_a_connection_can_end_without_a_close_frame(
    upbit: FakeUpbit, connect: Connect, how: str, error: type[Exception]
) -> None:
    stream = connect(upbit)
    assert upbit.drop_sessions(how) == 1
    with pytest.raises(error):
        stream.socket.recv_frame()


def test_a_frozen_connection_stays_open_and_thaws(upbit: FakeUpbit, connect: Connect, get: Get) -> None:
    stream = connect(upbit)
    stream.ask({"type": "trade", "codes": ["KRW-BTC"], "is_only_realtime": True})
    assert upbit.freeze() == 1
    upbit.publish_trade("KRW-BTC")
    stream.socket.ping()
    stream.socket.settimeout(0.3)
    with pytest.raises(websocket.WebSocketTimeoutException):
        stream.socket.recv_frame()
    assert get(upbit, "/v1/market/all").status == 200
    with pytest.raises(websocket.WebSocketTimeoutException):
        websocket.create_connection(upbit.websocket_url, timeout=0.3, suppress_origin=True)
    upbit.thaw()
    stream.socket.settimeout(5)
    opcodes = {stream.socket.recv_frame().opcode for _ in range(2)}
    assert websocket.ABNF.OPCODE_PONG in opcodes or len(opcodes) == 1


def test_a_muted_pair_is_silent_while_others_flow_and_pings_are_answered(
    upbit: FakeUpbit, connect: Connect, get: Get
) -> None:
    stream = connect(upbit)
    stream.ask({"type": "trade", "codes": ["KRW-BTC", "KRW-ETH"]})
    stream.read()
    stream.read()
    upbit.mute(["KRW-BTC"])
    missed = upbit.publish_trade("KRW-BTC")
    upbit.publish_trade("KRW-ETH")
    assert stream.read()["code"] == "KRW-ETH"
    assert get(upbit, "/v1/trades/ticks", market="KRW-BTC").json[0]["sequential_id"] == missed["sequential_id"]
    assert missed in upbit.trades("KRW-BTC")
    stream.socket.ping(b"x")
    assert stream.socket.recv_frame().opcode == websocket.ABNF.OPCODE_PONG
    upbit.unmute()
    upbit.publish_trade("KRW-BTC")
    assert stream.read()["code"] == "KRW-BTC"


def test_a_refusing_door_opens_again_on_the_same_port(upbit: FakeUpbit, connect: Connect, get: Get) -> None:
    stream, before = connect(upbit), last_entry(upbit)
    upbit.refuse(0.3)
    assert stream.close_code() is None
    with pytest.raises(ConnectionRefusedError):
        connect(upbit)
    assert get(upbit, "/v1/market/all").status == 200
    wait_until(lambda: bool(upbit.wire_log("fault", since=before, where={"what": "listening again"})))
    connect(upbit)


@pytest.mark.parametrize("instead", ["silence", pytest.param("blackhole", marks=NOT_ON_WINDOWS)])
def test_a_door_can_swallow_connections(connect: Connect, instead: str) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"]) as upbit:
        upbit.refuse(0.5, instead=instead)
        with pytest.raises((websocket.WebSocketTimeoutException, TimeoutError)):
            websocket.create_connection(upbit.websocket_url, timeout=0.2, suppress_origin=True)
        wait_until(lambda: bool(upbit.wire_log("fault", where={"what": "listening again"})))
        connect(upbit)


def test_where_the_system_swallows_nothing_a_black_hole_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(breaking, "IS_SWALLOWING", False)
    verbs = object.__new__(breaking.BreakingVerbs)  # what it refuses it has not begun
    with pytest.raises(ValueError, match="take silence"):
        asyncio.run(verbs.refuse(1.0, instead="blackhole"))


@pytest.mark.parametrize("status", [401, 403, 429, 502, 503])
def test_handshakes_can_be_refused_with_any_status(upbit: FakeUpbit, connect: Connect, status: int) -> None:
    upbit.handshake_fault(status=status, times=1, body="<html>")
    with pytest.raises(websocket.WebSocketBadStatusException, match=str(status)):
        connect(upbit)
    connect(upbit)
    assert [row["status"] for row in upbit.wire_log("handshake")[-2:]] == [status, 101]


def test_handshakes_can_be_redirected(upbit: FakeUpbit, connect: Connect) -> None:
    upbit.handshake_fault("redirect", location=upbit.websocket_url + "?elsewhere")
    connect(upbit)
    assert [row["status"] for row in upbit.wire_log("handshake")[-2:]] == [302, 101]


@pytest.mark.parametrize("mode", ["silence", "drip", "fin", "reset", "garbage", "wrong_accept", "flood", "flood_body"])
def test_handshakes_can_go_wrong_in_every_way(upbit: FakeUpbit, mode: str) -> None:
    upbit.handshake_fault(mode, times=1)
    with pytest.raises((websocket.WebSocketException, OSError)):
        slow_handshake(upbit.websocket_url, seconds=0.6)
    assert upbit.wire_log("handshake")[-1]["fault"] == mode


@pytest.mark.parametrize("mode", ["close_after_101", "reset_after_101"])
def test_a_crash_loop_closes_right_after_the_handshake(upbit: FakeUpbit, connect: Connect, mode: str) -> None:
    upbit.handshake_fault(mode, seconds=30)
    for _ in range(2):
        assert connect(upbit).close_code() is None


def test_frames_nobody_should_send(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    upbit.send_text("garbage")
    upbit.send_binary(b"\xff\xfe")
    upbit.send_raw(bytes.fromhex("8101") + b"z")
    upbit.send_pings(2)
    frames = [stream.socket.recv_frame() for _ in range(5)]
    assert [frame.data for frame in frames] == [b"garbage", b"\xff\xfe", b"z", b"ping", b"ping"]
    upbit.send_half_frame(declared=5_000, sent=3)
    assert stream.socket.sock.recv(100) == b"\x82\x7e\x13\x88{{{"


def test_a_huge_frame_and_a_flood_of_fragments(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    upbit.send_huge_frame(2**40, seconds=0.2)
    assert stream.socket.sock.recv(10, socket.MSG_WAITALL) == b"\x82\x7f" + (2**40).to_bytes(8, "big")
    other = connect(upbit)
    upbit.send_fragments(count=10, size=4, session=upbit.sessions()[-1]["id"])
    assert other.socket.sock.recv(60, socket.MSG_WAITALL) == b"\x02\x04xxxx" + b"\x00\x04xxxx" * 9


def test_rest_answers_with_a_status_for_so_many_times(upbit: FakeUpbit, get: Get) -> None:
    upbit.rest_fault("/v1/ticker*", status=503, times=2)
    statuses = [get(upbit, "/v1/ticker", markets="KRW-BTC").status for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert get(upbit, "/v1/market/all").status == 200


def test_rest_faults_can_last_for_a_time(upbit: FakeUpbit, get: Get) -> None:
    upbit.rest_fault(status=500, seconds=0.3)
    end = time.monotonic() + 0.3
    while get(upbit, "/v1/market/all").status == 500:
        assert time.monotonic() < end + 2
    assert time.monotonic() >= end - 0.05


@pytest.mark.parametrize(
    ("mode", "check"),
    [
        ("html", lambda answer: b"<html>" in answer.body and answer.status == 200),
        ("truncated", lambda answer: not answer.body.endswith(b"]")),
        ("shape", lambda answer: "unexpected" in answer.json),
        ("empty", lambda answer: answer.body == b""),
        ("charset", lambda answer: answer.body.startswith(b"\xff\xfe")),
        ("garbage", lambda answer: not answer.body.startswith(b"[")),
        ("odd_rows", lambda answer: answer.json[0] is None and answer.json[-6]["english_name"]),
    ],
)
def test_rest_bodies_can_be_anything(upbit: FakeUpbit, get: Get, mode: str, check: Callable[[Any], bool]) -> None:
    upbit.rest_fault("/v1/market/all", mode)
    assert check(get(upbit, "/v1/market/all"))


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("reset", requests.ConnectionError),
        ("fin", requests.ConnectionError),
        ("fin_mid_body", requests.exceptions.ChunkedEncodingError),
        ("reset_mid_body", requests.exceptions.RequestException),
        ("hang", requests.Timeout),
    ],
)
def test_rest_connections_can_break(upbit: FakeUpbit, mode: str, error: type[Exception]) -> None:
    upbit.rest_fault("/v1/market/all", mode)
    with pytest.raises(error):
        requests.get(upbit.rest_url + "/v1/market/all", timeout=0.5)


def test_a_dripping_answer_outlives_any_socket_timeout(upbit: FakeUpbit) -> None:
    upbit.rest_fault("*", "drip", interval=0.05)
    connection = http.client.HTTPConnection(urlsplit(upbit.rest_url).netloc, timeout=0.2)
    connection.request("GET", "/v1/market/all")
    received = b"".join(connection.sock.recv(1) for _ in range(8))
    connection.close()
    assert received == b"HTTP/1.1"


def test_a_small_answer_can_be_a_bomb(upbit: FakeUpbit) -> None:
    upbit.rest_fault("*", "gzip_bomb")
    response = requests.get(upbit.rest_url + "/v1/market/all", stream=True, timeout=5)
    assert response.headers["Content-Encoding"] == "gzip"
    assert int(response.headers["Content-Length"]) < 1_000_000
    response.close()


def test_kept_connections_can_go_stale(upbit: FakeUpbit) -> None:
    with requests.Session() as session:
        session.get(upbit.rest_url + "/v1/market/all", timeout=5)
        assert upbit.drop_connections() == 1


def test_stale_doubled_and_shuffled_trades(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    stream.ask({"type": "trade", "codes": ["KRW-BTC"], "is_only_realtime": True})
    stream.ask({"method": "LIST_SUBSCRIPTIONS"})
    stream.read()
    upbit.duplicate_trades()
    made = upbit.publish_trade("KRW-BTC")
    assert [stream.read()["sequential_id"] for _ in range(2)] == [made["sequential_id"]] * 2
    upbit.duplicate_trades(False)
    assert upbit.replay_trades("KRW-BTC", 1) == 1
    assert stream.read()["sequential_id"] == made["sequential_id"]
    upbit.stale_timestamps(60_000)
    late = upbit.publish_trade("KRW-BTC")
    assert stream.read()["trade_timestamp"] == late["trade_timestamp"] - 60_000
    upbit.clear_faults()
    upbit.shuffle_trades(0.2)
    ids = [upbit.publish_trade("KRW-BTC")["sequential_id"] for _ in range(20)]
    seen = [stream.read()["sequential_id"] for _ in range(20)]
    assert seen != ids
    assert sorted(seen) == ids


def test_a_line_can_be_long(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    stream.ask({"type": "trade", "codes": ["KRW-BTC"], "is_only_realtime": True})
    stream.ask({"method": "LIST_SUBSCRIPTIONS"})
    stream.read()
    upbit.line_fault(latency=0.5, jitter=0.2)
    sent_at = time.monotonic()
    ids = [upbit.publish_trade("KRW-BTC")["sequential_id"] for _ in range(20)]
    assert [stream.read()["sequential_id"] for _ in range(20)] == ids, "late, and in order"
    assert time.monotonic() - sent_at >= 0.3


def test_a_line_can_be_narrow_and_wide_again(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    stream.ask({"type": "orderbook", "codes": ["KRW-BTC"]})
    stream.read()
    upbit.line_fault(bandwidth=2_000)
    sent_at = time.monotonic()
    upbit.touch_book("KRW-BTC")
    size = len(json.dumps(stream.read(), default=str, separators=(",", ":")))
    assert time.monotonic() - sent_at >= size / 2_000 / 2
    upbit.burst("KRW-BTC", 50)
    assert upbit.inject("faults")["lines"]["websocket"]["bandwidth"] == 2_000
    upbit.line_fault()
    last = upbit.publish_trade("KRW-BTC")
    stream.read_until(lambda book: book["timestamp"] >= last["trade_timestamp"])
    assert upbit.inject("faults")["lines"] == {}


def test_messages_can_come_twice_or_after_the_next_one(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    stream.ask({"type": "trade", "codes": ["KRW-BTC"], "is_only_realtime": True})
    stream.ask({"method": "LIST_SUBSCRIPTIONS"})
    stream.read()
    upbit.line_fault(duplicates=1.0)
    one = upbit.publish_trade("KRW-BTC")["sequential_id"]
    assert [stream.read()["sequential_id"] for _ in range(2)] == [one, one]
    upbit.line_fault(reorders=1.0)
    two, three = (upbit.publish_trade("KRW-BTC")["sequential_id"] for _ in range(2))
    assert [stream.read()["sequential_id"] for _ in range(2)] == [three, two]


def test_a_replica_can_lag(upbit: FakeUpbit, get: Get) -> None:
    before = upbit.publish_trade("KRW-XRP")
    book = get(upbit, "/v1/orderbook", markets="KRW-XRP").json
    wait_until(lambda: upbit.now_ms() >= before["trade_timestamp"] + 300, "the trade to be past")
    after = upbit.publish_trade("KRW-XRP")
    upbit.lagging_replica((upbit.now_ms() - before["trade_timestamp"] - 50) / 1000)
    (ticker,) = get(upbit, "/v1/ticker", markets="KRW-XRP").json
    assert ticker["trade_timestamp"] == before["trade_timestamp"]
    assert ticker["timestamp"] < after["trade_timestamp"]
    assert get(upbit, "/v1/trades/ticks", market="KRW-XRP").json[0]["sequential_id"] == before["sequential_id"]
    assert get(upbit, "/v1/orderbook", markets="KRW-XRP").json == book
    upbit.lagging_replica(0)
    (ticker,) = get(upbit, "/v1/ticker", markets="KRW-XRP").json
    assert ticker["trade_timestamp"] == after["trade_timestamp"]


def test_rest_can_repeat_an_old_answer(upbit: FakeUpbit, get: Get) -> None:
    old = get(upbit, "/v1/ticker", markets="KRW-XRP").json
    upbit.publish_trade("KRW-XRP")
    upbit.rest_fault("/v1/ticker", "stale", times=1)
    assert get(upbit, "/v1/ticker", markets="KRW-XRP").json == old
    assert get(upbit, "/v1/ticker", markets="KRW-XRP").json != old


def test_candles_can_be_repeated_late(upbit: FakeUpbit, connect: Connect, get: Get) -> None:
    stream = connect(upbit)
    stream.ask({"type": "candle.240m", "codes": ["KRW-BTC"]})
    stream.read()
    upbit.repeat_candle("KRW-BTC", "candle.240m", periods_ago=2)
    late = stream.read()
    row = get(upbit, "/v1/candles/minutes/240", market="KRW-BTC", count=3).json[2]
    assert late["candle_date_time_utc"] == row["candle_date_time_utc"]
    assert late["candle_acc_trade_volume"] == row["candle_acc_trade_volume"]


@pytest.mark.parametrize("value", ["", "group=origin; min=6; sec=0", "nonsense"])
def test_the_budget_header_can_say_anything(upbit: FakeUpbit, get: Get, value: str) -> None:
    upbit.remaining_req(value)
    assert get(upbit, "/v1/market/all").headers.get("remaining-req", "") == value


def test_snapshots_can_pretend_to_be_realtime(upbit: FakeUpbit, connect: Connect) -> None:
    upbit.set_options(snapshot_label="REALTIME")
    stream = connect(upbit)
    stream.ask({"type": "trade", "codes": ["KRW-BTC"]})
    assert stream.read()["stream_type"] == "REALTIME"
    upbit.set_options(snapshot_label="SNAPSHOT")


def test_a_door_that_is_shut_twice_opens_at_the_later_time(upbit: FakeUpbit, connect: Connect) -> None:
    began = time.monotonic()
    upbit.refuse(0.1)
    upbit.refuse(0.5)
    while True:
        try:
            connect(upbit)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < began + 10
    assert time.monotonic() >= began + 0.5


def test_what_a_connection_was_sent_is_known_after_its_end(upbit: FakeUpbit, connect: Connect) -> None:
    stream = connect(upbit)
    stream.ask({"type": "ticker", "codes": ["KRW-BTC", "KRW-ETH"]})
    stream.read()
    port = stream.socket.sock.getsockname()[1]
    # The system may have given the same port to a connection of an earlier test.
    before = len(upbit.wire_log("disconnect", where={"port": port}))
    stream.close()
    wait_until(lambda: len(upbit.wire_log("disconnect", where={"port": port})) > before)
    assert upbit.wire_log("disconnect", where={"port": port})[-1]["sent"]["ticker"] == 2


def test_other_countries_have_no_korean_time(connect: Connect, get: Get) -> None:
    with FakeUpbit(trades_per_second=0, markets=["SGD-BTC"], kst_fields=False) as upbit:
        texts = [
            get(upbit, "/v1/candles/days", market="SGD-BTC").body.decode(),
            get(upbit, "/v1/ticker", markets="SGD-BTC").body.decode(),
        ]
        stream = connect(upbit)
        stream.ask({"type": "candle.1m", "codes": ["SGD-BTC"]})
        texts.append(stream.raw().decode())
    assert all("SGD-BTC" in text and "kst" not in text for text in texts)


def test_ids_can_be_out_of_order_and_stay_unique(get: Get) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"], unordered_ids=True) as upbit:
        ids = [upbit.publish_trade("KRW-BTC")["sequential_id"] for _ in range(50)]
    assert len(set(ids)) == 50
    assert ids != sorted(ids)


def test_a_delisted_pair_is_gone_everywhere(connect: Connect, get: Get) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC", "KRW-ETH"]) as upbit:
        upbit.announce_delisting("KRW-ETH", "2030-01-02")
        stream = connect(upbit)
        stream.ask({"type": "ticker", "codes": ["KRW-ETH"]})
        assert stream.read()["delisting_date"] == {"year": 2030, "month": 1, "day": 2}
        upbit.delist("KRW-ETH")
        assert upbit.markets() == ["KRW-BTC"]
        assert get(upbit, "/v1/ticker", markets="KRW-ETH").status == 404


def test_what_makes_no_sense_is_refused_with_a_reason(upbit: FakeUpbit) -> None:
    with pytest.raises(SimulatorError, match="mode must be one of"):
        upbit.rest_fault(mode="nonsense")
    with pytest.raises(SimulatorError, match="no verb"):
        upbit.inject("nonsense")
    with pytest.raises(SimulatorError, match="no option"):
        upbit.set_options(nonsense=1)


@pytest.mark.parametrize("certificate", ["good", "expired", "wrong-host", "self-signed"])
def test_tls_with_good_and_bad_certificates(certificate: str) -> None:
    pytest.importorskip("trustme")
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"], tls=True, certificate=certificate) as upbit:
        assert upbit.environment()["UPBIT_BACKBONE_CA_FILE"] == upbit.ca_file
        context = ssl.create_default_context(cafile=upbit.ca_file)
        if certificate != "good":
            with pytest.raises(ssl.SSLCertVerificationError):
                websocket.create_connection(upbit.websocket_url, timeout=5, sslopt={"context": context})
            return
        stream = websocket.create_connection(
            upbit.websocket_url, timeout=5, sslopt={"context": context}, suppress_origin=True
        )
        stream.send('[{"ticket":"a"},{"type":"trade","codes":["KRW-BTC"]}]')
        assert b"KRW-BTC" in stream.recv()
        assert requests.get(upbit.rest_url + "/v1/market/all", verify=upbit.ca_file, timeout=5).status_code == 200
        upbit.drop_sessions("rst")
        stream.shutdown()


def slow_handshake(url: str, seconds: float) -> None:
    """A handshake with a deadline for all of it, which the WebSocket library lacks."""
    raw = socket.create_connection((urlsplit(url).hostname or "", urlsplit(url).port or 0), timeout=seconds)
    raw.settimeout(10 * seconds)  # at its own timeout the library closes the socket, and that must not come first
    timer = threading.Timer(seconds, lambda: raw.shutdown(socket.SHUT_RDWR))
    timer.start()
    try:
        websocket.create_connection(url, socket=raw, suppress_origin=True)
    finally:
        timer.cancel()
        timer.join()
        raw.close()


def last_entry(upbit: FakeUpbit) -> int:
    """The serial number of the newest entry of the wire log."""
    newest = upbit.wire_log(limit=1)
    return int(newest[0]["n"]) if newest else 0
