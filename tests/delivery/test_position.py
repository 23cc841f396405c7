"""A position: how far a subscriber has come, as a text."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.sinks.conftest import trade
from upbit_backbone import DataType
from upbit_backbone.delivery.mailbox import Mailbox
from upbit_backbone.delivery.position import Mark, is_position, read_position, write_position
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.models.request import Topic

TRADE, OTHER = Topic(DataType.TRADE, "KRW-BTC"), Topic(DataType.TRADE, "KRW-ETH")
CANDLE, TICKER = Topic(DataType.CANDLE_1M, "KRW-BTC"), Topic(DataType.TICKER, "KRW-BTC")
MARKS = {TRADE: Mark(1_769_828_400_100_000, 17_000_000_000_000_001), CANDLE: Mark(1_769_828_400_000_000)}


def test_what_is_written_is_read_again() -> None:
    text = write_position(MARKS)
    assert is_position(text)
    assert read_position(text, [TRADE, CANDLE, OTHER, TICKER]) == MARKS
    assert read_position(text, [TRADE]) == {TRADE: MARKS[TRADE]}
    assert MARKS[TRADE].moment == datetime(2026, 1, 31, 3, 0, 0, 100_000, UTC)


def test_who_was_given_nothing_begins_live() -> None:
    assert read_position(write_position({}), [TRADE]) == {}


@pytest.mark.parametrize(
    "text",
    [
        "position-2 trade:KRW-BTC=1@1",
        "position-1 trade:KRW-BTC",
        "position-1 trade:KRW-BTC=x@1",
        "position-1  trade:KRW-BTC=1@1",
        "position-1 " + "trade:KRW-BTC=1@1 " * 100_000,
        "position-1 trade:KRW-ETH=1@1",
    ],
)
def test_what_is_no_position_or_that_of_others_is_refused_in_few_words(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="position") as refused:
        read_position(text, [TRADE, TICKER])
    assert len(str(refused.value)) < 300


def test_it_is_behind_what_was_taken_and_before_what_waits() -> None:
    mailbox = Mailbox(None, 100)
    mailbox.put_many([(TRADE, trade(number), 0.0) for number in (1, 2, 3)])
    assert mailbox.marks() == {}
    mailbox.get()
    assert mailbox.marks() == {TRADE: Mark.of(trade(1))}
    mailbox.drain(1)
    assert mailbox.marks() == {TRADE: Mark.of(trade(2))}


def test_what_comes_late_does_not_move_it_back() -> None:
    mailbox = Mailbox(None, 100)
    newest = trade(5)
    late = replace(newest, sequential_id=4, timestamp=newest.timestamp - timedelta(seconds=9), is_backfilled=True)
    mailbox.put_many([(TRADE, newest, 0.0)])
    mailbox.put_many([(TRADE, late, 0.0)], is_late=True)
    mailbox.drain()
    assert mailbox.marks() == {TRADE: Mark.of(newest)}
