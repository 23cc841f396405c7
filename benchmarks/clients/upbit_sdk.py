"""upbit-sdk, the official one: `ws_public.connect_public()` and its iterator."""

from __future__ import annotations

from upbit import Upbit

from benchmarks.clients.bare import subscription
from benchmarks.clients.task import Seen, Task


def consume(task: Task, seen: Seen) -> None:
    """Reads until the process ends."""
    client = Upbit(base_url=task.rest_url, websocket_base_url=task.websocket_url.removesuffix("/websocket/v1"))
    with client.ws_public.connect_public() as connection:
        connection.send_raw(subscription(task))
        for item in connection:
            seen(getattr(item, "sequential_id", 0) or 0)
