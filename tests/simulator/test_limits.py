"""Rate limits, bans and the wire log that proves them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import websocket

from upbit_backbone.simulator import FakeUpbit

Connect = Callable[..., Any]
Get = Callable[..., Any]


def test_ten_requests_a_second_per_group_and_not_one_more(get: Get) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"]) as upbit:
        tickers = [get(upbit, "/v1/ticker", markets="KRW-BTC") for _ in range(11)]
        other_group = get(upbit, "/v1/orderbook", markets="KRW-BTC")
        log = upbit.requests(group="ticker")
        busiest = upbit.busiest(group="ticker"), upbit.busiest(group="ticker", status=200), upbit.busiest("handshake")
    assert busiest == (11, 10, 0)
    assert [one.status for one in tickers] == [200] * 10 + [429]
    assert tickers[-1].body == b"Too many API requests."
    assert "retry-after" not in tickers[-1].headers
    assert other_group.status == 200
    assert [one["status"] for one in log] == [200] * 10 + [429]
    assert log[-1]["t"] - log[0]["t"] < 1.0


def test_remaining_req_uses_the_names_of_the_wire(get: Get) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"], start_time="2026-11-20T05:00:00.0Z") as upbit:
        headers = [
            get(upbit, path).headers["remaining-req"]
            for path in (
                "/v1/market/all",
                "/v1/candles/days?market=KRW-BTC",
                "/v1/trades/ticks?market=KRW-BTC",
                "/v1/ticker?markets=KRW-BTC",
                "/v1/orderbook?markets=KRW-BTC",
            )
        ]
    assert headers == [
        f"group={name}; min=600; sec=9" for name in ("market", "candles", "crix-trades", "ticker", "orderbook")
    ]


def test_an_origin_header_leaves_one_request_in_ten_seconds(get: Get) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"]) as upbit:
        origin = {"Origin": "https://example.com"}
        first = get(upbit, "/v1/ticker", origin, markets="KRW-BTC")
        second = get(upbit, "/v1/orderbook", origin, markets="KRW-BTC")
        with pytest.raises(websocket.WebSocketBadStatusException, match="429"):
            websocket.create_connection(upbit.websocket_url, timeout=5)
        assert get(upbit, "/v1/ticker", markets="KRW-BTC").status == 200
    assert first.headers["remaining-req"] == "group=origin; min=6; sec=0"
    assert second.status == 429


def test_a_lowered_limit_and_its_end(get: Get) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"], body_429="json", retry_after=True) as upbit:
        upbit.set_limit("market", 1)
        answers = [get(upbit, "/v1/market/all") for _ in range(2)]
        upbit.set_limit("market", None)
        answers.append(get(upbit, "/v1/market/all"))
    assert [one.status for one in answers] == [200, 429, 200]
    assert answers[1].json["error"]["name"] == 429
    assert answers[1].headers["retry-after"] == "1"


def test_going_on_after_429s_ends_in_a_block_that_says_how_long(get: Get) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"], rest_limit=1, ban_after=3, ban_seconds=60) as upbit:
        statuses = [get(upbit, "/v1/market/all").status for _ in range(4)]
        blocked = get(upbit, "/v1/ticker", markets="KRW-BTC")
        with pytest.raises(websocket.WebSocketBadStatusException, match="418"):
            websocket.create_connection(upbit.websocket_url, timeout=5, suppress_origin=True)
    assert statuses == [200, 429, 429, 429]
    assert blocked.status == 418
    assert "60" in blocked.json["error"]["message"]


def test_a_ban_covers_everything_until_it_ends(upbit: FakeUpbit, get: Get) -> None:
    upbit.ban(7)
    answer = get(upbit, "/v1/market/all")
    assert (answer.status, answer.json["error"]["name"]) == (418, 418)
    assert "7초" in answer.json["error"]["message"]
    upbit.clear_faults()
    assert get(upbit, "/v1/market/all").status == 200


def test_the_sixth_handshake_of_a_second_is_refused(connect: Connect) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"]) as upbit:
        streams = [connect(upbit) for _ in range(5)]
        with pytest.raises(websocket.WebSocketBadStatusException, match="429"):
            connect(upbit)
        log = upbit.wire_log("handshake")
        remaining = streams[0].socket.getheaders()["remaining-req"]
    assert [one["status"] for one in log] == [101] * 5 + [429]
    assert not any(one["origin"] for one in log)
    assert remaining == "group=websocket; min=300; sec=4"


def test_the_sixth_message_of_a_second_ends_the_connection(connect: Connect) -> None:
    with FakeUpbit(trades_per_second=0, markets=["KRW-BTC"]) as upbit:
        stream, other = connect(upbit), connect(upbit)
        for _ in range(6):
            stream.ask({"method": "LIST_SUBSCRIPTIONS"})
        answers = [stream.read() for _ in range(6)]
        assert answers[-1]["error"]["name"] == "Too Many Requests"
        assert stream.close_code() == 1000
        other.ask({"method": "LIST_SUBSCRIPTIONS"})
        assert other.read()["result"] == []


def test_the_wire_log_keeps_order_time_and_text(upbit: FakeUpbit, connect: Connect) -> None:
    last = upbit.wire_log(limit=1)
    since = last[0]["n"] if last else None
    before = time.monotonic()
    stream = connect(upbit)
    stream.ask({"type": "ticker", "codes": ["KRW-BTC"]})
    stream.read()
    entries = upbit.wire_log(since=since)
    assert [one["kind"] for one in entries] == ["connect", "handshake", "message"]
    assert before <= entries[0]["t"] <= entries[2]["t"] <= time.monotonic()
    assert json.loads(entries[2]["text"])[1] == {"type": "ticker", "codes": ["KRW-BTC"]}
    assert entries[0]["port"] == entries[2]["port"] == stream.socket.sock.getsockname()[1]
    assert upbit.sessions()[0]["sent"] == {"ticker": 1}
