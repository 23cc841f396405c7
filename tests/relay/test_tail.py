"""What a relay remembers of what it has published: the last seconds, and before that a little of each topic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from upbit_backbone import DataSource, DataType, TradeData
from upbit_backbone.models.request import Topic
from upbit_backbone.relay.tail import OLDER_ITEMS, TAIL_SECONDS, Tail

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
BTC, ETH = Topic(DataType.TRADE, "KRW-BTC"), Topic(DataType.TRADE, "KRW-ETH")


def trade(number: int, symbol: str = "KRW-BTC") -> TradeData:
    moment = NOON + timedelta(seconds=number)
    return TradeData(symbol, Decimal(1), Decimal(1), "BID", moment, number, DataSource.WEBSOCKET)


def numbers(tail: Tail, *topics: Topic) -> list[int | None]:
    return [item.sequential_id for item in tail.of(topics) if isinstance(item, TradeData)]


def test_the_last_seconds_are_kept_whole_and_of_what_is_older_the_last_few() -> None:
    tail = Tail()
    for number in range(100):
        tail.add(float(number), trade(number))
    tail.shorten(99.0)
    oldest = round(99 - TAIL_SECONDS)
    assert numbers(tail, BTC) == list(range(oldest - OLDER_ITEMS, 100))
    assert len(tail) == len(numbers(tail, BTC))
    tail.shorten(1000.0)
    assert numbers(tail, BTC) == list(range(100 - OLDER_ITEMS, 100)), "of a quiet market, however long ago"


def test_a_busy_market_takes_nothing_from_a_quiet_one() -> None:
    tail = Tail()
    tail.add(0.0, trade(0, "KRW-ETH"))
    for number in range(1, 100):
        tail.add(float(number), trade(number))
    tail.shorten(99.0)
    assert tail.topics == {BTC, ETH}
    assert numbers(tail, ETH) == [0]
    assert numbers(tail) == []
