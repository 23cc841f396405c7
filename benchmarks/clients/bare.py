"""websocket-client and json, the way most scripts do it: `WebSocketApp` with an `on_message`."""

from __future__ import annotations

import json

import websocket

from benchmarks.clients.task import Seen, Task


def subscription(task: Task) -> str:
    return json.dumps([{"ticket": "bench"}, *({"type": kind, "codes": list(task.symbols)} for kind in task.kinds)])


def consume(task: Task, seen: Seen) -> None:
    """Reads until the process ends."""

    def on_message(_: websocket.WebSocket, message: bytes) -> None:
        seen(json.loads(message).get("sequential_id", 0))

    app = websocket.WebSocketApp(
        task.websocket_url, on_open=lambda app: app.send(subscription(task)), on_message=on_message
    )
    app.run_forever(ping_interval=30, ping_timeout=10, suppress_origin=True)
