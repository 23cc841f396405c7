"""Who is urgent is served first, whatever waits or hangs, and whoever joins a question makes it as urgent as he is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone, Priority
from upbit_backbone._concurrency import Deadline, WorkerPool
from upbit_backbone.errors import UpbitBackboneError
from upbit_backbone.limits.host_limiter import Urgency
from upbit_backbone.limits.rate_limiter import RateLimiter
from upbit_backbone.models.enums import RateGroup
from upbit_backbone.simulator import FakeUpbit

Make = Callable[..., Any]
WAIT_SECONDS = 30.0


@pytest.fixture
def strict() -> Iterator[FakeUpbit]:
    """A simulator with Upbit's limits, and a past that nobody else shares."""
    with FakeUpbit(trades_per_second=0, markets=20) as upbit:
        yield upbit


@pytest.fixture
def asking() -> Iterator[WorkerPool]:
    pool = WorkerPool(100, "test-asking")
    yield pool
    pool.close(Deadline.after(WAIT_SECONDS))


@pytest.fixture
def market(strict: FakeUpbit) -> Iterator[MarketDataBackbone]:
    with MarketDataBackbone(rest_url=strict.rest_url, websocket_url=strict.websocket_url) as backbone:
        backbone.get_markets(timeout=WAIT_SECONDS)
        yield backbone


def soon() -> Deadline:
    return Deadline.after(WAIT_SECONDS)


def asked(upbit: FakeUpbit, path: str, symbol: str | None = None) -> list[Any]:
    found = [each for each in upbit.requests() if each["path"].startswith(path)]
    return found if symbol is None else [each for each in found if symbol in str(each["query"])]


def finished(futures: list[Future[Any]]) -> int:
    return sum(each.done() for each in futures)


# --- what hangs ---


def test_hung_candle_pages_of_one_market_keep_nobody_from_asking_about_another(
    asking: WorkerPool, market: MarketDataBackbone, strict: FakeUpbit
) -> None:
    strict.rest_fault("/v1/candles*", mode="hang", times=4, seconds=60.0)
    hung = [
        asking.submit(
            lambda n=n: market.get_candles("KRW-BTC", count=n, priority=Priority.LOW, timeout=20)  # type: ignore[misc]
        )
        for n in range(1, 5)
    ]
    wait_until(lambda: len(asked(strict, "/v1/candles", "KRW-BTC")) >= 4)
    symbols = [code for code in strict.markets() if code != "KRW-BTC"][:3]
    for symbol, priority in zip(symbols, Priority, strict=True):
        assert market.get_candles(symbol, count=3, priority=priority, timeout=WAIT_SECONDS)
    assert finished(hung) == 0


def test_of_one_market_a_few_trades_pages_hang_at_a_time_and_an_urgent_one_goes_past_them(
    asking: WorkerPool, market: MarketDataBackbone, strict: FakeUpbit
) -> None:
    strict.rest_fault("/v1/trades*", mode="hang", times=4, seconds=60.0)
    hung = [
        asking.submit(
            lambda n=n: market.get_trades("KRW-BTC", count=n, priority=Priority.LOW, timeout=20)  # type: ignore[misc]
        )
        for n in range(1, 9)
    ]
    wait_until(lambda: len(asked(strict, "/v1/trades", "KRW-BTC")) >= 4)
    other = next(code for code in strict.markets() if code != "KRW-BTC")
    market.get_trades(other, count=3, priority=Priority.NORMAL, timeout=WAIT_SECONDS)
    assert len(asked(strict, "/v1/trades", "KRW-BTC")) == 4
    market.get_trades("KRW-BTC", count=100, priority=Priority.HIGH, timeout=WAIT_SECONDS)
    assert finished(hung) == 0


# --- what waits ---


def test_urgent_candles_are_not_asked_behind_sixty_that_are_not(market: MarketDataBackbone, strict: FakeUpbit) -> None:
    symbols = strict.markets()
    options: dict[str, Any] = {"timeout": 60.0}
    low = [
        market.submit(market.get_candles, symbols[n % 20], count=n + 1, priority=Priority.LOW, **options)
        for n in range(60)
    ]
    high = [
        market.submit(market.get_candles, symbols[n], count=100 + n, priority=Priority.HIGH, **options)
        for n in range(5)
    ]
    assert all(each.result(WAIT_SECONDS) for each in high)
    assert finished(low) <= 30  # two seconds' turns and what was under way, not all sixty
    assert all(each.result(WAIT_SECONDS) for each in low)


@pytest.mark.parametrize("load", [Priority.NORMAL, Priority.LOW])
def test_under_any_load_an_urgent_question_is_among_the_next_seconds_turns(
    scene: Make, strict: FakeUpbit, asking: WorkerPool, load: Priority
) -> None:
    made = scene(url=strict.rest_url)
    is_over = threading.Event()

    def hammer(number: int) -> None:
        while not is_over.is_set():
            number += 12
            made.rest.candles_page("KRW-BTC", "1m", count=number % 190 + 1, deadline=soon(), priority=load)

    loads = [asking.submit(lambda n=n: hammer(n)) for n in range(12)]  # type: ignore[misc]
    wait_until(lambda: len(asked(strict, "/v1/candles")) >= 15)
    for round_number in range(3):
        before = len(asked(strict, "/v1/candles"))
        made.rest.candles_page("KRW-ETH", "1m", count=round_number + 1, deadline=soon(), priority=Priority.HIGH)
        assert len(asked(strict, "/v1/candles")) - before <= 13  # a second's turns, and what was on its way already
    is_over.set()
    for each in loads:
        each.result(WAIT_SECONDS)


@pytest.mark.parametrize("kind", ["pages", "lists"])
def test_who_joins_a_less_urgent_question_that_waits_makes_it_urgent(
    scene: Make, strict: FakeUpbit, asking: WorkerPool, kind: str
) -> None:
    made = scene(url=strict.rest_url, rest_requests_per_second=4.0)
    group = RateGroup.CANDLE if kind == "pages" else RateGroup.ORDERBOOK
    symbols = strict.markets()

    def ask(number: int, priority: Priority) -> Any:
        if kind == "pages":
            return made.rest.candles_page(
                symbols[number % 20], "1m", count=number + 1, deadline=soon(), priority=priority
            )
        # `max_age=0` and each alone, or all would meet on one list
        return made.rest.orderbooks([symbols[0]], levels=1, level=number, deadline=soon(), priority=priority)

    low = [asking.submit(lambda n=n: ask(n, Priority.LOW)) for n in range(16)]  # type: ignore[misc]
    wait_until(lambda: made.limiter.look(group).waiting >= 10)
    waiting = made.limiter.look(group).waiting
    last = asking.submit(lambda: ask(17, Priority.LOW))
    wait_until(lambda: made.limiter.look(group).waiting > waiting or last.done())
    ask(17, Priority.HIGH)
    assert finished(low) < 16
    last.result(WAIT_SECONDS)
    for each in low:
        each.result(WAIT_SECONDS)
    assert made.rest.cache.stats().merged == 1


def test_a_waiting_turn_that_becomes_urgent_comes_before_the_others(asking: WorkerPool) -> None:
    limiter = RateLimiter("a host of this test", 1.0)
    order: list[int] = []

    def take(number: int, urgency: Urgency) -> None:
        with limiter.permit(RateGroup.TICKER, urgency, soon()) as permit:
            permit.sent()
            permit.answered()
            order.append(number)

    take(0, Urgency(Priority.NORMAL))
    urgencies = [Urgency(Priority.LOW) for _ in range(3)]
    turns = []
    for number, urgency in enumerate(urgencies, 1):
        turns.append(asking.submit(lambda n=number, u=urgency: take(n, u)))  # type: ignore[misc]
        wait_until(lambda n=number: limiter.look(RateGroup.TICKER).waiting == n)
    urgencies[2].raise_to(Priority.HIGH)
    for turn in turns:
        turn.result(WAIT_SECONDS)
    assert order == [0, 3, 1, 2]
    limiter.close()


# --- threads ---


def test_what_is_urgent_finds_a_worker_where_all_are_busy() -> None:
    pool = WorkerPool(2, "test-busy")
    release = threading.Event()
    busy = [pool.submit(lambda: release.wait(WAIT_SECONDS), 2) for _ in range(4)]
    assert pool.submit(lambda: 7, 0).result(WAIT_SECONDS) == 7
    assert finished(busy) == 0
    release.set()
    assert pool.close(Deadline.after(WAIT_SECONDS)) == []


def test_workers_take_the_more_urgent_first() -> None:
    pool = WorkerPool(1, "test-order")
    release, order = threading.Event(), []
    first = pool.submit(lambda: release.wait(WAIT_SECONDS), 1)
    wait_until(first.running)
    rest = [pool.submit(lambda u=u: order.append(u), u) for u in (2, 1, 2, 1)]  # type: ignore[misc]
    release.set()
    for each in rest:
        each.result(WAIT_SECONDS)
    assert order == [1, 1, 2, 2]
    assert pool.close(Deadline.after(WAIT_SECONDS)) == []


def test_a_question_that_cannot_get_a_place_ends_by_its_deadline(
    scene: Make, upbit: FakeUpbit, asking: WorkerPool
) -> None:
    made = scene(rest_workers_per_group=1, rest_attempts=1)
    before = len(asked(upbit, "/v1/candles"))
    upbit.rest_fault("/v1/candles*", mode="hang", times=1, seconds=60.0)
    hung = asking.submit(
        lambda: made.rest.candles_page("KRW-BTC", "1m", count=1, deadline=soon(), priority=Priority.LOW)
    )
    wait_until(lambda: len(asked(upbit, "/v1/candles")) > before)
    with pytest.raises(UpbitBackboneError, match="KRW-BTC: its earlier requests still hang"):
        made.rest.candles_page("KRW-BTC", "1m", count=2, deadline=Deadline.after(2.5))
    assert not hung.done()
    made.rest.close(Deadline.after(WAIT_SECONDS))
    with pytest.raises(UpbitBackboneError):
        hung.result(WAIT_SECONDS)
