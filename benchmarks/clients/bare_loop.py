"""websocket-client and json in a plain receiving loop: the least a script can do with that library."""

from __future__ import annotations

import json

import websocket

from benchmarks.clients.bare import subscription
from benchmarks.clients.task import Seen, Task


def consume(task: Task, seen: Seen) -> None:
    """Reads until the process ends."""
    connection = websocket.create_connection(task.websocket_url, suppress_origin=True)
    connection.send(subscription(task))
    while True:
        seen(json.loads(connection.recv()).get("sequential_id", 0))
