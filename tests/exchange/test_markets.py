"""The price grids, against figures worked out by hand from Upbit's tables."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.exchange.markets import checked_direction, checked_price, rounded, step_at


@pytest.mark.parametrize(
    ("symbol", "price", "step"),
    [
        ("KRW-BTC", "131257000", "1000"),
        ("KRW-BTC", "1000000", "1000"),
        ("KRW-BTC", "999999", "500"),
        ("KRW-ETH", "499999", "100"),
        ("KRW-ETH", "9999", "5"),
        ("KRW-ETH", "4999", "1"),
        ("KRW-ETH", "100", "1"),
        ("KRW-ETH", "99.9", "0.1"),
        ("KRW-PEPE", "0.0123", "0.0001"),
        ("KRW-PEPE", "0.000001", "0.00000001"),
        ("KRW-USDT", "1450", "0.5"),
        ("KRW-USDC", "9999", "0.5"),
        ("KRW-USDT", "999", "1"),
        ("BTC-ETH", "0.0482", "0.00000001"),
        ("USDT-BTC", "78348", "0.01"),
        ("USDT-XRP", "2.5", "0.001"),
    ],
)
def test_the_step_is_that_of_the_prices_band(symbol: str, price: str, step: str) -> None:
    found = step_at(symbol, Decimal(price))
    assert found is not None
    assert found[1] == Decimal(step)


def test_a_quote_that_we_do_not_know_has_no_grid() -> None:
    assert step_at("SGD-BTC", Decimal(1)) is None


@pytest.mark.parametrize(
    ("price", "step", "down", "up", "nearest"),
    [
        ("131257499", "1000", "131257000", "131258000", "131257000"),
        ("131257500", "1000", "131257000", "131258000", "131258000"),
        ("131257000", "1000", "131257000", "131257000", "131257000"),
        ("0.00012345", "0.000001", "0.000123", "0.000124", "0.000123"),
        ("0", "1", "0", "0", "0"),
    ],
)
def test_prices_are_rounded_exactly(price: str, step: str, down: str, up: str, nearest: str) -> None:
    given_price, given_step = Decimal(price), Decimal(step)
    assert str(rounded(given_price, given_step, "down")) == down
    assert str(rounded(given_price, given_step, "up")) == up
    assert str(rounded(given_price, given_step, "nearest")) == nearest


@given(st.decimals(min_value=0, max_value=10**12, places=10), st.sampled_from(["KRW-BTC", "KRW-USDT", "USDT-BTC"]))
def test_what_is_rounded_lies_on_the_grid_and_next_to_the_price(price: Decimal, symbol: str) -> None:
    found = step_at(symbol, price)
    assert found is not None
    step = found[1]
    down, up = rounded(price, step, "down"), rounded(price, step, "up")
    assert down <= price <= up
    assert up - down in (0, step)
    assert rounded(price, step, "nearest") in (down, up)
    for each in (down, up):
        its = step_at(symbol, each)
        assert its is not None
        assert each % its[1] == 0  # also where it is the first of the next band


@pytest.mark.parametrize("price", [-1, "soon", float("nan"), float("inf"), True, None])
def test_what_is_no_price_is_refused(price: object) -> None:
    with pytest.raises(InvalidRequestError, match="price="):
        checked_price(price)


def test_a_float_counts_as_what_it_prints_and_a_direction_is_one_of_three() -> None:
    assert checked_price(0.1) == Decimal("0.1")
    with pytest.raises(InvalidRequestError, match="'down', 'up' or 'nearest'"):
        checked_direction("sideways")
