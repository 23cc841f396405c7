"""DataFrames: exact or float, aware index, the same columns for one kind of item."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.export.dataframe import COLUMNS, Rows, to_dataframe, to_polars
from upbit_backbone.models.enums import DataSource, Side
from upbit_backbone.models.market import CandleData, OrderbookData, TickerData, TradeData

pandas = pytest.importorskip("pandas")

START = datetime(2026, 3, 1, tzinfo=UTC)


def candles(count: int) -> list[CandleData]:
    price = Decimal("0.1234567890123456")
    return [
        CandleData(
            "KRW-BTC",
            "1m",
            price,
            price,
            price,
            price,
            Decimal(index),
            START + timedelta(minutes=index),
            DataSource.REST,
        )
        for index in range(count)
    ]


def trades() -> list[TradeData]:
    return [TradeData("KRW-BTC", Decimal("1E+8"), Decimal("0.5"), Side.BID, START, 17951516403650001, DataSource.REST)]


def test_exact_numbers_stay_decimals() -> None:
    frame = to_dataframe(candles(3))
    assert list(frame.columns) == list(COLUMNS[CandleData])
    assert frame["close_price"].iloc[0] == Decimal("0.1234567890123456")
    assert type(frame["volume"].iloc[2]) is Decimal
    assert frame["traded_value"].isna().all()


def test_float_numbers_are_float64_with_nan_for_what_is_missing() -> None:
    frame = to_dataframe([*candles(2)], numbers="float")
    assert frame["volume"].dtype == "float64"
    assert frame["volume"].tolist() == [0.0, 1.0]


def test_the_index_is_the_aware_time_in_the_zone_asked_for() -> None:
    frame = to_dataframe(candles(2))
    assert str(frame.index.tz) == "UTC"
    assert frame.index.name == "timestamp"
    korean = to_dataframe(candles(2), tz="Asia/Seoul")
    assert korean.index[0].hour == 9
    assert (korean.index == frame.index).all()


def test_trades_and_tickers_have_their_columns() -> None:
    frame = to_dataframe(trades())
    assert frame["sequential_id"].iloc[0] == 17951516403650001
    assert frame["side"].iloc[0] == "BID"
    ticker = TickerData("KRW-BTC", Decimal(1), Decimal("0.01"), None, None, None, None, None, START, DataSource.REST)
    frame = to_dataframe([ticker], "float")
    assert frame["change_rate"].iloc[0] == 0.01
    assert list(frame.columns) == list(COLUMNS[TickerData])


def test_an_empty_list_has_the_columns_of_the_kind_it_is_told() -> None:
    assert list(to_dataframe([], kind=TradeData).columns) == list(COLUMNS[TradeData])
    assert str(to_dataframe([]).index.tz) == "UTC"


def kinds() -> list[tuple[type[object], list[object]]]:
    ticker = TickerData("KRW-BTC", Decimal(1), Decimal("0.01"), None, None, None, None, None, START, DataSource.REST)
    return [(CandleData, [*candles(2)]), (TradeData, [*trades()]), (TickerData, [ticker])]


def emptied(item: object) -> object:
    """With everything missing that may be missing."""
    optional = {field.name: None for field in fields(item) if field.default is None}
    return replace(item, **optional)


@pytest.mark.parametrize("numbers", ["exact", "float"])
@pytest.mark.parametrize(("kind", "items"), kinds(), ids=lambda each: getattr(each, "__name__", ""))
def test_types_do_not_depend_on_what_is_there(kind: type[object], items: list[object], numbers: str) -> None:
    whole = to_dataframe(items, numbers)
    for other in ([], [emptied(item) for item in items]):
        frame = to_dataframe(other, numbers, kind=kind)
        assert frame.dtypes.to_dict() == whole.dtypes.to_dict()
        assert frame.index.dtype == whole.index.dtype
    assert str(whole["symbol"].dtype) == "string"


def test_a_missing_id_leaves_the_others_whole() -> None:
    (known,) = trades()
    frame = to_dataframe([known, replace(known, sequential_id=None)])
    assert frame["sequential_id"].iloc[0] == 17951516403650001
    assert frame["sequential_id"].isna().tolist() == [False, True]


@pytest.mark.parametrize("items", [[1], [*trades(), *candles(1)], [OrderbookData]])
def test_what_it_cannot_hold_is_refused(items: list[object]) -> None:
    with pytest.raises(InvalidRequestError, match="CandleData, TradeData, TickerData"):
        to_dataframe(items)


def test_an_unknown_way_of_numbers_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="'exact' or 'float'"):
        to_dataframe(candles(1), numbers="int")


def test_without_pandas_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"upbit-backbone\[pandas\]"):
        to_dataframe(candles(1))


def test_the_chart_style_has_six_float_columns_in_korean_time() -> None:
    frame = to_dataframe(candles(2), style="ohlcv")
    assert list(frame.columns) == ["open", "high", "low", "close", "volume", "value"]
    assert {str(kind) for kind in frame.dtypes} == {"float64"}
    assert str(frame.index[0]) == "2026-03-01 09:00:00+09:00"
    assert frame.index.name == "timestamp"
    assert list(to_dataframe([], style="ohlcv").columns) == list(frame.columns)
    exact = to_dataframe(candles(1), "exact", style="ohlcv", tz="UTC")
    assert exact["close"].iloc[0] == Decimal("0.1234567890123456")
    assert str(exact.index[0]) == "2026-03-01 00:00:00+00:00"


def test_what_the_market_gives_makes_a_chart_frame_of_itself() -> None:
    asked = Rows.of(CandleData, candles(2))
    assert asked.to_dataframe(style="ohlcv").equals(to_dataframe(candles(2), style="ohlcv"))
    assert asked.to_dataframe("exact", style="ohlcv", tz="UTC")["close"].iloc[0] == Decimal("0.1234567890123456")
    assert list(Rows.of(CandleData, []).to_dataframe(style="ohlcv").columns)[:2] == ["open", "high"]
    with pytest.raises(InvalidRequestError, match="is for candles"):
        Rows.of(TradeData, []).to_dataframe(style="ohlcv")


def test_the_chart_style_is_for_candles() -> None:
    for refused in ({"style": "ohlcv"}, {"style": "candles"}, {"layout": "deep"}):
        with pytest.raises(InvalidRequestError, match=r"expected|is for candles"):
            to_dataframe(trades(), **refused)


def several() -> dict[str, list[CandleData]]:
    return {
        "KRW-BTC": candles(3),
        "KRW-ETH": [replace(each, symbol="KRW-ETH", close_price=Decimal(7)) for each in candles(3)[1:]],
        "KRW-NEW": [],
    }


def test_many_markets_stand_one_below_the_other() -> None:
    frame = to_dataframe(several(), style="ohlcv")
    assert list(frame.columns)[:2] == ["symbol", "open"]
    assert frame.groupby("symbol").size().to_dict() == {"KRW-BTC": 3, "KRW-ETH": 2}
    assert to_dataframe(several())["symbol"].tolist() == ["KRW-BTC"] * 3 + ["KRW-ETH"] * 2
    assert to_dataframe({}, style="ohlcv").empty


def test_many_markets_stand_side_by_side() -> None:
    frame = to_dataframe(several(), style="ohlcv", layout="wide")
    assert frame.shape == (3, 18)
    assert frame["KRW-ETH"]["close"].tolist()[1:] == [7.0, 7.0]
    assert frame["KRW-ETH"]["close"].isna().tolist() == [True, False, False]
    closes = frame.xs("close", axis=1, level="field")
    assert list(closes.columns) == ["KRW-BTC", "KRW-ETH", "KRW-NEW"]
    as_list = [each for rows in several().values() for each in rows]
    assert to_dataframe(as_list, style="ohlcv", layout="wide").equals(frame.drop(columns="KRW-NEW", level=0))
    with pytest.raises(InvalidRequestError, match="several rows of the same time"):
        to_dataframe({"KRW-BTC": trades() * 2}, layout="wide")


def test_what_get_tickers_gives_is_a_row_for_each_market() -> None:
    ticker = TickerData("KRW-BTC", *[Decimal(1)] * 7, START, DataSource.REST)
    frame = to_dataframe({"KRW-BTC": ticker, "KRW-ETH": replace(ticker, symbol="KRW-ETH")}, "float")
    assert frame["symbol"].tolist() == ["KRW-BTC", "KRW-ETH"]
    assert frame["current_price"].tolist() == [1.0, 1.0]


def test_polars_has_the_same_columns_after_the_time() -> None:
    polars = pytest.importorskip("polars")
    frame = to_polars(candles(2))
    assert frame.columns == ["timestamp", *COLUMNS[CandleData]]
    assert frame["close_price"][0] == Decimal("0.1234567890123456")
    assert frame["timestamp"][0] == START
    chart = to_polars(several(), style="ohlcv")
    assert chart.columns == ["timestamp", "symbol", "open", "high", "low", "close", "volume", "value"]
    assert chart["close"].dtype == polars.Float64
    assert chart["timestamp"].dtype == polars.Datetime("us", "Asia/Seoul")
    assert to_polars(trades())["sequential_id"].to_list() == [17951516403650001]
    assert to_polars([], kind=TradeData).columns == ["timestamp", *COLUMNS[TradeData]]


def test_without_polars_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match="pip install polars"):
        to_polars(candles(1))
