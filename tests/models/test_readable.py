"""How things show themselves: one readable line, a table in a notebook, and nothing of it obeyed by either."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from upbit_backbone import ChannelDecision, MarketDataBackbone
from upbit_backbone.export.dataframe import Rows
from upbit_backbone.models.enums import Channel, DataSource, Side
from upbit_backbone.models.market import (
    CandleData,
    Instrument,
    MarketInfo,
    OrderbookData,
    OrderbookUnit,
    TickerData,
    TradeData,
)
from upbit_backbone.models.number import plain

NOON = datetime(2026, 11, 28, 3, tzinfo=UTC)
PRICE, SMALL, REST = Decimal("132677000"), plain(Decimal("1.234E-7")), DataSource.REST
UNIT = OrderbookUnit(PRICE, SMALL)
TICKER = TickerData("KRW-BTC", PRICE, Decimal("-0.0135"), None, None, None, None, None, NOON, DataSource.WEBSOCKET)
TRADE = TradeData("KRW-BTC", PRICE, SMALL, Side.BID, NOON, 17, REST)
BOOK = OrderbookData("KRW-BTC", (UNIT,) * 30, (UNIT,) * 30, None, None, NOON, REST)
CANDLE = CandleData("KRW-BTC", "1m", PRICE, PRICE, PRICE, PRICE, SMALL, NOON, REST)
MARKET = MarketInfo("KRW-BTC", "비트코인", "Bitcoin", REST, cautions=("PRICE_FLUCTUATIONS",))
LINES: list[tuple[Any, str]] = [
    (TICKER, "KRW-BTC 132,677,000 (-1.35 %) 2026-11-28 12:00:00 KST websocket"),
    (
        replace(TICKER, change_rate=None, degraded=True),
        "KRW-BTC 132,677,000 2026-11-28 12:00:00 KST websocket, degraded",
    ),
    (TRADE, "KRW-BTC buy 0.0000001234 at 132,677,000 2026-11-28 12:00:00 KST"),
    (
        replace(TRADE, side=None, is_backfilled=True),
        "KRW-BTC trade 0.0000001234 at 132,677,000 2026-11-28 12:00:00 KST backfilled",
    ),
    (BOOK, "KRW-BTC 132,677,000 / 132,677,000 30+30 levels 2026-11-28 12:00:00 KST rest"),
    (replace(BOOK, asks=()), "KRW-BTC 132,677,000 / – 30+0 levels 2026-11-28 12:00:00 KST rest"),
    (UNIT, "0.0000001234 at 132,677,000"),
    (MARKET, "KRW-BTC 비트코인 (Bitcoin) PRICE_FLUCTUATIONS"),
    (Instrument("KRW-BTC", REST, tick_size=Decimal(1000)), "KRW-BTC tick 1,000"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "line"), LINES)
def test_a_model_is_one_line_for_people_and_says_its_type_in_a_console(model: Any, line: str) -> None:
    assert str(model) == line
    assert repr(model) == f"<{type(model).__name__} {line}>"
    assert len(repr(model)) < 200


def test_a_candle_tells_its_prices_and_whether_it_is_closed() -> None:
    assert str(CANDLE).startswith("KRW-BTC 1m 2026-11-28 12:00:00 KST O=132,677,000 H=")
    assert str(CANDLE).endswith("V=0.0000001234 closed")
    assert str(replace(CANDLE, is_closed=False)).endswith("forming")
    assert str(replace(CANDLE, is_filled=True)).endswith("filled")


@pytest.mark.parametrize("model", [TICKER, TRADE, BOOK, UNIT, CANDLE, MARKET])
def test_a_notebook_gets_a_table_and_foreign_words_do_nothing_there(model: Any) -> None:
    assert model._repr_html_().startswith("<table>")
    harmful = replace(model, symbol="<script>alert(1)</script>\x1b[31m") if hasattr(model, "symbol") else model
    assert "<script>" not in harmful._repr_html_()
    assert str(harmful).isprintable()


@pytest.mark.parametrize("model", [TICKER, TRADE, BOOK, CANDLE, replace(MARKET, timestamp=NOON)])
def test_every_model_with_a_time_tells_it_in_korea(model: Any) -> None:
    assert model.timestamp_kst == NOON
    assert model.timestamp_kst.utcoffset() == timedelta(hours=9)
    assert MARKET.timestamp_kst is None


def test_two_hundred_candles_are_a_line_and_a_list_in_every_respect() -> None:
    plain_list = [replace(CANDLE, timestamp=NOON + timedelta(minutes=minute)) for minute in range(200)]
    rows = Rows.of(CandleData, plain_list)
    assert len(repr(rows)) < 500
    assert "198 more" in repr(rows)
    assert repr(rows[:2]) == repr(plain_list[:2])
    assert (rows, list(rows), rows[5], rows[-2:]) == (plain_list, plain_list, plain_list[5], plain_list[-2:])
    assert pickle.loads(pickle.dumps(rows)) == plain_list  # noqa: S301 - our own
    html = rows._repr_html_()
    assert html.count("<tr>") == 22
    assert "200 rows" in html
    assert repr(Rows.of(CandleData, [])) == "[]"
    assert "0 rows" in Rows.of(TradeData, [])._repr_html_()


@pytest.mark.parametrize("rows", [Rows.of(CandleData, [CANDLE]), Rows.of(TradeData, [TRADE]), Rows.of(CandleData, [])])
def test_candles_and_trades_make_a_frame_of_themselves(rows: Rows[Any]) -> None:
    pytest.importorskip("pandas")
    frame = rows.to_dataframe("float", tz="Asia/Seoul")
    assert len(frame) == len(rows)
    assert "volume" in frame.columns


def test_health_performance_and_decisions_are_short_in_a_console_and_whole_in_a_notebook() -> None:
    with MarketDataBackbone(url="http://127.0.0.1:9") as market:
        health, performance = market.health(), market.performance()
    decision = ChannelDecision((Channel.LIVE, Channel.REST), "the stream is <alive>", "live", facts={"age": 0.5})
    for report in (health, performance, decision):
        assert len(repr(report)) < 200
        assert "\n" not in repr(report)
    assert "HEALTHY" in repr(health)
    assert health._repr_html_().startswith("<pre>HEALTHY")
    assert performance._repr_html_().startswith("<pre>")
    assert repr(decision) == "<ChannelDecision LIVE → REST: the stream is <alive>>"
    assert "&lt;alive&gt;" in decision._repr_html_()
    assert "age" in decision._repr_html_()
