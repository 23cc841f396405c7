"""The golden table: each row is one context, the channels it must lead to, and the rule that says so."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from upbit_backbone.models.enums import Channel, DataStrategy, RequestKind
from upbit_backbone.models.request import DataRequest
from upbit_backbone.routing.policy import TABLE, RoutingContext, choose_channel

LIVE, WS, REST, CACHE = Channel.LIVE, Channel.WEBSOCKET, Channel.REST, Channel.CACHE
REST_DOWN = {"rest_is_open": False, "rest_text": "the breaker for ticker is open"}
STREAM_DOWN = {"stream_is_open": False, "stream_text": "the session waits for its next attempt"}
IS_LIVE = {"live_is_current": True, "live_text": "stream proven alive 0.8 s ago", "live_age": 0.8}
CACHED = {"cache_age": 0.4}


def ask(kind: str = "ticker", **fields: Any) -> DataRequest:
    return DataRequest(kind=RequestKind(kind), symbols=("KRW-BTC",), **fields)


GOLDEN: list[tuple[str, DataRequest, dict[str, Any], tuple[Channel, ...], str, bool]] = [
    # what                               question                         context          channels      rule, promote
    ("first question", ask(), {}, (REST, WS), "rest", False),
    ("second question", ask(), {"asked": 2}, (REST, WS), "rest", False),
    ("third question", ask(), {"asked": 3}, (REST, WS), "frequent", True),
    ("frequent, no room left", ask(), {"asked": 9, "may_promote": False}, (REST, WS), "rest", False),
    ("live and current", ask(), IS_LIVE, (LIVE, REST), "live", False),
    ("live book", ask("orderbook"), IS_LIVE, (LIVE, REST), "live", False),
    ("live but older than asked", ask(max_age=0.5), IS_LIVE, (REST, WS), "rest", False),
    ("live and as young as asked", ask(max_age=0.8), IS_LIVE, (LIVE, REST), "live", False),
    ("live, max_age 0", ask(max_age=0.0), {**IS_LIVE, **CACHED}, (REST, WS), "rest", False),
    (
        "no time old by a coarse clock, max_age 0",
        ask(max_age=0.0),
        {**IS_LIVE, "live_age": 0.0, "cache_age": 0.0},
        (REST, WS),
        "rest",
        False,
    ),
    ("cached", ask(), CACHED, (CACHE, REST, WS), "cache", False),
    ("live beats cached", ask(), {**IS_LIVE, **CACHED}, (LIVE, REST), "live", False),
    ("cached too old", ask(), {"cache_age": 1.5}, (REST, WS), "rest", False),
    ("cached, larger max_age", ask(max_age=5.0), {"cache_age": 1.5}, (CACHE, REST, WS), "cache", False),
    ("cached, smaller max_age", ask(max_age=0.1), CACHED, (REST, WS), "rest", False),
    ("realtime", ask(realtime=True), {}, (WS, REST), "realtime", True),
    ("realtime though live", ask(realtime=True), IS_LIVE, (WS, REST), "realtime", True),
    ("realtime though cached", ask(realtime=True), CACHED, (WS, REST), "realtime", True),
    ("realtime, stream down", ask(realtime=True), STREAM_DOWN, (REST,), "realtime-stream-closed", False),
    ("realtime, REST down", ask(realtime=True), REST_DOWN, (WS, REST), "realtime", True),
    ("sweep", ask(), {"is_sweep": True}, (REST, WS), "sweep", True),
    ("sweep, no room left", ask(), {"is_sweep": True, "may_promote": False}, (REST, WS), "rest", False),
    ("sweep, cached", ask(), {"is_sweep": True, **CACHED}, (CACHE, REST, WS), "cache", True),
    ("frequent, cached", ask(), {"asked": 3, **CACHED}, (CACHE, REST, WS), "cache", True),
    ("REST down", ask(), REST_DOWN, (WS,), "rest-closed", True),
    ("REST down but live", ask(), {**REST_DOWN, **IS_LIVE}, (LIVE, REST), "live", False),
    ("REST down but cached", ask(), {**REST_DOWN, **CACHED}, (CACHE, REST, WS), "cache", False),
    ("both down", ask(), {**REST_DOWN, **STREAM_DOWN}, (WS, REST), "both-closed", True),
    ("banned", ask(), {**REST_DOWN, **STREAM_DOWN, "is_banned": True}, (), "banned", False),
    ("banned, realtime", ask(realtime=True), {**REST_DOWN, **STREAM_DOWN, "is_banned": True}, (), "banned", False),
    (
        "banned, stream only",
        ask(strategy=DataStrategy.WEBSOCKET_ONLY),
        {**STREAM_DOWN, **CACHED, "is_banned": True},
        (),
        "banned",
        False,
    ),
    (
        "banned, cached",
        ask(),
        {**REST_DOWN, **STREAM_DOWN, **CACHED, "is_banned": True},
        (CACHE, REST, WS),
        "cache",
        False,
    ),
    ("banned, candles", ask("candles"), {**REST_DOWN, "is_banned": True}, (CACHE,), "history-closed", False),
    ("banned, stream up", ask(), {**REST_DOWN, "is_banned": True}, (), "banned", False),
    (
        "banned, streamed",
        ask(),
        {**REST_DOWN, "is_banned": True, "is_streamed": True},
        (WS,),
        "rest-closed",
        True,
    ),
    ("both down but cached", ask(), {**REST_DOWN, **STREAM_DOWN, **CACHED}, (CACHE, REST, WS), "cache", False),
    ("stream down", ask(), STREAM_DOWN, (REST, WS), "rest", False),
    ("REST measured poor", ask(), {"rest_is_poor": True}, (WS, REST), "rest-poor", True),
    ("REST poor, stream down", ask(), {"rest_is_poor": True, **STREAM_DOWN}, (REST, WS), "rest", False),
    ("REST only", ask(strategy=DataStrategy.REST_ONLY), IS_LIVE, (REST,), "rest-forced", False),
    ("REST only, down", ask(strategy=DataStrategy.REST_ONLY), REST_DOWN, (), "rest-forced-closed", False),
    ("stream only", ask(strategy=DataStrategy.WEBSOCKET_ONLY), CACHED, (WS,), "stream-forced", True),
    ("stream only, live", ask(strategy=DataStrategy.WEBSOCKET_ONLY), IS_LIVE, (LIVE,), "stream-forced-live", False),
    (
        "stream only, history",
        ask("candles", strategy=DataStrategy.WEBSOCKET_ONLY),
        {},
        (),
        "stream-forced-impossible",
        False,
    ),
    (
        "REST preferred",
        ask(strategy=DataStrategy.PREFER_REST),
        IS_LIVE,
        (REST, LIVE, WS),
        "live-preferred-against",
        False,
    ),
    (
        "REST preferred, down",
        ask(strategy=DataStrategy.PREFER_REST),
        {**REST_DOWN, **IS_LIVE},
        (LIVE, REST),
        "live",
        False,
    ),
    ("stream preferred", ask(strategy=DataStrategy.PREFER_WEBSOCKET), {}, (WS, REST), "stream-preferred", True),
    ("stream preferred, live", ask(strategy=DataStrategy.PREFER_WEBSOCKET), IS_LIVE, (LIVE, REST), "live", False),
    (
        "stream preferred, down",
        ask(strategy=DataStrategy.PREFER_WEBSOCKET),
        STREAM_DOWN,
        (REST, WS),
        "rest",
        False,
    ),
    ("stream lost", ask(), {"is_streamed": True, **STREAM_DOWN}, (REST, WS), "stream-lost", False),
    ("frequent, stream lost", ask(), {"is_streamed": True, "asked": 3, **STREAM_DOWN}, (REST, WS), "stream-lost", True),
    ("stream lost, cached", ask(), {"is_streamed": True, **STREAM_DOWN, **CACHED}, (REST, WS), "stream-lost", False),
    ("asked often, as configured", ask(), {"asked": 3, "promote_after": 5}, (REST, WS), "rest", False),
    ("candles", ask("candles"), {}, (REST,), "history", False),
    ("candles, live", ask("candles"), IS_LIVE, (REST, LIVE), "history-joined", False),
    ("past candles, live", ask("candles", to=datetime(2026, 1, 1, tzinfo=UTC)), IS_LIVE, (REST,), "history", False),
    ("candles cached", ask("candles"), CACHED, (CACHE, REST), "history-cached", False),
    ("candles, REST down", ask("candles"), REST_DOWN, (CACHE,), "history-closed", False),
    ("trades asked often", ask("trades"), {"asked": 50}, (REST,), "history", False),
    ("markets cached", ask("markets"), {"cache_age": 0.9}, (CACHE, REST), "history-cached", False),
]


@pytest.mark.parametrize(
    ("what", "question", "facts", "channels", "rule", "promote"),
    GOLDEN,
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_the_table_answers_as_specified(
    what: str,
    question: DataRequest,
    facts: dict[str, Any],
    channels: tuple[Channel, ...],
    rule: str,
    promote: bool,
) -> None:
    decision = choose_channel(question, RoutingContext(**facts))
    assert (decision.channels, decision.rule, decision.promote) == (channels, rule, promote), what


def test_at_least_thirty_situations_are_specified() -> None:
    assert len(GOLDEN) >= 30


def test_every_row_of_the_table_is_reached_by_the_golden_situations() -> None:
    assert {row[4] for row in GOLDEN} == {rule.name for rule in TABLE}


def test_the_same_situation_gets_the_same_answer_with_a_reason_without_holes() -> None:
    for _, question, facts, *_ in GOLDEN:
        first, second = (choose_channel(question, RoutingContext(**facts)) for _ in range(2))
        assert first == second
        assert first.reason
        assert "{" not in first.reason
        assert "None" not in first.reason


def test_what_is_answered_instead_of_a_lost_channel_is_marked() -> None:
    degraded = {rule.name for rule in TABLE if rule.degraded}
    assert degraded == {
        "history-closed",
        "realtime-stream-closed",
        "stream-lost",
        "both-closed",
        "banned",
        "rest-closed",
    }


def test_a_decision_reads_as_a_sentence() -> None:
    decision = choose_channel(ask(), RoutingContext(**IS_LIVE))
    assert str(decision) == "LIVE → REST: stream proven alive 0.8 s ago"


def test_the_facts_of_a_decision_are_those_of_its_situation() -> None:
    context = RoutingContext(asked=7)
    assert choose_channel(ask(), context).facts == dataclasses.asdict(context)
