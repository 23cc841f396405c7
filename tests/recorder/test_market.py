"""Recording and replaying through the one door."""

from __future__ import annotations

import threading

import pytest

from upbit_backbone import DataType, MarketDataBackbone, Overflow
from upbit_backbone.errors import ClosedError, InvalidRequestError
from upbit_backbone.recorder import Recording
from upbit_backbone.recorder.format import RecordKind
from upbit_backbone.simulator import FakeUpbit

SYMBOLS = ["KRW-BTC", "KRW-ETH"]


@pytest.fixture
def upbit():
    with FakeUpbit(seed=5, markets=SYMBOLS, trades_per_second=100.0) as upbit:
        yield upbit


def backbone(upbit: FakeUpbit) -> MarketDataBackbone:
    return MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url)


def as_bytes(items) -> list[str]:
    return [item.to_json() for item in items]


def test_replaying_reproduces_the_same_deliveries_even_over_an_outage(upbit, path):
    delivered = []
    with backbone(upbit) as market:
        recorder = market.record(path)
        trades = market.subscribe(SYMBOLS, DataType.TRADE, overflow=Overflow.DROP_OLDEST)
        delivered += [trades.get(timeout=10.0) for _ in range(50)]
        upbit.refuse(1.0)  # and drops the line: a hole of a second, to be filled from REST
        delivered += [trades.get(timeout=10.0) for _ in range(100)]
        assert recorder.close() == []
    assert any(trade.is_backfilled for trade in delivered)
    replays = []
    for _ in range(2):
        with MarketDataBackbone.replay(path) as market:
            replays.append(list(market.subscribe(SYMBOLS, DataType.TRADE, overflow=Overflow.DROP_OLDEST)))
    assert as_bytes(replays[0]) == as_bytes(replays[1])
    for symbol in SYMBOLS:
        # Filling a hole took time then and takes none now, so markets may have moved against each other.
        then = [trade for trade in delivered if trade.symbol == symbol]
        again = [trade for trade in replays[0] if trade.symbol == symbol]
        assert as_bytes(again[: len(then)]) == as_bytes(then)


def test_a_replay_gives_the_latest_values_while_it_plays(upbit, path):
    with backbone(upbit) as market, market.record(path):
        stream = market.subscribe("KRW-BTC", DataType.TICKER)
        for _ in range(20):
            stream.get(timeout=10.0)
    seen = []
    with MarketDataBackbone.replay(path, speed=1.0) as market:
        for ticker in market.subscribe("KRW-BTC", DataType.TICKER):
            seen.append(market.get_ticker("KRW-BTC").symbol if len(seen) < 3 else ticker.symbol)
    assert set(seen) == {"KRW-BTC"}


def test_callbacks_get_everything_of_a_replay(upbit, path):
    with backbone(upbit) as market, market.record(path):
        stream = market.subscribe("KRW-BTC", DataType.TRADE)
        wanted = [stream.get(timeout=10.0).sequential_id for _ in range(50)]
    got: list[int] = []
    enough = threading.Event()

    def take(trade):
        got.append(trade.sequential_id)
        if len(got) >= len(wanted):
            enough.set()

    with MarketDataBackbone.replay(path) as market:
        market.subscribe_realtime("KRW-BTC", [DataType.TRADE], callback=take)
        assert enough.wait(10.0)
    assert got[: len(wanted)] == wanted


def test_one_recorder_at_a_time_and_none_after_close(upbit, path, tmp_path):
    market = backbone(upbit)
    recorder = market.record(path)
    with pytest.raises(InvalidRequestError, match="being recorded"):
        market.record(tmp_path / "other.rec")
    recorder.close()
    market.record(tmp_path / "other.rec")
    market.close()  # ends the forgotten recorder too: the leak check of every test sees to it
    with pytest.raises(ClosedError):
        market.record(path)


def test_rest_answers_are_recorded(upbit, path):
    with backbone(upbit) as market, market.record(path):
        trades = market.get_trades("KRW-BTC", count=10)
    kinds = [record.kind for record in Recording(path)]
    assert RecordKind.REST in kinds
    with MarketDataBackbone.replay(path) as market:
        assert as_bytes(market.get_trades("KRW-BTC", count=10))[:1] != []
        assert [t.sequential_id for t in market.get_trades("KRW-BTC", count=10)] == [t.sequential_id for t in trades]
