"""Answers that processes give each other by way of a Redis server, so that equal questions are asked once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.chaos.proxy import ChaosProxy
from tests.relay.conftest import MARKETS
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone._concurrency import SYSTEM_CLOCK, Deadline, Flag
from upbit_backbone.exchange import endpoints
from upbit_backbone.models.enums import Priority
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.upstream import shared_answers
from upbit_backbone.upstream.shared_answers import MAX_ANSWER_BYTES, SharedAnswers

Open = Callable[[], MarketDataBackbone]
CANDLES = "/v1/candles/minutes/1"
QUESTION = endpoints.candles("1m", "KRW-BTC", 3)
ANSWER = b'[{"market":"KRW-BTC"}]'


@pytest.fixture
def things() -> Iterator[ExitStack]:
    with ExitStack() as things:
        yield things


@pytest.fixture
def process(
    things: ExitStack, upbit: FakeUpbit, server: RedisServer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> Open:
    """A backbone that knows nothing of the others but what is in Redis."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def one() -> MarketDataBackbone:
        addresses = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url}
        settings = {"share_limits_at": server.url, "share_limits_between_processes": True, "timeout_seconds": 30}
        return things.enter_context(MarketDataBackbone(**addresses, **settings))

    return one


@pytest.fixture
def part(things: ExitStack, server: RedisServer) -> Callable[[], SharedAnswers]:
    """The part of another process."""

    def one() -> SharedAnswers:
        answers = SharedAnswers(server.url, "upbit", "upbit", clock=SYSTEM_CLOCK)
        things.callback(answers.close)
        return answers

    return one


def ask(answers: SharedAnswers, max_age: float = 0.0, seconds: float = 30.0) -> Any:
    return answers.ask(QUESTION, max_age, Deadline.after(seconds), Flag())


# --- whole backbones ---


def test_who_asks_the_same_at_the_same_time_gets_the_one_answer(
    process: Open, upbit: FakeUpbit, things: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [process() for _ in range(4)]
    pool = things.enter_context(ThreadPoolExecutor(4))
    waiting: set[int] = set()

    def watched(*arguments: Any) -> Any:
        waiting.add(threading.get_ident())
        return wait_event(*arguments)

    def held(*arguments: Any) -> Any:
        has_left.set()
        wait_until(lambda: len(waiting) == 3, "the others wait")
        return get(*arguments)

    def asking(market: MarketDataBackbone) -> Future[Any]:
        return pool.submit(market.get_candles, "KRW-BTC", "1m", count=3)

    wait_event, has_left, transport = shared_answers.wait_event, threading.Event(), many[0]._parts.transport
    get = transport.get
    monkeypatch.setattr(shared_answers, "wait_event", watched)
    for market in many:
        market.get_markets()  # so that nobody has to ask for it first
    monkeypatch.setattr(transport, "get", held)
    first = asking(many[0])
    wait_until(has_left.is_set, "the first asks")
    others = [asking(market) for market in many[1:]]
    found = [each.result(60) for each in (first, *others)]
    assert [[each.close_price for each in candles] for candles in found] == [
        [each.close_price for each in found[0]]
    ] * 4
    assert len(upbit.requests(CANDLES)) == 1


def test_a_market_list_of_a_moment_ago_is_given_to_others_and_never_twice(process: Open, upbit: FakeUpbit) -> None:
    mine, theirs = process(), process()
    assert mine.get_markets() == theirs.get_markets()
    assert len(upbit.requests("/v1/market/all")) == 1
    # Who doubts what he has is not shown it again.
    theirs._parts.directory.refreshed(Deadline.after(30), Priority.NORMAL)
    assert len(upbit.requests("/v1/market/all")) == 2
    mine._parts.directory.refreshed(Deadline.after(30), Priority.NORMAL)
    assert len(upbit.requests("/v1/market/all")) == 2


def test_prices_are_shared_as_far_as_their_age_allows(process: Open, upbit: FakeUpbit) -> None:
    mine, theirs = process()._parts.rest, process()._parts.rest
    upbit.pause()
    asked = mine.tickers(MARKETS, deadline=Deadline.after(30), max_age=60.0)
    told = theirs.tickers(MARKETS, deadline=Deadline.after(30), max_age=60.0)
    assert {name: each.current_price for name, each in asked.items()} == {
        name: each.current_price for name, each in told.items()
    }
    assert len(upbit.requests("/v1/ticker")) == 1
    age = theirs.cache.age_of(theirs._tickers.key(MARKETS[0]))
    assert age is not None
    assert age > 0.0  # it does not become young again on the way
    theirs.tickers(MARKETS, deadline=Deadline.after(30), max_age=0.0)
    assert len(upbit.requests("/v1/ticker")) == 2


def test_what_fills_a_gap_is_asked_here_and_now(
    process: Open, upbit: FakeUpbit, part: Callable[[], SharedAnswers]
) -> None:
    rest = process()._parts.rest
    deadline = Deadline.after(30)
    rest.trades_page("KRW-BTC", count=5, deadline=deadline, is_shared=False)
    rest.trades_page("KRW-BTC", count=5, deadline=deadline)
    rest.trades_page("KRW-BTC", count=5, deadline=deadline, is_shared=False)
    assert len(upbit.requests("/v1/trades/ticks")) == 3


def test_who_waited_for_one_that_failed_asks_for_himself(
    process: Open, upbit: FakeUpbit, server: RedisServer, things: ExitStack
) -> None:
    mine, theirs = process(), process()
    upbit.rest_fault(path=CANDLES, mode="status", status=404, body="{}", latency=0.5, times=1)
    pool = things.enter_context(ThreadPoolExecutor(1))
    first = pool.submit(mine._parts.rest.candles_page, "KRW-BTC", "1m", count=3, deadline=Deadline.after(30))
    wait_until(lambda: upbit.requests(CANDLES) or server.client.keys("{upbit}:answers:*:asking:*"), "the first asks")
    assert len(theirs._parts.rest.candles_page("KRW-BTC", "1m", count=3, deadline=Deadline.after(30))) == 3
    assert first.exception(30) is not None


@pytest.mark.parametrize(
    "found",
    [b"somebody else's", b"UPBITAN1", b"UPBITAN11795986313258 " + b"a" * 32, b"x" * (MAX_ANSWER_BYTES + 100)],
)
def test_what_is_not_ours_is_refused_by_name_and_left_alone(
    process: Open, upbit: FakeUpbit, server: RedisServer, found: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    market = process()
    rest = market._parts.rest
    rest.candles_page("KRW-BTC", "1m", count=3, deadline=Deadline.after(30))
    (key,) = server.client.keys("{upbit}:answers:*:answer:*")
    server.client.set(key, found)
    before = server.client.dump(key)
    assert len(rest.candles_page("KRW-BTC", "1m", count=3, deadline=Deadline.after(30))) == 3
    assert server.client.dump(key) == before
    told = [record for record in caplog.records if "not shared with other processes" in record.getMessage()]
    assert key in str(told[0].__dict__["why"])


def test_an_answer_that_cannot_be_read_is_asked_of_upbit(process: Open, upbit: FakeUpbit, server: RedisServer) -> None:
    mine, theirs = process()._parts.rest, process()._parts.rest
    mine.markets(deadline=Deadline.after(30))
    (key,) = server.client.keys("{upbit}:answers:*:answer:*")
    head = server.client.get(key).partition("\n")[0]
    server.client.set(key, f"{head}\n[{{", px=60_000)
    assert len(theirs.markets(deadline=Deadline.after(30))) == 2
    assert len(upbit.requests("/v1/market/all")) == 2


def test_what_was_told_by_way_of_redis_is_not_known_without_it(
    process: Open, upbit: FakeUpbit, server: RedisServer
) -> None:
    mine, theirs = process(), process()
    mine.get_markets()
    server.kill()
    theirs.get_markets()
    assert len(upbit.requests("/v1/market/all")) == 2


def test_without_redis_the_processes_of_a_machine_share_prices_as_far_as_their_age_allows(
    process: Open, upbit: FakeUpbit, server: RedisServer
) -> None:
    mine, theirs = process()._parts.rest, process()._parts.rest
    server.kill()
    mine.tickers(MARKETS, deadline=Deadline.after(30), max_age=60.0)
    told = theirs.tickers(MARKETS, deadline=Deadline.after(30), max_age=60.0)
    assert list(told) == list(MARKETS)
    assert len(upbit.requests("/v1/ticker")) == 1
    age = theirs.cache.age_of(theirs._tickers.key(MARKETS[0]))
    assert age is not None
    assert age > 0.0
    theirs.tickers(MARKETS, deadline=Deadline.after(30), max_age=0.0)
    assert len(upbit.requests("/v1/ticker")) == 2


def test_without_redis_who_waited_for_his_turn_is_told_what_came_meanwhile(
    process: Open, upbit: FakeUpbit, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = process()._parts, process()._parts
    server.kill()
    permit = theirs.limiter.permit

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        mine.rest.tickers(MARKETS, deadline=Deadline.after(30), max_age=60.0)
        return permit(*arguments, **options)

    monkeypatch.setattr(theirs.limiter, "permit", late)
    # An answer to what left after one's own question is good for every age.
    assert list(theirs.rest.tickers(MARKETS, deadline=Deadline.after(30), max_age=0.001)) == list(MARKETS)
    assert len(upbit.requests("/v1/ticker")) == 1


# --- one question ---


def test_the_turn_to_ask_is_one_processs_and_goes_to_the_next_when_nothing_came_of_it(
    part: Callable[[], SharedAnswers], server: RedisServer, things: ExitStack
) -> None:
    mine, theirs = part(), part()
    first = ask(mine)
    assert first.is_ours
    pool = things.enter_context(ThreadPoolExecutor(1))
    waiting = pool.submit(ask, theirs)
    first.leave()
    assert waiting.result(30).is_ours
    assert all(server.client.pttl(key) > 0 for key in server.client.keys("*"))


def test_who_waits_gets_what_came_and_its_age_by_the_clock_of_redis(
    part: Callable[[], SharedAnswers], things: ExitStack
) -> None:
    mine, theirs = part(), part()
    first = ask(mine)
    pool = things.enter_context(ThreadPoolExecutor(1))
    waiting = pool.submit(ask, theirs)
    left_at = SYSTEM_CLOCK.monotonic() - 0.25
    first.tell(ANSWER, left_at)
    turn = waiting.result(30)
    assert turn.is_ours or turn.answer.body == ANSWER  # it may have come before the other asked
    turn.leave()
    told = ask(part(), max_age=60.0).answer
    assert told.body == ANSWER
    assert told.left_at <= left_at
    assert ask(part(), max_age=0.2).answer is None


@pytest.mark.parametrize("who", ["tells", "asks"])
def test_who_is_held_up_on_the_way_never_finds_an_answer_younger_than_it_is(
    server: RedisServer, things: ExitStack, who: str
) -> None:
    """A process that is stopped between its look at its clock and Redis', or between Redis' and its use of it."""
    proxy = things.enter_context(ChaosProxy(str(server.socket)))
    late = f"redis://{proxy.address[0]}:{proxy.address[1]}"
    teller, asker = (
        SharedAnswers(late if who == each else server.url, "upbit", "upbit", clock=SYSTEM_CLOCK)
        for each in ("tells", "asks")
    )
    things.callback(teller.close)
    things.callback(asker.close)
    began = SYSTEM_CLOCK.monotonic()
    turn = ask(teller, max_age=60.0)
    ask(asker, max_age=60.0, seconds=0.0)  # connected
    proxy.set(latency=0.15)
    left_at = SYSTEM_CLOCK.monotonic()
    turn.tell(ANSWER, left_at)
    told = ask(asker, max_age=60.0).answer
    assert told is not None
    assert told.left_at <= left_at
    assert left_at - told.left_at <= SYSTEM_CLOCK.monotonic() - began + 0.01


def test_a_process_that_died_with_the_turn_keeps_nobody_for_long(
    part: Callable[[], SharedAnswers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_answers, "NOTE_SECONDS", 0.3)
    ask(part())
    assert ask(part()).is_ours
    monkeypatch.setattr(shared_answers, "NOTE_SECONDS", 60.0)
    ask(part(), max_age=0.0)
    turn = ask(part(), seconds=0.6)  # half of its time, and then it asks for itself
    assert not turn.is_ours
    assert turn.answer is None


def test_what_is_too_large_is_not_left(part: Callable[[], SharedAnswers], server: RedisServer) -> None:
    turn = ask(part())
    turn.tell(b"x" * (MAX_ANSWER_BYTES + 1), SYSTEM_CLOCK.monotonic())
    turn.leave()
    assert server.client.keys("*answer:*") == []


def test_a_prefix_of_another_version_is_not_written_to(
    part: Callable[[], SharedAnswers], server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.client.set("{upbit}:schema", "upbit-backbone relay 1")
    turn = ask(part())
    turn.tell(ANSWER, SYSTEM_CLOCK.monotonic())
    assert server.client.keys("*") == ["{upbit}:schema"]
    assert any(record.levelno == logging.WARNING for record in caplog.records)


def test_a_user_with_few_rights_is_enough(
    part: Callable[[], SharedAnswers], server: RedisServer, things: ExitStack
) -> None:
    """Those that the documentation names."""
    rights = ["+client", "+ping", "+get", "+time", "+evalsha", "+script", "+set", "+del", "+strlen", "+getrange"]
    user = ("ACL", "SETUSER", "reader", "on", ">geheim", "%R~{upbit}:*", "%RW~{upbit}:answers:*", *rights)
    server.client.execute_command(*user)
    mine = SharedAnswers(f"unix://reader:geheim@{server.socket}", "upbit", "upbit", clock=SYSTEM_CLOCK)
    things.callback(mine.close)
    turn = ask(mine)
    assert turn.is_ours
    turn.tell(ANSWER, SYSTEM_CLOCK.monotonic())
    assert ask(part(), max_age=60.0).answer.body == ANSWER
    ask(mine).leave()
    assert server.client.keys("*asking*") == []
    assert "geheim" not in repr(mine)
