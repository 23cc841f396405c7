from __future__ import annotations

import logging
import subprocess
import sys
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


@pytest.mark.parametrize("attempts", [1, 5, 50])
def test_by_default_an_outage_is_one_warning_and_its_recovery_one_info(hand_clock, written, attempts):
    log, records = written
    for _ in range(3):
        an_outage(log, hand_clock, attempts, 0)
        hand_clock.now += 11.0
    shown = [(record.levelname, record.getMessage()) for record in records if record.levelno >= logging.INFO]
    assert [level for level, _ in shown] == ["WARNING", "INFO"] * 3
    assert all(("interrupted" in text) == (level == "WARNING") for level, text in shown)


def test_a_line_seen_from_several_sides_is_one_outage_and_a_loss_is_told_beside_it(hand_clock, written):
    log, records = written
    at = hand_clock.wall()
    for session in ("session-1", "session-2"):
        log(ConnectionEvent(at=at, session=session, state=WAITING, reason="reset", attempt=1, retry_in=1.0))
        log(StaleEvent(at=at, session=session, symbols=("KRW-BTC",), stale=True, reason="mute"))
    log(BreakerEvent(at=at, breaker="connect", old="closed", new="open", reason="refused"))
    for number in range(3):
        hole = {"start": at, "end": at + timedelta(seconds=1), "recovered": 0, "complete": False}
        log(GapEvent(at=at, symbol=f"KRW-A{number}", type=DataType.TRADE, reason="too old", **hole))
    for session in ("session-1", "session-2"):
        log(ConnectionEvent(at=at, session=session, state=LIVE, reason="connected", downtime=1.0))
    shown = [record for record in records if record.levelno >= logging.INFO]
    assert [record.levelname for record in shown] == ["WARNING", "WARNING", "INFO"]
    assert "not complete" in shown[1].getMessage()


@pytest.mark.parametrize(("options", "lines"), [("", 0), ("logging.basicConfig(level=logging.INFO)", 2)])
def test_nothing_is_on_stderr_unless_the_program_set_logging_up(options, lines):
    """The real thing: a line that breaks and comes back, in a process of its own."""
    script = f"""
import logging, sys
{options}
from upbit_backbone import ConnectionEvent, ConnectionState, MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit
import threading
back = threading.Event()
def heard(event):
    if isinstance(event, ConnectionEvent) and event.is_recovery:
        back.set()
with FakeUpbit(trades_per_second=20, markets=["KRW-BTC"]) as upbit:
    with MarketDataBackbone(url=upbit.url, on_event=heard) as market:
        with market.subscribe("KRW-BTC", "trade") as trades:
            trades.get(timeout=20)
            upbit.close_sessions(1011)
            assert back.wait(20)
            before = trades.stats.received
            while trades.stats.received == before:
                trades.get(timeout=20)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    about = [line for line in done.stderr.splitlines() if "interrupted" in line or "is over" in line]
    assert len(about) == lines, done.stderr
    if not options:
        assert done.stderr == ""


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
