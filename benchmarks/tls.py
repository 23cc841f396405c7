"""The stream over TLS, as everybody has it: does anybody fall behind, and what does a message cost?

The simulator encrypts what it sends. Where less than the asked rate was sent, it is the simulator that is behind, and
the note says so.
"""

from __future__ import annotations

import time

from benchmarks.children import Child
from benchmarks.clients.task import Task
from benchmarks.ingest import SETTLE_SECONDS, await_subscription
from benchmarks.measuring import cpu_seconds
from benchmarks.options import Options
from benchmarks.servers import some_markets, upbit
from benchmarks.table import LIMIT, Figure
from upbit_backbone.simulator import FakeUpbit

TITLE = "tickers over TLS"
RATES = (10_000.0, 20_000.0)
CLIENTS = {"ours": "upbit_backbone", "bare_loop": "websocket-client loop + json", "by_hand": LIMIT}
IN_TIME_SECONDS = 0.25  # for what is on its way at the end; who is further behind does not keep up
KEEPS_UP = 97.0
SENT_ENOUGH = 0.95


def run(options: Options) -> list[Figure]:
    figures = []
    with upbit(tls=True) as fake:
        for rate in RATES[:1] if options.quick else RATES:
            for module, name in CLIENTS.items():
                if module == "bare_loop" and not options.rivals:
                    continue
                figures += _measure(fake, module, name, rate, options)
    return figures


def _measure(fake: FakeUpbit, module: str, name: str, rate: float, options: Options) -> list[Figure]:
    task = Task(fake.rest_url, fake.websocket_url, ("ticker",), some_markets(fake))
    authority = str(fake.ca_file)
    trust = {"UPBIT_BACKBONE_CA_FILE": authority, "WEBSOCKET_CLIENT_CA_BUNDLE": authority}
    with Child("benchmarks.clients", module, *task.arguments(), environment=trust) as client:
        await_subscription(fake, "ticker")
        fake.load(rate)
        try:
            time.sleep(SETTLE_SECONDS)
            client.ask("start")
            began, sent, used = time.monotonic(), _sent(fake), cpu_seconds(client.pid)
            time.sleep(options.seconds)
            spent, sent, used = time.monotonic() - began, _sent(fake) - sent, cpu_seconds(client.pid) - used
            fake.load(0)
            time.sleep(IN_TIME_SECONDS)
            seen = client.ask("stop")["count"]
        finally:
            fake.load(0)
    note = f"{sent / spent:,.0f} sent a second"
    if sent / spent < SENT_ENOUGH * rate:
        note += ": the simulator is behind"
    target = KEEPS_UP if module == "ours" else None
    case = f"ticker, {rate:,.0f}/s over TLS"
    return [
        Figure(
            f"{case}, seen", name, min(100.0, 100 * seen / max(sent, 1)), "%", target=target, at_least=True, note=note
        ),
        Figure(case, name, used / max(sent, 1) * 1e6, "µs CPU"),
    ]


def _sent(fake: FakeUpbit) -> int:
    return int(fake.counters()["load_sent"])
