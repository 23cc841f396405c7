"""CPU per message from the socket to user code, per type, format and depth, beside the peers.

The simulator's load mode sends frames over 20 markets: 10,000 a second, where a read brings many and what counts is
what a message costs, and 2,000 a second, where waking up for a few of them costs as much again. Counted is the CPU of
the reading process and its children by the number of frames the server sent meanwhile (by those it saw, for whoever
fell behind), the least of several windows, as with timeit: whatever else runs on the machine only adds. Our
figures include frames, exact typed models, live store and mailbox, and a loop that takes every item out and looks at
it. Peers give what they give (pyupbit and websocket-client: float dicts; ccxt: its own dicts; cryptofeed: Decimal
objects; upbit-sdk: pydantic). "By hand" is the limit: frames cut by their lengths and our decoder, nothing kept;
"handed over" the same on a thread of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from operator import attrgetter

from benchmarks.children import Child, ChildError, MissingError
from benchmarks.clients.task import Task
from benchmarks.measuring import cpu_seconds
from benchmarks.options import Options
from benchmarks.servers import some_markets, upbit
from benchmarks.table import HANDED, LIMIT, Figure, absent
from upbit_backbone.simulator import FakeUpbit

TITLE = "stream ingest: CPU per message (µs)"
FAST, SLOW = 10_000.0, 2_000.0
SETTLE_SECONDS = 1.0
WINDOWS = 4
START_SECONDS = 15.0
UNIT = "µs CPU"
RIVALS = {
    "pyupbit_": "pyupbit",
    "ccxt_pro": "ccxt.pro",
    "cryptofeed_": "cryptofeed",
    "upbit_sdk": "upbit-sdk",
    "bare": "WebSocketApp + json",
    "bare_loop": "websocket-client loop + json",
}
KINDS = {"ticker": (20.0, 0.7), "trade": (13.0, 0.65), "orderbook": (70.0, 0.9)}
"""Targets: µs at the fast rate, and at both as a share of pyupbit's."""
UNREAD_BOOK_MICROSECONDS = 12.0
UNREAD_TICKER_MICROSECONDS = 6.0
BEST_LEVEL_RATIO = 0.35
FELL_BEHIND = 0.97
NO_SUCH_STREAM = {("cryptofeed_", "ticker")}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one client used."""

    microseconds: float
    share_seen: float


def run(options: Options) -> list[Figure]:
    figures: list[Figure] = []
    with upbit() as fake:
        for rate in (FAST, SLOW):
            for kind in KINDS:
                figures += _beside_rivals(fake, kind, rate, options)
        figures += _variants(fake, options)
    return figures


def _beside_rivals(fake: FakeUpbit, kind: str, rate: float, options: Options) -> list[Figure]:
    target, ratio_target = KINDS[kind]
    case = f"{'orderbook, 30 levels' if kind == 'orderbook' else kind}, {rate:,.0f}/s"
    costs: dict[str, float] = {}
    figures = []
    for module, name in RIVALS.items() if options.rivals else ():
        if (module, kind) in NO_SUCH_STREAM:
            figures.append(absent(case, name, UNIT, "has no such stream"))
            continue
        try:
            cost = measure(fake, module, kind, options.seconds, rate=rate)
        except MissingError:
            figures.append(absent(case, name, UNIT))
        except ChildError as problem:
            figures.append(absent(case, name, UNIT, str(problem)))
        else:
            costs[name] = cost.microseconds
            figures.append(Figure(case, name, cost.microseconds, UNIT, note=_completeness(cost)))
    ours = measure(fake, "ours", kind, options.seconds, rate=rate)
    own = ours.microseconds
    against = costs.get("pyupbit")
    limit = target if rate == FAST else None
    mine = [
        Figure(case, "upbit_backbone", own, UNIT, against and own / against, "pyupbit", limit,
               ratio_target if against else None, note=_completeness(ours))
    ]  # fmt: skip
    if "upbit-sdk" in costs:
        mine.append(Figure(case, "upbit_backbone", own, UNIT, own / costs["upbit-sdk"], "upbit-sdk", ratio_target=0.1))
    if kind == "orderbook":
        best = measure(fake, "ours", kind, options.seconds, mode="best", rate=rate)
        rival = min(costs, key=lambda name: costs[name]) if costs else ""
        mine.append(
            Figure(f"{case}, the best one looked at", "upbit_backbone", best.microseconds, UNIT,
                   best.microseconds / costs[rival] if rival else None, rival, ratio_target=BEST_LEVEL_RATIO,
                   note=_completeness(best))
        )  # fmt: skip
    for mode, name in (("queue", LIMIT), ("handed", HANDED)):
        cost = measure(fake, "by_hand", kind, options.seconds, mode=mode, rate=rate)
        figures.append(Figure(case, name, cost.microseconds, UNIT, note=_completeness(cost)))
    return [*mine, *figures]


def _variants(fake: FakeUpbit, options: Options) -> list[Figure]:
    """Our own formats, depths and ways to consume."""
    seconds = options.seconds
    figures = []
    unread = measure(fake, "ours", "orderbook", seconds, mode="unread")
    figures.append(
        Figure("orderbook, conflated away unread", "upbit_backbone", unread.microseconds, UNIT,
               target=UNREAD_BOOK_MICROSECONDS)
    )  # fmt: skip
    unread = measure(fake, "ours", "ticker", seconds, mode="unread")
    figures.append(
        Figure("ticker, conflated away unread", "upbit_backbone", unread.microseconds, UNIT,
               target=UNREAD_TICKER_MICROSECONDS)
    )  # fmt: skip
    for kind in ("trade", "ticker"):
        cost = measure(fake, "ours", kind, seconds, mode="callback")
        figures.append(Figure(f"{kind}, callback", "upbit_backbone", cost.microseconds, UNIT, note=_completeness(cost)))
    if options.quick:
        return figures
    for wire_format in ("DEFAULT", "JSON_LIST", "SIMPLE_LIST"):
        for kind in KINDS:
            cost = measure(fake, "ours", kind, seconds, wire_format=wire_format)
            figures.append(Figure(f"{kind}, {wire_format}", "upbit_backbone", cost.microseconds, UNIT))
    for depth in (15, 5, 1):
        cost = measure(fake, "ours", "orderbook", seconds, depth=depth)
        figures.append(Figure(f"orderbook, {depth} levels", "upbit_backbone", cost.microseconds, UNIT))
    return figures


def measure(
    fake: FakeUpbit, module: str, kind: str, seconds: float, *, mode: str = "queue", wire_format: str = "SIMPLE",
    depth: int = 30, rate: float = FAST,
) -> Cost:  # fmt: skip
    """The CPU of one client per frame sent to it."""
    task = Task(fake.rest_url, fake.websocket_url, (kind,), some_markets(fake), mode, wire_format, depth)
    with Child("benchmarks.clients", module, *task.arguments()) as client:
        await_subscription(fake, kind)
        fake.load(rate)
        try:
            time.sleep(SETTLE_SECONDS)
            return min(
                (_window(fake, client, seconds / WINDOWS) for _ in range(WINDOWS)),
                key=attrgetter("microseconds"),
            )
        finally:
            fake.load(0)


def _window(fake: FakeUpbit, client: Child, seconds: float) -> Cost:
    client.ask("start")
    sent, used = _sent(fake), cpu_seconds(client.pid)
    time.sleep(seconds)
    sent, used = _sent(fake) - sent, cpu_seconds(client.pid) - used
    seen = client.ask("stop")["count"]
    if sent == 0:
        raise ChildError("nothing was sent")
    has_fallen_behind = 0 < seen < FELL_BEHIND * sent  # nothing at all is seen where nobody reads
    return Cost(used / (seen if has_fallen_behind else sent) * 1e6, seen / sent)


def await_subscription(fake: FakeUpbit, kind: str) -> None:
    """ccxt subscribes book by book, as its user's loop comes to them."""
    deadline = time.monotonic() + START_SECONDS
    wanted = len(some_markets(fake))
    while time.monotonic() < deadline:
        if sum(1 for found, _ in fake.subscribed() if found == kind) >= wanted:
            return
        time.sleep(0.1)
    raise ChildError("it never subscribed")


def _sent(fake: FakeUpbit) -> int:
    return int(fake.counters()["load_sent"])


def _completeness(cost: Cost) -> str:
    return "" if FELL_BEHIND < cost.share_seen < 1.03 else f"saw {cost.share_seen:.0%} of the messages"
