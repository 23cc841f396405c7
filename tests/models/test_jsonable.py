"""JSON for people: exact both ways, or a complaint that names the field."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from upbit_backbone.errors import MalformedDataError, ServerError
from upbit_backbone.models.enums import Channel, DataSource, DataType, HealthStatus, Priority, RequestKind
from upbit_backbone.models.events import CallbackErrorEvent, GapEvent, HealthEvent, SubscriptionEvent
from upbit_backbone.models.jsonable import Jsonable
from upbit_backbone.models.market import OrderbookData, OrderbookUnit, TickerData
from upbit_backbone.models.number import plain
from upbit_backbone.models.report import CacheStats, PerformanceReport
from upbit_backbone.models.request import ChannelDecision, DataRequest

NOW = datetime(2026, 11, 22, 12, 0, 0, 123_456, tzinfo=UTC)


def ticker(**more: object) -> TickerData:
    values = dict.fromkeys(
        ("change_rate", "change_amount", "volume_24h", "high_24h", "low_24h", "prev_closing_price"), None
    )
    base = {"symbol": "KRW-BTC", "current_price": Decimal("1.1"), "timestamp": NOW, "source": DataSource.REST}
    return TickerData(**(values | base | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("0E-8", "0"),
        ("1.16539E+8", "116539000"),
        ("1E-30", "0.000000000000000000000000000001"),
        ("-0.0", "0"),
        ("123456789012345678901234567890.12345", "123456789012345678901234567890.12345"),
        ("1.10", "1.1"),
        ("-0.00000120", "-0.0000012"),
    ],
)
def test_a_decimal_keeps_its_value_to_the_last_digit_and_is_written_plainly(text: str, written: str) -> None:
    data = ticker(current_price=Decimal(text)).to_json()
    assert json.loads(data)["current_price"] == written
    again = TickerData.from_json(data)
    assert again.current_price == Decimal(text)
    assert str(again.current_price) == f"{again.current_price}" == written


def test_to_dict_is_plain_data_in_json_words() -> None:
    data = ticker(received_at=NOW, delisting_date=date(2026, 12, 1)).to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["current_price"] == "1.1"
    assert data["timestamp"] == "2026-11-22T12:00:00.123456+00:00"
    assert data["delisting_date"] == "2026-12-01"
    assert type(data["source"]) is str
    assert data["change_rate"] is None


def test_a_time_of_any_zone_comes_back_as_the_same_moment_in_utc() -> None:
    kst = NOW.astimezone(timezone(timedelta(hours=9)))
    again = TickerData.from_json(ticker(timestamp=kst).to_json())
    assert again.timestamp == NOW
    assert again.timestamp.tzinfo is UTC


def test_what_is_about_us_travels_too_though_it_does_not_count_for_equality() -> None:
    item = ticker(received_at=NOW, degraded=True)
    again = TickerData.from_dict(item.to_dict())
    assert (again.received_at, again.degraded) == (NOW, True)
    assert again == ticker()


def test_nested_levels_come_back_as_levels() -> None:
    unit = OrderbookUnit(plain(Decimal("1E-8")), Decimal("2.5"))
    book = OrderbookData("BTC-ETH", (unit, unit), (), Decimal(5), Decimal(0), NOW, DataSource.WEBSOCKET)
    again = OrderbookData.from_json(book.to_json(indent=2))
    assert again == book
    assert isinstance(again.asks, tuple)
    assert repr(again) == repr(book)


def test_numbers_in_the_json_are_taken_from_their_text() -> None:
    text = ticker().to_json().replace('"1.1"', "1.100000000000000000000000000001")
    assert TickerData.from_json(text).current_price == Decimal("1.100000000000000000000000000001")


def test_unknown_keys_are_ignored_and_missing_ones_take_their_default() -> None:
    data = {key: value for key, value in ticker().to_dict().items() if value is not None}
    with pytest.raises(MalformedDataError):
        TickerData.from_dict({"change_rate": None})
    assert TickerData.from_dict(data | {"new": 1}, infer_missing=True) == ticker()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("current_price", None),
        ("current_price", "x"),
        ("current_price", "NaN"),
        ("current_price", 1.5),
        ("current_price", True),
        ("timestamp", "2026-11-22T12:00:00"),
        ("timestamp", 5),
        ("source", "carrier pigeon"),
        ("delisting_date", "soon"),
        ("degraded", "false"),
        ("symbol", 5),
    ],
)
def test_a_wrong_value_names_its_field(field: str, value: object) -> None:
    with pytest.raises(MalformedDataError) as caught:
        TickerData.from_dict(ticker().to_dict() | {field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["", "[]", "5", "{", '{"symbol":', "[" * 100_000, b"\xff\xfe"])
def test_what_is_no_object_in_json_is_malformed(text: str | bytes) -> None:
    with pytest.raises(MalformedDataError):
        TickerData.from_json(text)


def test_requests_decisions_reports_and_events_speak_the_same_json() -> None:
    request = DataRequest(RequestKind.CANDLES, ("KRW-BTC",), timeframe="1m", to=NOW, priority=Priority.HIGH)
    assert DataRequest.from_json(request.to_json()) == request
    decision = ChannelDecision((Channel.LIVE, Channel.REST), "alive", "live", facts={"age": 0.5, "since": NOW})
    assert decision.to_dict()["facts"] == {"age": 0.5, "since": NOW.isoformat()}
    gap = GapEvent(at=NOW, symbol="KRW-BTC", type=DataType.TRADE, start=NOW, end=NOW, recovered=3, complete=True)
    assert GapEvent.from_json(gap.to_json()) == gap
    health = HealthEvent(at=NOW, old=HealthStatus.HEALTHY, new=HealthStatus.DEGRADED, reasons=("a", "b"))
    assert HealthEvent.from_dict(health.to_dict()) == health
    report = PerformanceReport(
        at=NOW, channels=(), groups=(), routing={"live": 5}, counters={}, live_answers=5, live_share=1.0,
        cache=CacheStats(hits=1, misses=2, merged=0, stored=2, invalidated=0, size=2),
    )  # fmt: skip
    assert PerformanceReport.from_json(report.to_json()) == report


def test_errors_inside_events_are_told_in_words() -> None:
    event = SubscriptionEvent(at=NOW, topics=("trade:KRW-BTC",), reason="refused", error=ServerError("busy"))
    assert json.loads(event.to_json())["error"] == "ServerError: busy"
    broken = CallbackErrorEvent(at=NOW, subscription="s-1", error=ZeroDivisionError("oh"), in_a_row=1)
    assert broken.to_dict()["error"] == "ZeroDivisionError: oh"


def test_any_dataclass_of_ours_may_join() -> None:
    @dataclass(frozen=True)
    class Basket(Jsonable):
        amounts: tuple[Decimal, ...]
        note: str | None = None

    basket = Basket((Decimal("1.5"), Decimal("1E+2")))
    assert basket.to_json() == '{"amounts": ["1.5", "100"], "note": null}'


def test_the_package_is_loaded_on_first_use_only() -> None:
    code = "import sys, upbit_backbone.models.market; sys.exit('dataclasses_json' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
