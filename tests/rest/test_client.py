"""What REST answers, what it costs, and that nobody waits for anybody else's trouble."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest

from tests.support.rest_scene import last_request, soon
from tests.support.threads import all_at_once
from tests.support.waiting import promised, wait_until
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import ClosedError, InvalidRequestError, UnknownSymbolError, UpbitBackboneError
from upbit_backbone.exchange.endpoints import RestCall
from upbit_backbone.limits.rate_limiter import RateLimiter
from upbit_backbone.models.enums import DataSource, Priority
from upbit_backbone.rest.client import RestClient
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.store.exchange_clock import ExchangeClock
from upbit_backbone.wire.io_deadline import Departure
from upbit_backbone.wire.rest_transport import RestResponse

Make = Callable[..., Any]


# --- the answers ---


def test_tickers_come_in_the_order_asked_with_source_and_time_of_receipt(scene: Make) -> None:
    made = scene()
    before = datetime.now(UTC)
    tickers = made.rest.tickers(["KRW-ETH", "KRW-BTC", "KRW-ETH"], deadline=soon())
    assert list(tickers) == ["KRW-ETH", "KRW-BTC"]
    for symbol, ticker in tickers.items():
        assert ticker.symbol == symbol
        assert isinstance(ticker.current_price, Decimal)
        assert ticker.source is DataSource.REST
        assert before <= ticker.received_at <= datetime.now(UTC)


def test_all_tickers_of_a_quote_take_one_request_and_serve_single_questions_after_it(
    scene: Make, upbit: FakeUpbit
) -> None:
    made, since = scene(), last_request(upbit)
    tickers = made.rest.tickers_of_quotes(["KRW"], deadline=soon())
    assert len(tickers) == 289
    assert {symbol.partition("-")[0] for symbol in tickers} == {"KRW"}
    assert made.rest.tickers_of_quotes(["KRW"], deadline=soon(), max_age=30) == tickers
    assert made.rest.tickers(list(tickers), deadline=soon(), max_age=30) == tickers
    assert len(upbit.requests(since=since)) == 1


def test_the_age_of_an_answer_counts_from_when_its_request_left(scene: Make, upbit: FakeUpbit) -> None:
    made = scene()
    upbit.rest_fault("/v1/ticker", mode="latency", latency=0.6)
    made.rest.tickers(["KRW-BTC"], deadline=soon())
    assert made.rest.cache.age_of(("ticker", "KRW-BTC")) >= 0.6
    since = last_request(upbit)
    made.rest.tickers(["KRW-BTC"], deadline=soon(), max_age=0.5)
    assert len(upbit.requests(since=since)) == 1, "an answer that was half a second on its way is older than that"


def test_nobody_joins_a_call_that_left_longer_ago_than_he_allows(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="latency", latency=3.0)
    slow = spawn(lambda: made.rest.tickers(["KRW-BTC"], deadline=soon()), "slow")
    wait_until(lambda: upbit.requests(since=since), "the request")
    made.rest.tickers(["KRW-BTC"], deadline=soon(), max_age=1e-6)
    assert slow.is_alive(), "he did not wait for the call under way"
    assert join_all([slow], soon()) == []
    assert len(upbit.requests(since=since)) == 2


def test_books_are_trimmed_to_the_levels_asked(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(), last_request(upbit)
    for levels in (7, 15, 11):
        book = made.rest.orderbooks(["KRW-BTC"], levels=levels, deadline=soon(), max_age=30)["KRW-BTC"]
        assert (len(book.asks), len(book.bids)) == (levels, levels)
    assert len(upbit.requests(since=since)) == 1
    grouped = made.rest.orderbooks(["KRW-BTC"], levels=5, level=10000, deadline=soon())["KRW-BTC"]
    assert all(unit.price % 10000 == 0 for unit in grouped.asks)


def test_trades_candles_and_markets_come_as_upbit_gives_them(scene: Make, upbit: FakeUpbit) -> None:
    made = scene()
    told = upbit.publish_trade("KRW-BTC", price=131_000_000, volume="0.01")
    trades = made.rest.trades_page("KRW-BTC", count=5, deadline=soon())
    assert trades[0].sequential_id == told["sequential_id"]
    older = made.rest.trades_page("KRW-BTC", count=5, cursor=trades[0].sequential_id, deadline=soon())
    assert trades[0].sequential_id not in {trade.sequential_id for trade in older}
    candles = made.rest.candles_page("KRW-BTC", "1m", count=200, deadline=soon())
    assert len(candles) == 200
    assert candles == sorted(candles, key=lambda candle: candle.timestamp, reverse=True)
    earlier = made.rest.candles_page("KRW-BTC", "1m", count=3, to=candles[-1].timestamp, deadline=soon())
    assert earlier[0].timestamp < candles[-1].timestamp
    markets = made.rest.markets(deadline=soon())
    assert len(markets) == 855
    assert all(market.warning is not None for market in markets)


def test_fresh_answers_are_remembered_once_and_cached_ones_not_again(scene: Make) -> None:
    made = scene()
    for _ in range(3):
        made.rest.tickers(["KRW-BTC"], deadline=soon(), max_age=30)
        made.rest.trades_page("KRW-BTC", count=1, deadline=soon())
    assert len([item for item in made.remembered if type(item).__name__ == "TickerData"]) == 1
    assert len([item for item in made.remembered if type(item).__name__ == "TradeData"]) == 3


def test_max_age_is_honoured(scene: Make, upbit: FakeUpbit) -> None:
    made = scene()
    old = made.rest.tickers(["KRW-XRP"], deadline=soon())["KRW-XRP"]
    price = upbit.publish_trade("KRW-XRP")["price"]
    assert made.rest.tickers(["KRW-XRP"], deadline=soon(), max_age=60)["KRW-XRP"] is old
    assert made.rest.tickers(["KRW-XRP"], deadline=soon(), max_age=0)["KRW-XRP"].current_price == Decimal(price)
    assert made.rest.tickers(["KRW-XRP"], deadline=soon(), max_age=60)["KRW-XRP"].current_price == Decimal(price)


def test_bad_questions_are_refused_before_anything_is_sent(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(), last_request(upbit)
    rest = made.rest
    for ask in (
        lambda: rest.tickers(["KRW-BTC", "krw-btc"], deadline=soon()),
        lambda: rest.tickers(["KRW-BTC\n"], deadline=soon()),
        lambda: rest.tickers_of_quotes(["krw"], deadline=soon()),
        lambda: rest.orderbooks(["KRW-BTC"], levels=0, deadline=soon()),
        lambda: rest.orderbooks(["KRW-BTC"], levels=31, deadline=soon()),
        lambda: rest.orderbooks(["KRW-BTC"], level=-1, deadline=soon()),
        lambda: rest.orderbooks(["KRW-BTC"], level=True, deadline=soon()),
        lambda: rest.trades_page("KRW-BTC", count=501, deadline=soon()),
        lambda: rest.trades_page("KRW-BTC&x=1", count=1, deadline=soon()),
        lambda: rest.candles_page("KRW-BTC", "7m", deadline=soon()),
        lambda: rest.candles_page("KRW-BTC", "1m", count=10**9, deadline=soon()),
    ):
        with pytest.raises(InvalidRequestError):
            ask()
    assert rest.tickers([], deadline=soon()) == {}
    assert upbit.requests(since=since) == []


# --- merging ---

# A lone question leaves at once, so a hundred threads that need longer to start than Upbit to answer are not merged.
ROUND_TRIP = 0.09


def test_a_hundred_threads_that_ask_the_same_cost_one_request(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="latency", latency=ROUND_TRIP, times=None)
    answers = all_at_once(100, lambda _: made.rest.tickers(["KRW-BTC"], deadline=soon()))
    assert all(answer["KRW-BTC"].symbol == "KRW-BTC" for answer in answers)
    assert len(upbit.requests(since=since)) == 1


@pytest.mark.parametrize("kind", ["tickers", "orderbooks"])
def test_a_hundred_threads_with_a_hundred_symbols_cost_at_most_two(scene: Make, upbit: FakeUpbit, kind: str) -> None:
    made, symbols = scene(), upbit.markets()[:100]
    since = last_request(upbit)
    for path in ("/v1/ticker", "/v1/orderbook"):
        upbit.rest_fault(path, mode="latency", latency=ROUND_TRIP, times=None)
    ask = getattr(made.rest, kind)
    arrivals: list[float] = []

    def ask_for_one(number: int) -> Any:
        arrivals.append(time.monotonic())
        return ask([symbols[number]], deadline=soon())

    answers = all_at_once(100, ask_for_one)
    assert [list(answer) for answer in answers] == [[symbol] for symbol in symbols]
    # One for the first, one for all who came while that was under way; more only if a slow machine spreads them out.
    assert len(upbit.requests(since=since)) <= 2 + int((max(arrivals) - min(arrivals)) / ROUND_TRIP)


def test_equal_pages_share_one_call_and_everyone_owns_his_list(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/candles*", mode="latency", latency=0.3)
    pages = all_at_once(20, lambda _: made.rest.candles_page("KRW-BTC", "1m", count=10, deadline=soon()))
    assert len(upbit.requests(since=since)) == 1
    assert all(page == pages[0] for page in pages)
    assert len({id(page) for page in pages}) == 20
    assert made.rest.cache.stats().merged == 19


def test_all_markets_in_one_question_are_split_and_all_there(scene: Make, upbit: FakeUpbit) -> None:
    made, symbols = scene(), upbit.markets()
    since = last_request(upbit)
    assert list(made.rest.tickers(symbols, deadline=soon())) == symbols
    requests = upbit.requests(since=since)
    assert len(requests) == 3
    assert max(len(request["query"]) if isinstance(request["query"], str) else 0 for request in requests) < 8192


def test_a_list_waits_for_its_predecessor_but_not_for_ever(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="hang")
    outcomes: list[object] = []

    def ask_into_the_void() -> None:
        try:
            made.rest.tickers(["KRW-BTC"], deadline=soon(2.0))
        except UpbitBackboneError as error:
            outcomes.append(error)

    thread = spawn(ask_into_the_void, "test-void")
    wait_until(lambda: upbit.requests(since=since), "the request")
    started = time.monotonic()
    assert made.rest.tickers(["KRW-ETH"], deadline=soon())
    assert time.monotonic() - started < promised(1.5)
    join_all([thread], soon())
    assert len(outcomes) == 1


def test_a_question_that_must_be_fresh_does_not_take_an_answer_that_was_under_way(
    scene: Make, upbit: FakeUpbit
) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="latency", latency=0.5)
    answers: list[Any] = []
    thread = spawn(
        lambda: answers.append(made.rest.tickers(["KRW-BTC"], deadline=soon())["KRW-BTC"].current_price), "test-early"
    )
    wait_until(lambda: upbit.requests(since=since), "the request")
    new = Decimal(upbit.publish_trade("KRW-BTC")["price"])
    assert made.rest.tickers(["KRW-BTC"], deadline=soon(), max_age=0)["KRW-BTC"].current_price == new
    join_all([thread], soon())
    assert len(upbit.requests(since=since)) == 2


# --- unknown markets ---


def test_an_unknown_market_spoils_nobody_elses_answer(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(), last_request(upbit)
    asked = ["KRW-BTC", "KRW-NOPE", "KRW-ETH", "KRW-NADA"]
    assert list(made.rest.tickers(asked, deadline=soon())) == ["KRW-BTC", "KRW-ETH"]
    assert len(upbit.requests(since=since)) == 5  # the list, the markets, the list without the unknown, each of them
    assert list(made.rest.tickers(asked, deadline=soon())) == ["KRW-BTC", "KRW-ETH"]
    assert made.rest.tickers(["KRW-NOPE"], deadline=soon()) == {}
    assert len(upbit.requests(since=since)) == 5  # remembered
    assert list(made.rest.orderbooks(asked, deadline=soon())) == ["KRW-BTC", "KRW-ETH"]
    assert len(upbit.requests(since=since)) == 6


def test_strangers_on_one_list_do_not_suffer_from_each_others_unknown_markets(scene: Make, upbit: FakeUpbit) -> None:
    made, symbols = scene(), upbit.markets()[:20]
    since = last_request(upbit)
    asked = [*symbols, "KRW-NOPE", "BTC-NOPE"]
    answers = all_at_once(len(asked), lambda n: made.rest.tickers([asked[n]], deadline=soon()))
    assert [list(answer) for answer in answers] == [[symbol] for symbol in symbols] + [[], []]
    assert len(upbit.requests(since=since)) <= 7


def test_without_a_market_list_the_culprit_is_found_by_halving(scene: Make, upbit: FakeUpbit) -> None:
    made = scene(rest_attempts=1)
    upbit.rest_fault("/v1/market/all", mode="status", status=500, times=None, seconds=30.0)
    asked = ["KRW-BTC", "KRW-NOPE", "KRW-ETH"]
    assert list(made.rest.tickers(asked, deadline=soon())) == ["KRW-BTC", "KRW-ETH"]
    assert made.rest.tickers(["KRW-NOPE"], deadline=soon()) == {}


def test_a_page_of_an_unknown_market_is_an_error_that_names_it(scene: Make) -> None:
    made = scene()
    for ask in (
        lambda: made.rest.trades_page("KRW-NOPE", deadline=soon()),
        lambda: made.rest.candles_page("KRW-NOPE", "1m", deadline=soon()),
    ):
        with pytest.raises(UnknownSymbolError, match="KRW-NOPE") as caught:
            ask()
        assert caught.value.symbols == ("KRW-NOPE",)


# --- invalidation ---


def test_an_answer_in_flight_never_survives_an_invalidation(scene: Make, upbit: FakeUpbit) -> None:
    made, since = scene(), last_request(upbit)
    upbit.rest_fault("/v1/ticker", mode="latency", latency=0.4)
    first: list[Any] = []
    thread = spawn(lambda: first.append(made.rest.tickers(["KRW-BTC"], deadline=soon())), "test-first")
    wait_until(lambda: upbit.requests(since=since), "the request")
    made.rest.cache.invalidate_cache("KRW-BTC")
    made.rest.tickers(["KRW-BTC"], deadline=soon())  # neither joins the old one nor finds it in the cache
    join_all([thread], soon())
    assert len(upbit.requests(since=since)) == 2
    assert len(first) == 1
    made.rest.tickers(["KRW-BTC"], deadline=soon(), max_age=30)
    assert len(upbit.requests(since=since)) == 2


# --- bulkheads and priorities ---


def test_hanging_candles_never_delay_tickers(scene: Make, upbit: FakeUpbit) -> None:
    made = scene()
    upbit.rest_fault("/v1/candles*", mode="hang", times=None, seconds=30.0)

    def hang(number: int) -> None:
        with pytest.raises(UpbitBackboneError):
            made.rest.candles_page("KRW-BTC", "1m", count=number + 1, deadline=soon(2.0))

    threads = [spawn(lambda n=n: hang(n), f"test-hang-{n}") for n in range(16)]
    slowest = 0.0
    for _ in range(6):
        started = time.monotonic()
        made.rest.tickers(["KRW-BTC"], deadline=soon(), max_age=0)
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 0.5
    assert join_all(threads, soon()) == []


def test_an_urgent_question_overtakes_those_that_wait(scene: Make, upbit: FakeUpbit) -> None:
    made = scene(rest_workers_per_group=2)
    order: list[str] = []

    def ask(name: str, count: int, priority: Priority) -> None:
        made.rest.candles_page("KRW-BTC", "1m", count=count, deadline=soon(20), priority=priority)
        order.append(name)

    threads = [spawn(lambda n=n: ask(f"low-{n}", n + 1, Priority.LOW), f"test-low-{n}") for n in range(24)]
    while made.rest.stats()[1].waiting < 10:
        threading.Event().wait(0.005)
    ask("high", 100, Priority.HIGH)
    position = order.index("high")
    assert join_all(threads, soon(30)) == []
    assert position < 23
    assert len(order) == 25


# --- about itself ---


def test_the_clock_offset_is_within_the_resolution_of_the_date_header(scene: Make) -> None:
    made = scene()
    assert made.rest.clock_offset is None
    for _ in range(3):
        made.rest.tickers(["KRW-BTC"], deadline=soon(), max_age=0)
    assert abs(made.rest.clock_offset) <= 1.0


def test_stats_tell_requests_bytes_and_limits_of_every_group(scene: Make) -> None:
    made = scene()
    made.rest.tickers(["KRW-BTC"], deadline=soon())
    stats = {each.group: each for each in made.rest.stats()}
    assert set(stats) == {"market", "candle", "trade", "ticker", "orderbook"}
    ticker = stats["ticker"]
    assert (ticker.requests, ticker.failures, ticker.granted, ticker.breaker) == (1, 0, 1, "closed")
    assert ticker.bytes > 100
    assert ticker.limit_per_second == 10.0


def test_closing_ends_every_question_and_every_thread_at_once(scene: Make, upbit: FakeUpbit) -> None:
    made = scene()
    upbit.rest_fault("*", mode="hang", times=None, seconds=30.0)
    outcomes: list[object] = []

    def ask(number: int) -> None:
        try:
            made.rest.candles_page("KRW-BTC", "1m", count=number + 1, deadline=soon(20))
        except UpbitBackboneError as error:
            outcomes.append(error)

    threads = [spawn(lambda n=n: ask(n), f"test-open-{n}") for n in range(30)]
    while made.rest.stats()[1].granted < 2:
        threading.Event().wait(0.01)
    started = time.monotonic()
    assert made.rest.close(soon(2.0)) == []
    assert join_all(threads, soon(2.0)) == []
    assert time.monotonic() - started < promised(1.5)
    assert len(outcomes) == 30
    with pytest.raises(ClosedError):
        made.rest.tickers(["KRW-BTC"], deadline=soon())
    assert made.rest.close(soon()) == []
    assert repr(made.rest).endswith(" closed>")


# --- where it runs ---


def test_it_speaks_tls_with_an_extra_authority(scene: Make) -> None:
    with FakeUpbit(tls=True, trades_per_second=0, markets=3) as secure:
        made = scene(url=secure.rest_url, ca_file=secure.ca_file)
        assert made.rest.tickers(["KRW-BTC"], deadline=soon())
        assert len(secure.requests()) == 1
        made.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_told_so_and_the_parent_goes_on(upbit: FakeUpbit) -> None:
    program = """
        import os, sys
        from upbit_backbone._concurrency import Deadline
        from upbit_backbone.rest.client import RestClient
        from upbit_backbone.config import BackboneConfig
        from upbit_backbone.errors import ClosedError
        from upbit_backbone.limits.rate_limiter import RateLimiter
        config = BackboneConfig(url=sys.argv[1])
        rest = RestClient(config, limiter=RateLimiter("forked"))
        rest.tickers(["KRW-BTC"], deadline=Deadline.after(10))
        child = os.fork()
        if child == 0:
            try:
                rest.tickers(["KRW-BTC"], deadline=Deadline.after(10), max_age=0)
            except ClosedError:
                again = RestClient(config, limiter=RateLimiter("forked"))
                again.tickers(["KRW-BTC"], deadline=Deadline.after(10))
                os._exit(0 if rest.close(Deadline.after(1)) == [] else 1)
            os._exit(2)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        rest.tickers(["KRW-BTC"], deadline=Deadline.after(10), max_age=0)
        sys.exit(code)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), upbit.rest_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_forgotten_channel_with_a_hanging_call_never_keeps_the_process(upbit: FakeUpbit) -> None:
    upbit.rest_fault("/v1/ticker", mode="hang", times=None, seconds=60.0)
    program = """
        import sys, threading
        from upbit_backbone._concurrency import Deadline
        from upbit_backbone.rest.client import RestClient
        from upbit_backbone.config import BackboneConfig
        from upbit_backbone.limits.rate_limiter import RateLimiter
        rest = RestClient(BackboneConfig(url=sys.argv[1]), limiter=RateLimiter("forgotten"))
        try:
            rest.tickers(["KRW-BTC"], deadline=Deadline.after(0.5))
        except TimeoutError:
            raise SystemExit(5)
    """
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), upbit.rest_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (5, "")
    assert time.monotonic() - started < promised(10)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_ctrl_c_ends_a_blocking_question_at_once(scene: Make, upbit: FakeUpbit) -> None:
    made = scene()
    upbit.rest_fault("/v1/ticker", mode="hang", times=None, seconds=60.0)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            made.rest.tickers(["KRW-BTC"], deadline=soon(20))
        assert time.monotonic() - started < promised(1.5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    upbit.clear_faults()
    assert made.rest.candles_page("KRW-BTC", "1m", deadline=soon())


# --- what it tells of Upbit's clock ---


class Late:
    """A transport whose answer lies about for two seconds before anybody looks at it."""

    def get(self, call: RestCall, deadline: Deadline, departure: Departure | None = None) -> RestResponse:
        now = datetime.now(UTC) - timedelta(seconds=2)
        headers = {"date": format_datetime(now.replace(microsecond=0), usegmt=True)}
        return RestResponse(200, headers, b"[]", 0.01, 2, asked_at=time.monotonic() - 2.01)

    def close(self) -> None: ...


def test_how_long_an_answer_waited_for_us_does_not_move_upbits_clock() -> None:
    exchange_clock = ExchangeClock()
    limiter = RateLimiter(str(uuid.uuid4()))
    rest = RestClient(BackboneConfig(), limiter=limiter, transport=Late(), exchange_clock=exchange_clock)
    try:
        assert rest.trades_page("KRW-BTC", count=1, deadline=soon()) == []
        bound = exchange_clock.latest_time(time.monotonic())
        assert bound is not None
        assert bound >= datetime.now(UTC) - timedelta(milliseconds=1), "Upbit's clock is ours here"
    finally:
        rest.close(soon())
        limiter.close()
