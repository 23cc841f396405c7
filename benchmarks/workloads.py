"""Four ways programs ask, with our backbone, with a plain client and with pyupbit: time, requests and bytes.

The plain client makes one REST call per question (requests.Session per thread, our own decoder). It meets Upbit's ten
requests a second and group as we do: where it is refused (429), it waits for the next full second and asks again, as
programs do that know no better; Upbit would block it for that, the simulator here does not. Beside it stand, freed of
every limit, the same client and pyupbit (which does not try again): what they take is what the way to a server that
refuses nobody takes. Refused requests are told, but not counted. Every REST answer takes 10 ms, as from a server in the
same city. Bytes are all bodies and all that the WebSocket sent.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import requests

from benchmarks.measuring import percentile
from benchmarks.options import Options
from benchmarks.servers import some_markets, upbit
from benchmarks.table import Figure, absent
from upbit_backbone import MarketDataBackbone
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.unify import rest as decode

TITLE = "workloads: response time, requests and bytes"
UPBITS_LIMIT, NO_LIMIT = 10, 1_000_000
TOO_MANY = 429
REST_SECONDS = 0.010
SWEPT, CHARTS, THREADS = 250, 5, 32
CANDLES = 200


class Asker(Protocol):
    """The three questions of the workloads."""

    def ticker(self, symbol: str) -> object: ...
    def book(self, symbol: str) -> object: ...
    def candles(self, symbol: str) -> object: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one workload cost one client."""

    spent: list[float]  # milliseconds per question
    requests: int
    bytes: int
    refused: int
    failed: int

    @property
    def requests_per_thousand(self) -> float:
        return 1000 * self.requests / max(len(self.spent), 1)

    @property
    def bytes_per_question(self) -> float:
        return self.bytes / max(len(self.spent), 1)


class Ours:
    def __init__(self, market: MarketDataBackbone) -> None:
        self._market = market

    def ticker(self, symbol: str) -> object:
        return self._market.get_ticker(symbol)

    def book(self, symbol: str) -> object:
        return self._market.get_orderbook(symbol).asks

    def candles(self, symbol: str) -> object:
        return self._market.get_candles(symbol, "1m", count=CANDLES)


class Plain:
    """One request per question, again in the next second where Upbit refuses it."""

    def __init__(self, rest_url: str) -> None:
        self._rest_url = rest_url
        self._local = threading.local()

    def _get(self, path: str) -> bytes:
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = False
        while (answer := session.get(f"{self._rest_url}/v1/{path}", timeout=10)).status_code == TOO_MANY:
            time.sleep(1.0 - time.time() % 1.0)
        answer.raise_for_status()
        content: bytes = answer.content
        return content

    def ticker(self, symbol: str) -> object:
        return decode.decode_tickers(self._get(f"ticker?markets={symbol}"), datetime.now(UTC))

    def book(self, symbol: str) -> object:
        return decode.decode_orderbooks(self._get(f"orderbook?markets={symbol}"), datetime.now(UTC))

    def candles(self, symbol: str) -> object:
        body = self._get(f"candles/minutes/1?market={symbol}&count={CANDLES}")
        return decode.decode_candles(body, "1m", datetime.now(UTC))


class Pyupbit:
    def __init__(self, module: Any) -> None:
        self._module = module

    def ticker(self, symbol: str) -> object:
        return self._module.get_current_price(symbol)

    def book(self, symbol: str) -> object:
        return self._module.get_orderbook(symbol)

    def candles(self, symbol: str) -> object:
        return self._module.get_ohlcv(symbol, interval="minute1", count=CANDLES)


Client = Callable[[FakeUpbit], AbstractContextManager[Asker]]
Ask = Callable[[Callable[[], object]], None]
Workload = Callable[[Asker, tuple[str, ...], float, Ask], None]


@contextmanager
def ours(fake: FakeUpbit) -> Iterator[Asker]:
    with MarketDataBackbone(rest_url=fake.rest_url, websocket_url=fake.websocket_url) as market:
        yield Ours(market)


@contextmanager
def plain(fake: FakeUpbit) -> Iterator[Asker]:
    yield Plain(fake.rest_url)


@contextmanager
def pyupbit(fake: FakeUpbit) -> Iterator[Asker]:
    from benchmarks.pyupbit_here import pyupbit_at

    yield Pyupbit(pyupbit_at(fake.rest_url))


def hot(asker: Asker, symbols: tuple[str, ...], seconds: float, ask: Ask) -> None:
    """One symbol, 50 questions a second."""
    for _ in _beats(0.02, seconds):
        ask(lambda: asker.ticker(symbols[0]))


def sweep(asker: Asker, symbols: tuple[str, ...], seconds: float, ask: Ask) -> None:
    """A legacy loop: the price of each of 250 symbols, one after the other, once a second."""
    for _ in _beats(1.0, seconds):
        for symbol in symbols[:SWEPT]:
            ask(lambda symbol=symbol: asker.ticker(symbol))


def charts(asker: Asker, symbols: tuple[str, ...], seconds: float, ask: Ask) -> None:
    """Candles, ticker and book of five symbols, once a second."""
    for _ in _beats(1.0, seconds):
        for symbol in symbols[:CHARTS]:
            ask(lambda symbol=symbol: asker.candles(symbol))
            ask(lambda symbol=symbol: asker.ticker(symbol))
            ask(lambda symbol=symbol: asker.book(symbol))


def mixed(asker: Asker, symbols: tuple[str, ...], seconds: float, ask: Ask) -> None:
    """32 threads, five questions a second each: tickers, books and candles of twenty symbols."""

    def one_thread(seed: int) -> None:
        choices = random.Random(seed)
        for _ in _beats(0.2, seconds):
            question = choices.choices((asker.ticker, asker.book, asker.candles), (60, 25, 15))[0]
            symbol = choices.choice(symbols[:20])
            ask(lambda question=question, symbol=symbol: question(symbol))

    workers = [threading.Thread(target=one_thread, args=(seed,)) for seed in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


WORKLOADS: dict[str, tuple[Workload, int, tuple[float, float, float]]] = {
    # Its length in --seconds, and the shares of the plain client to reach: time, requests, bytes.
    "hot symbol loop": (hot, 3, (0.01, 0.05, 0.7)),
    "250-symbol sweep": (sweep, 15, (0.5, 0.05, 0.1)),
    "chart viewer": (charts, 3, (0.5, 0.5, 0.7)),
    "mixed, 32 threads": (mixed, 3, (0.5, 0.5, 0.7)),
}
BASE, FREED = "plain client", "plain client, no limit"
CLIENTS: dict[str, Client] = {BASE: plain, FREED: plain, "upbit_backbone": ours, "pyupbit": pyupbit}


def run(options: Options) -> list[Figure]:
    figures: list[Figure] = []
    for case, (workload, times, shares) in WORKLOADS.items():
        seconds = options.seconds * (3 if options.quick else times)
        outcomes: dict[str, Outcome] = {}
        for name, client in CLIENTS.items():
            if name == "pyupbit" and not options.rivals:
                continue
            try:
                outcomes[name] = _measure(name, client, workload, seconds)
            except ImportError:
                figures.append(absent(case, name, "ms"))
        figures += _figures(case, outcomes, shares)
    return figures


def _measure(name: str, client: Client, workload: Workload, seconds: float) -> Outcome:
    is_ours = name == "upbit_backbone"
    with upbit(
        rest_limit=UPBITS_LIMIT if is_ours or name == BASE else NO_LIMIT,
        ban_after=30 if is_ours else 0,
        latency=REST_SECONDS,
        trades_per_second=20.0,
        connect_limit=5,
        message_limit_second=5,
    ) as fake:
        symbols = some_markets(fake, SWEPT)
        spent: list[float] = []
        failed: list[int] = []

        def ask(question: Callable[[], object]) -> None:
            began = time.perf_counter()
            try:
                question()
            except Exception:
                failed.append(1)
            spent.append((time.perf_counter() - began) * 1000)

        with client(fake) as asker:
            workload(asker, symbols, seconds, ask)
            streamed = sum(session["bytes_sent"] for session in fake.sessions())
            log = fake.requests()
        refused = sum(1 for request in log if request["status"] == TOO_MANY)
        sent = sum(request["bytes"] for request in log) + streamed
        return Outcome(spent, len(log) - refused, sent, refused, len(failed))


def _figures(case: str, outcomes: dict[str, Outcome], shares: tuple[float, float, float]) -> list[Figure]:
    figures = []
    base, freed = outcomes[BASE], outcomes[FREED]
    for name, outcome in outcomes.items():
        is_ours = name == "upbit_backbone"
        note = f"{len(outcome.spent):,} questions, {outcome.requests:,} requests, {outcome.bytes / 1024:,.0f} KiB, "
        note += f"{outcome.refused} × 429, {outcome.failed} failed"
        if is_ours:
            note += f"; {_mean(outcome.spent) / _mean(freed.spent):.3g} × {FREED}"
        rows = (
            ("time, mean", _mean(outcome.spent), _mean(base.spent), "ms", shares[0]),
            ("time, p50", percentile(outcome.spent, 0.5), percentile(base.spent, 0.5), "ms", None),
            ("time, p99", percentile(outcome.spent, 0.99), percentile(base.spent, 0.99), "ms", None),
            ("requests per 1,000 questions", outcome.requests_per_thousand, base.requests_per_thousand, "", shares[1]),
            ("bytes per question", outcome.bytes_per_question, base.bytes_per_question, "B", shares[2]),
        )
        for what, value, reference, unit, share in rows:
            ratio = value / reference if name != BASE and reference else None
            figures.append(
                Figure(f"{case}: {what}", name, value, unit, ratio, BASE if ratio is not None else "",
                       ratio_target=share if is_ours else None, note=note if what == "time, mean" else "")
            )  # fmt: skip
    return figures


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _beats(interval: float, seconds: float) -> Iterator[None]:
    """Evenly spaced, as long as the work keeps up; late work is not made up for."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        yield
        pause = now + interval - time.monotonic()
        if pause > 0:
            time.sleep(pause)
