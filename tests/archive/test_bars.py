from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sinks.conftest import trade
from upbit_backbone.archive.bars import bars_by
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.history.aggregate import candles_from_trades
from upbit_backbone.sinks.base import Batch

sizes = st.decimals(min_value="0.001", max_value=100, places=3)


def trades_of(numbers: list[tuple[Decimal, Decimal]]) -> list:
    return [trade(number, price=price, volume=volume) for number, (price, volume) in enumerate(numbers)]


trades = st.lists(st.tuples(sizes, sizes), max_size=30).map(trades_of)


@given(trades, st.sampled_from(["ticks", "volume", "value"]), st.decimals(min_value=1, max_value=500, places=2))
def test_every_trade_is_in_one_bar_and_only_the_last_is_not_full(rows, kind, size):
    bars = bars_by(kind, size, rows)
    assert sum(bar.volume for bar in bars) == sum(each.volume for each in rows)
    assert sum(bar.traded_value for bar in bars) == sum(each.price * each.volume for each in rows)
    rest = list(rows)
    for bar in bars:
        mine, taken = [], Decimal(0)
        while rest and taken < size:
            mine.append(rest.pop(0))
            taken += {"ticks": 1, "volume": mine[-1].volume, "value": mine[-1].price * mine[-1].volume}[kind]
        assert (bar.open_price, bar.close_price) == (mine[0].price, mine[-1].price)
        assert (bar.high_price, bar.low_price) == (max(e.price for e in mine), min(e.price for e in mine))
        assert (bar.timestamp, bar.last_trade_at) == (mine[0].timestamp, mine[-1].timestamp)
        assert bar.is_closed == (taken >= size)
    assert not rest
    assert all(bar.is_closed for bar in bars[:-1])


@pytest.mark.parametrize("size", [0, -1, "many", float("nan"), True])
def test_a_bar_of_nothing_is_refused(size):
    with pytest.raises(InvalidRequestError, match=r"volume=.*expected a number > 0"):
        bars_by("volume", size, [])


def test_a_store_makes_bars_of_all_four_kinds_and_of_one_at_a_time(make_store):
    rows = [trade(number) for number in range(100)]
    store = make_store(Batch(rows))
    assert store.bars("KRW-BTC", "1s") == candles_from_trades(rows, "1s")
    assert [bar.timeframe for bar in store.bars("KRW-BTC", ticks=40)] == ["40 ticks"] * 3
    assert len(store.bars("KRW-BTC", volume="0.0012345")) == 10
    assert store.bars("KRW-BTC", value=10**12)[0].traded_value == sum(row.price * row.volume for row in rows)
    for wrong in ({}, {"ticks": 3, "volume": 1}, {"timeframe": "1m", "ticks": 3}):
        with pytest.raises(InvalidRequestError, match="give one of"):
            store.bars("KRW-BTC", **wrong)
