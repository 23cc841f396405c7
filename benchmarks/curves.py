"""What a message costs over rate, markets, subscribers, levels and processes: curves rather than points.

Each point is one short measurement of its own, some sixty in five minutes. CPU is that of the reading process by the
messages sent to it, as in `ingest`; latency that of `latency`. Where a point is dearer than its neighbours promise, a
knee is to be found. Drawn, which needs matplotlib and nothing else does:

    python -m benchmarks curves --json curves.json
    python -m benchmarks.curves curves.json curves.png            # --korean FONT_FILE for Korean words
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.children import Child, ChildError
from benchmarks.clients.task import Task
from benchmarks.ingest import SETTLE_SECONDS
from benchmarks.latency import measure as measure_latency
from benchmarks.measuring import cpu_seconds
from benchmarks.options import Options
from benchmarks.servers import paced, some_markets, upbit
from benchmarks.table import LIMIT, Figure
from upbit_backbone.simulator import FakeUpbit

TITLE = "curves: CPU a message (µs) and latency (ms) over rate, markets, subscribers, levels, processes"
OURS = "upbit_backbone"
CPU, LATENCY = "µs CPU", "ms"

RATES = (10, 100, 1_000, 2_000, 5_000, 10_000, 20_000)
MARKETS = (1, 10, 50, 200, 855)
SUBSCRIBERS = (1, 10, 100, 1_000)
LEVELS = (1, 5, 15, 30)
PROCESSES = (1, 2, 4)
RATE_OF_MARKETS, RATE_OF_SUBSCRIBERS, RATE_OF_LEVELS, RATE_OF_PROCESSES = 2_000.0, 100.0, 2_000.0, 2_000.0
START_SECONDS = 40.0
LONGEST_SECONDS = 1.5  # of one measurement: the shape of a curve counts, and there are many points


def run(options: Options) -> list[Figure]:
    options = replace(options, seconds=min(options.seconds, LONGEST_SECONDS))
    with upbit() as fake:
        figures = [*_rates(fake, options), *_markets(fake, options), *_subscribers(fake, options)]
        figures += [*_levels(fake, options), *_processes(fake, options)]
    with paced() as stream:
        for rate in _some(RATES, options):
            found = measure_latency(stream, "ours", rate, options.seconds)
            for share in ("p50", "p99"):
                figures.append(_point("latency over rate", f"trades, {share}", rate, found.get(share), LATENCY))
    return figures


def _some(points: tuple[int, ...], options: Options) -> tuple[int, ...]:
    return (points[0], points[-1]) if options.quick else points


def _point(curve: str, line: str, at: int, value: float | None, unit: str = CPU, who: str = OURS) -> Figure:
    return Figure(f"{curve}; {line}; {at}", who, value, unit)


def _rates(fake: FakeUpbit, options: Options) -> Iterator[Figure]:
    some = some_markets(fake)
    for rate in _some(RATES, options):
        for kind in ("ticker", "trade", "orderbook"):
            yield _point("rate", kind, rate, _cost(fake, options, some, rate, kind=kind))
        yield _point("rate", "ticker, unread", rate, _cost(fake, options, some, rate, mode="unread"))
        yield _point("rate", "ticker", rate, _cost(fake, options, some, rate, module="by_hand"), who=LIMIT)


def _markets(fake: FakeUpbit, options: Options) -> Iterator[Figure]:
    every = fake.markets()
    for count in _some(MARKETS, options):
        for mode, line in (("queue", "ticker"), ("unread", "ticker, unread")):
            cost = _cost(fake, options, tuple(every[:count]), RATE_OF_MARKETS, mode=mode)
            yield _point("markets", line, count, cost)


def _subscribers(fake: FakeUpbit, options: Options) -> Iterator[Figure]:
    for count in _some(SUBSCRIBERS, options):
        cost = _cost(fake, options, some_markets(fake, 1), RATE_OF_SUBSCRIBERS, mode="unread", subscribers=count)
        yield _point("subscribers", "ticker, unread", count, cost)


def _levels(fake: FakeUpbit, options: Options) -> Iterator[Figure]:
    some = some_markets(fake)
    for depth in _some(LEVELS, options):
        cost = _cost(fake, options, some, RATE_OF_LEVELS, kind="orderbook", depth=depth)
        yield _point("levels", "so many asked for", depth, cost)
    cost = _cost(fake, options, some, RATE_OF_LEVELS, kind="orderbook", mode="best")
    yield _point("levels", "of 30, the best looked at", 1, cost)


def _processes(fake: FakeUpbit, options: Options) -> Iterator[Figure]:
    for count in _some(PROCESSES, options):
        cost = _cost(fake, options, some_markets(fake), RATE_OF_PROCESSES, processes=count)
        yield _point("processes", "ticker", count, cost)


def _cost(
    fake: FakeUpbit, options: Options, symbols: tuple[str, ...], rate: float, *, kind: str = "ticker",
    mode: str = "queue", module: str = "ours", depth: int = 30, subscribers: int = 1, processes: int = 1,
) -> float:  # fmt: skip
    """CPU of a process for each message that was sent to it, the mean of several processes."""
    task = Task(fake.rest_url, fake.websocket_url, (kind,), symbols, mode, depth=depth, subscribers=subscribers)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Child("benchmarks.clients", module, *task.arguments())) for _ in range(processes)
        ]
        deadline = time.monotonic() + START_SECONDS
        while _subscribed(fake) < len(symbols) * processes:
            if time.monotonic() > deadline:
                raise ChildError("not every client subscribed in time")
            time.sleep(0.1)
        fake.load(rate)
        try:
            time.sleep(SETTLE_SECONDS)
            sent, used = _sent(fake), sum(cpu_seconds(client.pid) for client in clients)
            time.sleep(options.seconds)
            sent, used = _sent(fake) - sent, sum(cpu_seconds(client.pid) for client in clients) - used
        finally:
            fake.load(0)
    if sent == 0:
        raise ChildError("nothing was sent")
    return used / sent * 1e6


def _subscribed(fake: FakeUpbit) -> int:
    return sum(len(one["codes"]) for session in fake.sessions() for one in session["subscriptions"])


def _sent(fake: FakeUpbit) -> int:
    return int(fake.counters()["load_sent"])


# The picture.

KOREAN = {
    "rate": "초당 메시지", "latency over rate": "초당 메시지", "markets": "종목 수", "subscribers": "구독자 수",
    "levels": "호가 단계", "processes": "프로세스 수", "ticker": "현재가", "trade": "체결", "orderbook": "호가",
    "ticker, unread": "현재가, 읽지 않음", "ticker, by hand (limit)": "현재가, 직접 (한계)", "trades, p50": "체결, p50",
    "trades, p99": "체결, p99", "so many asked for": "요청한 단계 수",
    "of 30, the best looked at": "30단계 중 최우선만",
    CPU: "메시지당 CPU (마이크로초)", LATENCY: "지연 (ms)",
}  # fmt: skip
FAR_APART = 5
ENGLISH = {
    "rate": "messages a second", "latency over rate": "messages a second", CPU: "CPU a message (µs)",
    LATENCY: "latency (ms)",
}  # fmt: skip


def draw(
    figures: Sequence[Mapping[str, Any]], target: Path, words: Mapping[str, str] = ENGLISH, font: Path | None = None
) -> None:
    """One panel a curve; the x axis is logarithmic, and the y axis where values lie far apart."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import font_manager, pyplot

    if font is not None:
        font_manager.fontManager.addfont(font)
        mpl.rcParams["font.family"] = font_manager.FontProperties(fname=font).get_name()
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    units: dict[str, str] = {}
    for figure in figures:
        curve, line, at = figure["case"].split("; ")
        if figure["value"] is not None:
            name = line if figure["who"] == OURS else f"{line}, {figure['who']}"
            curves.setdefault(curve, {}).setdefault(name, []).append((int(at), figure["value"]))
            units[curve] = figure["unit"]
    columns = 3
    picture, panels = pyplot.subplots(-(-len(curves) // columns), columns, figsize=(12, 6.4), squeeze=False)
    for panel in panels.flat[len(curves) :]:
        panel.set_visible(False)
    for panel, (curve, lines) in zip(panels.flat, curves.items(), strict=False):
        for name, points in lines.items():
            panel.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=words.get(name, name))
        values = [value for points in lines.values() for _, value in points]
        panel.set_xscale("log")
        if max(values) > FAR_APART * min(values):
            panel.set_yscale("log")
        else:
            panel.set_ylim(bottom=0)
        ticks = sorted({at for points in lines.values() for at, _ in points})
        panel.set_xticks(ticks, [f"{at // 1000}k" if at >= 1000 else str(at) for at in ticks], fontsize=7)
        panel.minorticks_off()
        panel.set_xlabel(words.get(curve, curve))
        panel.set_ylabel(words.get(units[curve], units[curve]))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    picture.tight_layout()
    picture.savefig(target, dpi=80)
    pyplot.close(picture)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description="Draws measured curves.")
    parser.add_argument("json", type=Path, help="what `python -m benchmarks curves --json FILE` wrote")
    parser.add_argument("png", type=Path)
    parser.add_argument("--korean", type=Path, metavar="FONT", help="Korean words, in the font of this file")
    args = parser.parse_args()
    figures = json.loads(args.json.read_text(encoding="utf-8"))["results"]["curves"]
    draw(figures, args.png, KOREAN if args.korean else ENGLISH, args.korean)


if __name__ == "__main__":
    main()
