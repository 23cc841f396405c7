from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from upbit_backbone import MarketDataBackbone
from upbit_backbone.archive import CoverageState, Store
from upbit_backbone.models.enums import Change, DataSource, Side, StreamType
from upbit_backbone.models.market import CandleData, OrderbookData, OrderbookUnit, TickerData, TradeData
from upbit_backbone.models.number import plain
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.sinks.columns import from_micros

SYMBOLS = ["KRW-BTC", "KRW-ETH"]
START = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def trade(number: int, symbol: str = "KRW-BTC", seconds: float | None = None, **more) -> TradeData:
    values = {
        "symbol": symbol,
        "price": Decimal("106691000") + number,
        "volume": Decimal("0.00012345"),
        "side": Side.BID,
        "timestamp": at(number / 10 if seconds is None else seconds),
        "sequential_id": 17_000_000_000_000_000 + number,
        "source": DataSource.WEBSOCKET,
        "prev_closing_price": Decimal("106000000"),
        "stream_type": StreamType.REALTIME,
        "received_at": at(number / 10 + 0.05),
    }
    return TradeData(**{**values, **more})


def candle(minute: int, close: str = "3", symbol: str = "KRW-BTC", **more) -> CandleData:
    values = {
        "symbol": symbol,
        "timeframe": "1m",
        "open_price": Decimal(1),
        "high_price": Decimal(9),
        "low_price": Decimal("0.5"),
        "close_price": Decimal(close),
        "volume": Decimal("12.25"),
        "timestamp": at(60 * minute),
        "source": DataSource.WEBSOCKET,
        "is_closed": False,
    }
    return CandleData(**{**values, **more})


def ticker(number: int, symbol: str = "KRW-BTC", **more) -> TickerData:
    values = {
        "symbol": symbol,
        "current_price": Decimal("0.00001234"),
        "change_rate": Decimal("-0.0123456789"),
        "change_amount": Decimal("-5"),
        "volume_24h": Decimal("1234.5"),
        "high_24h": None,
        "low_24h": None,
        "prev_closing_price": Decimal(5),
        "timestamp": at(number / 10),
        "source": DataSource.WEBSOCKET,
        "change": Change.FALL,
        "volume_today": Decimal(number),
        "highest_52_week_date": datetime(2025, 5, 6, tzinfo=UTC).date(),
        "is_trading_suspended": False,
        "received_at": at(number / 10),
    }
    return TickerData(**{**values, **more})


def book(number: int, symbol: str = "KRW-BTC", size: str = "2.5") -> OrderbookData:
    return OrderbookData(
        symbol=symbol,
        asks=(
            OrderbookUnit(Decimal(101), Decimal(size)),
            OrderbookUnit(Decimal("101.5"), plain(Decimal("0.00000001"))),
        ),
        bids=(OrderbookUnit(Decimal(100), Decimal(3)),),
        total_ask_size=Decimal("2.50000001"),
        total_bid_size=Decimal(3),
        timestamp=at(number / 10),
        source=DataSource.WEBSOCKET,
        received_at=at(number / 10),
    )


def stored(path, symbol: str) -> set[int]:
    return {trade.sequential_id for trade in Store(path).trades(symbol)}


def missing(upbit, path, symbol: str) -> list[int]:
    """Trades of the simulator's that the store says it has, and has not."""
    have = stored(path, symbol)
    whole = [each for each in Store(path).coverage(symbol) if each.state is CoverageState.COMPLETE]
    told = [
        row["sequential_id"]
        for row in upbit.trades(symbol)
        if any(each.start <= from_micros(row["trade_timestamp"] * 1000) < each.end for each in whole)
    ]
    return [each for each in told if each not in have]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "day.db"


@pytest.fixture
def upbit():
    with FakeUpbit(seed=5, markets=SYMBOLS, trades_per_second=60.0) as upbit:
        yield upbit


def backbone(upbit: FakeUpbit) -> MarketDataBackbone:
    # By two doors: `refuse` closes that of the streams alone.
    return MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url)


@pytest.fixture
def market(upbit):
    with backbone(upbit) as market:
        yield market
