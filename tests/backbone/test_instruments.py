"""What a market allows, by Upbit's word first and by its table where it does not speak."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from upbit_backbone import InvalidRequestError, MarketDataBackbone, UnknownSymbolError
from upbit_backbone.exchange.markets import step_at
from upbit_backbone.simulator import FakeUpbit


def test_instruments_are_told_by_symbol(market: MarketDataBackbone) -> None:
    instruments = market.get_instruments(["KRW-ETH", "BTC-ETH", "KRW-BTC"])
    assert list(instruments) == ["KRW-ETH", "BTC-ETH", "KRW-BTC"]
    bitcoin = instruments["KRW-BTC"]
    assert bitcoin.tick_size == Decimal(1000)
    assert bitcoin.supported_levels is not None
    assert Decimal(0) in bitcoin.supported_levels
    with pytest.raises(UnknownSymbolError):
        market.get_instruments(["KRW-NOSUCH"])
    with pytest.raises(InvalidRequestError, match="not both"):
        market.get_instruments(["KRW-BTC"], quote="KRW")


def test_a_whole_quote_currency_takes_one_request_and_agrees_with_the_table(
    market: MarketDataBackbone, wire: Any
) -> None:
    instruments = market.get_instruments(quote="KRW")
    assert wire.paths.count("/v1/orderbook/instruments") == 1
    for symbol, ticker in market.get_tickers(quote="KRW").items():
        # Where the price stands exactly on a bound the best bid, by which the simulator goes, is one step below it.
        price, tick_size = ticker.current_price, instruments[symbol].tick_size
        assert tick_size is not None
        allowed = [step_at(symbol, each) for each in (price, price - tick_size)]
        assert tick_size in [found[1] for found in allowed if found is not None], symbol


def test_a_price_is_rounded_by_upbits_word_near_the_present_price_and_by_the_table_elsewhere(
    market: MarketDataBackbone,
) -> None:
    present = market.get_ticker("KRW-BTC").current_price
    assert market.round_price("KRW-BTC", present + 499) == present
    assert market.round_price("KRW-BTC", present + 499, "up") == present + 1000
    assert market.round_price("KRW-BTC", present + Decimal("500"), "nearest") == present + 1000
    assert market.round_price("KRW-BTC", 1234.5) == Decimal(1234)
    assert market.round_price("KRW-BTC", "0.123456789", "up") == Decimal("0.124")


def test_where_upbit_does_not_say_the_table_does(market: MarketDataBackbone, upbit: FakeUpbit) -> None:
    present = market.get_ticker("KRW-BTC").current_price
    upbit.rest_fault("/v1/orderbook/instruments", status=404)
    assert market.round_price("KRW-BTC", present + 1) == present


def test_a_grouping_that_a_market_does_not_have_is_refused_with_those_it_has(market: MarketDataBackbone) -> None:
    with pytest.raises(InvalidRequestError, match=r"KRW-BTC with level=7: .*there are 0, 10000"):
        market.get_orderbook("KRW-BTC", level=7)
