"""REST in trouble: each question ends by the deadline, in an answer or in an error that says what happened."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.rest_scene import last_request, soon
from tests.support.threads import all_at_once
from tests.support.waiting import promised, wait_until
from upbit_backbone._concurrency import join_all, spawn
from upbit_backbone.errors import (
    AuthenticationError,
    ChannelUnavailableError,
    MaintenanceError,
    MalformedDataError,
    MessageTooBigError,
    NetworkError,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    UpbitBackboneError,
)
from upbit_backbone.exchange.status import RefusedRequestError, UnexpectedAnswerError
from upbit_backbone.models.events import BreakerEvent
from upbit_backbone.simulator import FakeUpbit

Make = Callable[..., Any]


def ask(made: Any, seconds: float = 10.0) -> Any:
    return made.rest.tickers(["KRW-BTC"], deadline=soon(seconds), max_age=0)


PASSING = [
    "reset",
    "fin",
    "fin_mid_body",
    "reset_mid_body",
    "garbage",
    "truncated",
    "html",
    "shape",
    "empty",
    "charset",
]


@pytest.mark.parametrize("mode", PASSING)
def test_one_bad_answer_is_repaired_unseen(scene: Make, upbit: FakeUpbit, mode: str) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode=mode, times=1)
    assert ask(made)["KRW-BTC"].symbol == "KRW-BTC"
    assert len(upbit.requests(since=since)) == 2


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("reset", NetworkError),
        ("fin", NetworkError),
        ("fin_mid_body", NetworkError),
        ("reset_mid_body", NetworkError),
        ("garbage", MalformedDataError),
        ("truncated", MalformedDataError),
        ("html", MaintenanceError),
        ("shape", MalformedDataError),
        ("empty", MalformedDataError),
        ("charset", MalformedDataError),
    ],
)
def test_bad_answers_that_go_on_end_in_their_error_after_three_attempts(
    scene: Make, upbit: FakeUpbit, mode: str, kind: type[UpbitBackboneError]
) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode=mode, times=None, seconds=30.0)
    with pytest.raises(kind) as caught:
        ask(made)
    assert len(upbit.requests(since=since)) == 3
    assert "\n" not in str(caught.value)
    assert made.remembered == []
    assert len(made.rest.cache) == 0
    upbit.clear_faults()
    assert ask(made)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_server_errors_are_tried_again_with_a_pause_and_then_told(scene: Make, upbit: FakeUpbit, status: int) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="status", status=status, times=None, seconds=30.0)
    with pytest.raises(ServerError) as caught:
        ask(made)
    times = [request["t"] for request in upbit.requests(since=since)]
    assert len(times) == 3
    assert times[1] - times[0] >= 0.04
    assert times[2] - times[1] >= 0.08
    assert caught.value.status == status
    assert isinstance(caught.value, MaintenanceError) == (status == 503)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, '{"error":{"name":400,"message":"Invalid parameter. Check the given value!"}}', RefusedRequestError),
        (401, "", AuthenticationError),
        (403, "<html>blocked</html>", AuthenticationError),
        (404, '{"error":{"name":"not_found","message":"no Route matched with those values"}}', UnexpectedAnswerError),
        (302, "", UnexpectedAnswerError),
        (204, "", UnexpectedAnswerError),
    ],
)
def test_answers_that_asking_again_cannot_change_are_told_at_once(
    scene: Make, upbit: FakeUpbit, status: int, body: str, kind: type[UpbitBackboneError]
) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="status", status=status, body=body, times=None, seconds=30.0)
    with pytest.raises(kind, match=str(status)):
        ask(made)
    assert len(upbit.requests(since=since)) == 1


def test_a_gzip_bomb_is_not_asked_for_twice(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="gzip_bomb", times=None, seconds=30.0)
    with pytest.raises(MessageTooBigError):
        ask(made)
    assert len(upbit.requests(since=since)) == 1


@pytest.mark.parametrize("mode", ["drip", "hang"])
@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.3])
def test_dripping_and_hanging_servers_cost_no_more_than_the_deadline(
    scene: Make, upbit: FakeUpbit, mode: str, seconds: float
) -> None:
    made = scene()
    upbit.rest_fault("/v1/ticker", mode=mode, interval=0.1, times=None, seconds=30.0)
    started = time.monotonic()
    with pytest.raises(RequestTimeoutError):
        ask(made, seconds)
    assert time.monotonic() - started <= promised(seconds)


def test_a_server_that_is_not_there_is_a_network_error_within_the_deadline(scene: Make) -> None:
    made = scene(url="http://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(NetworkError):
        ask(made)
    assert time.monotonic() - started < promised(3.0)


@pytest.mark.parametrize(
    ("status", "error"), [(400, RefusedRequestError), (429, RateLimitError), (503, MaintenanceError), (200, None)]
)
def test_every_call_is_measured_once_with_what_came_of_it(
    scene: Make, upbit: FakeUpbit, status: int, error: type[UpbitBackboneError] | None
) -> None:
    made = scene(rest_attempts=1)
    if error is not None:
        upbit.rest_fault("/v1/ticker", status=status)
        with pytest.raises(error):
            ask(made)
    else:
        ask(made)
    ((group, seconds, failure, size),) = made.measured
    assert group == "ticker"
    assert 0 < seconds < 10.0
    assert (failure and type(failure)) is error
    assert size > 0 or error is not None


def test_a_call_that_nobody_answered_is_measured_as_its_error(scene: Make) -> None:
    made = scene(url="http://127.0.0.1:9", rest_attempts=1)
    with pytest.raises(NetworkError):
        ask(made)
    ((group, _, failure, size),) = made.measured
    assert (group, size) == ("ticker", 0)
    assert isinstance(failure, NetworkError)


def test_kept_connections_that_the_server_dropped_are_nobodys_problem(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(rest_attempts=1), last_request(upbit)
    for how in ("fin", "rst", "fin"):
        ask(made)
        upbit.drop_connections(how, "rest")
    ask(made)
    assert len(upbit.requests(since=since)) == 4
    assert made.rest.stats()[3].failures == 0


def test_thirty_two_threads_share_one_failing_call_and_its_time(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(rest_attempts=1), last_request(upbit)
    upbit.rest_fault("/v1/candles*", mode="status", status=500, latency=0.4, times=None, seconds=30.0)
    started = time.monotonic()
    outcomes = all_at_once(32, lambda _: made.rest.candles_page("KRW-BTC", "1m", deadline=soon()))
    assert time.monotonic() - started < promised(0.4)
    assert len(upbit.requests(since=since)) == 1
    assert all(isinstance(outcome, ServerError) for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 32  # no two threads share a traceback


def test_a_leader_in_a_hurry_leaves_the_followers_their_own_time(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/candles*", mode="latency", latency=0.8)
    outcomes: dict[str, object] = {}

    def page(name: str, seconds: float) -> None:
        try:
            outcomes[name] = made.rest.candles_page("KRW-BTC", "1m", deadline=soon(seconds))
        except UpbitBackboneError as error:
            outcomes[name] = error

    leader = spawn(lambda: page("leader", 0.3), "test-leader")
    wait_until(lambda: upbit.requests(since=since), "the request")
    page("follower", 10.0)
    assert join_all([leader], soon()) == []
    assert isinstance(outcomes["leader"], RequestTimeoutError)
    assert isinstance(outcomes["follower"], list)
    assert len(upbit.requests(since=since)) == 1


def test_followers_leave_at_their_own_deadlines_and_no_key_is_orphaned(scene: Make, upbit: FakeUpbit) -> None:
    made = scene()
    # Whether the second call joins the first one's request or sends its own, it hangs.
    upbit.rest_fault("/v1/candles*", mode="hang", times=None)
    for seconds in (0.2, 0.1):
        started = time.monotonic()
        with pytest.raises(RequestTimeoutError):
            made.rest.candles_page("KRW-BTC", "1m", deadline=soon(seconds))
        assert time.monotonic() - started < promised(seconds)
    upbit.clear_faults()
    deadline = soon()
    while True:  # the worker gives up with the last of them, and then the question is a new one
        try:
            assert made.rest.candles_page("KRW-BTC", "1m", deadline=soon(1.0))
            break
        except RequestTimeoutError:
            assert not deadline.expired


# --- the breaker ---


def test_five_failures_open_the_breaker_and_then_nothing_is_sent_until_a_probe_works(
    scene: Make, upbit: FakeUpbit
) -> None:
    made, since = scene(rest_attempts=1, breaker_reset_seconds=2.0), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="status", status=500, times=None, seconds=60.0)
    for _ in range(5):
        with pytest.raises(ServerError):
            ask(made)
    started = time.monotonic()
    for _ in range(20):
        with pytest.raises(ChannelUnavailableError, match="500") as caught:
            ask(made)
        assert 0 < caught.value.retry_after <= 2.0
    assert time.monotonic() - started < promised(0.5)
    assert len(upbit.requests(since=since)) == 5
    assert made.rest.candles_page("KRW-BTC", "1m", deadline=soon())  # another group, another breaker
    upbit.clear_faults()
    threading.Event().wait(2.05)
    ask(made)
    ask(made)
    changes = [(event.old, event.new) for event in made.events if isinstance(event, BreakerEvent)]
    assert changes == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]


@pytest.mark.parametrize("status", [400, 404, 429])
def test_answers_of_a_living_upbit_never_open_the_breaker(scene: Make, upbit: FakeUpbit, status: int) -> None:
    made = scene(rest_attempts=1)
    upbit.rest_fault("/v1/trades*", mode="status", status=status, body="", times=1)
    for _ in range(3):
        upbit.rest_fault("/v1/trades*", mode="status", status=status, body="", times=1)
        with pytest.raises(UpbitBackboneError):
            made.rest.trades_page("KRW-BTC", deadline=soon(0.2))
    assert made.rest.stats()[2].breaker == "closed"


def test_callers_in_a_hurry_never_open_the_breaker_but_a_server_that_says_nothing_does(
    scene: Make, upbit: FakeUpbit
) -> None:
    made = scene(rest_attempts=1, breaker_failures=2)
    upbit.rest_fault("/v1/candles*", mode="latency", latency=0.5, times=None, seconds=60.0)
    made.rest.candles_page("KRW-BTC", "1m", count=7, deadline=soon())
    for count in range(1, 6):
        with pytest.raises(RequestTimeoutError):
            made.rest.candles_page("KRW-BTC", "1m", count=count, deadline=soon(0.05))
    assert made.rest.stats()[1].breaker == "closed"
    upbit.clear_faults()
    assert made.rest.candles_page("KRW-BTC", "1m", count=8, deadline=soon())  # in no time, as usual
    upbit.rest_fault("/v1/candles*", mode="hang", times=None, seconds=60.0)
    for count in range(10, 12):
        with pytest.raises(RequestTimeoutError):
            made.rest.candles_page("KRW-BTC", "1m", count=count, deadline=soon(0.9))
    deadline = soon(3.0)
    while made.rest.stats()[1].breaker != "open":
        assert not deadline.expired
        threading.Event().wait(0.01)


# --- Retry-After ---


@pytest.mark.parametrize("text", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_long_retry_after_ends_the_question_at_once(scene: Make, upbit: FakeUpbit, text: str) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="status", status=429, headers={"Retry-After": text}, times=None, seconds=60.0)
    started = time.monotonic()
    with pytest.raises(RateLimitError) as caught:
        ask(made)
    assert time.monotonic() - started < promised(1.0)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 3500
    with pytest.raises(RateLimitError):
        ask(made)
    assert len(upbit.requests(since=since)) == 1


@pytest.mark.parametrize("text", ["-5", "soon", "1e9", "", "٣", "Fri, 99 Foo 2100", "9" * 400])
def test_rubbish_in_retry_after_counts_as_nothing_stated(scene: Make, upbit: FakeUpbit, text: str) -> None:
    made = scene()
    headers = {"Retry-After": text} if text.isascii() else {}
    upbit.rest_fault("/v1/ticker", mode="status", status=429, body="Too many API requests.", headers=headers, times=1)
    started = time.monotonic()
    assert ask(made)
    assert 0.9 < time.monotonic() - started < promised(3.0)


def test_a_short_retry_after_of_a_server_error_is_respected(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="status", status=503, headers={"Retry-After": "1"}, times=1)
    assert ask(made)
    first, second = upbit.requests(since=since)
    assert second["t"] - first["t"] >= 0.99


def test_errors_are_protocol_errors_where_the_server_lies(scene: Make, upbit: FakeUpbit) -> None:
    made = scene(rest_attempts=1)
    upbit.rest_fault("/v1/ticker", mode="shape", body='{"market":"KRW-BTC"}', times=1)
    with pytest.raises(ProtocolError) as caught:
        ask(made)
    assert caught.value.whose_fault == "Upbit's"
