"""Rate limits and bans at work: Upbit's own wire log is the judge."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.waiting import promised
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.errors import BannedError, RateLimitError, UpbitBackboneError
from upbit_backbone.limits.rate_limiter import RateLimiter
from upbit_backbone.models.events import RateLimitEvent
from upbit_backbone.rest.client import RestClient
from upbit_backbone.simulator import FakeUpbit

Make = Callable[..., Any]


def soon(seconds: float = 30.0) -> Deadline:
    return Deadline.after(seconds)


@pytest.fixture
def strict() -> Iterator[FakeUpbit]:
    """A simulator with Upbit's limits and bans, and a past that nobody else shares."""
    with FakeUpbit(trades_per_second=0, markets=20) as upbit:
        yield upbit


def busiest_second(times: list[float]) -> int:
    times = sorted(times)
    return max((bisect_left(times, at + 1.0) - index for index, at in enumerate(times)), default=0)


def by_group(upbit: FakeUpbit) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for request in upbit.requests():
        groups.setdefault(request["group"], []).append(request["t"])
    return groups


def hammer(ask: Callable[[int], object], threads: int, seconds: float) -> list[Exception]:
    """`ask(n)` over and over from many threads; the errors."""
    failures: list[Exception] = []
    end = time.monotonic() + seconds

    def run(number: int) -> None:
        count = number
        while time.monotonic() < end:
            count += threads
            try:
                ask(count)
            except UpbitBackboneError as error:
                failures.append(error)

    workers = [spawn(lambda n=n: run(n), f"test-hammer-{n}") for n in range(threads)]
    assert join_all(workers, soon(60)) == []
    return failures


def test_thirty_two_threads_never_put_eleven_requests_into_a_second_and_waste_little(
    scene: Make, strict: FakeUpbit
) -> None:
    made = scene(url=strict.rest_url)
    failures = hammer(
        lambda n: made.rest.candles_page("KRW-BTC", "1m", count=n % 200 + 1, deadline=soon()), threads=32, seconds=6.0
    )
    times = by_group(strict)["candle"]
    assert failures == []
    assert busiest_second(times) <= 10
    assert len(times) / (max(times) - min(times)) >= 9.0
    assert {request["status"] for request in strict.requests()} == {200}


def test_a_start_up_burst_over_all_groups_ramps_up_without_a_single_429(scene: Make, strict: FakeUpbit) -> None:
    made, symbols = scene(url=strict.rest_url), strict.markets()
    tasks = [
        *(lambda s=s: made.rest.trades_page(s, count=5, deadline=soon()) for s in symbols),
        *(lambda s=s: made.rest.candles_page(s, "1m", count=5, deadline=soon()) for s in symbols),
        *(lambda s=s: made.rest.tickers([s], deadline=soon()) for s in symbols),
        *(lambda s=s: made.rest.orderbooks([s], deadline=soon()) for s in symbols),
    ]
    threads = [spawn(task, f"test-burst-{n}") for n, task in enumerate(tasks)]
    assert join_all(threads, soon(60)) == []
    assert all(busiest_second(times) <= 10 for times in by_group(strict).values())
    assert {request["status"] for request in strict.requests()} == {200}


def test_three_clients_of_one_process_share_one_budget(scene: Make, strict: FakeUpbit) -> None:
    first = scene(url=strict.rest_url)
    others = []
    for _ in range(2):
        limiter = RateLimiter(first.host)
        others.append((RestClient(first.config, limiter=limiter), limiter))
    channels = [first.rest, *(rest for rest, _ in others)]
    failures = hammer(
        lambda n: channels[n % 3].trades_page("KRW-BTC", count=n % 500 + 1, deadline=soon()), threads=12, seconds=3.0
    )
    for rest, limiter in others:
        rest.close(soon())
        limiter.close()
    assert failures == []
    assert busiest_second(by_group(strict)["trade"]) <= 10


def test_a_stranger_on_the_same_ip_is_made_room_for(scene: Make, strict: FakeUpbit) -> None:
    ours, theirs = scene(url=strict.rest_url), scene(url=strict.rest_url)  # two limiters: like two processes
    hammer(
        lambda n: (ours, theirs)[n % 2].rest.trades_page("KRW-BTC", count=n % 500 + 1, deadline=soon()),
        threads=8,
        seconds=8.0,
    )
    refused = [request["t"] for request in strict.requests() if request["status"] == 429]
    began = min(request["t"] for request in strict.requests())
    assert {request["status"] for request in strict.requests()} <= {200, 429}
    assert len([at for at in refused if at > began + 5.0]) <= 2


def test_a_lowered_limit_is_met_with_a_slower_pace_and_still_every_question_is_answered(
    scene: Make, strict: FakeUpbit
) -> None:
    made = scene(url=strict.rest_url)
    strict.set_limit("candle", 5)
    failures = hammer(
        lambda n: made.rest.candles_page("KRW-BTC", "1m", count=n % 200 + 1, deadline=soon()), threads=8, seconds=5.0
    )
    requests = strict.requests(group="candle")
    refused = [request["t"] for request in requests if request["status"] == 429]
    assert failures == []
    for at in refused:  # nothing is sent while the group is stopped, except what was under way
        assert not [request for request in requests if at + 0.15 < request["t"] < at + 0.85]
    if refused:
        assert any(isinstance(event, RateLimitEvent) and event.group == "candle" for event in made.events)


def test_a_429_out_of_the_blue_is_waited_out_within_the_deadline(scene: Make, strict: FakeUpbit) -> None:
    made = scene(url=strict.rest_url)
    strict.rest_fault("/v1/ticker", mode="status", status=429, body="Too many API requests.", times=1)
    assert made.rest.tickers(["KRW-BTC"], deadline=soon(), max_age=0)
    first, second = strict.requests(group="ticker")
    assert second["t"] - first["t"] >= 0.95
    event = next(event for event in made.events if isinstance(event, RateLimitEvent))
    assert (event.group, event.banned) == ("ticker", False)
    assert made.rest.stats()[3].limited_429 == 1


def test_a_429_that_cannot_be_waited_out_is_told_at_once(scene: Make, strict: FakeUpbit) -> None:
    made = scene(url=strict.rest_url)
    strict.rest_fault("/v1/ticker", mode="status", status=429, body="", times=1)
    started = time.monotonic()
    with pytest.raises(RateLimitError) as caught:
        made.rest.tickers(["KRW-BTC"], deadline=soon(0.6), max_age=0)
    assert time.monotonic() - started < promised(0.5)
    assert caught.value.retry_after is not None
    assert made.rest.candles_page("KRW-BTC", "1m", deadline=soon(0.5))


def test_during_a_ban_nothing_leaves_and_afterwards_one_probe_goes_first(scene: Make, strict: FakeUpbit) -> None:
    made = scene(url=strict.rest_url)
    strict.ban(3.0)
    banned_at = time.monotonic()
    with pytest.raises(BannedError) as caught:
        made.rest.tickers(["KRW-BTC"], deadline=soon(), max_age=0)
    assert caught.value.retry_after is not None
    again = scene(url=strict.rest_url)
    again.limiter.close()
    reborn = RateLimiter(made.host)
    rest = RestClient(made.config, limiter=reborn)
    failures = hammer(
        lambda n: (made.rest, rest)[n % 2].trades_page("KRW-BTC", count=n % 500 + 1, deadline=soon()),
        threads=2,
        seconds=0.5,
    )
    assert failures
    assert all(isinstance(error, BannedError) for error in failures)
    while made.limiter.banned_for():
        threading.Event().wait(0.02)
    threads = [
        spawn(lambda n=n: made.rest.trades_page("KRW-BTC", count=n + 1, deadline=soon()), f"test-after-{n}")
        for n in range(8)
    ]
    assert join_all(threads, soon()) == []
    rest.close(soon())
    reborn.close()
    requests = strict.requests()
    during = [request for request in requests if banned_at + 0.3 < request["t"] < banned_at + 3.0]
    assert during == []
    assert [request["status"] for request in requests].count(418) == 1
    probe, *followers = [request["t"] for request in requests if request["status"] == 200]
    assert len(followers) == 7
    assert min(followers) > probe
    assert any(isinstance(event, RateLimitEvent) and event.banned for event in made.events)


def test_after_a_pause_there_is_no_burst_beyond_the_limit(scene: Make, strict: FakeUpbit) -> None:
    made = scene(url=strict.rest_url)
    made.rest.candles_page("KRW-BTC", "1m", deadline=soon())
    strict.freeze(1.5, target="rest")
    hammer(
        lambda n: made.rest.candles_page("KRW-BTC", "1m", count=n % 200 + 1, deadline=soon()), threads=32, seconds=4.0
    )
    assert {request["status"] for request in strict.requests()} == {200}
