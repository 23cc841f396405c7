"""What models work out of what Upbit said."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from upbit_backbone import CandleData, DataSource

DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("k", [0.3, "0.3", Decimal("0.3")])
def test_a_breakout_target_is_exact_for_any_kind_of_number(k: float | str | Decimal) -> None:
    prices = (Decimal(100), Decimal("110.1"), Decimal(90), Decimal(101))
    candle = CandleData("KRW-BTC", "1d", *prices, Decimal(1), DAY, DataSource.REST)
    assert candle.breakout_target(k) == Decimal("107.03")
    assert str(candle.breakout_target(k)) == "107.03"
