"""The limit: a socket, frames cut by their lengths, our own typed decoder; no models, store, order, or mailbox.

In mode `handed` one thread does that, and another gets what each read brought by the cheapest queue there is: the limit
of whoever promises that a slow consumer does not keep the socket waiting.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import websocket

from benchmarks.clients.task import Seen, Task
from upbit_backbone.exchange.fields import Spelling
from upbit_backbone.unify.typed import stream_types

READ_BYTES = 262_144


def consume(task: Task, seen: Seen) -> None:
    """Reads until the process ends."""
    for messages in _handed(task) if task.mode == "handed" else _reads(task):
        for message in messages:
            seen(getattr(message, "sequential_id", 0))


def _handed(task: Task) -> Iterator[list[Any]]:
    queue = SimpleQueue[list[Any]]()

    def read() -> None:
        for messages in _reads(task):
            if messages:
                queue.put(messages)
        queue.put([])

    threading.Thread(target=read, daemon=True).start()
    yield from iter(queue.get, [])


def _reads(task: Task) -> Iterator[list[Any]]:
    """What each read has completed."""
    connection = websocket.create_connection(task.websocket_url, suppress_origin=True)
    asked = [{"ticket": "limit"}, *({"type": kind, "codes": list(task.symbols)} for kind in task.kinds)]
    connection.send(json.dumps([*asked, {"format": "SIMPLE"}]))
    decode, receive = stream_types(Spelling.SIMPLE).decode_one, connection.sock.recv
    data = b""
    while more := receive(READ_BYTES):
        data += more
        position, messages = 0, []
        while position + 4 <= len(data):
            length, start = data[position + 1], position + 2
            if length == 126:
                length, start = data[position + 2] << 8 | data[position + 3], position + 4
            if start + length > len(data):
                break
            messages.append(decode(data[start : start + length]))
            position = start + length
        data = data[position:]
        yield messages
