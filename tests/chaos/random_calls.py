"""Random questions behind a line that is slow, late, uneven and doubling, and before a REST that lags: is any answer
older than it may be?

    python tests/chaos/random_calls.py --calls 10000            (a few minutes)
    python tests/chaos/random_calls.py --calls 1000 --seed 42   repeats the questions and faults of a seed

Tickers, order books, trades and candles, one market or several at once. The simulator knows when each market moved, so
it is known for how long an answer had not been true any more when it was asked for: each trade changes ticker, book,
trades and the forming candle, as soon as Upbit publishes each. Unmarked answers may be `max_age` old and no older, with
`realtime=True` not at all, else three seconds.
By how much REST's replica lags nobody outside can see, as its stamps are those of the last trade: of what REST answers
while one does, the lag is Upbit's own and does not count.
"""

from __future__ import annotations

import argparse
import bisect
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from upbit_backbone import CandleData, DataSource, MarketDataBackbone, OrderbookData, TickerData, TradeData
from upbit_backbone._concurrency import Deadline, join_all, spawn
from upbit_backbone.errors import UpbitBackboneError
from upbit_backbone.simulator import FakeUpbit

SYMBOLS = ["KRW-BTC", "KRW-ETH", "KRW-XRP", "KRW-SOL"]
TRADES_PER_SECOND = 30.0
ASKERS = 4
TIMEOUT_SECONDS = 2.0
UNMARKED_SECONDS = 3.0
PAUSE_SECONDS = 0.03
KEPT_SECONDS = 1.0  # for so long an answer of REST may be given again
MILLISECOND = 0.001  # the resolution of Upbit's stamps
BOOK_GRID_SECONDS = 0.1  # books are published so often, with the trades since; a step of the market comes on top of it
CANDLE_GRID_SECONDS = 1.0  # the stream's candles so often
CHANGE_SECONDS = (0.3, 3.0)  # between two changes of the line


Datum = TickerData | OrderbookData | TradeData | CandleData


class Answer(NamedTuple):
    """What was asked when, by the simulator's clock, which is this machine's, and what came of one market."""

    asked_at: float
    item: Datum
    max_age: float | None
    is_realtime: bool
    answered_at: float

    @property
    def bound(self) -> float:
        if self.is_realtime:
            return 0.0
        return UNMARKED_SECONDS if self.max_age is None else self.max_age


@dataclass
class Outcome:
    """What came of all calls."""

    calls: int
    answers: list[Answer] = field(default_factory=list)  # one for each market in a list
    errors: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    lags: list[tuple[float, float]] = field(default_factory=list)  # since when REST's replica lags by how much
    oldest: float = 0.0
    excused: int = 0

    def __str__(self) -> str:
        marked = sum(answer.item.degraded for answer in self.answers)
        by = Counter(f"{type(answer.item).__name__} by {answer.item.source.name}" for answer in self.answers)
        excused = f", {self.excused} excused by REST's lag" if self.excused else ""
        errors = ", ".join(f"{count} {name}" for name, count in sorted(self.errors.items())) or "no error"
        return (
            f"{self.calls} calls: {dict(sorted(by.items()))}, {marked} marked, {errors}; "
            f"oldest unmarked {self.oldest:.2f} s{excused}; {len(self.violations)} violations"
        )


def worsen(upbit: FakeUpbit, rng: random.Random, outcome: Outcome) -> None:
    """Another line, and another REST."""
    line: dict[str, float] = {}
    if rng.random() < 0.3:
        line["bandwidth"] = rng.choice((5_000.0, 15_000.0, 30_000.0, 60_000.0))
    if rng.random() < 0.3:
        line["latency"] = rng.choice((0.05, 0.3, 1.0, 2.5))
        line["jitter"] = rng.random() * line["latency"]
    if rng.random() < 0.3:
        line["duplicates"] = rng.random()
    if rng.random() < 0.2:
        line["reorders"] = rng.random() / 2
    upbit.line_fault(**line)
    lag = rng.choice((0.0, 0.0, 0.0, 0.3, 1.0, 4.0))
    outcome.lags.append((time.time(), lag))
    upbit.lagging_replica(lag)


def ask(market: MarketDataBackbone, rng: random.Random, outcome: Outcome) -> None:
    """One question of any kind."""
    symbol, several = rng.choice(SYMBOLS), rng.sample(SYMBOLS, rng.randint(2, len(SYMBOLS)))
    max_age = rng.choice((None, None, 0.05, 0.1, 0.3, 1.0))
    is_realtime = rng.random() < 0.05
    one: dict[str, Any] = {"realtime": is_realtime, "max_age": max_age, "timeout": TIMEOUT_SECONDS}
    many: dict[str, Any] = {"max_age": max_age, "timeout": TIMEOUT_SECONDS}
    questions: dict[Callable[[], list[Datum]], float] = {
        lambda: [market.get_ticker(symbol, **one)]: 6,
        lambda: [market.get_orderbook(symbol, **one)]: 4,
        lambda: list(market.get_tickers(several, **many).values()): 2,
        lambda: list(market.get_orderbooks(several, **many).values()): 2,
        lambda: market.get_trades(symbol, rng.randint(1, 300), timeout=TIMEOUT_SECONDS)[-1:]: 0.5,
        lambda: market.get_candles(symbol, "1m", rng.randint(1, 20), timeout=TIMEOUT_SECONDS)[-1:]: 0.5,
    }
    number = rng.choices(range(len(questions)), list(questions.values()))[0]
    max_age = max_age if number < 4 else None  # trades and candles are not asked for by their age
    is_realtime = is_realtime and number < 2
    asked_at = time.time()
    try:
        items = list(questions)[number]()
    except UpbitBackboneError as error:  # an honest answer, too
        outcome.errors[type(error).__name__] += 1
        return
    answered_at = time.time()
    outcome.answers += [Answer(asked_at, item, max_age, is_realtime, answered_at) for item in items]


def shown_by(item: Datum) -> float:
    """When the market had last moved by what was answered."""
    if isinstance(item, TickerData):
        return (item.trade_timestamp or item.timestamp).timestamp()
    if isinstance(item, CandleData):
        return (item.last_trade_at or item.timestamp).timestamp()
    if isinstance(item, OrderbookData):
        return item.timestamp.timestamp() + BOOK_GRID_SECONDS
    return item.timestamp.timestamp()


def superseded_for(answer: Answer, moves: list[float]) -> float:
    """For how many seconds another state had been the present one when the question was asked."""
    place = bisect.bisect_right(moves, shown_by(answer.item) + MILLISECOND / 2)
    return max(0.0, answer.asked_at - moves[place] - until_shown(answer.item)) if place < len(moves) else 0.0


def until_shown(item: Datum) -> float:
    """For how many seconds after a move Upbit itself need not show it."""
    if isinstance(item, OrderbookData):
        return 1.5 * BOOK_GRID_SECONDS
    return CANDLE_GRID_SECONDS if isinstance(item, CandleData) and item.source is DataSource.WEBSOCKET else 0.0


def rest_lag(answer: Answer, lags: list[tuple[float, float]]) -> float:
    """By how much REST lagged at most while it could be asked for this answer."""
    if answer.item.source is not DataSource.REST:
        return 0.0
    since = answer.asked_at - KEPT_SECONDS
    ends = [at for at, _ in lags[1:]] + [answer.answered_at + 1.0]
    return max(
        (lag for (at, lag), end in zip(lags, ends, strict=True) if end >= since and at <= answer.answered_at),
        default=0.0,
    )


def judge(outcome: Outcome, upbit: FakeUpbit) -> None:
    moves = {symbol: [row["trade_timestamp"] / 1000 for row in upbit.trades(symbol)] for symbol in SYMBOLS}
    for answer in outcome.answers:
        if answer.item.degraded:
            continue
        seconds = superseded_for(answer, moves[answer.item.symbol])
        lag = rest_lag(answer, outcome.lags)
        if lag and answer.bound < seconds <= answer.bound + lag:
            outcome.excused += 1
            continue
        outcome.oldest = max(outcome.oldest, seconds)
        if seconds > answer.bound + lag + 2 * MILLISECOND:
            outcome.violations.append(f"{seconds:.3f} s old, {answer.bound:g} s allowed: {answer}")


def run(seed: int, calls: int) -> Outcome:
    """So many questions of four threads; the faults go on until the last one is answered."""
    outcome, left, is_over = Outcome(calls), iter(range(calls)), threading.Event()

    def asker(market: MarketDataBackbone, rng: random.Random) -> Callable[[], None]:
        def go() -> None:
            while next(left, None) is not None:
                ask(market, rng, outcome)
                is_over.wait(rng.expovariate(1 / PAUSE_SECONDS))  # so that the calls see weather of all kinds

        return go

    def weather(upbit: FakeUpbit, rng: random.Random) -> Callable[[], None]:
        def go() -> None:
            while not is_over.wait(rng.uniform(*CHANGE_SECONDS)):
                worsen(upbit, rng, outcome)

        return go

    with (
        FakeUpbit(seed=seed, markets=SYMBOLS, trades_per_second=TRADES_PER_SECOND) as upbit,
        MarketDataBackbone(rest_url=upbit.rest_url, websocket_url=upbit.websocket_url) as market,
        market.subscribe(SYMBOLS, ["ticker", "orderbook", "candle.1m"]) as stream,
    ):
        stream.get(timeout=20.0)
        changing = spawn(weather(upbit, random.Random(f"{seed}/weather")), "test-weather")
        asking = [
            spawn(asker(market, random.Random(f"{seed}/{number}")), f"test-asker-{number}") for number in range(ASKERS)
        ]
        if join_all(asking, Deadline.after(calls * TIMEOUT_SECONDS)):
            raise TimeoutError("there are calls that never end")
        is_over.set()
        join_all([changing], Deadline.after(10.0))
        upbit.clear_faults()
        judge(outcome, upbit)
    return outcome


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    outcome = run(options.seed, options.calls)
    print(f"seed {options.seed}, {outcome}")  # noqa: T201
    for violation in outcome.violations[:10]:
        print(f"VIOLATED  {violation}")  # noqa: T201
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
