"""pyupbit: `WebSocketManager`, a child process that fills a multiprocessing queue."""

from __future__ import annotations

from typing import Any

import pyupbit
from pyupbit import websocket_api

from benchmarks.clients.task import Seen, Task


def consume(task: Task, seen: Seen) -> None:
    """Reads until the process ends. Its address is fixed in its source, so `connect` is led to ours."""
    connect = websocket_api.websockets.connect

    def connect_here(uri: str, **options: Any) -> Any:
        return connect(task.websocket_url, **options)

    websocket_api.websockets.connect = connect_here
    manager = pyupbit.WebSocketManager(task.kind, list(task.symbols))
    while True:
        item = manager.get()
        seen(item.get("sequential_id", 0) if isinstance(item, dict) else 0)
