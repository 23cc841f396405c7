"""A line that moves, but late: no answer is older than it says, and none that is old goes unmarked."""

from __future__ import annotations

import bisect
import random
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.chaos.proxy import ChaosProxy
from tests.chaos.watched import Watched, say
from tests.support.waiting import wait_until
from upbit_backbone import DataSource, MarketDataBackbone, StaleDataError
from upbit_backbone.models.events import StaleEvent
from upbit_backbone.models.market import TickerData
from upbit_backbone.simulator import FakeUpbit

Watch = Callable[..., Watched]
Proxy = Callable[..., ChaosProxy]

SYMBOLS = ["KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-SOL"]
NARROW = 15_000.0  # bytes a second: less than half of what four tickers and books need
UNMARKED_SECONDS = 3.0
MILLISECOND = 0.001


class Answer(NamedTuple):
    """What was asked when, by the simulator's clock, which is this machine's, and what came."""

    asked_at: float
    ticker: TickerData
    max_age: float | None
    is_realtime: bool


def through(line: ChaosProxy) -> dict[str, str]:
    host, port = line.address
    return {"websocket_url": f"ws://{host}:{port}/websocket/v1"}


def ask(market: MarketDataBackbone, seconds: float, rng: random.Random) -> list[Answer]:
    """Questions of every kind, as fast as they are answered; a StaleDataError is an honest answer, too."""
    answers = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        max_age = rng.choice((None, None, 0.1, 0.3, 1.0))
        is_realtime = rng.random() < 0.02
        asked_at = time.time()
        try:
            ticker = market.get_ticker(rng.choice(SYMBOLS), realtime=is_realtime, max_age=max_age, timeout=2.0)
        except StaleDataError:
            continue
        answers.append(Answer(asked_at, ticker, max_age, is_realtime))
    return answers


class Judge:
    """Knows from the simulator when each market moved."""

    def __init__(self, upbit: FakeUpbit) -> None:
        self._moves = {symbol: [row["trade_timestamp"] / 1000 for row in upbit.trades(symbol)] for symbol in SYMBOLS}

    def superseded_for(self, answer: Answer) -> float:
        """For how many seconds another price had been the present one when the question was asked."""
        moves = self._moves[answer.ticker.symbol]
        shown = (answer.ticker.trade_timestamp or answer.ticker.timestamp).timestamp()
        place = bisect.bisect_right(moves, shown + MILLISECOND / 2)
        return max(0.0, answer.asked_at - moves[place]) if place < len(moves) else 0.0


def verdict(answers: list[Answer], judge: Judge) -> None:
    unmarked = [answer for answer in answers if not answer.ticker.degraded]
    worst = max(map(judge.superseded_for, unmarked))
    live = sum(answer.ticker.source is DataSource.WEBSOCKET for answer in answers)
    say(
        f"{len(answers)} answers, {live} by stream, {len(answers) - len(unmarked)} marked, worst unmarked {worst:.2f} s"
    )
    assert worst <= UNMARKED_SECONDS
    limited = [answer for answer in unmarked if answer.max_age is not None]
    broken = [answer for answer in limited if judge.superseded_for(answer) > answer.max_age + MILLISECOND]  # type: ignore[operator]
    assert not broken, f"{len(broken)} of {len(limited)} answers were older than max_age allows: {broken[0]}"
    streamed = [each for each in unmarked if each.is_realtime and each.ticker.source is DataSource.WEBSOCKET]
    early = [each for each in streamed if each.ticker.timestamp.timestamp() < each.asked_at - MILLISECOND]
    assert not early, f"{len(early)} of {len(streamed)} values were made before the call: {early[0]}"


def test_behind_a_narrow_line_no_answer_is_silently_old(watch: Watch, upbit: FakeUpbit, proxy: Proxy) -> None:
    line = proxy(upbit.websocket_url)
    seen = watch(upbit, SYMBOLS, ["ticker", "orderbook"], **through(line))
    wait_until(lambda: seen.market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be live")
    rng = random.Random(5)
    healthy = ask(seen.market, 1.0, rng)
    assert any(answer.ticker.source is DataSource.WEBSOCKET for answer in healthy)
    line.set(bandwidth=NARROW)
    answers = ask(seen.market, 8.0, rng)
    alarms = [event for event in seen.of(StaleEvent) if event.stale]
    assert "behind Upbit" in alarms[0].reason
    assert any("behind the exchange" in reason for reason in seen.market.health().reasons)
    verdict(healthy + answers, Judge(upbit))
    line.set(bandwidth=0.0)
    wait_until(lambda: not seen.of(StaleEvent)[-1].stale, "the all-clear")
    wait_until(lambda: seen.market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be live again")


@pytest.mark.endurance
def test_a_line_late_from_its_start_is_late(backbone: Callable[..., MarketDataBackbone], upbit: FakeUpbit,
                                            proxy: Proxy) -> None:  # fmt: skip
    line = proxy(upbit.websocket_url)
    line.set(latency=4.0)
    market = backbone(upbit, connect_timeout_seconds=20.0, **through(line))
    with market.subscribe(SYMBOLS, "ticker") as stream:
        assert stream.get(timeout=30.0) is not None
        answers = ask(market, 4.0, random.Random(6))
        assert all(answer.ticker.source is DataSource.REST for answer in answers if not answer.ticker.degraded)
        verdict(answers, Judge(upbit))


def test_where_rest_fails_as_well_the_last_known_value_is_as_old_as_it_says(
    watch: Watch, upbit: FakeUpbit, proxy: Proxy
) -> None:
    line = proxy(upbit.websocket_url)
    seen = watch(upbit, SYMBOLS, ["ticker", "orderbook"], **through(line))
    wait_until(lambda: seen.market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be live")
    line.set(latency=4.0)
    wait_until(lambda: any(event.stale for event in seen.of(StaleEvent)), "the alarm")
    upbit.rest_fault("/v1/ticker", "hang", times=None, seconds=30.0)
    asked_at = time.time()
    with pytest.raises(StaleDataError) as caught:
        seen.market.get_ticker("KRW-BTC", timeout=1.0)
    known, age = caught.value.last_known, caught.value.age
    assert isinstance(known, TickerData)
    assert age is not None
    assert age >= Judge(upbit).superseded_for(Answer(asked_at, known, None, False)) - MILLISECOND


def test_a_quiet_market_stays_current_on_a_line_that_is_merely_long(
    backbone: Callable[..., MarketDataBackbone], quiet: FakeUpbit, proxy: Proxy
) -> None:
    line = proxy(quiet.websocket_url)
    line.set(latency=0.2, jitter=0.1)
    market = backbone(quiet, ping_interval_seconds=0.5, **through(line))
    with market.subscribe(SYMBOLS, "ticker"):
        wait_until(lambda: market.explain("ticker", "KRW-BTC").rule == "live", "the ticker to be live")
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            told = market.explain("ticker", "KRW-BTC")
            assert told.rule == "live", str(told)
