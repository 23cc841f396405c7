"""A store is served as Upbit would, to clients that know nothing of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
import requests
import websocket

from tests.sinks.conftest import at, book, candle, ticker, trade
from upbit_backbone import DataType, MarketDataBackbone, Overflow
from upbit_backbone.sinks import SqliteSink
from upbit_backbone.sinks.base import Batch, Span

KINDS = ("trade", "ticker", "orderbook", "candle.1m")


@pytest.fixture
def store(tmp_path):
    sink = SqliteSink(tmp_path / "day.db")
    sink.open()
    items = [*map(trade, range(600)), *(ticker(number) for number in range(0, 600, 10)), book(10), book(300, size="9")]
    items.append(candle(0, "3", last_trade_at=at(59)))
    sink.write(Batch(items, (), tuple(Span("KRW-BTC", kind, at(0), at(61)) for kind in KINDS)))
    sink.close()
    return sink.path


@pytest.fixture
def serving(store):
    """serving(*words) -> the URLs of a server that plays the store"""
    with contextlib.ExitStack() as stack:

        def serve(*words: str) -> dict[str, str]:
            command = [sys.executable, "-m", "upbit_backbone.cli", "serve-replay", str(store), "--port", "0", "--json"]
            child = stack.enter_context(subprocess.Popen([*command, *words], stdout=subprocess.PIPE))
            stack.callback(child.kill)
            urls = json.loads(child.stdout.readline())
            return {name: urls[name] for name in ("rest_url", "websocket_url")}

        yield serve


def test_a_client_of_upbit_streams_a_day_of_the_past(serving):
    with MarketDataBackbone(**serving("--speed", "max")) as market:
        stream = market.subscribe("KRW-BTC", DataType.TRADE, overflow=Overflow.DROP_OLDEST)
        found = [stream.get(timeout=30.0) for _ in range(600)]
    assert [(each.sequential_id, each.price, each.timestamp) for each in found] == [
        (each.sequential_id, each.price, each.timestamp) for each in map(trade, range(600))
    ]


@pytest.mark.parametrize(("format_name", "code", "price"), [("DEFAULT", "code", "trade_price"), ("SIMPLE", "cd", "tp")])
def test_any_format_is_spoken_and_the_first_of_each_is_a_snapshot(serving, format_name, code, price):
    client = websocket.create_connection(serving("--speed", "max", "--start", at(30).isoformat())["websocket_url"])
    with contextlib.closing(client):
        asked = [
            {"ticket": "t"},
            {"type": "trade", "codes": ["KRW-BTC"]},
            {"type": "orderbook", "codes": ["KRW-BTC.1"]},
            {"format": format_name},
        ]
        client.send(json.dumps(asked))
        frames = [json.loads(client.recv()) for _ in range(4)]
    kind = "st" if format_name == "SIMPLE" else "stream_type"
    assert [each[kind] for each in frames[:3]] == ["SNAPSHOT", "SNAPSHOT", "REALTIME"]
    assert frames[0][code] == "KRW-BTC"
    assert frames[0][price] == float(trade(300).price)
    assert len(frames[1]["obu" if format_name == "SIMPLE" else "orderbook_units"]) == 1


def test_rest_answers_as_of_the_time_that_is_played(serving):
    url = serving("--start", at(30).isoformat())["rest_url"]

    def get(path: str) -> requests.Response:
        return requests.get(f"{url}/v1/{path}", timeout=30.0)

    assert [row["market"] for row in get("market/all").json()] == ["KRW-BTC"]
    answer = get("ticker?markets=KRW-BTC")
    assert answer.headers["Remaining-Req"].startswith("group=ticker")
    (row,) = answer.json()
    assert row["timestamp"] == at(30).timestamp() * 1000
    assert row["change"] == "FALL"
    trades = get("trades/ticks?market=KRW-BTC&count=3").json()
    assert [row["sequential_id"] for row in trades] == [trade(number).sequential_id for number in (300, 299, 298)]
    older = get(f"trades/ticks?market=KRW-BTC&count=1&cursor={trades[-1]['sequential_id']}").json()
    assert older[0]["sequential_id"] == trade(297).sequential_id
    assert get("orderbook?markets=KRW-BTC").json()[0]["orderbook_units"][0]["ask_size"] == 9
    (day,) = get("candles/minutes/5?market=KRW-BTC&count=5").json()
    assert (day["unit"], day["trade_price"]) == (5, float(trade(300).price))
    assert get("candles/minutes/1?market=KRW-BTC").json() == []  # it has its last trade in the future
    assert get("ticker?markets=KRW-ETH").status_code == 404
    assert get("ticker").status_code == 400
    assert get("accounts").status_code == 404
