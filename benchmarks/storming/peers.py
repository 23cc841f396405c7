"""Peers in the storm: each in its own process, against its own simulator with the same seed and plan."""

from __future__ import annotations

import time

from benchmarks.children import Child
from benchmarks.clients.task import Task
from benchmarks.storming.conductor import MARKETS
from benchmarks.storming.judge import Arrival, Key, Published
from upbit_backbone.simulator import FakeUpbit

PEERS = {"pyupbit_": "pyupbit", "ccxt_pro": "ccxt.pro"}
START_SECONDS = 20.0


class Peer:
    """A child process that logs the arrival of every trade."""

    def __init__(self, module: str, fake: FakeUpbit) -> None:
        task = Task(fake.rest_url, fake.websocket_url, ("trade",), MARKETS)
        environment = {} if fake.ca_file is None else {"SSL_CERT_FILE": fake.ca_file}
        arguments = (module, "--log", *task.arguments())
        # What they print while they fail would bury the table.
        self._child = Child("benchmarks.clients", *arguments, environment=environment, quiet=True)
        deadline = time.monotonic() + START_SECONDS
        while not fake.subscribed() and time.monotonic() < deadline:
            time.sleep(0.1)

    def arrivals(self, published: list[Published]) -> list[Arrival]:
        """What it saw. Peers tell the id only; the market is looked up in the simulator's log."""
        keys: dict[int, Key] = {trade.key[1]: trade.key for trade in published}
        return [Arrival(at, keys[identity]) for at, identity in self._child.ask("log")["arrivals"] if identity in keys]

    def close(self) -> None:
        self._child.stop()
