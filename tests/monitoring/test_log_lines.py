from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.models.enums import DataType
from upbit_backbone.models.events import (
    BreakerEvent,
    ConnectionEvent,
    ConnectionState,
    GapEvent,
    MalformedEvent,
    StaleEvent,
    SubscriptionEvent,
)
from upbit_backbone.monitoring.log_lines import EventLog

LIVE, WAITING, CONNECTING = ConnectionState.LIVE, ConnectionState.WAITING, ConnectionState.CONNECTING


@pytest.fixture
def written(hand_clock):
    """(an EventLog on the hand clock, the records it wrote)"""
    records: list[logging.LogRecord] = []
    log = logging.Logger("events")
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    log.addHandler(handler)
    return EventLog(log, hand_clock), records


def event(clock, state, **more):
    return ConnectionEvent(at=clock.wall(), session="upbit-session-1", state=state, reason="close 1001", **more)


def an_outage(log, clock, attempts, gaps):
    for attempt in range(attempts):
        log(event(clock, WAITING, attempt=attempt, retry_in=1.0))
        log(event(clock, CONNECTING))
        clock.now += 1.0
    log(event(clock, LIVE, downtime=float(attempts)))
    for number in range(gaps):
        start = clock.wall()
        hole = {"start": start, "end": start + timedelta(seconds=1), "recovered": 0, "complete": False}
        log(GapEvent(at=start, symbol=f"KRW-A{number}", type=DataType.TRADE, reason="too old", **hole))


@pytest.mark.parametrize(("attempts", "gaps"), [(1, 0), (3, 2), (50, 0), (2, 300), (200, 300)])
def test_an_outage_never_writes_more_than_ten_lines_and_always_tells_its_end(hand_clock, written, attempts, gaps):
    log, records = written
    an_outage(log, hand_clock, attempts, gaps)
    assert len(records) <= 10
    lines = [record.getMessage() for record in records]
    assert "interrupted: close 1001" in lines[0]
    assert any("recovered" in line and "is over" in line for line in lines)


def test_the_next_outage_has_lines_of_its_own(hand_clock, written):
    log, records = written
    an_outage(log, hand_clock, 100, 0)
    hand_clock.now += 11.0
    before = len(records)
    an_outage(log, hand_clock, 1, 0)
    assert "interrupted" in records[before].getMessage()


def test_a_flapping_line_is_one_outage_until_it_earns_new_lines(hand_clock, written):
    log, records = written
    for _ in range(60):
        an_outage(log, hand_clock, 1, 0)
    assert len(records) <= 10
    hand_clock.now += 300.0
    an_outage(log, hand_clock, 1, 0)
    assert "interrupted" in records[-2].getMessage()


def test_the_fields_of_an_event_travel_in_the_record(hand_clock, written):
    log, records = written
    log(event(hand_clock, WAITING, code=1001, retry_in=0.5))
    record = records[0]
    assert (record.upbit_event, record.upbit_session, record.upbit_code) == ("ConnectionEvent", "upbit-session-1", 1001)
    assert record.levelno == logging.WARNING


@given(st.text(), st.text())
def test_one_event_is_one_line_whatever_the_server_sent(reason, sample):
    records: list[logging.LogRecord] = []
    log = logging.Logger("events")
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    log.addHandler(handler)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    event_log = EventLog(log)
    event_log(MalformedEvent(at=at, session="s", reason=reason, sample=sample, count=1))
    event_log(SubscriptionEvent(at=at, topics=(reason, sample), reason=sample))
    for record in records:
        assert len(record.getMessage().splitlines()) == 1
        assert "\x1b" not in record.getMessage()
        assert all("\x1b" not in str(value) for key, value in vars(record).items() if key.startswith("upbit_"))


def test_what_is_never_told_to_be_over_does_not_silence_the_next_outage(hand_clock, written):
    log, records = written
    log(BreakerEvent(at=hand_clock.wall(), breaker="connect", old="closed", new="open", reason="refused"))
    log(StaleEvent(at=hand_clock.wall(), session="upbit-session-1", symbols=("KRW-BTC",), stale=True, reason="mute"))
    an_outage(log, hand_clock, 50, 50)
    hand_clock.now += 11.0
    before = len(records)
    an_outage(log, hand_clock, 1, 0)
    assert ["interrupted" in records[before].getMessage(), "is over" in records[-1].getMessage()] == [True, True]
