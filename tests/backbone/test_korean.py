"""What a Korean reads when a call is wrong: of English there are names, codes and what was given, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest

import upbit_backbone
from tests.support.english import english_words
from tests.support.waiting import wait_until
from upbit_backbone import BackboneConfig, MarketDataBackbone, UpbitBackboneError
from upbit_backbone.export.files import CsvFile, write_csv
from upbit_backbone.models.report import Alert
from upbit_backbone.monitoring.alerts import DEFAULT_RULES
from upbit_backbone.routing.policy import TABLE
from upbit_backbone.simulator import FakeUpbit

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
WRONG: dict[str, Callable[[MarketDataBackbone], Any]] = {
    "a code in lower case": lambda market: market.get_ticker("krw-btc"),
    "a number for a code": lambda market: market.get_ticker(7),  # type: ignore[arg-type]
    "an unknown market": lambda market: market.get_ticker("KRW-BTX"),
    "many unknown markets": lambda market: market.get_tickers([f"KRW-AA{letter}" for letter in "ABCDEFGHIJKLM"]),
    "no market": lambda market: market.get_tickers([]),
    "an unknown quote": lambda market: market.get_markets(quote="X-X"),
    "a quote without markets": lambda market: market.get_tickers(quote="ABC"),
    "no time left": lambda market: market.get_ticker("KRW-BTC", timeout=-1),
    "too few levels": lambda market: market.get_orderbook("KRW-BTC", 0),
    "a grouping the market lacks": lambda market: market.get_orderbook("KRW-BTC", level=7),
    "a grouping that is no number": lambda market: market.get_orderbook("KRW-BTC", level="x"),
    "an unknown timeframe": lambda market: market.get_candles("KRW-BTC", "7m"),
    "too few candles": lambda market: market.get_candles("KRW-BTC", "1m", 0),
    "too many candles": lambda market: market.get_candles("KRW-BTC", "1m", 2_000_000),
    "a number that is none": lambda market: market.get_candles("KRW-BTC", "1m", "many"),  # type: ignore[arg-type]
    "a time without a zone": lambda market: market.get_candles("KRW-BTC", "1m", to="2026-01-01 09:00"),
    "a time that is none": lambda market: market.get_candles("KRW-BTC", "1m", to="yesterday"),
    "a day for a time": lambda market: market.get_candles("KRW-BTC", "1m", to=date(2026, 1, 1)),  # type: ignore[arg-type]
    "an end before the start": lambda market: market.get_candles("KRW-BTC", "1m", start=JANUARY, end=JANUARY),
    "both a start and a count": lambda market: market.get_candles("KRW-BTC", "1m", 3, start=JANUARY),
    "a range of too many": lambda market: market.get_candles("KRW-BTC", "1s", start="2020-01-01T00:00Z"),
    "an unknown fill": lambda market: market.get_candles("KRW-BTC", "1m", 3, fill="up"),  # type: ignore[call-overload]
    "an odd start of the day": lambda market: market.get_candles("KRW-BTC", "1d", 3, day_start=time(0, 0, 1)),
    "a start of the day for minutes": lambda market: market.get_candles("KRW-BTC", "1m", 3, day_start=time(0)),
    "trades of long ago": lambda market: market.get_trades("KRW-BTC", days_ago=9),
    "trades since long ago": lambda market: market.get_trades("KRW-BTC", since="2020-01-01T00:00Z"),
    "trades of two kinds": lambda market: market.get_trades("KRW-BTC", 5, since="2020-01-01T00:00Z"),
    "an unknown strategy": lambda market: market.get_ticker("KRW-BTC", strategy="fast"),
    "an unknown priority": lambda market: market.get_ticker("KRW-BTC", priority="first"),  # type: ignore[arg-type]
    "a realtime that is none": lambda market: market.get_ticker("KRW-BTC", realtime=7),  # type: ignore[arg-type]
    "an unknown kind": lambda market: market.explain("nonsense"),
    "nothing to subscribe to": lambda market: market.subscribe([], "ticker"),
    "an unknown type": lambda market: market.subscribe("KRW-BTC", "nonsense"),
    "candles that no stream has": lambda market: market.subscribe("KRW-BTC", "1d"),
    "no room": lambda market: market.subscribe("KRW-BTC", "ticker", maxsize=0),
    "a queue that is none": lambda market: market.subscribe("KRW-BTC", "ticker", queue=7),  # type: ignore[arg-type]
    "a callback that is none": lambda market: market.subscribe_realtime("KRW-BTC", callback=7),  # type: ignore[arg-type]
    "a mark without a queue": lambda market: market.subscribe("KRW-BTC", "ticker", end=None),
    "an unknown overflow": lambda market: market.subscribe("KRW-BTC", "ticker", overflow="burst"),
    "an unknown order": lambda market: market.subscribe("KRW-BTC", "trade", gap_order="odd"),  # type: ignore[arg-type]
    "a past that is to come": lambda market: market.subscribe("KRW-BTC", "trade", since="2036-01-01T00:00Z"),
    "a past of prices": lambda market: market.subscribe("KRW-BTC", "ticker", since="2026-01-01T00:00Z"),
    "a position of another version": lambda market: market.subscribe("KRW-BTC", "trade", since="position-7 x"),
    "a position of others": lambda market: market.subscribe("KRW-BTC", "trade", since="position-1 trade:KRW-ETH=1@1"),
    "a series of an unknown timeframe": lambda market: market.candle_series("KRW-BTC", "7m"),
    "a price below nothing": lambda market: market.round_price("KRW-BTC", -1, "down"),
    "an unknown direction": lambda market: market.round_price("KRW-BTC", 1, "sideways"),  # type: ignore[arg-type]
    "an unknown connection": lambda market: market.session_manager.handle_disconnection("session-99"),
    "an unknown setting": lambda market: MarketDataBackbone(timeout=3),
    "an unknown setting like no other": lambda market: MarketDataBackbone(colour="red"),
    "a setting that is no number": lambda market: BackboneConfig(timeout_seconds="x"),  # type: ignore[arg-type]
    "a number that is too small": lambda market: BackboneConfig(queue_size=0),
    "a truth that is none": lambda market: BackboneConfig(audit_subscriptions=7),  # type: ignore[arg-type]
    "a region that is none": lambda market: BackboneConfig(region="mars"),
    "a URL of plain text": lambda market: BackboneConfig(url="http://example.com"),
    "a URL with a path": lambda market: BackboneConfig(url="https://example.com/v1"),
    "a URL with a password": lambda market: BackboneConfig(url="https://a:b@example.com"),
    "hosts that differ": lambda market: BackboneConfig(rest_url="https://a.example", websocket_url="wss://b.example/x"),
    "a certificate that is not there": lambda market: BackboneConfig(ca_file="/nowhere.pem"),
    "a proxy that is none": lambda market: MarketDataBackbone(proxy="ftp://x:1"),
    "a folder that is not there": lambda market: write_csv([], "/nowhere/day.csv", upbit_backbone.CandleData),
    "a recording in a folder that is not there": lambda market: market.record("/nowhere/day.rec"),
    "a recording that is not there": lambda market: MarketDataBackbone.replay("/nowhere/day.rec"),
    "a speed that is none": lambda market: MarketDataBackbone.replay("/nowhere/day.rec", speed=-1),
    "a file in use": lambda market: _opened_twice(),
}
GIVEN = {
    "nonsense",
    "yesterday",
    "many",
    "sideways",
    "colour",
    "red",
    "mars",
    "fast",
    "first",
    "ftp",
    "burst",
    "odd",
    "up",
}


def _opened_twice() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "day.csv")
        with CsvFile(path, upbit_backbone.CandleData), CsvFile(path, upbit_backbone.CandleData):
            pass


@pytest.mark.parametrize("what", WRONG)
def test_an_error_has_no_english_in_its_korean(
    what: str, market: MarketDataBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPBIT_BACKBONE_LANGUAGE", "ko")
    with pytest.raises(UpbitBackboneError) as caught:
        WRONG[what](market)
    assert english_words(str(caught.value), GIVEN) == [], str(caught.value)


# ── reports and alerts ───────────────────────────────────────────────────────────────────────────────────────────────

RULES_OF_ROUTING = {word for rule in TABLE for word in rule.name.split("-")}


def english_of(report: object) -> list[str]:
    text = str(report)
    assert re.search("[가-힣]", text)
    return [word for word in english_words(text) if word not in RULES_OF_ROUTING]


def test_a_printed_report_has_no_english_in_its_korean_well_or_ill(
    upbit: FakeUpbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPBIT_BACKBONE_LANGUAGE", "ko")
    with MarketDataBackbone(url=upbit.url) as market, market.subscribe("KRW-BTC", ["ticker", "trade"]) as reader:
        reader.get(timeout=30)
        market.get_ticker("KRW-ETH", strategy="rest_only")
        assert (english_of(market.health()), english_of(market.performance())) == ([], [])
        upbit.handshake_fault(mode="silence", times=None)
        try:
            upbit.close_sessions(1001)
            wait_until(lambda: not market.health().is_healthy)
            assert english_of(market.health()) == []
        finally:
            upbit.clear_faults()


def test_reasons_stay_english_until_they_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What programs compare and keep must not depend on who looks."""
    monkeypatch.setenv("UPBIT_BACKBONE_LANGUAGE", "ko")
    alert = Alert(at=JANUARY, rule="health", subject="backbone", active=True, value=1.0, message="health is not good")
    assert alert.to_dict()["message"] == alert.message == "health is not good"
    assert str(alert) == "경보: 상태가 좋지 않습니다"


@pytest.mark.parametrize(
    "message",
    [
        *(text for rule in DEFAULT_RULES for text in (rule.message, rule.quiet) if text),
        "{subject} is gone",
        "{subject} is not measured any more",
        "lag of {subject} is good again: {value}, below 1 for 5 s",
        "health is degraded: REST: the last 5 answers were all errors; no error",
    ],
)
def test_an_alert_has_no_english_in_its_korean(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    monkeypatch.setenv("UPBIT_BACKBONE_LANGUAGE", "ko")
    text = message.format(subject="session-1", value=3.0)
    alert = Alert(at=JANUARY, rule="lag", subject="session-1", active=False, value=3.0, message=text)
    assert [word for word in english_of(alert) if word != "lag"] == []
