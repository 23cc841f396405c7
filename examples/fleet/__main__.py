"""A fleet: Redis, two relays and ten workers on one machine, against a simulated Upbit, and what becomes of them.

    python -m pip install ".[cli,redis]"          # and a redis-server on the PATH
    python examples/fleet                         # four minutes, and prints the table

Each worker asks for 250 prices once a second and follows the trades of a few markets. On the way the relay that leads
is killed, and another one started in its place, then Redis. Then one relay alone carries 3,000 trades a second. The
figures are of this machine, whose cores everything shares. Linux and macOS.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from processes import HERE, Process, Redis, cpu_of, wait_for

from upbit_backbone.simulator import FakeUpbit

SYMBOLS = 250
TRADED = 5  # markets whose trades each worker follows
TRADES_PER_SECOND = 200  # over all markets
KEPT = 10_000  # trades of each market that Redis keeps
LOADED = 20  # markets that have all of the load
TURN_SECONDS = 3.0  # of load, each time
Row = tuple[str, str, str]


class Fleet:
    """Relays and workers, running, and what can be done to them. Each deed gives rows of the table."""

    def __init__(self, upbit: FakeUpbit, server: Redis, relays: list[Process], workers: list[Process]) -> None:
        self._upbit, self._server, self._relays, self._workers = upbit, server, relays, workers
        self._symbols = upbit.markets()
        self._sources = [""] * len(workers)
        for number, worker in enumerate(workers):
            traded = [self._symbols[(number * TRADED + each) % SYMBOLS] for each in range(TRADED)]
            worker.tell(json.dumps({"symbols": self._symbols, "traded": traded}))

    def begin(self) -> list[Row]:
        """Until all are fed, and have asked what each asks once: the list of markets, the first prices."""
        wait_for("workers", lambda: self._all_fed_by("relay"))
        end = time.monotonic() + 20  # where nothing has the time it needs, it is never quiet, and the figure says so
        # Longer than a worker takes to ask for prices three times, which has them streamed, and the relays to follow.
        wait_for("quiet", lambda: time.monotonic() > min(end, self._upbit.requests()[-1]["t"] + 5))
        return [("REST requests at the start, of all", f"{len(self._upbit.requests())}", "")]

    def _all_fed_by(self, source: str) -> bool:
        for number, worker in enumerate(self._workers):
            while not worker.lines.empty():
                self._sources[number] = worker.answer()["source"]
        return set(self._sources) == {source}

    def work(self, seconds: float) -> list[Row]:
        before = len(self._upbit.requests())
        time.sleep(seconds)
        asked = (len(self._upbit.requests()) - before) * 60 / seconds
        lines = len(self._upbit.sessions())
        return [
            ("REST requests a minute", f"{asked:.0f}", "5"),
            ("lines to Upbit", f"{lines} of {len(self._relays)} relays", "one set"),
        ]

    def counted(self, deed: str, do: Callable[[], list[Row]], seconds: float) -> list[Row]:
        """What it cost at REST as well, until so many seconds after."""
        before = len(self._upbit.requests())
        rows = do()
        time.sleep(seconds)
        return [*rows, (f"{deed}: REST requests, of all", f"{len(self._upbit.requests()) - before}", "")]

    def kill_leader(self) -> list[Row]:
        before = self._server.leader()
        leader = next(relay for relay in self._relays if f"-{relay.pid}-" in str(before))
        began = time.monotonic()
        leader.kill()
        seconds = wait_for("another leader", lambda: self._server.leader() not in (None, before)) - began
        return [("leader killed: another leads after", f"{seconds:.1f} s", "3 s")]

    def kill_redis(self) -> list[Row]:
        self._server.kill()
        wait_for("the way to Upbit itself", lambda: self._all_fed_by("websocket"))
        began = time.monotonic()
        self._server.start()
        seconds = wait_for("the way back", lambda: self._all_fed_by("relay")) - began
        return [("Redis killed: all fed by the relay again after its start", f"{seconds:.1f} s", "5 s")]

    def settle(self) -> list[Row]:
        """Nobody trades any more. What was lost, what came twice?"""
        self._upbit.pause()
        reports: list[Any] = []
        end = time.monotonic() + 50  # what is asked of REST comes after the rest, ten pages a second for all

        def is_complete() -> bool:
            reports[:] = self._reports()
            return time.monotonic() > end or not any(map(self._missing, reports))

        wait_for("all trades", is_complete)
        found = [trades for report in reports for trades in report["trades"].values()]
        doubled = sum(len(trades) - len({number for number, _ in trades}) for trades in found)
        errors = sum(sum(report["errors"].values()) for report in reports)
        slowest = max(report["slowest"] for report in reports) * 1000
        polled = sum(sum(report["prices"].values()) for report in reports)
        used, entries = self._server.memory()
        return [
            ("trades lost", f"{sum(map(self._missing, reports))} of {sum(map(len, found)):,}", "0"),
            ("trades doubled", f"{doubled}", "0"),
            ("answers 429", f"{sum(self._upbit.counters()['rejected'].values())}", "0"),
            ("prices polled; errors; slowest poll", f"{polled:,}; {errors}; {slowest:.0f} ms", "0 errors"),
            ("memory of Redis; trades there", f"{used / 2**20:.0f} MiB; {entries:,}", f"{KEPT:,} a market"),
        ]

    def _reports(self) -> list[Any]:
        for worker in self._workers:
            worker.tell("report")
        return [self._report(worker) for worker in self._workers]

    def _report(self, worker: Process) -> Any:
        while "trades" not in (said := worker.answer()):
            pass  # where its trades come from
        return said

    def _missing(self, report: Any) -> int:
        """How many trades the simulator made after the first that the worker has, and the worker has not."""
        missing = 0
        for symbol, trades in report["trades"].items():
            made = self._upbit.trades(symbol, trades[0][1] + 1)
            missing += len({each["sequential_id"] for each in made} - {number for number, _ in trades})
        return missing


@contextlib.contextmanager
def relays_at(server: Redis, environment: dict[str, str], *sets: list[str]) -> Iterator[list[Process]]:
    """A relay for each set of options; one leads."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(Process(relay_at(server, options), environment)) for options in sets]
        for relay in running:
            relay.lines.get(timeout=60)  # that it leads, or stands by
        yield running


def relay_at(server: Redis, options: list[str]) -> list[str]:
    return ["-m", "upbit_backbone.cli", "relay", "--redis", server.url, "--kept", str(KEPT), *options]


def run_fleet(upbit: FakeUpbit, server: Redis, workers: int, seconds: float) -> Iterator[Row]:
    everything = ["--quote", "KRW", "--types", "ticker,trade"]
    tell("Redis, two relays and the workers start")
    with contextlib.ExitStack() as stack:
        relays = stack.enter_context(relays_at(server, upbit.environment(), everything, everything))
        fed = upbit.environment() | {"UPBIT_BACKBONE_UPSTREAM": server.url}
        running = [stack.enter_context(Process([str(HERE / "worker.py")], fed)) for _ in range(workers)]
        fleet = Fleet(upbit, server, relays, running)
        yield from fleet.begin()
        tell(f"{workers} workers ask for {SYMBOLS} prices a second each")
        yield from fleet.work(seconds)
        tell("the relay that leads is killed")
        yield from fleet.counted("leader killed", fleet.kill_leader, min(seconds, 5.0))
        # As whatever looks after services does; a relay alone has to ask Upbit whether silence means anything.
        stack.enter_context(Process(relay_at(server, everything), upbit.environment())).lines.get(timeout=60)
        tell("Redis is killed, and started again")
        yield from fleet.counted("Redis killed", fleet.kill_redis, min(seconds, 5.0))
        yield from [(f"after all that: {name}", *rest) for name, *rest in fleet.work(seconds)[:1]]
        tell("the trades are counted")
        yield from fleet.settle()


def listen(upbit: FakeUpbit, seconds: float, **environment: str) -> Any:
    """What a listener says of the trades."""
    with Process([str(HERE / "listener.py")], upbit.environment() | environment) as listener:
        listener.tell(json.dumps({"symbols": upbit.markets()[:LOADED], "seconds": seconds}))
        listener.answer()
        listener.tell("begin")
        return listener.answer()


class Turn(NamedTuple):
    """The same trades without a relay and through one, one after the other."""

    direct: Any
    relayed: Any
    relay: float  # cores
    redis: float

    @property
    def added(self) -> float:
        """Latency p99, in milliseconds."""
        return float(self.relayed["p99"] - self.direct["p99"])

    @property
    def ratio(self) -> float:
        """The relay's CPU over that of the same streams without it."""
        return float(self.relay / self.direct["cpu"])


def take_turn(upbit: FakeUpbit, server: Redis, seconds: float) -> Turn:
    server.client.flushall()  # nobody leads any more
    direct = listen(upbit, seconds)
    options = ["--symbols", ",".join(upbit.markets()[:LOADED]), "--types", "trade"]
    with relays_at(server, upbit.environment(), options) as (relay,):
        time.sleep(1)
        began, cpu, redis_cpu = time.monotonic(), cpu_of(relay.pid), cpu_of(server.pid)
        relayed = listen(upbit, seconds, UPBIT_BACKBONE_UPSTREAM=server.url)
        lasted = time.monotonic() - began
        relay_share, redis_share = (cpu_of(relay.pid) - cpu) / lasted, (cpu_of(server.pid) - redis_cpu) / lasted
    return Turn(direct, relayed, relay_share, redis_share)


def run_load(upbit: FakeUpbit, server: Redis, rate: float, seconds: float, turns: int) -> Iterator[Row]:
    """The same trades without a relay and through one, in turns, of which the median counts: whatever else the machine
    does for a moment meets one of the two, and is no difference between them."""
    tell(f"{rate:,.0f} trades a second, without a relay and through one, {turns} times in turn")
    upbit.load(rate, tick=2 / 1000, stamped_ids=True)
    found = [take_turn(upbit, server, seconds) for _ in range(turns)]
    for what, heard in (("latency p50/p99 directly", "direct"), ("through the relay", "relayed")):
        shares = "/".join(f"{median(getattr(each, heard)[share] for each in found):.1f}" for share in ("p50", "p99"))
        yield f"{rate:,.0f} trades/s: {what}", f"{shares} ms", ""
    yield "added latency p99", f"{spread([each.added for each in found], 1)} ms", "3 ms"
    ratios = [each.ratio for each in found]
    yield "CPU of the relay / of the same streams without it", spread(ratios, 2), "1.5"
    cores = ((each.direct["cpu"], each.relay, each.redis, each.relayed["cpu"]) for each in found)
    direct, *others = (f"{median(shares):.2f}" for shares in zip(*cores, strict=True))
    yield "cores: direct; relay, Redis, listener", f"{direct}; {', '.join(others)}", ""


def spread(values: list[float], digits: int) -> str:
    """The median, and between what it lies."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="fleet", description="Two relays and ten workers, and their figures.")
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0, help="of steady work, twice (default: 60)")
    parser.add_argument("--rate", type=float, default=3000.0, help="trades a second under load (default: 3000)")
    parser.add_argument("--turns", type=int, default=5, help="under load, of which the median counts (default: 5)")
    chosen = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, Redis(Path(folder)) as server:
        with FakeUpbit(markets=SYMBOLS, trades_per_second=TRADES_PER_SECOND) as upbit:
            rows += run_fleet(upbit, server, chosen.workers, chosen.seconds)
        with FakeUpbit(markets=LOADED, trades_per_second=0) as upbit:
            rows += run_load(upbit, server, chosen.rate, min(chosen.seconds, TURN_SECONDS), chosen.turns)
    for name, found, bound in [("", "found", "at most"), *rows]:
        print(f"{name:57} {found:>24}  {bound}".rstrip())
    return 0


def tell(step: str) -> None:
    """What happens now; what the processes complain of stands between."""
    print(f"· {step}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
