"""Everything at once: books, tickers and trades of all markets, 3,000 messages a second, one consumer reads all."""

from __future__ import annotations

import time

from benchmarks.children import Child, ChildError
from benchmarks.clients.task import Task
from benchmarks.measuring import cpu_seconds
from benchmarks.options import Options
from benchmarks.servers import Stream, paced
from benchmarks.table import LIMIT, Figure

TITLE = "full market: 855 books + tickers + trades, 3,000 messages/s"
RATE = 3000.0
KINDS = ("orderbook", "ticker", "trade")
START_SECONDS = 40.0
SETTLE_SECONDS = 2.0
CPU_SHARE_PERCENT, UNREAD_SHARE_PERCENT = 20.0, 10.0
P99_MILLISECONDS = 10.0


def run(options: Options) -> list[Figure]:
    with paced() as stream:
        figures = _measure(stream, options, "queue", "every item read")
        figures += _measure(stream, options, "unread", "conflated, nobody reads")
        return figures + _measure(stream, options, "queue", "every item read", module="by_hand")


def _measure(stream: Stream, options: Options, mode: str, words: str, module: str = "ours") -> list[Figure]:
    symbols = tuple(stream.fake.markets())
    task = Task(stream.rest_url, stream.websocket_url, KINDS, symbols, mode)
    with Child("benchmarks.clients", module, *task.arguments()) as client:
        _await_pieces(stream, len(symbols) * len(KINDS))
        stream.rate(RATE)
        try:
            time.sleep(SETTLE_SECONDS)
            client.ask("start")
            sent, used = stream.counters()["sent"], cpu_seconds(client.pid)
            time.sleep(options.seconds * 2)
            sent, used = stream.counters()["sent"] - sent, cpu_seconds(client.pid) - used
            stream.rate(0)
            time.sleep(0.5)  # what is on its way still counts as delivered
            answer = client.ask("stop")
        finally:
            stream.rate(0)
    share = used / (options.seconds * 2) * 100
    reads = mode == "queue"
    case, note = (
        f"CPU, {words}",
        f"{sent / options.seconds / 2:,.0f} messages/s, {used / max(sent, 1) * 1e6:.1f} µs each",
    )
    if module != "ours":
        return [Figure(case, LIMIT, share, "% of a core", note=note)]
    figures = [
        Figure(case, "upbit_backbone", share, "% of a core", note=note,
               target=CPU_SHARE_PERCENT if reads else UNREAD_SHARE_PERCENT),
        Figure(f"memory, {words}", "upbit_backbone", answer["resident_mib"], "MiB"),
    ]  # fmt: skip
    if reads:
        # Frames between the two counts of the server and of the client may be off by a few ticks at the start.
        lost = max(0, sent - answer["count"] - int(RATE * 0.02))
        figures += [
            Figure("p99, trades", "upbit_backbone", answer.get("p99"), "ms", target=P99_MILLISECONDS),
            Figure("p50, trades", "upbit_backbone", answer.get("p50"), "ms"),
            Figure("lost", "upbit_backbone", lost, "messages", target=0, note=f"dropped {answer['dropped']}"),
        ]
    return figures


def _await_pieces(stream: Stream, wanted: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while stream.counters()["pieces"] < wanted:
        if time.monotonic() > deadline:
            raise ChildError(f"only {stream.counters()['pieces']} of {wanted} topics were subscribed")
        time.sleep(0.2)
