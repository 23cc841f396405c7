"""Recording and replaying through the one door."""

from __future__ import annotations

import queue
import threading
from datetime import UTC, datetime, timedelta

import pytest

from upbit_backbone import DataType, HealthStatus, MarketDataBackbone, Overflow
from upbit_backbone.errors import ClosedError, InvalidRequestError
from upbit_backbone.models.events import ConnectionEvent, ConnectionState, RecordingEvent
from upbit_backbone.recorder import Recording
from upbit_backbone.recorder.format import RecordKind
from upbit_backbone.recorder.recording import RecordingWriter
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


def test_before_anybody_subscribes_the_clock_stands_at_the_beginning_and_no_limit_is_in_the_way(upbit, path):
    with backbone(upbit) as market, market.record(path):
        day = timedelta(days=1)
        start = datetime.now(UTC) - day
        asked = [{"count": 500}, {"start": start, "end": start + day / 2}]
        candles = [market.get_candles("KRW-BTC", "1m", **bounds) for bounds in asked]
        assert all(candles)
    with MarketDataBackbone.replay(path) as market:
        again = [market.get_candles("KRW-BTC", "1m", **bounds, timeout=5.0) for bounds in asked]
    for then, now in zip(candles, again, strict=True):
        assert [(each.timestamp, each.close_price) for each in now] == [(x.timestamp, x.close_price) for x in then]


def test_on_event_hears_a_replay_from_its_first_event_on(upbit, path):
    with backbone(upbit) as market, market.record(path):
        market.subscribe("KRW-BTC", DataType.TRADE).get(timeout=10.0)
    events: queue.Queue = queue.Queue()
    with MarketDataBackbone.replay(path, on_event=events.put) as market:
        assert len(list(market.subscribe("KRW-BTC", DataType.TRADE))) > 0
    first = events.get(timeout=10.0)
    assert (type(first), first.state) == (ConnectionEvent, ConnectionState.LIVE)


def test_a_replay_begins_and_ends_where_it_is_told_to(upbit, path):
    with backbone(upbit) as market, market.record(path):
        trades = market.subscribe("KRW-BTC", DataType.TRADE)
        seen = [trades.get(timeout=10.0) for _ in range(60)]
    start, end = seen[20].received_at, seen[40].received_at
    with MarketDataBackbone.replay(path, start=start, end=end) as market:
        played = list(market.subscribe("KRW-BTC", DataType.TRADE, overflow=Overflow.DROP_OLDEST))
    wanted = [trade for trade in seen if start <= trade.received_at < end]
    assert as_bytes(played) == as_bytes(wanted)


@pytest.mark.parametrize(
    "span",
    [
        {"start": datetime(2026, 1, 1)},
        {"end": "2026-01-01"},
        {"start": datetime(2026, 1, 2, tzinfo=UTC), "end": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
)
def test_a_span_that_makes_no_sense_is_refused(path, span):
    with pytest.raises(InvalidRequestError, match=r"start|end"):
        MarketDataBackbone.replay(path, **span)


def test_a_recorder_that_fails_is_an_event_and_the_health_knows(upbit, path, monkeypatch):
    def fail(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordingWriter, "append", fail)
    events: queue.Queue = queue.Queue()
    with backbone(upbit) as market:
        market.on_event(events.put)
        recorder = market.record(path)
        while not isinstance(event := events.get(timeout=10.0), RecordingEvent):
            pass
        assert "No space left" in event.error
        health = market.health()
        assert health.status is HealthStatus.DEGRADED
        assert any("No space left" in reason for reason in health.reasons)
        assert market.get_ticker("KRW-BTC").symbol == "KRW-BTC"
        recorder.close()
        assert market.health().recorder is None


def test_rest_answers_are_recorded(upbit, path):
    with backbone(upbit) as market, market.record(path):
        trades = market.get_trades("KRW-BTC", count=10)
    kinds = [record.kind for record in Recording(path)]
    assert RecordKind.REST in kinds
    with MarketDataBackbone.replay(path) as market:
        assert as_bytes(market.get_trades("KRW-BTC", count=10))[:1] != []
        assert [t.sequential_id for t in market.get_trades("KRW-BTC", count=10)] == [t.sequential_id for t in trades]
