"""What relays have seen, as one text: who reads it is told nothing later than it was, and no nonsense."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from upbit_backbone import DataType
from upbit_backbone.models.request import Topic
from upbit_backbone.upstream.sightings import MAX_BYTES, heard, told

TRADE = Topic(DataType.TRADE, "KRW-BTC")
BOOK = Topic(DataType.ORDERBOOK, "KRW-BTC", Decimal(10_000))
AT = datetime(2026, 11, 30, 1, 2, 3, 456_789, UTC)


def test_what_was_told_is_heard_and_no_later_than_it_was() -> None:
    text = told("one", {TRADE: AT, BOOK: None})
    assert heard(text) == {TRADE: AT - timedelta(microseconds=789), BOOK: None}
    assert heard(text, but_of="another") == heard(text)
    assert heard(text, but_of="one") == {}


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"",
        b"{",
        b"[]",
        b'{"relay":"one"}',
        b'{"relay":"one","seen":{"trade:KRW-BTC":-1}}',
        b'{"relay":"one","seen":{"trade:KRW-BTC":1e99}}',
        b'{"relay":"one","seen":{"trade:KRW-BTC":99999999999999}}',
        b'{"relay":"one","seen":{"nonsense":1}}',
        told("x" * MAX_BYTES, {TRADE: AT}),
    ],
)
def test_what_is_none_of_ours_vouches_for_nothing(text: bytes | None) -> None:
    assert heard(text) == {}
