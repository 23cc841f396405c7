"""The Redis sink, over a real server."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone.errors import AuthenticationError, FileInUseError, InvalidRequestError, NetworkError
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.events import GapEvent
from upbit_backbone.models.market import CandleData, OrderbookData, TickerData, TradeData
from upbit_backbone.sinks import sink_recorder, sink_writer
from upbit_backbone.sinks import spool as spool_module
from upbit_backbone.sinks.base import Batch, Hole, Span
from upbit_backbone.sinks.columns import from_micros
from upbit_backbone.sinks.coverage import TICK, Interval, KnownGap, complete

from .conftest import SYMBOLS, at, book, candle, ticker, trade

pytest.importorskip("redis", reason="the extra [redis] is not installed")

from tests.support.redis_server import RedisServer
from upbit_backbone.sinks.redis_streams import RedisStreamsSink

MakeSink = Callable[..., RedisStreamsSink]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder:  # short: the name of a socket has no room for that of a test
        server = RedisServer(Path(folder), keeps=True)
        yield server
        server.close()


@pytest.fixture
def make(server: RedisServer) -> Iterator[MakeSink]:
    made = []

    def make(**options: Any) -> RedisStreamsSink:
        made.append(RedisStreamsSink(server.url, **options))
        made[-1].open()
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def sink(make: MakeSink) -> RedisStreamsSink:
    return make()


def data(server: RedisServer, topic: str, prefix: str = "upbit-kept") -> list[str]:
    return [fields["data"] for _, fields in server.client.xrange(f"{{{prefix}}}:{topic}")]


def trades(server: RedisServer, symbol: str = "KRW-BTC") -> list[TradeData]:
    return [TradeData.from_json(each) for each in data(server, f"trade:{symbol}")]


def gap(first: float, last: float) -> GapEvent:
    return GapEvent(
        at=at(1000), symbol="KRW-BTC", type=DataType.TRADE, start=at(first), end=at(last), recovered=0, complete=False,
        missing_start=at(first), missing_end=at(last), reason="gone",
    )  # fmt: skip


def span(first: float, last: float, **more: Any) -> Span:
    return Span("KRW-BTC", "trade", at(first), at(last), **more)


def whole(server: RedisServer, symbol: str = "KRW-BTC") -> list[Interval]:
    """What the hashes say is complete of a market's trades."""
    spans, gaps = (server.client.hget(f"{{upbit-kept}}:{name}", f"trade:{symbol}") for name in ("coverage", "gaps"))
    found = [Interval(*map(from_micros, each)) for each in json.loads(spans or "[]")]
    told = [KnownGap(from_micros(first), from_micros(last), why) for first, last, why, *_ in json.loads(gaps or "[]")]
    return complete(found, told)


def test_what_goes_in_comes_out_equal_by_topic(sink, server):
    given = [trade(1), trade(2, "KRW-ETH"), ticker(1), ticker(2), book(1), candle(0), candle(1)]
    assert sink.write(Batch(given)) == 7
    assert trades(server) == [trade(1)]
    assert trades(server, "KRW-ETH") == [trade(2, "KRW-ETH")]
    assert [TickerData.from_json(each) for each in data(server, "ticker:KRW-BTC")] == [ticker(1), ticker(2)]
    assert [OrderbookData.from_json(each) for each in data(server, "orderbook:KRW-BTC")] == [book(1)]
    assert [CandleData.from_json(each) for each in data(server, "candle.1m:KRW-BTC")] == [candle(0), candle(1)]


def test_what_comes_again_is_there_once_and_counts_as_known(sink, server):
    batch = Batch([trade(1), trade(2), ticker(1), book(1), candle(0), trade(3, sequential_id=None)])
    assert sink.write(batch) == 6
    assert sink.write(batch) == 0
    assert sink.write(Batch([trade(2), trade(4), trade(4)])) == 1
    assert len(trades(server)) == 4
    assert sink.write(Batch([ticker(1, volume_today=Decimal("1.5")), ticker(1, volume_today=None)])) == 2


def test_a_corrected_candle_takes_the_place_of_the_earlier_one_but_none_that_forms_that_of_a_final_one(sink, server):
    def closes() -> list[Decimal]:
        return [CandleData.from_json(each).close_price for each in data(server, "candle.1m:KRW-BTC")]

    sink.write(Batch([candle(0, "3"), candle(1, "1"), candle(0, "4")]))
    assert closes() == [1, 4]
    sink.write(Batch([candle(0, "6", is_closed=True)]))
    assert sink.write(Batch([candle(0, "7"), candle(0, "6", is_closed=True)])) == 0
    assert closes() == [1, 6]


def test_the_later_of_two_books_of_one_moment_counts(sink, server):
    sink.write(Batch([book(1), replace(book(1, size="7"), received_at=at(5)), book(1)]))
    assert [OrderbookData.from_json(each).asks[0].size for each in data(server, "orderbook:KRW-BTC")] == [7]


@pytest.mark.slow
def test_a_stream_keeps_the_newest_and_what_has_left_it_does_not_come_back(make, server):
    sink = make(kept=500)
    for first in range(0, 3_000, 500):
        batch = Batch([trade(number) for number in range(first, first + 500)])
        assert sink.write(batch) == 500
        assert sink.write(batch) == 0
    assert 500 <= server.client.xlen("{upbit-kept}:trade:KRW-BTC") < 1_000
    assert sink.write(Batch([trade(number) for number in range(3_000)])) == 0
    assert trades(server)[-1] == trade(2_999)
    assert server.client.zcard("{upbit-kept}:ids:trade:KRW-BTC") == 2_000
    candles = [candle(minute) for minute in range(2_500)]
    sink.write(Batch(candles))
    assert server.client.hlen("{upbit-kept}:entries:candle.1m:KRW-BTC") == 2_000


def test_spans_that_touch_are_one_and_gaps_stay_missing_until_a_fill(sink, server):
    sink.write(Batch(spans=(span(0, 10), span(20, 30), span(10, 15), span(5, 12))))
    sink.gap(gap(3, 4))
    sink.gap(gap(3, 4))  # told again with a batch that failed
    after = at(4) + TICK
    assert whole(server) == [(at(0), at(3)), (after, at(15)), (at(20), at(30))]
    assert sink.holes() == [
        Hole("KRW-BTC", "trade", at(3), after),
        Hole("KRW-BTC", "trade", at(15), at(20)),
        Hole("KRW-BTC", "trade", at(30), None),
    ]
    sink.write(Batch(spans=(span(3, 3.5, is_fill=True),)))
    assert sink.holes()[0] == Hole("KRW-BTC", "trade", at(3.5), after)
    sink.write(Batch([trade(35)], spans=(span(2, 21, is_fill=True),)))
    assert whole(server) == [(at(0), at(30))]
    assert sink.holes() == [Hole("KRW-BTC", "trade", at(30), None)]


def test_two_recorders_of_the_same_markets_write_nothing_twice_and_lose_no_stretch(make, server):
    def record(sink: RedisStreamsSink, numbers: range) -> None:
        for number in numbers:
            items = [trade(each, symbol) for each in range(number, number + 30) for symbol in SYMBOLS]
            sink.write(Batch(items, spans=(span(number, number + 1),)))

    threads = [threading.Thread(target=record, args=(make(), each)) for each in (range(40), range(39, -1, -1))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60.0)
        assert not each.is_alive()
    for symbol in SYMBOLS:
        assert sorted(each.sequential_id for each in trades(server, symbol)) == [
            trade(number).sequential_id for number in range(69)
        ]
    assert whole(server) == [(at(0), at(40))]


def test_a_prefix_of_another_version_or_program_is_refused_and_left_alone(sink, server):
    server.client.set("{upbit-kept}:schema", "upbit-backbone sink 2")
    with pytest.raises(InvalidRequestError, match=r"sink 2.*choose another prefix"):
        sink.write(Batch([trade(1)]))
    server.client.set("{taken}:schema", "upbit-backbone relay 1")
    with pytest.raises(InvalidRequestError, match="relay 1"):
        RedisStreamsSink(server.url, prefix="taken").open()
    server.client.set("{other}:coverage", "not a hash")
    other = RedisStreamsSink(server.url, prefix="other")
    other.open()
    with pytest.raises(InvalidRequestError, match="keys of another kind"):
        other.write(Batch(spans=(span(0, 1),)))
    other.close()
    assert sorted(server.client.keys()) == [
        "{other}:coverage", "{other}:schema", "{taken}:schema", "{upbit-kept}:schema",
    ]  # fmt: skip


def test_a_wrong_password_is_told_and_no_password_is_in_any_text(server, caplog):
    caplog.set_level(logging.DEBUG)
    server.client.config_set("requirepass", "s3cret")
    sink = RedisStreamsSink(f"unix://:wr0ng@{server.socket}")
    with pytest.raises(AuthenticationError, match="refuses the user or password") as caught:
        sink.open()
    for text in ("".join(traceback.format_exception(caught.value)), repr(sink), sink.name, caplog.text):
        assert "wr0ng" not in text


def test_what_is_no_server_is_told_at_once(tmp_path):
    with pytest.raises(InvalidRequestError, match="URL of Redis"):
        RedisStreamsSink("http://localhost")
    with pytest.raises(InvalidRequestError, match="prefix="):
        RedisStreamsSink("redis://localhost", prefix="a b")
    with pytest.raises(NetworkError, match="cannot be reached"):
        RedisStreamsSink(f"unix://{tmp_path / 'none'}").open()


def test_a_spill_file_belongs_to_one_recorder(make, server, tmp_path):
    make(spill=tmp_path / "waiting")
    with pytest.raises(FileInUseError):
        RedisStreamsSink(server.url, spill=tmp_path / "waiting").open()


# Over the simulator


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back_costs_no_trade_and_doubles_none(
    upbit, market: MarketDataBackbone, server, monkeypatch
):
    monkeypatch.setattr(sink_recorder, "COVERAGE_SECONDS", 0.3)
    monkeypatch.setattr(sink_recorder, "LAST_COVERAGE_SECONDS", 0.3)
    monkeypatch.setattr(sink_writer, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(sink_writer, "LONGEST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(spool_module, "MEMORY_ROWS", 100)  # so that an outage outlasts it
    with market.record_to(RedisStreamsSink(server.url), SYMBOLS, flush_seconds=0.1) as recorder:
        wait_until(lambda: recorder.stats.written)
        server.kill()
        wait_until(lambda: recorder.stats.error)
        wait_until(lambda: recorder.stats.spilled > 100, lambda: str(recorder.stats))
        back = from_micros(upbit.now_ms() * 1000)
        server.start()
        wait_until(lambda: recorder.stats.error is None and not recorder.stats.waiting)
        wait_until(lambda: all(found and found[-1].end > back for found in (whole(server, each) for each in SYMBOLS)))
    assert recorder.stats.dropped == 0
    for symbol in SYMBOLS:
        have = [each.sequential_id for each in trades(server, symbol)]
        assert len(have) == len(set(have))
        known = whole(server, symbol)
        told = [
            row["sequential_id"]
            for row in upbit.trades(symbol)
            if any(each.start <= from_micros(row["trade_timestamp"] * 1000) < each.end for each in known)
        ]
        assert [each for each in told if each not in set(have)] == []


@pytest.mark.slow
def test_the_command_line_records_into_it_until_it_is_told_to_end(upbit, server):
    words = ["record", "KRW-BTC", "--type", "trade", "--redis", server.url]
    environment = {**os.environ, **upbit.environment(), "UPBIT_BACKBONE_LANGUAGE": "en"}
    with subprocess.Popen(
        [sys.executable, "-m", "upbit_backbone.cli", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True,
    ) as done:  # fmt: skip
        try:
            wait_until(lambda: trades(server))
            done.send_signal(signal.SIGINT)
            told = "".join(done.communicate(timeout=60.0))
        finally:
            done.kill()
    assert done.returncode == 0, told
    assert " written" in told
